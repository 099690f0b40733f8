"""Inputs of fp8 layers, rounded once by what makes them.

The host's fp8 layers each round their own input, in a pass of its own. Where several layers read the same tokens, or
something passes over the tokens anyway, they are rounded there, and handed to the host's layers as its own quantised
tensors. What is scaled: a LayerNorm's values are at most sqrt(C) times its scale; a GELU's at most its largest input.
"""

import math
from typing import NamedTuple

import torch

from ...kernels import token_ops
from .foreign_launches import unrecorded
from .layers import affine

try:
    from comfy.quant_ops import QuantizedTensor, get_layout_class
except ImportError:
    QuantizedTensor = ()  # no layer has such weights

FORMAT, LAYOUT = "float8_e4m3fn", "TensorCoreFP8E4M3Layout"
LARGEST = torch.finfo(torch.float8_e4m3fn).max

_add_and_quantise = unrecorded(token_ops.add_and_quantise)
_gelu_and_quantise = unrecorded(token_ops.gelu_and_quantise)


class Rounded(NamedTuple):
    """Tokens in fp8, for `product`."""

    tensor: object  # the host's QuantizedTensor, [B * N, C]
    shape: tuple  # B, N
    dot: torch.Tensor | None = None  # [B, N] fp32, of a layer of one output, made of the tokens as they were before


def accept(x, *layers) -> bool:
    """Whether the host multiplies these layers in fp8, and nothing but their weights decides how.

    Args:
        x: a tensor on the device that computes.
        layers: of the host's operations.
    """
    return token_ops.can_quantise(x.device) and all(
        isinstance(layer.weight, QuantizedTensor)
        and getattr(layer, "quant_format", None) == FORMAT
        and not getattr(layer, "_full_precision_mm", True)
        and not getattr(layer, "comfy_force_cast_weights", False)
        and not layer.weight_function  # of LoRA files: these products are in the compute dtype
        and not layer.bias_function
        and getattr(layer, "input_scale", None) is None
        and getattr(layer, "pre_quant_scale", None) is None
        for layer in layers
    )


def add_and_normalise(x, update=None, *, gate=None, scale, shift, eps, dtype, in_place=False, dot_with=None):
    """`token_ops.add_and_normalise` with its second result rounded.

    Args:
        dtype: that the layers answer in.
        dot_with: a layer of one output whose answer goes with it, or None.

    Returns:
        [B, N, C] fp32, and Rounded.
    """
    divisor = ((math.sqrt(x.shape[-1]) * scale.abs() + shift.abs()).amax() / LARGEST).clamp(min=1.0)
    how = {"gate": gate, "scale": scale, "shift": shift, "eps": eps, "divisor": divisor, "in_place": in_place}
    if dot_with is None:
        x, y, dot = _add_and_quantise(x, update, **how)
    else:
        with affine(dot_with, x.device) as (weight, _):
            x, y, dot = _add_and_quantise(x, update, probe=weight.flatten(), **how)
    return x, Rounded(_quantised(y, divisor, dtype), y.shape[:2], dot)


def gelu(x) -> Rounded:
    """The tanh GELU of [B, N, C] in the compute dtype, rounded."""
    divisor = (x.amax().float() / LARGEST).clamp(min=1.0)
    return Rounded(_quantised(_gelu_and_quantise(x, divisor=divisor), divisor, x.dtype), x.shape[:2])


def product(layer, x):
    """A layer's answer to tokens, Rounded or not.  # [B, N, outputs]"""
    return layer(x.tensor).unflatten(0, x.shape) if isinstance(x, Rounded) else layer(x)


def _quantised(y, divisor, dtype):
    y = y.flatten(0, -2)
    params = get_layout_class(LAYOUT).Params(scale=divisor, orig_dtype=dtype, orig_shape=tuple(y.shape))
    return QuantizedTensor(y, LAYOUT, params)
