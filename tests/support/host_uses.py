"""Every use of ComfyUI in the shipped code, read from its source: names, what is passed to them, what is overridden.

Names are followed from imports through chains of attributes, into classes that extend the host's (what they override,
what they take from `self` and `super()`), and one attribute deep through OBJECTS, variables that hold an object of the
host.
"""

import ast
import functools
import inspect
import pkgutil
import textwrap
from collections import defaultdict

from shipped import ROOT, SHIPPED

HOST = {"comfy", "comfy_api", "comfy_execution", "folder_paths", "latent_preview", "node_helpers"}
PATCHER, WAN_VAE = "comfy.model_patcher.ModelPatcher", "comfy.ldm.wan.vae.WanVAE"
# By the beginning of a path: what these variables are. None: something of this project.
OBJECTS = {
    "": {"vae": "comfy.sd.VAE", "vae.patcher": PATCHER},
    "liveditor_core/footage/reader.py": {"video": "comfy_api.latest.Input.Video"},
    "liveditor_core/metrics": {
        "clip": "comfy.sd.CLIP",
        "clip.patcher": PATCHER,
        "clip_vision": "comfy.clip_vision.ClipVisionModel",
        "optical_flow": PATCHER,
    },
    "liveditor_core/model": {"clip": "comfy.sd.CLIP", "clip.patcher": PATCHER, "model": PATCHER},
    "liveditor_core/model/memory_estimate.py": {"model": None},
    "liveditor_core/model/small_towers.py": {"vision": "comfy.clip_vision.ClipVisionModel"},
    "liveditor_core/sampling": {
        "model": PATCHER,
        "model.model": "comfy.model_base.WAN21",
        "guider": "comfy.samplers.CFGGuider",
    },
    "liveditor_core/sampling/timeline_conditioning.py": {"clip": "comfy.sd.CLIP"},
    "liveditor_core/sampling/flow_unipc.py": {"model": None},
    "liveditor_core/sampling/window_handler.py": {"model": "comfy.model_base.WAN21"},
    "liveditor_core/vae": {"model": WAN_VAE},
    "liveditor_core/vae/many_frames.py": {"vae": WAN_VAE},
    "nodes": {
        "model": PATCHER,
        "m": PATCHER,
        "model.model": "comfy.model_base.WAN21",
        "video": "comfy_api.latest.Input.Video",
    },
}
# One of several functions, by the machine, which differ in the names of what is passed by position.
STANDS_FOR = {
    "comfy.ldm.modules.attention.optimized_attention": "comfy.ldm.modules.attention.attention_pytorch",
}


_resolve = functools.cache(pkgutil.resolve_name)


class Use:
    """Of one name of the host."""

    def __init__(self):
        self.files = set()
        self.calls = []  # ast.Call
        self.overrides = []  # ast.FunctionDef
        self.of_object = False  # found through an object of the host, on which it may have been set


class _Reader(ast.NodeVisitor):
    def __init__(self, path, uses):
        self.path, self.uses = path, uses
        self.names = {}  # of a variable: the host's, dotted
        self.host_class, self.own_attributes = None, set()  # of the class that is being read
        self.objects = {}
        where = path.relative_to(ROOT).as_posix()
        for beginning, objects in OBJECTS.items():
            if where.startswith(beginning):
                self.objects |= objects

    def read(self, tree, own_names):
        self.own_names = own_names
        for node in ast.walk(tree):
            if isinstance(node, ast.Import):
                for alias in node.names:
                    first = alias.name.split(".")[0]
                    if first in HOST:
                        self.names[alias.asname or first] = alias.name if alias.asname else first
            elif isinstance(node, ast.ImportFrom) and not node.level and node.module.split(".")[0] in HOST:
                for alias in node.names:
                    name = self.names[alias.asname or alias.name] = f"{node.module}.{alias.name}"
                    self._use(name)
        self.visit(tree)

    def _use(self, name):
        use = self.uses[name]
        use.files.add(self.path)
        return use

    def _dotted(self, node):
        """The host's name that an expression stands for, and whether it is an object's; (None, False) if none."""
        if isinstance(node, ast.Name):
            return self.names.get(node.id), False
        if not isinstance(node, ast.Attribute):
            return None, False
        owner = self._object(node.value)
        if owner:
            if ast.unparse(node.value) == "self" and node.attr in self.own_attributes:
                return None, False
            known = hasattr(_resolve(owner), node.attr) or node.attr not in self.own_names
            return (f"{owner}.{node.attr}", True) if known else (None, False)
        inner, of_object = self._dotted(node.value)
        if not inner or of_object or not _has_names(inner):
            return None, False
        return f"{inner}.{node.attr}", False

    def _object(self, node):
        """The host's class that an expression is an object of, or None."""
        text = ast.unparse(node)
        if text == "self":
            return self.host_class
        if isinstance(node, ast.Call) and ast.unparse(node.func) == "super" and self.host_class:
            if not node.args:
                return self.host_class
            after = _resolve(self._dotted(node.args[0])[0]).__mro__[1]
            return f"{after.__module__}.{after.__qualname__}"
        return self.objects.get(text)

    def visit_Attribute(self, node):
        name, of_object = self._dotted(node)
        if name:
            self._use(name).of_object |= of_object
        if not name or of_object:
            self.generic_visit(node)

    def visit_Call(self, node):
        name, _ = self._dotted(node.func)
        if name:
            self._use(name).calls.append(node)
        self.generic_visit(node)

    def visit_ClassDef(self, node):
        base = next((name for name, _ in map(self._dotted, node.bases) if name), None)
        outside, self.host_class = (self.host_class, self.own_attributes), base
        if base:
            host_class = _resolve(base)
            methods = [item for item in node.body if isinstance(item, (ast.FunctionDef, ast.AsyncFunctionDef))]
            stored = {
                item.attr
                for item in ast.walk(node)
                if isinstance(item, ast.Attribute) and isinstance(item.ctx, ast.Store)
            }
            self.own_attributes = {method.name for method in methods} | stored
            self._use(base)
            for method in methods:
                if hasattr(host_class, method.name) and method.name != "__init__":
                    self._use(f"{base}.{method.name}").overrides.append(method)
            for item in node.body:
                for target in item.targets if isinstance(item, ast.Assign) else ():
                    if hasattr(host_class, target.id):
                        self._use(f"{base}.{target.id}")
        self.generic_visit(node)
        self.host_class, self.own_attributes = outside


