"""Where a KV block lies, for the kernels that read or write blocks."""

import triton
import triton.language as tl


@triton.jit
def kv_block(j, tokens, target, BLOCK: tl.constexpr):
    """First token of KV block j and one past its last; `TokenLayout.kv_block` says the rule."""
    of_target = (target + BLOCK - 1) // BLOCK
    is_target = j < of_target
    first = tl.where(is_target, j, target // BLOCK + j - of_target) * BLOCK
    start = tl.where(is_target, first, tl.maximum(first, target))
    end = tl.minimum(first + BLOCK, tl.where(is_target, target, tokens))
    return start, end
