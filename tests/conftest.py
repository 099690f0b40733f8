"""Load the pack under a fixed package name, whatever its folder is called, without running its `__init__.py`.

The pack's own `nodes/` would shadow ComfyUI's `nodes.py`, so the pack's root must not be on `sys.path`.
"""

import os
import sys
import types
from pathlib import Path

import pytest
import torch

if torch.cuda.is_available():
    collect_ignore = ["unit/test_triton_interpreted.py"]  # tests/gpu runs the same checks on the GPU
else:
    os.environ["TRITON_INTERPRET"] = "1"  # Triton kernels run on the CPU; read when they are defined
    collect_ignore = ["gpu"]

ROOT = Path(__file__).resolve().parents[1]
sys.path[:] = [p for p in sys.path if Path(p or ".").resolve() != ROOT]
package = types.ModuleType("liveditor")
package.__path__ = [str(ROOT)]
sys.modules.setdefault("liveditor", package)
sys.path += [str(ROOT / "tests" / name) for name in ("support", "unit")]

if "PYTEST_XDIST_WORKER" in os.environ:  # a ComfyUI folder of its own for every process, whose servers count files
    run = Path(f"{os.environ['LIVEDITOR_RUN']}-{os.environ['PYTEST_XDIST_WORKER']}")
    os.environ["LIVEDITOR_RUN"] = str(run)
    for name in ("custom_nodes", "models/diffusion_models", "models/text_encoders", "models/vae", "input", "output"):
        (run / name).mkdir(parents=True, exist_ok=True)
    if not (pack := run / "custom_nodes" / "ComfyUI-LIVEditor").exists():
        pack.symlink_to(ROOT, target_is_directory=True)


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items):
    """What shares a server runs in one process: the tests of a file, and all of those in the browser.

    Batches come after these: their servers take both cores, and pages would be slow beside them.
    """
    for item in items:
        beside = item.path.parent.name == "browser" or item.path.name.startswith("test_batch")
        item.add_marker(pytest.mark.xdist_group("browser" if beside else str(item.path)))


@pytest.fixture(autouse=True)
def poisoned_empty(monkeypatch):
    """Fill `torch.empty` with NaN, integers with bits here and there, so that a test sees every value that nobody
    wrote.
    """

    def poison(function):
        def empty(*args, **kwargs):
            out = function(*args, **kwargs)
            if out.is_meta or out.dtype.itemsize == 1:
                return out
            return (
                out.fill_(float("nan"))
                if out.is_floating_point()
                else out.fill_(0x2A5A)
                if out.dtype in (torch.int32, torch.int64)
                else out
            )

        return empty

    monkeypatch.setattr(torch, "empty", poison(torch.empty))
    monkeypatch.setattr(torch, "empty_like", poison(torch.empty_like))
