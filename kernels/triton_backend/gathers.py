"""Copying chosen blocks next to each other, and answers back in token order."""

import torch
import triton
import triton.language as tl

from .blocks import kv_block


@triton.jit(do_not_specialize=["tokens"])
def _gather_query_blocks(
    x,
    out,
    head_index,
    blocks,
    stride_b,
    stride_h,
    stride_n,
    stride_oh,
    stride_on,
    heads,
    tokens,
    BLOCK: tl.constexpr,
    D: tl.constexpr,
):
    g, i = tl.program_id(0).to(tl.int64), tl.program_id(1)
    bh = tl.load(head_index + g).to(tl.int64)
    block = tl.load(blocks + bh * tl.num_programs(1) + i)
    within, columns = tl.arange(0, BLOCK), tl.arange(0, D)
    rows = tl.minimum(block * BLOCK + within, tokens - 1).to(tl.int64)
    values = tl.load(x + bh // heads * stride_b + bh % heads * stride_h + rows[:, None] * stride_n + columns)
    tl.store(out + g * stride_oh + (i * BLOCK + within).to(tl.int64)[:, None] * stride_on + columns, values)


def gather_query_blocks(q, *, head_index, query_blocks, block_size=64):
    _, heads, tokens, dim = q.shape
    count = query_blocks.shape[-1]
    out = _token_major(len(head_index), count * block_size, dim, q)
    _gather_query_blocks[len(head_index), count](
        q,
        out,
        head_index,
        query_blocks,
        *q.stride()[:3],
        *out.stride()[:2],
        heads,
        tokens,
        BLOCK=block_size,
        D=dim,
        num_warps=4,
    )
    return out


@triton.jit(do_not_specialize=["tokens", "target", "kept"])
def _gather_kv_set(
    x,
    out,
    head_index,
    source_blocks,
    stride_b,
    stride_h,
    stride_n,
    stride_oh,
    stride_on,
    heads,
    tokens,
    target,
    kept,
    BLOCK: tl.constexpr,
    D: tl.constexpr,
):
    g, i = tl.program_id(0).to(tl.int64), tl.program_id(1)
    bh = tl.load(head_index + g).to(tl.int64)
    of_target = (target + BLOCK - 1) // BLOCK
    slot = i - of_target
    j = tl.where(slot < 0, i, tl.load(source_blocks + bh * kept + slot, mask=slot >= 0, other=0))
    start, end = kv_block(j, tokens, target, BLOCK)
    # Kept blocks lie behind each other; only the first can be short with others behind it (the rest of the border
    # block).
    place = tl.where(slot < 0, start, target + slot * BLOCK)
    if slot > 0:
        first_start, first_end = kv_block(tl.load(source_blocks + bh * kept), tokens, target, BLOCK)
        place -= BLOCK - (first_end - first_start)
    within, columns = tl.arange(0, BLOCK), tl.arange(0, D)
    inside = (within < end - start)[:, None]
    values = tl.load(
        x
        + bh // heads * stride_b
        + bh % heads * stride_h
        + (start + within).to(tl.int64)[:, None] * stride_n
        + columns,
        mask=inside,
    )
    tl.store(out + g * stride_oh + (place + within).to(tl.int64)[:, None] * stride_on + columns, values, mask=inside)


def gather_kv_set(x, *, head_index, source_blocks, length, target, block_size=64):
    _, heads, tokens, dim = x.shape
    kept = source_blocks.shape[-1]
    out = _token_major(len(head_index), length, dim, x)
    _gather_kv_set[len(head_index), -(-target // block_size) + kept](
        x,
        out,
        head_index,
        source_blocks,
        *x.stride()[:3],
        *out.stride()[:2],
        heads,
        tokens,
        target,
        kept,
        BLOCK=block_size,
        D=dim,
        num_warps=4,
    )
    return out


@triton.jit(do_not_specialize=["tokens", "sequence_blocks"])
def _write_query_blocks(
    values,
    head_index,
    blocks,
    residual,
    gate,
    out,
    stride_vh,
    stride_vn,
    stride_b,
    stride_h,
    stride_n,
    heads,
    tokens,
    sequence_blocks,
    BLOCK: tl.constexpr,
    D: tl.constexpr,
):
    g, i = tl.program_id(0).to(tl.int64), tl.program_id(1)
    bh = tl.load(head_index + g).to(tl.int64)
    b = bh // heads
    block = tl.load(blocks + bh * tl.num_programs(1) + i)
    within, columns = tl.arange(0, BLOCK), tl.arange(0, D)
    rows = block * BLOCK + within
    inside = rows < tokens
    x = tl.load(
        values + g * stride_vh + (i * BLOCK + within).to(tl.int64)[:, None] * stride_vn + columns,
        mask=inside[:, None],
        other=0.0,
    )
    pooled = tl.load(residual + (bh * sequence_blocks + block) * D + columns)
    weight = tl.load(gate + b * tokens + rows, mask=inside, other=0.0)
    x = x.to(tl.float32) + weight[:, None] * pooled[None, :]
    tl.store(
        out + b * stride_b + bh % heads * stride_h + rows.to(tl.int64)[:, None] * stride_n + columns,
        x.to(out.dtype.element_ty),
        mask=inside[:, None],
    )


def write_query_blocks(values, *, head_index, query_blocks, residual, gate, out, block_size=64):
    _, heads, tokens, dim = out.shape
    _write_query_blocks[len(head_index), query_blocks.shape[-1]](
        values,
        head_index,
        query_blocks,
        residual,
        gate,
        out,
        *values.stride()[:2],
        *out.stride()[:3],
        heads,
        tokens,
        residual.shape[2],
        BLOCK=block_size,
        D=dim,
        num_warps=4,
    )


def _token_major(heads, tokens, dim, like):
    """[heads, tokens, dim] whose heads lie side by side per token, the order that FlashAttention reads without a
    copy.
    """
    return torch.empty(tokens, heads, dim, dtype=like.dtype, device=like.device).transpose(0, 1)
