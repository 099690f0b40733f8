"""Who may import whom, and what no file may do."""

import ast
import re
import sys

import pytest
from shipped import ROOT, SHIPPED

HOST = {"comfy", "comfy_api", "comfy_execution", "folder_paths", "latent_preview", "node_helpers"}
OPTIONAL = {"triton", "tilelang", "flash_attn", "flash_attn_interface", "huggingface_hub", "gguf", "comfy_cli"}
# Packages that a room may import, and rooms of this project; a room may always import itself. Rooms import downwards.
# The host's `nodes` and `comfy_extras` are nobody's: their classes change from one version to the next.
CORE = "liveditor_core"
ALLOWED = {
    "": {"nodes", CORE},
    "nodes": HOST
    | {"torch", "aiohttp", CORE}
    | {
        f"{CORE}/{room}"
        for room in ("attention", "checkpoint", "footage", "inspection", "metrics", "model", "sampling", "vae")
    },
    CORE: HOST,
    f"{CORE}/sampling": HOST
    | {"torch", "tqdm", "safetensors", CORE}
    | {f"{CORE}/{room}" for room in ("attention", "checkpoint", "footage", "model", "vae")},
    f"{CORE}/metrics": {
        "comfy",
        "torch",
        "numpy",
        "PIL",
        "safetensors",
        "torchvision",
        "tqdm",
        f"{CORE}/footage",
        f"{CORE}/inspection",
        f"{CORE}/model",
    },
    f"{CORE}/inspection": {"torch", "numpy", "PIL", f"{CORE}/attention", f"{CORE}/footage"},
    f"{CORE}/model": HOST | {"torch", CORE, f"{CORE}/attention", f"{CORE}/checkpoint", "kernels"},
    f"{CORE}/vae": {"comfy", "folder_paths", "torch", CORE, f"{CORE}/footage"},
    f"{CORE}/footage": {"PIL", "comfy_api", "torch", "av", "numpy", "scipy"},
    f"{CORE}/checkpoint": {"torch", "numpy", "safetensors", "tqdm", "huggingface_hub", "gguf", "comfy_cli"},
    f"{CORE}/attention": {"torch", "kernels"},
    "kernels": {"torch", "kernels/triton_backend", "kernels/tilelang_backend"},
    "kernels/triton_backend": {"torch", "triton"},
    "kernels/triton_int8_fp8": {"torch", "triton"},
    "kernels/tilelang_backend": {"torch", "tilelang"},
    "batch": {
        "aiohttp",
        "psutil",
        "tqdm",
        "comfy_cli",
        "yaml",
        "PIL",
        "ray",
    },  # it drives servers, and imports nothing of what runs in them
}
# Numbers that PyAV gives as one kind or another by its version; pyav.py makes one of them.
RATIONALS = {"time_base", "average_rate", "base_rate", "guessed_rate", "sample_aspect_ratio", "display_aspect_ratio"}
STANDARD_LIBRARY_ONLY = {"config.py", "token_layout.py"}


def room_of(parts):
    """The room that a path within the project lies in."""
    return max((room for room in ALLOWED if "/".join(parts).startswith(room)), key=len)


