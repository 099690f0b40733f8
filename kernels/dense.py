"""Dense attention: the fastest that is installed, in the order measured for the GPU's family."""

import functools
import importlib
import logging

import torch
from torch.nn.attention import SDPBackend, sdpa_kernel

from .dispatch import HALF, gpu_family, raise_out_of_memory


def _sdpa(q, k, v):
    return torch.nn.functional.scaled_dot_product_attention(q, k, v)


def _first(*backends):
    """PyTorch's attention, these implementations first where they can run."""
    backends = [
        *backends,
        *(
            b
            for b in (SDPBackend.FLASH_ATTENTION, SDPBackend.EFFICIENT_ATTENTION, SDPBackend.MATH)
            if b not in backends
        ),
    ]

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


MODULES = {"flash-attn-4": "flash_attn.cute", "flash-attn-3": "flash_attn_interface"}
FUNCTIONS = {name: _token_major(module) for name, module in MODULES.items()} | {
    "cudnn": _first(SDPBackend.CUDNN_ATTENTION),
    "flash-attn-2": _first(SDPBackend.FLASH_ATTENTION),
    "sdpa": _sdpa,
}


@functools.cache
def available(device):
    """Names of the dense attentions that can run fp16 and bf16 on a device, fastest first.

    The last is PyTorch's choice.
    """
    _, family = gpu_family(device)
    return (*(name for name in (family["dense"] if family else ()) if _works(name, device)), "sdpa")


def _works(name, device):
    if name == "cudnn":
        return torch.backends.cudnn.is_available()
    if name in MODULES:
        try:  # importing them tells nothing: only a call shows that they know this GPU
            FUNCTIONS[name](*torch.zeros(3, 1, 1, 128, 128, dtype=torch.bfloat16, device=device))
        except Exception as error:  # not installed, or not for this GPU, CUDA or torch
            raise_out_of_memory(error)
            if not isinstance(error, ModuleNotFoundError):
                logging.info(f"LIVEditor: {name} is installed but does not work here: {type(error).__name__}: {error}")
            return False
    return True


def dense_attention(q, k, v):
    """Attention of every query to every key with the fastest kernel at hand.

    Args:
        q: [B, H, Q, D]; k, v: [B, H, K, D].

    Returns:
        [B, H, Q, D], dtype of q.
    """
    name = available(q.device)[0] if q.dtype in HALF else "sdpa"
    return FUNCTIONS[name](q, k, v)
