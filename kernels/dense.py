"""Dense attention: the fastest that is installed, as `dense_timing` finds it on the card at hand."""

import functools
import importlib
import importlib.metadata
from typing import NamedTuple

import torch
from torch.nn.attention import SDPBackend, sdpa_kernel

from .dense_timing import Candidate, Timings, timed
from .dispatch import HALF, HEAD_DIMS

# Bounds of the error on random numbers, where nothing averages out: there bf16 errs by 0.3 %, int8 for the scores and
# fp8 for the values by 3.9 %, fp8 with one scale for all by 5.5 %, which is too coarse.
TOLERANCE = {16: 0.02, 8: 0.05}
OLDEST = (7, 5)  # compute capability from which on there is more than PyTorch's own choice
BF16_FROM = (8, 0)


def _sdpa(q, k, v):
    return torch.nn.functional.scaled_dot_product_attention(q, k, v)


def _only(backend):
    """PyTorch's attention by this implementation, or an error."""

    def attention(q, k, v):
        with sdpa_kernel(backend):
            return _sdpa(q, k, v)

    return attention


def _first(backend):
    """PyTorch's attention, by this implementation where it can run."""
    others = (SDPBackend.FLASH_ATTENTION, SDPBackend.EFFICIENT_ATTENTION, SDPBackend.MATH)
    backends = [backend, *(other for other in others if other != backend)]

    def attention(q, k, v):
        with sdpa_kernel(backends, set_priority=True):
            return _sdpa(q, k, v)

    return attention


def _token_major(module):
    """FlashAttention's own functions take [B, N, H, D]."""

    def attention(q, k, v):
        function = importlib.import_module(module).flash_attn_func
        out = function(*(x.transpose(1, 2).contiguous() for x in (q, k, v)))
        return (out[0] if isinstance(out, tuple) else out).transpose(1, 2)

    return attention


@functools.cache
def _comfy_kitchen():
    kitchen = importlib.import_module("comfy_kitchen")
    if not hasattr(kitchen, "int8_attention"):
        raise RuntimeError(f"0.2.29 or later is needed, not {importlib.metadata.version('comfy-kitchen')}")
    return kitchen.int8_attention


@functools.cache
def _sage_attention():
    version = importlib.metadata.version("sageattention")
    if version.split(".")[0] != "2":
        raise RuntimeError(f"version 2 is needed, not {version}")
    return importlib.import_module("sageattention").sageattn


# By name, (q, k, v) -> out on [B, H, tokens, D]. The order counts among kernels that are about as fast. One that is not
# installed raises ModuleNotFoundError when it is called; one that does not fit this GPU, anything else.
SIXTEEN_BIT = {
    "flash-attn-4": _token_major("flash_attn.cute"),
    "flash-attn-3": _token_major("flash_attn_interface"),
    "cudnn": _first(SDPBackend.CUDNN_ATTENTION),
    "flash-attn-2": _first(SDPBackend.FLASH_ATTENTION),
    "sdpa": _sdpa,
}
EIGHT_BIT = {
    "liveditor-int8-fp8": lambda q, k, v: importlib.import_module(f"{__package__}.triton_int8_fp8").int8_fp8_attention(
        q, k, v
    ),
    "comfy-kitchen": lambda q, k, v: _comfy_kitchen()(q, k, v),
    "sage-attention-2": lambda q, k, v: _sage_attention()(q, k, v, tensor_layout="HND", is_causal=False),
}
# What is timed under a name, where what computes would silently be another kernel.
STRICT = {"cudnn": _only(SDPBackend.CUDNN_ATTENTION), "flash-attn-2": _only(SDPBackend.FLASH_ATTENTION)}


class Fastest(NamedTuple):
    """The fastest dense attention at hand."""

    name: str  # sdpa, PyTorch's own choice, where none is known to be faster
    bits: int  # that it computes in
    timings: Timings | None  # of all that were tried
    reason: str | None = None  # why it computes in 16 bits where 8 were asked for


def dense_kernel(name):
    """A dense attention by its name: (q, k, v) -> out on [B, H, tokens, D], dtype of q."""
    return (SIXTEEN_BIT | EIGHT_BIT)[name]


def fastest_dense(device, dtype, *, head_dim=128, bits=16, folder=None) -> Fastest:
    """The fastest dense attention for tensors of a device, dtype and head dim; timed at its first call for a device.

    Args:
        bits: 16, or 8 for a kernel that quantises q, k and v where that is faster.
        folder: where timings are kept for other processes, or None.

    Raises:
        torch.cuda.OutOfMemoryError, torch.AcceleratorError: the GPU was too full to time.
    """
    if not _can_time(device, dtype):
        needs = "needs an NVIDIA GPU of compute capability 7.5 or later and a model in fp16 or bf16"
        return Fastest("sdpa", 16, None, needs if bits == 8 else None)
    eight = bits == 8 and head_dim in HEAD_DIMS
    timings = _timings(device, eight, folder)
    if timings is None:
        return Fastest("sdpa", 16, None, "nothing is timed while a graph is recorded" if bits == 8 else None)
    name = next(iter(timings.ms), "sdpa")
    if name in EIGHT_BIT:
        return Fastest(name, 8, timings)
    if bits == 8:
        other = f"has kernels for head dims 64 and 128, the model's is {head_dim}"
        return Fastest(name, 16, timings, _why_not_in_8_bit(timings) if eight else other)
    return Fastest(name, 16, timings)


def times_as_fast(device, dtype, name, other, attend):
    """How many times as fast a kernel is as an attention that is none of ours; None where that cannot be timed.

    Args:
        name: of the kernel.
        other: name of the other attention; it is not asked to be right.
        attend: the other attention.
    """
    if not _can_time(device, dtype):
        return None
    candidates = {name: _candidate(name), other: Candidate(attend, float("inf"))}
    timings = timed(candidates, device, dtype=_dtype(device))
    both = timings is not None and candidates.keys() == timings.ms.keys()
    return timings.ms[other] / timings.ms[name] if both else None


def _timings(device, eight, folder):
    # At a tie 8 bit, since it was asked for, and since it draws less power: on an H100 under steady load it was 18 %
    # faster than what it ties with in the short time that is taken here.
    names = (*EIGHT_BIT, *SIXTEEN_BIT) if eight else SIXTEEN_BIT
    return timed({name: _candidate(name) for name in names}, device, dtype=_dtype(device), folder=folder)


def _candidate(name):
    return Candidate(STRICT.get(name) or dense_kernel(name), TOLERANCE[8 if name in EIGHT_BIT else 16])


def _why_not_in_8_bit(timings):
    eight = next((name for name in timings.ms if name in EIGHT_BIT), None)
    if eight is None:
        return f"no kernel for it runs here ({'; '.join(f'{name}: {timings.out[name]}' for name in EIGHT_BIT)})"
    fastest = next(iter(timings.ms))
    times = timings.ms[eight] / timings.ms[fastest]
    return f"{eight} {times:.2f} times slower than {fastest} here"


@functools.cache
def _can_time(device, dtype):
    if device.type != "cuda" or not torch.version.cuda or dtype not in HALF:
        return False
    return torch.cuda.get_device_capability(device) >= OLDEST


@functools.cache
def _dtype(device):
    """The half precision that a GPU is fast in."""
    return torch.bfloat16 if torch.cuda.get_device_capability(device) >= BF16_FROM else torch.float16
