"""Who may import whom, and what no file may do."""

import ast
import re
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
SHIPPED = sorted(
    path
    for folder in ("", "nodes", "liveditor_core", "kernels")
    for path in (ROOT / folder).glob("*.py")
    if path.name != "tasks.py"
)
HOST = {"comfy", "comfy_api", "comfy_execution", "comfy_extras", "folder_paths", "node_helpers", "nodes"}
OPTIONAL = {"triton", "tilelang", "flash_attn", "flash_attn_interface", "huggingface_hub"}
WITH_COMFY = {"wan_model.py", "run_report.py", "model_config.py", "flow_unipc.py", "text_encoder.py", "vae_stream.py"}
ALLOWED = {  # third-party packages and packs of this project, by folder
    "": {".nodes"},
    "nodes": HOST | {"torch", "av", ".liveditor_core", ".nodes"},
    "liveditor_core": {
        "torch",
        "scipy",
        "numpy",
        "PIL",
        "safetensors",
        "tqdm",
        "huggingface_hub",
        ".kernels",
        ".liveditor_core",
    },
    "kernels": {"torch", ".kernels"},
}
STANDARD_LIBRARY_ONLY = {"config.py", "token_layout.py"}


def imports(path, tree):
    """(package, at module level) for every import; the project's own packages have a leading dot."""
    here = path.parent.relative_to(ROOT).parts
    top = set(tree.body)
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names = [alias.name.split(".")[0] for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.level:
            base = here[: len(here) - node.level + 1]
            names = ["." + (*base, *(node.module or "").split("."))[0]]
        elif isinstance(node, ast.ImportFrom):
            names = [node.module.split(".")[0]]
        else:
            continue
        for name in names:
            yield name, node in top


def violations(path, source):
    tree = ast.parse(source)
    folder = path.parent.relative_to(ROOT).parts[0] if path.parent != ROOT else ""
    allowed = set(ALLOWED[folder])
    if folder == "liveditor_core" and path.name in WITH_COMFY:
        allowed |= HOST
    if path.name in STANDARD_LIBRARY_ONLY:
        allowed = {".liveditor_core"}
    if path.name == "dense.py":
        allowed |= {"flash_attn", "flash_attn_interface"}
    own_backend = {path.stem.split("_")[0]} & OPTIONAL if folder == "kernels" else set()
    for name, module_level in imports(path, tree):
        if name not in allowed | own_backend and name not in sys.stdlib_module_names:
            yield f"imports {name}"
        if name in OPTIONAL - own_backend and module_level:
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


@pytest.mark.parametrize("path", SHIPPED, ids=lambda path: str(path.relative_to(ROOT)))
def test_layers(path):
    assert list(violations(path, path.read_text(encoding="utf-8"))) == []


@pytest.mark.parametrize(
    "where, line",
    [
        ("kernels/reference.py", "from ..liveditor_core import config"),
        ("kernels/reference.py", "import triton"),
        ("kernels/dispatch.py", "import comfy.ops"),
        ("liveditor_core/config.py", "import torch"),
        ("liveditor_core/sparse_attention.py", "import comfy"),
        ("liveditor_core/checkpoint.py", "import huggingface_hub"),
        ("nodes/decode_video.py", "from ..kernels import reference"),
        ("nodes/decode_video.py", "eval('1')"),
        ("liveditor_core/video.py", "torch.load('x')"),
    ],
)
def test_the_rules_see_violations(where, line):
    path = ROOT / where
    assert list(violations(path, f"{path.read_text(encoding='utf-8')}\n{line}\n"))


def test_tasks_needs_the_standard_library_only():
    tree = ast.parse((ROOT / "tasks.py").read_text(encoding="utf-8"))
    assert {name for name, _ in imports(ROOT / "tasks.py", tree)} <= set(sys.stdlib_module_names)


def test_no_machine_paths():
    for path in (*SHIPPED, ROOT / "tasks.py", ROOT / "README.md"):
        assert not re.search(r"/work/|/root/|/tmp/", path.read_text(encoding="utf-8")), path