def collect(sources=None):
    """By name of the host, its Use in the shipped files; or in these sources, by the paths that they could have."""
    uses = defaultdict(Use)
    sources = sources or {path: path.read_text(encoding="utf-8") for path in SHIPPED}
    trees = {path: ast.parse(source) for path, source in sources.items()}
    own_names = {node.name for tree in trees.values() for node in ast.walk(tree) if isinstance(node, ast.FunctionDef)}
    for path, tree in trees.items():
        _Reader(path, uses).read(tree, own_names)
    return uses


def parameters_of(name):
    """The parameters of something of the host, without `self`; None of what cannot be called.

    Raises:
        AttributeError: the host has no such thing, or it is set on objects.
    """
    name = STANDS_FOR.get(name, name)
    owner, _, attribute = name.rpartition(".")
    owner = _resolve(owner)
    found = getattr(owner, attribute)
    try:
        parameters = list(inspect.signature(found).parameters.values())
    except (TypeError, ValueError):
        return None
    is_method = inspect.isclass(owner) and not inspect.isclass(found) and not inspect.ismethod(found)
    return parameters[1:] if is_method else parameters


@functools.cache
def _set_by(host_class):
    """The attributes that the code of a class sets."""
    tree = ast.parse(textwrap.dedent(inspect.getsource(host_class)))
    return {node.attr for node in ast.walk(tree) if isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Store)}


@functools.cache
def _has_names(name):
    """Whether a name is that of a module or a class, not of a value, whose methods are no concern of the host's."""
    try:
        found = _resolve(name)
    except (ImportError, AttributeError):
        return True
    return inspect.ismodule(found) or inspect.isclass(found)


def _set_on_objects(name):
    """Whether the host's class, or one that it extends, sets this attribute on its objects."""
    owner, _, attribute = name.rpartition(".")
    classes = [each for each in _resolve(owner).__mro__ if each.__module__.split(".")[0] in HOST]
    return any(attribute in _set_by(each) for each in classes)


def written(name, use):
    """A use as the contract has it: with the parameters that are passed or overridden, by the host's names for them."""
    try:
        parameters = parameters_of(name)
    except AttributeError:
        owner, _, attribute = name.rpartition(".")
        return f"{owner}().{attribute}" if use.of_object and _set_on_objects(name) else f"{name}: the host has none"
    if use.overrides:
        marks = {inspect.Parameter.VAR_POSITIONAL: "*", inspect.Parameter.VAR_KEYWORD: "**"}
        return f"def {name}({', '.join(marks.get(p.kind, '') + p.name for p in parameters)})"
    if not use.calls or parameters is None:
        return name
    order = [p.name for p in parameters]
    positional = [p for p in parameters if p.kind not in (p.KEYWORD_ONLY, p.VAR_KEYWORD)]
    positional = [f"*{p.name}" if p.kind is p.VAR_POSITIONAL else p.name for p in positional]
    passed = positional[: max(len(call.args) for call in use.calls)]
    by_name = {keyword.arg or "**" for call in use.calls for keyword in call.keywords}
    by_name = sorted(by_name, key=lambda key: order.index(key) if key in order else len(order))
    star = ["*"] if by_name and not any(p.startswith("*") for p in passed) else []
    return f"{name}({', '.join([*passed, *star, *by_name])})"


def unbound(name, use):
    """The calls that the host would refuse: too much is passed, too little, or by names that it does not have."""
    parameters = parameters_of(name)
    for call in use.calls if parameters is not None else ():
        starred = any(isinstance(given, ast.Starred) for given in call.args) or None in [k.arg for k in call.keywords]
        bind = inspect.Signature(parameters).bind_partial if starred else inspect.Signature(parameters).bind
        try:
            bind(*call.args, **{keyword.arg: keyword for keyword in call.keywords if keyword.arg})
        except TypeError as error:
            yield f"{ast.unparse(call)[:80]}: {error}"


def unmet(name, use):
    """The overrides that the host could not call as it calls its own method."""
    wanted = parameters_of(name) if use.overrides else []
    positional = [p.name for p in wanted if p.kind is p.POSITIONAL_OR_KEYWORD]
    any_names = any(p.kind is p.VAR_KEYWORD for p in wanted)
    for method in use.overrides:
        own = [argument.arg for argument in method.args.args[1:]]
        # Of a node the host passes what its schema names; methods with parameters take whatever else comes.
        if own[: len(positional)] != positional or (positional and any_names and not method.args.kwarg):
            yield f"{name}: {method.name}({ast.unparse(method.args)})"
