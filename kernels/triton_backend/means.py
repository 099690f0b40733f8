"""Means of KV blocks."""

import torch
import triton
import triton.language as tl

from .blocks import kv_block


@triton.jit(do_not_specialize=["tokens", "target"])
def _block_means(x, out, stride_b, stride_h, stride_n, heads, tokens, target, BLOCK: tl.constexpr, D: tl.constexpr):
    bh, j = (
        tl.program_id(0).to(tl.int64),
        tl.program_id(1),
    )  # neighbours work on one block of neighbouring heads, which lie side by side
    start, end = kv_block(j, tokens, target, BLOCK)
    rows, columns = start + tl.arange(0, BLOCK), tl.arange(0, D)
    base = x + bh // heads * stride_b + bh % heads * stride_h
    values = tl.load(base + rows.to(tl.int64)[:, None] * stride_n + columns, mask=(rows < end)[:, None], other=0.0)
    mean = tl.sum(values.to(tl.float32), axis=0) / (end - start)
    tl.store(out + (bh * tl.num_programs(1) + j) * D + columns, mean)


def block_means(x, *, target, block_size=64):
    batch, heads, tokens, dim = x.shape
    blocks = -(-target // block_size) + -(-tokens // block_size) - target // block_size
    out = torch.empty(batch, heads, blocks, dim, dtype=torch.float32, device=x.device)
    _block_means[batch * heads, blocks](
        x, out, *x.stride()[:3], heads, tokens, target, BLOCK=block_size, D=dim, num_warps=1
    )
    return out
