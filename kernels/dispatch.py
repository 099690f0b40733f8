"""The one place that chooses a backend.

A backend is a module with the functions of `reference.py`. `auto` takes the first that can run, in the order measured
for the GPU's family; a backend that the user names is used or refused, never replaced.
"""

import functools
import importlib
import importlib.util
import json
import logging
import os
import shutil
from pathlib import Path
from typing import NamedTuple

import torch

MODULES = {"triton": ".triton_backend", "tilelang": ".tilelang_backend", "pytorch": ".reference"}
FAMILIES = json.loads((Path(__file__).parent / "gpu_families.json").read_text())
HALF = (torch.float16, torch.bfloat16)
HEAD_DIMS = (64, 128)
FIRST_USE = {
    "triton": "compiles its kernels at first use, about ten seconds once per machine and kind of model",
    "tilelang": "compiles its kernels at first use, about two minutes once per machine",
}


class BackendUnavailable(RuntimeError):
    """A backend was named that cannot run here; the message gives the reason and the remedy."""


class Choice(NamedTuple):
    """A backend by name, its module, and why no other that `auto` would have preferred."""

    name: str
    module: object
    reasons: dict


@functools.cache
def gpu_family(device):
    """Name and entry of `gpu_families.json` for a GPU; None and None for a device of no family."""
    if device.type != "cuda" or not torch.version.cuda:
        return None, None
    capability = torch.cuda.get_device_capability(device)
    known = [
        (name, family) for name, family in FAMILIES.items() if name != "_" and tuple(family["capability"]) <= capability
    ]
    return max(known, key=lambda item: item[1]["capability"], default=(None, None))


@functools.cache
def unavailable_reason(name, device, dtype=torch.bfloat16, head_dim=128):
    """Why a backend cannot run on tensors of a device, dtype and head dim, or None. Imports it to find out."""
    if name == "pytorch":
        return None
    if device.type != "cuda" or not torch.version.cuda:
        return (
            "needs an NVIDIA GPU, "
            f"{'this PyTorch is built for another' if device.type == 'cuda' else f'the tensors are on {device.type}'}"
        )
    if gpu_family(device)[0] is None:
        return "needs a GPU of compute capability 8.0 or later, this one has {}.{}".format(
            *torch.cuda.get_device_capability(device)
        )
    if dtype not in HALF:
        return f"computes in fp16 and bf16, the model runs in {str(dtype).removeprefix('torch.')}"
    if head_dim not in HEAD_DIMS:
        return f"has kernels for head dims 64 and 128, the model's is {head_dim}"
    if importlib.util.find_spec(name) is None:
        return f"the Python package {name} is not installed"
    if name == "tilelang" and not _has_nvcc():
        return "needs nvcc of the CUDA toolkit on the PATH or under CUDA_HOME"
    try:
        module = importlib.import_module(MODULES[name], __package__)
        if name == "triton":  # it imports anywhere, but builds its launchers with the machine's C compiler
            module.block_means(torch.zeros(1, 1, 64, head_dim, dtype=dtype, device=device), target=64)
    except Exception as error:  # whatever a foreign package raises when it does not fit its surroundings
        raise_out_of_memory(error)
        return f"the Python package {name} does not work here: {type(error).__name__}: {error}"
    return None


def raise_out_of_memory(error):
    """Raise what a probe met if that was a full GPU: it says nothing of what can run, so it must not be remembered.

    The host frees memory for PyTorch's own errors, so those of other packages become one.
    """
    if isinstance(error, torch.cuda.OutOfMemoryError):
        raise error
    if "out of memory" in str(error).lower().replace("_", " "):
        if isinstance(error, getattr(torch, "AcceleratorError", ())):
            raise error
        raise torch.cuda.OutOfMemoryError(str(error)) from error


def _has_nvcc():
    home = os.environ.get("CUDA_HOME") or os.environ.get("CUDA_PATH") or "/usr/local/cuda"
    return shutil.which("nvcc") is not None or shutil.which("nvcc", path=str(Path(home) / "bin")) is not None


@functools.cache
def choose_backend(name, device, dtype, head_dim):
    """The backend for tensors of a device, dtype and head dim.

    Args:
        name: `auto`, `triton`, `tilelang` or `pytorch`.

    Returns:
        Choice.

    Raises:
        BackendUnavailable: a backend was named that cannot run on them.
    """
    if name == "auto":
        _, family = gpu_family(device)
        order = (*(family["backends"] if family else ("triton", "tilelang")), "pytorch")
    else:
        order = (name,)
    reasons = {}
    for candidate in order:
        reason = unavailable_reason(candidate, device, dtype, head_dim)
        if reason is None:
            break
        if name != "auto":
            raise BackendUnavailable(
                f"Sparse attention: backend {name} cannot run: {reason}. Choose auto or pytorch in Sparse "
                "Attention Settings."
            )
        reasons[candidate] = reason
    notes = [f"{other}: {reason}" for other, reason in reasons.items()] + (
        [FIRST_USE[candidate]] if candidate in FIRST_USE else []
    )
    logging.info(f"LIVEditor: attention backend {candidate} on {device}" + (f" ({'; '.join(notes)})" if notes else ""))
    return Choice(candidate, importlib.import_module(MODULES[candidate], __package__), reasons)


def sparse_from_tokens(device, backend):
    """From how many tokens on sparse attention by a backend is faster than dense on a device.

    None where it was never seen to be.
    """
    _, family = gpu_family(device)
    return family["sparse_from_tokens"][backend] if family else None


def is_measured(device):
    """Whether what is known of a GPU was measured on its family, not taken from another."""
    _, family = gpu_family(device)
    return family is not None and family["measured"] is not None
