"""What one call of the model needs beside its weights."""

from typing import NamedTuple

import torch

import comfy.model_management

from ...kernels.token_ops import can_quantise
from ..attention.head_groups import GATHERED_AT_ONCE
from .block import TOKENS_AT_ONCE

try:
    from comfy.quant_ops import QuantizedTensor
except ImportError:
    QuantizedTensor = ()  # no weight is one of these: what quantised ones need besides is left out of the estimate

WORKSPACES = 160 << 20  # bytes: matrix products, text, rounding of the allocator


class Widths(NamedTuple):
    """What decides how much a call needs.

    inputs: what the input of the projections takes, see `size_of_inputs`. cast: weights are of another type than they
    compute in.
    """

    dim: int
    ffn_dim: int
    num_heads: int
    inputs: float
    cast: bool


def widths_of(model, dtype) -> Widths:
    """Of a LIVEditorModel that computes in a dtype."""
    weight = model.blocks[0].ffn[0].weight
    rounds_to = getattr(weight, "_qdata", weight).dtype if isinstance(weight, QuantizedTensor) else None
    cast = rounds_to is not None or weight is not None and weight.dtype != dtype
    return Widths(model.dim, model.ffn_dim, model.num_heads, size_of_inputs(rounds_to), cast)


def size_of_inputs(rounds_to) -> float:
    """What the projections' input takes, in sizes of a 16-bit one, with what it is rounded to where it is.

    Args:
        rounds_to: what the host's layers round their inputs to, None for those that do not.
    """
    if rounds_to is None:
        return 1.0
    once = rounds_to == torch.float8_e4m3fn and can_quantise(comfy.model_management.get_torch_device())
    return 0.5 if once else 1.5


def memory_of_call(widths, batch, tokens, *, dtype):
    """Bytes that one call needs beside the weights.

    Three places need the most, depending on size and weights: the projections (residual stream, their input, q, k and
    v), the self-attention (residual stream, q, k, v and what the dense half gathers or the scores between block means)
    and the feed-forward layer (residual stream, the attention's answer and a part of the tokens, widened).

    Args:
        widths: of the transformer.
        tokens: of target and source together.
        dtype: that it computes in.
    """
    size = comfy.model_management.dtype_size(dtype)
    dim, ffn_dim, num_heads = widths.dim, widths.ffn_dim, widths.num_heads
    stream, one = tokens * dim * 4, tokens * dim * size
    projections = stream + (3 + widths.inputs) * one
    attention = stream + 3 * one + max(GATHERED_AT_ONCE * one, 1.3 * 4 * num_heads * (tokens / 64) ** 2)
    # GELU is part of the matrix product where the weights are of its own type.
    widened = dim + 2 * ffn_dim if widths.cast else 2 * dim + ffn_dim
    feed_forward = stream + one + min(tokens, TOKENS_AT_ONCE) * widened * size
    rotations = tokens * dim // num_heads * 2 * 4
    return batch * max(projections, attention, feed_forward) + rotations + WORKSPACES
