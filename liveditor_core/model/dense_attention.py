"""Which dense attention computes the dense half and the attention to the text."""

from collections.abc import Callable
from typing import NamedTuple

import torch

from comfy.cli_args import args
from comfy.ldm.modules.attention import optimized_attention

from ...kernels import available_dense_attention, dense_attention

OVERRIDE = "optimized_attention_override"
OF_PYTORCH = ("flash-attn-2", "sdpa")  # what PyTorch's attention takes by itself


class DenseAttention(NamedTuple):
    """A dense attention."""

    name: str  # for reports, with whose choice it was
    attend: Callable  # (q, k, v) -> out on [B, H, tokens, D]
    is_ours: bool  # or the host's


def choose_dense_attention(transformer_options, device, dtype) -> DenseAttention:
    """What computes the dense half: the attention that the user chose for the host, else the fastest at hand.

    A package that is merely installed, such as xformers, is no choice. Where no kernel is known to be faster, the host
    decides.
    """
    override = transformer_options.get(OVERRIDE)
    chooser = _flag() if override is None else "a node"
    if chooser is None and (fastest := _fastest(device, dtype)) != "sdpa":
        return DenseAttention(fastest, dense_attention, is_ours=True)

    def attend(q, k, v):
        return optimized_attention(
            q,
            k,
            v,
            heads=q.shape[1],
            skip_reshape=True,
            skip_output_reshape=True,
            transformer_options=transformer_options,
        )

    function = optimized_attention if override is None else _called_by(override)
    name = getattr(function, "__name__", type(function).__name__)
    if chooser is not None:
        missed = _fastest(device, dtype) if name == "attention_pytorch" else "sdpa"
        name = f"{name} (chosen by {chooser}{'' if missed in OF_PYTORCH else f', in place of {missed}'})"
    return DenseAttention(name, attend, is_ours=False)


def _fastest(device, dtype):
    """The fastest kernel at hand by name; `sdpa` where none is known to be faster than PyTorch's own choice."""
    half_on_gpu = device.type == "cuda" and dtype in (torch.float16, torch.bfloat16)
    return available_dense_attention(device)[0] if half_on_gpu else "sdpa"


def _flag():
    """The attention that ComfyUI was started with, as it was typed; None where the host chose by itself."""
    flags = (name for name, value in vars(args).items() if value and name.startswith("use_"))
    return next((f"--{name.replace('_', '-')}" for name in flags if name.endswith("_attention")), None)


def _called_by(override):
    """The attention behind an override, which the host's own node keeps in a closure; else the override itself."""
    code, cells = getattr(override, "__code__", None), getattr(override, "__closure__", None)
    found = dict(zip(code.co_freevars, cells, strict=True)) if code and cells else {}
    return found["optimized_attention"].cell_contents if "optimized_attention" in found else override