def imports(path, tree):
    """(package or room, whether it is one of this project's rooms, whether at module level) for every import."""
    here = path.parent.relative_to(ROOT).parts
    top = set(tree.body)
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            found = [(alias.name.split(".")[0], False) for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.level:
            base = here[: len(here) - node.level + 1] + tuple(node.module.split(".") if node.module else ())
            found = [(room_of((*base, alias.name)), True) for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            found = [(node.module.split(".")[0], False)]
        else:
            continue
        for name, own in found:
            yield name, own, node in top


def violations(path, source):
    tree = ast.parse(source)
    room = room_of(path.parent.relative_to(ROOT).parts)
    allowed = {room} if path.name in STANDARD_LIBRARY_ONLY else ALLOWED[room] | {room}
    if path.name == "dense.py":
        allowed |= {"flash_attn", "flash_attn_interface"}
    for name, own, module_level in imports(path, tree):
        if own != (name in ALLOWED) or name not in allowed and (own or name not in sys.stdlib_module_names):
            yield f"imports {name}"
        if name in OPTIONAL and module_level and name not in room:
            yield f"imports {name} when it is imported"
    for node in ast.walk(tree):
        if isinstance(node, ast.Call):
            call = ast.unparse(node.func)
            if call in ("eval", "exec", "os.system", "pickle.load", "pickle.loads") or any(
                k.arg == "shell" for k in node.keywords
            ):
                yield f"calls {call}"
            if call == "torch.load" and not any(
                k.arg == "weights_only" and ast.unparse(k.value) == "True" for k in node.keywords
            ):
                yield "calls torch.load without weights_only"
    if room == f"{CORE}/footage" and path.name != "pyav.py":
        yield from past_pyav(tree)


def past_pyav(tree):
    """Where files are opened and rationals read without pyav.py."""
    taken = [
        node.args[0] for node in ast.walk(tree) if isinstance(node, ast.Call) and ast.unparse(node.func) == "rational"
    ]
    for node in ast.walk(tree):
        if (
            isinstance(node, ast.Call)
            and ast.unparse(node.func) == "av.open"
            and "'w'" not in map(ast.unparse, node.args)
        ):
            yield "calls av.open to read"
        read = isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Load) and node.attr in RATIONALS
        if read and node not in taken and ast.unparse(node) != "av.time_base":
            yield f"reads {node.attr} without rational"


@pytest.mark.parametrize("path", SHIPPED, ids=lambda path: str(path.relative_to(ROOT)))
def test_layers(path):
    assert list(violations(path, path.read_text(encoding="utf-8"))) == []


@pytest.mark.parametrize(
    "where, line",
    [
        ("kernels/reference.py", "from ..liveditor_core import config"),
        ("kernels/reference.py", "import triton"),
        ("kernels/dispatch.py", "import comfy.ops"),
        ("kernels/dispatch.py", "from . import triton_backend\nimport triton"),
        ("kernels/triton_backend/means.py", "import tilelang"),
        ("liveditor_core/attention/config.py", "import torch"),
        ("liveditor_core/attention/sparse_attention.py", "import comfy"),
        ("liveditor_core/attention/plan.py", "from ..model import registration"),
        ("liveditor_core/attention/plan.py", "from .. import model"),
        ("liveditor_core/model/block.py", "from ..sampling.edit import edit"),
        ("liveditor_core/footage/geometry.py", "from ..vae import clips"),
        ("liveditor_core/footage/geometry.py", "import comfy.utils"),
        ("liveditor_core/footage/geometry.py", "from ..metrics import measure"),
        ("liveditor_core/metrics/measure.py", "from ..sampling.edit import edit"),
        ("liveditor_core/metrics/measure.py", "from comfy_api.latest import io"),
        ("liveditor_core/footage/sound.py", "av.open(path)"),
        ("liveditor_core/footage/sound.py", "frame.pts * frame.time_base"),
        ("liveditor_core/checkpoint/download.py", "import huggingface_hub"),
        ("nodes/decode_video.py", "from ..kernels import reference"),
        ("nodes/decode_video.py", "import av"),
        ("nodes/decode_video.py", "import nodes as host_nodes"),
        ("nodes/decode_video.py", "from nodes import VAEDecodeTiled"),
        ("nodes/decode_video.py", "from comfy_extras.nodes_model_advanced import ModelSamplingSD3"),
        ("liveditor_core/model/load.py", "import nodes"),
        ("__init__.py", "import nodes"),
        ("nodes/decode_video.py", "eval('1')"),
        ("liveditor_core/checkpoint/read.py", "torch.load('x')"),
    ],
)
def test_the_rules_see_violations(where, line):
    path = ROOT / where
    assert list(violations(path, f"{path.read_text(encoding='utf-8')}\n{line}\n"))


def test_tasks_needs_the_standard_library_only():
    tree = ast.parse((ROOT / "tasks.py").read_text(encoding="utf-8"))
    assert {name for name, *_ in imports(ROOT / "tasks.py", tree)} <= set(sys.stdlib_module_names)


def test_no_machine_paths():
    for path in (*SHIPPED, ROOT / "tasks.py", ROOT / "README.md"):
        assert not re.search(r"/work/|/root/|/tmp/", path.read_text(encoding="utf-8")), path
