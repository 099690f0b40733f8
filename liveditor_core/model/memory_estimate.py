"""What one call of the model needs beside its weights."""

from typing import NamedTuple

import comfy.model_management

from ..attention.head_groups import GATHERED_AT_ONCE
from .block import TOKENS_AT_ONCE

try:
    from comfy.quant_ops import QuantizedTensor
except ImportError:
    QuantizedTensor = ()  # no weight is one of these: what quantised ones need besides is left out of the estimate

WORKSPACES = 160 << 20  # bytes: matrix products, text, rounding of the allocator


class Widths(NamedTuple):
    """What decides how much a call needs.

    quantised: products take rounded inputs (fp8, int8). cast: weights are of another type than they compute in.
    """

    dim: int
    ffn_dim: int
    num_heads: int
    quantised: bool
    cast: bool


def widths_of(model, dtype) -> Widths:
    """Of a LIVEditorModel that computes in a dtype."""
    weight = model.blocks[0].ffn[0].weight
    quantised = isinstance(weight, QuantizedTensor)
    cast = quantised or weight is not None and weight.dtype != dtype
    return Widths(model.dim, model.ffn_dim, model.num_heads, quantised, cast)


def memory_of_call(widths, batch, tokens, *, dtype):
    """Bytes that one call needs beside the weights.

    Three places need the most, depending on size and weights: the projections (residual stream, their input, q, k and
    v), the self-attention (residual stream, q, k, v and what the dense half gathers or the scores between block means)
    and the feed-forward layer (residual stream, the attention's answer and a part of the tokens, widened).

    Args:
        widths: see Widths.
        tokens: of target and source together.
        dtype: that it computes in.
    """
    size = comfy.model_management.dtype_size(dtype)
    dim, ffn_dim, num_heads = widths.dim, widths.ffn_dim, widths.num_heads
    stream, one = tokens * dim * 4, tokens * dim * size
    projections = stream + 4 * one + widths.quantised * tokens * dim
    attention = stream + 3 * one + max(GATHERED_AT_ONCE * one, 1.3 * 4 * num_heads * (tokens / 64) ** 2)
    # GELU is part of the matrix product where the weights are of its own type.
    widened = dim + 2 * ffn_dim if widths.cast else 2 * dim + ffn_dim
    feed_forward = stream + one + min(tokens, TOKENS_AT_ONCE) * widened * size
    rotations = tokens * dim // num_heads * 2 * 4
    return batch * max(projections, attention, feed_forward) + rotations + WORKSPACES
