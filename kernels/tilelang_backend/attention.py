"""The sparse half: exact and mean KV blocks in one softmax."""

import tilelang.language as T
import torch

from .compiling import LOG2E, compiled, dtype_name, kv_blocks, kv_end, kv_start, token_first, write_back


@compiled
def _sparse_attention(heads, dim, block, dtype, tails, stages, programs):
    B, N, P, E, S, W, J, NB = T.dynamic("B, N, P, E, S, W, J, NB")
    scale = 8 * dim**-0.5 * LOG2E

    @T.macro
    def attend(values, scores, weights, answer, top, before, rescale, total, more):
        """One step of the joint softmax; `scores` are given."""
        T.copy(top, before)
        T.reduce_max(scores, top, dim=1, clear=False)
        for r in T.Parallel(block):
            rescale[r] = T.exp2((before[r] - top[r]) * scale)
        for r, c in T.Parallel(block, block):
            scores[r, c] = T.exp2(scores[r, c] * scale - top[r] * scale)
        T.reduce_sum(scores, more, dim=1)
        for r in T.Parallel(block):
            total[r] = total[r] * rescale[r] + more[r]
        for r, d in T.Parallel(block, dim):
            answer[r, d] *= rescale[r]
        T.copy(scores, weights)
        T.gemm(weights, values, answer, policy=T.GemmWarpPolicy.FullRow)

    @T.prim_func
    def sparse(
        q: T.Tensor([B, N, heads, dim], dtype),
        k: T.Tensor([B, N, heads, dim], dtype),
        v: T.Tensor([B, N, heads, dim], dtype),
        k_mean: T.Tensor([B, heads, S, dim], dtype),
        v_mean: T.Tensor([B, heads, S, dim], dtype),
        weight_of_mean: T.Tensor([B, heads, S], "float32"),
        blocks: T.Tensor([B, heads, P], "int32"),
        exact_blocks: T.Tensor([B, heads, P, E], "int32"),
        is_exact: T.Tensor([B, heads, P, W], "int32"),
        residual: T.Tensor([B, heads, NB, dim], "float32"),
        gate: T.Tensor([B, N], "float32"),
        bounds: T.Tensor([3, J], "int32"),
        out: T.Tensor([B, N, heads, dim], dtype),
    ):
        with T.Kernel(P, heads, B, threads=128) as (i, h, b):
            T.annotate_min_blocks_per_sm(programs)
            queries = T.alloc_fragment([block, dim], dtype)
            keys, values = T.alloc_shared([block, dim], dtype), T.alloc_shared([block, dim], dtype)
            scores = T.alloc_fragment([block, block], "float32")
            weights = T.alloc_fragment([block, block], dtype)
            answer = T.alloc_fragment([block, dim], "float32")
            top = T.alloc_fragment([block], "float32")  # running maximum of the scores, before scaling
            before = T.alloc_fragment([block], "float32")
            rescale = T.alloc_fragment([block], "float32")
            total = T.alloc_fragment([block], "float32")
            more = T.alloc_fragment([block], "float32")
            first = blocks[b, h, i] * block
            for r, d in T.Parallel(block, dim):
                queries[r, d] = q[b, T.min(first + r, N - 1), h, d] * T.cast(
                    0.125, dtype
                )  # exact, as in the Triton backend
            T.fill(top, -T.infinity("float32"))
            T.clear(total)
            T.clear(answer)

            for e in T.Pipelined(E, num_stages=stages):
                # A short block is read with its neighbour's tokens, whose scores are masked.
                start = bounds[0, exact_blocks[b, h, i, e]] if tails else exact_blocks[b, h, i, e] * block
                for r, d in T.Parallel(block, dim):
                    keys[r, d] = k[b, start + r, h, d]
                for r, d in T.Parallel(block, dim):
                    values[r, d] = v[b, start + r, h, d]
                T.gemm(queries, keys, scores, transpose_B=True, policy=T.GemmWarpPolicy.FullRow, clear_accum=True)
                if tails:
                    low = bounds[1, exact_blocks[b, h, i, e]]
                    high = bounds[2, exact_blocks[b, h, i, e]]
                    if high - low < block:
                        for r, c in T.Parallel(block, block):
                            scores[r, c] = T.if_then_else(
                                T.And(c >= low, c < high), scores[r, c], -T.infinity("float32")
                            )
                attend(values, scores, weights, answer, top, before, rescale, total, more)

            for c0 in T.Pipelined(S // block, num_stages=stages):
                for r, d in T.Parallel(block, dim):
                    keys[r, d] = k_mean[b, h, c0 * block + r, d]
                for r, d in T.Parallel(block, dim):
                    values[r, d] = v_mean[b, h, c0 * block + r, d]
                T.gemm(queries, keys, scores, transpose_B=True, policy=T.GemmWarpPolicy.FullRow, clear_accum=True)
                for r, c in T.Parallel(block, block):
                    scores[r, c] = T.if_then_else(
                        (is_exact[b, h, i, c0 * (block // 32) + c // 32] >> (c % 32)) & 1 == 0,
                        scores[r, c]
                        + (weight_of_mean[b, h, c0 * block + c] if tails else float(block.bit_length() - 1) / scale),
                        -T.infinity("float32"),
                    )
                attend(values, scores, weights, answer, top, before, rescale, total, more)

            for r, d in T.Parallel(block, dim):
                if first + r < N:
                    out[b, first + r, h, d] = (
                        answer[r, d] / total[r] + gate[b, first + r] * residual[b, h, blocks[b, h, i], d]
                    )

    return sparse


@compiled
def _prepare(heads, dim, block, dtype):
    """The means in the queries' dtype, padded to whole blocks; what their lengths add to their scores; and of every KV
    block the first token to read, 64 of which are there, and which of those are the block's own."""
    B, N, M, S, J = T.dynamic("B, N, M, S, J")

    @T.prim_func
    def prepare(
        k_mean: T.Tensor([B, heads, M, dim], "float32"),
        v_mean: T.Tensor([B, heads, M, dim], "float32"),
        kv_set: T.Tensor([B, heads, M], "int32"),
        gate: T.Tensor([B, N], "float32"),
        k_out: T.Tensor([B, heads, S, dim], dtype),
        v_out: T.Tensor([B, heads, S, dim], dtype),
        weight: T.Tensor([B, heads, S], "float32"),
        bounds: T.Tensor([3, J], "int32"),
        target: T.int32,
    ):
        with T.Kernel(T.max(S, (J + block - 1) // block * block) // block, heads, B, threads=128) as (i, h, b):
            for r, d in T.Parallel(block, dim):
                if i * block + r < S:
                    k_out[b, h, i * block + r, d] = T.if_then_else(
                        i * block + r < M, k_mean[b, h, T.min(i * block + r, M - 1), d], 0.0
                    )
                    v_out[b, h, i * block + r, d] = T.if_then_else(
                        i * block + r < M, v_mean[b, h, T.min(i * block + r, M - 1), d], 0.0
                    )
            for r in T.Parallel(block):
                if i * block + r < S:
                    j = kv_set[b, h, T.min(i * block + r, M - 1)]
                    weight[b, h, i * block + r] = T.log2(
                        T.cast(kv_end(j, N, target, block) - kv_start(j, target, block), "float32")
                    ) / (8 * dim**-0.5 * LOG2E)
            for r in T.Parallel(block):
                if i * block + r < J and h == 0 and b == 0:
                    j = i * block + r
                    first = T.min(kv_start(j, target, block), N - block)
                    bounds[0, j] = first
                    bounds[1, j] = kv_start(j, target, block) - first
                    bounds[2, j] = kv_end(j, N, target, block) - first

    return prepare


def sparse_attention(q, k, v, *, k_mean, v_mean, blocks, residual, gate, target, out, block_size=64):
    query_blocks, kv_set, exact_blocks, is_exact = blocks
    batch, heads, tokens, dim = q.shape
    size = is_exact.shape[-1] * 32
    k_padded, v_padded = (torch.empty(batch, heads, size, dim, dtype=q.dtype, device=q.device) for _ in range(2))
    weight = torch.empty(batch, heads, size, dtype=torch.float32, device=q.device)
    bounds = torch.empty(3, kv_blocks(tokens, target, block_size), dtype=torch.int32, device=q.device)
    _prepare(heads, dim, block_size, dtype_name(q))(
        k_mean, v_mean, kv_set, gate, k_padded, v_padded, weight, bounds, target
    )
    rows = token_first(out)
    tails = tokens % block_size > 0 or target % block_size > 0
    form = form_for(torch.cuda.get_device_capability(q.device), dim)
    _sparse_attention(heads, dim, block_size, dtype_name(q), tails, *form)(
        *(token_first(x) for x in (q, k, v)),
        k_padded,
        v_padded,
        weight,
        query_blocks,
        exact_blocks,
        is_exact,
        residual,
        gate,
        bounds,
        rows,
    )
    write_back(rows, out)


def form_for(capability, dim):
    """Stages of the pipeline, and programs that a multiprocessor is to run side by side, for a card and a head dim.

    More programs leave each thread fewer registers: three leave it 168, which heads of 64 channels need no more than.
    With 128 channels that spills, a little with wgmma and much without. Where wgmma is missing, two programs of one
    stage, 32 KiB each, fit on any card; two stages spilled on A100, and of two in 100 KiB only one program would fit.

    Args:
        capability: (major, minor).
    """
    if dim == 64 or capability[0] == 9:
        return 2, 3
    return (2 if capability[0] in (10, 11) else 1), 2
