"""Copying chosen blocks next to each other, and answers back in token order."""

import tilelang.language as T
import torch

from .compiling import compiled, dtype_name, kv_end, kv_start, token_first, write_back


@compiled
def _gather_query_blocks(heads, dim, block, dtype):
    B, N, G, Q, R = T.dynamic("B, N, G, Q, R")

    @T.prim_func
    def gather(
        x: T.Tensor([B, N, heads, dim], dtype),
        head_index: T.Tensor([G], "int32"),
        blocks: T.Tensor([B * heads, Q], "int32"),
        out: T.Tensor([R, G, dim], dtype),
    ):
        with T.Kernel(G, Q, threads=128) as (g, i):
            bh = head_index[g]
            first = blocks[bh, i] * block
            for r, d in T.Parallel(block, dim):
                out[i * block + r, g, d] = x[bh // heads, T.min(first + r, N - 1), bh % heads, d]

    return gather


def gather_query_blocks(q, *, head_index, query_blocks, block_size=64):
    heads, dim = q.shape[1], q.shape[3]
    out = torch.empty(query_blocks.shape[-1] * block_size, len(head_index), dim, dtype=q.dtype, device=q.device)
    if out.numel():
        _gather_query_blocks(heads, dim, block_size, dtype_name(q))(
            token_first(q), head_index, query_blocks.flatten(0, 1), out
        )
    return out.transpose(0, 1)


@compiled
def _gather_kv_set(heads, dim, block, dtype):
    B, N, G, K, R = T.dynamic("B, N, G, K, R")

    @T.prim_func
    def gather(
        x: T.Tensor([B, N, heads, dim], dtype),
        head_index: T.Tensor([G], "int32"),
        source_blocks: T.Tensor([B * heads, K], "int32"),
        out: T.Tensor([R, G, dim], dtype),
        target: T.int32,
    ):
        with T.Kernel(G, (target + block - 1) // block + K, threads=128) as (g, i):
            bh = head_index[g]
            slot = i - (target + block - 1) // block
            j = T.alloc_var("int32", init=T.if_then_else(slot < 0, i, source_blocks[bh, T.max(slot, 0)]))
            start = T.alloc_var("int32", init=kv_start(j, target, block))
            length = T.alloc_var("int32", init=kv_end(j, N, target, block) - start)
            # Kept blocks lie behind each other; only the first can be short with others behind it (the
            # rest of the border block).
            first_length = kv_end(source_blocks[bh, 0], N, target, block) - kv_start(
                source_blocks[bh, 0], target, block
            )
            place = T.alloc_var(
                "int32",
                init=T.if_then_else(
                    slot < 0, start, target + slot * block - T.if_then_else(slot > 0, block - first_length, 0)
                ),
            )
            for r, d in T.Parallel(block, dim):
                if r < length:
                    out[place + r, g, d] = x[bh // heads, start + r, bh % heads, d]

    return gather


def gather_kv_set(x, *, head_index, source_blocks, length, target, block_size=64):
    batch, heads, tokens, dim = x.shape
    out = torch.empty(length, len(head_index), dim, dtype=x.dtype, device=x.device)
    if (
        source_blocks.shape[-1] == 0
    ):  # a tensor without elements has no place in memory: name a block that is never read
        source_blocks = source_blocks.new_zeros(batch, heads, 1)
        out = torch.empty(length + block_size, len(head_index), dim, dtype=x.dtype, device=x.device)
    _gather_kv_set(heads, dim, block_size, dtype_name(x))(
        token_first(x), head_index, source_blocks.flatten(0, 1), out, target
    )
    return out[:length].transpose(0, 1)


@compiled
def _write_query_blocks(heads, dim, block, dtype):
    B, N, G, Q, V, NB = T.dynamic("B, N, G, Q, V, NB")

    @T.prim_func
    def write(
        values: T.Tensor([V, G, dim], dtype),
        head_index: T.Tensor([G], "int32"),
        blocks: T.Tensor([B * heads, Q], "int32"),
        residual: T.Tensor([B * heads, NB, dim], "float32"),
        gate: T.Tensor([B, N], "float32"),
        out: T.Tensor([B, N, heads, dim], dtype),
    ):
        with T.Kernel(G, Q, threads=128) as (g, i):
            bh = head_index[g]
            j = blocks[bh, i]
            for r, d in T.Parallel(block, dim):
                if j * block + r < N:
                    out[bh // heads, j * block + r, bh % heads, d] = (
                        T.cast(values[i * block + r, g, d], "float32")
                        + gate[bh // heads, j * block + r] * residual[bh, j, d]
                    )

    return write


def write_query_blocks(values, *, head_index, query_blocks, residual, gate, out, block_size=64):
    heads, dim = out.shape[1], out.shape[3]
    if query_blocks.numel() == 0:
        return
    rows = token_first(out)
    _write_query_blocks(heads, dim, block_size, dtype_name(out))(
        values.transpose(0, 1).contiguous(), head_index, query_blocks.flatten(0, 1), residual.flatten(0, 1), gate, rows
    )
    write_back(rows, out)
