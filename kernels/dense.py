"""Dense attention: the fastest that is installed, or the one that was asked for."""

import functools
import importlib.util

import torch
from torch.nn.attention import SDPBackend, sdpa_kernel

HALF = (torch.float16, torch.bfloat16)


def _sdpa(q, k, v):
    return torch.nn.functional.scaled_dot_product_attention(q, k, v)


def _cudnn(q, k, v):
    with sdpa_kernel(SDPBackend.CUDNN_ATTENTION):
        return _sdpa(q, k, v)


def _flash_attention_2(q, k, v):
    with sdpa_kernel(SDPBackend.FLASH_ATTENTION):
        return _sdpa(q, k, v)


def _token_major(function):
    """FlashAttention's own functions take [B, N, H, D]."""
    def attention(q, k, v):
        out = function(*(x.transpose(1, 2).contiguous() for x in (q, k, v)))
        return (out[0] if isinstance(out, tuple) else out).transpose(1, 2)
    return attention


def _flash_attention_4(q, k, v):
    from flash_attn.cute import flash_attn_func

    return _token_major(flash_attn_func)(q, k, v)


def _flash_attention_3(q, k, v):
    from flash_attn_interface import flash_attn_func

    return _token_major(flash_attn_func)(q, k, v)


FUNCTIONS = {"flash-attn-4": _flash_attention_4, "flash-attn-3": _flash_attention_3, "cudnn": _cudnn, "flash-attn-2": _flash_attention_2, "sdpa": _sdpa}


@functools.cache
def available(device):
    """Names of the dense attentions that can run fp16 and bf16 on a device, fastest first as measured on an H200."""
    names = []
    if device.type == "cuda" and torch.version.cuda:
        hopper_or_later = torch.cuda.get_device_capability(device) >= (9, 0)
        if hopper_or_later and _installed("flash_attn.cute"):
            names.append("flash-attn-4")
        if hopper_or_later and _installed("flash_attn_interface"):
            names.append("flash-attn-3")
        if hopper_or_later and torch.backends.cudnn.is_available():
            names.append("cudnn")
    return (*names, "sdpa")


def _installed(module):
    try:
        return importlib.util.find_spec(module) is not None
    except ModuleNotFoundError:
        return False


def dense_attention(q, k, v):
    """Attention of every query to every key with the fastest kernel at hand.

    Args:
        q: [B, H, Q, D]; k, v: [B, H, K, D].

    Returns:
        [B, H, Q, D], dtype of q.
    """
    name = available(q.device)[0] if q.dtype in HALF else "sdpa"
    return FUNCTIONS[name](q, k, v)
