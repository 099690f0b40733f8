"""What one call of the model needs beside its weights."""

import comfy.model_management

from ..attention.head_groups import GATHERED_AT_ONCE
from .block import TOKENS_AT_ONCE

try:
    from comfy.quant_ops import QuantizedTensor
except ImportError:
    QuantizedTensor = ()  # no weight is one of these: what quantised ones need besides is left out of the estimate

WORKSPACES = 160 << 20  # bytes: matrix products, text, rounding of the allocator


def memory_of_call(model, batch, tokens, *, dtype):
    """Bytes that one call needs beside the weights.

    Three places need the most, depending on size and weights: the projections (residual stream, their input, q, k and
    v), the self-attention (residual stream, q, k, v and what the dense half gathers or the scores between block means)
    and the feed-forward layer (residual stream, the attention's answer and a part of the tokens, widened).

    Args:
        model: LIVEditorModel.
        tokens: of target and source together.
        dtype: that it computes in.
    """
    size = comfy.model_management.dtype_size(dtype)
    weight = model.blocks[0].ffn[0].weight
    quantised = isinstance(weight, QuantizedTensor)
    gelu_alone = quantised or weight is not None and weight.dtype != dtype  # else it is part of the matrix product

    stream, one = tokens * model.dim * 4, tokens * model.dim * size
    projections = stream + 4 * one + quantised * tokens * model.dim
    attention = stream + 3 * one + max(GATHERED_AT_ONCE * one, 1.3 * 4 * model.num_heads * (tokens / 64) ** 2)
    widened = model.dim + 2 * model.ffn_dim if gelu_alone else 2 * model.dim + model.ffn_dim
    feed_forward = stream + one + min(tokens, TOKENS_AT_ONCE) * widened * size
    rotations = tokens * model.dim // model.num_heads * 2 * 4
    return batch * max(projections, attention, feed_forward) + rotations + WORKSPACES
