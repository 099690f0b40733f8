"""Means of KV blocks."""

import tilelang.language as T
import torch

from .compiling import compiled, dtype_name, kv_blocks, kv_end, kv_start, token_first

WARP = 32


@compiled
def _block_means(heads, dim, block, dtype):
    B, N, J = T.dynamic("B, N, J")

    @T.prim_func
    def means(x: T.Tensor([B, N, heads, dim], dtype), out: T.Tensor([B, heads, J, dim], "float32"), target: T.int32):
        with T.Kernel(heads, J, B, threads=WARP) as (h, j, b):
            total = T.alloc_fragment([dim], "float32")
            start = T.alloc_var("int32", init=kv_start(j, target, block))
            end = T.alloc_var("int32", init=kv_end(j, N, target, block))
            T.clear(total)
            if end - start == block:
                for group in T.serial(block // 16):
                    for r in T.unroll(16):
                        for d in T.Parallel(dim):
                            total[d] += T.cast(x[b, start + group * 16 + r, h, d], "float32")
            else:
                for r in T.serial(end - start):
                    for d in T.Parallel(dim):
                        total[d] += T.cast(x[b, start + r, h, d], "float32")
            for d in T.Parallel(dim):
                out[b, h, j, d] = total[d] / T.cast(end - start, "float32")

    return means


def block_means(x, *, target, block_size=64):
    batch, heads, tokens, dim = x.shape
    out = torch.empty(batch, heads, kv_blocks(tokens, target, block_size), dim, dtype=torch.float32, device=x.device)
    _block_means(heads, dim, block_size, dtype_name(x))(token_first(x), out, target)
    return out
