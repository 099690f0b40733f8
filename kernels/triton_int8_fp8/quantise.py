"""q, k and v in 8 bits, laid out as the tensor cores take them."""

import torch
import triton
import triton.language as tl

ROWS, KEYS = 128, 128  # queries of a program, keys of a step
LOG2E = 1.4426950408889634
SMALLEST = tl.constexpr(1e-12)  # scale of a row of zeros


@triton.jit
def _hadamard(D: tl.constexpr):
    """Walsh-Hadamard matrix without its norm: the sign is the parity of the bits that row and column share."""
    shared = tl.arange(0, D)[:, None] & tl.arange(0, D)[None, :]
    shared ^= shared >> 4
    shared ^= shared >> 2
    shared ^= shared >> 1
    return 1 - 2 * (shared & 1)


@triton.jit(do_not_specialize=["tokens"])
def _rows_to_int8(
    x,
    mean,
    out,
    scales,
    stride_b,
    stride_h,
    stride_n,
    heads,
    tokens,
    padded,
    factor,
    D: tl.constexpr,
    BLOCK: tl.constexpr,
    TOGETHER: tl.constexpr,
):
    """Rows less a mean, rotated, to int8; a scale for each row, or one for a block."""
    i, bh = tl.program_id(0), tl.program_id(1).to(tl.int64)
    rows, columns = i * BLOCK + tl.arange(0, BLOCK), tl.arange(0, D)
    inside = (rows < tokens)[:, None]
    at = x + bh // heads * stride_b + bh % heads * stride_h
    values = tl.load(at + rows.to(tl.int64)[:, None] * stride_n + columns, mask=inside, other=0.0)
    dtype = values.dtype
    if TOGETHER:
        # What is left is small and rounds to the dtype of x with an error far below that of int8.
        values = values.to(tl.float32) - tl.load(mean + bh * D + columns)[None, :]
        values = tl.where(inside, values, 0.0).to(dtype)
    values = tl.dot(values, _hadamard(D).to(dtype))
    size = tl.max(tl.abs(values), axis=1)
    if TOGETHER:
        scale = tl.maximum(tl.max(size, axis=0) / 127, SMALLEST)
        tl.store(scales + bh * tl.num_programs(0) + i, scale * factor)
        values /= scale
    else:
        scale = tl.maximum(size / 127, SMALLEST)
        tl.store(scales + bh * padded + rows, scale * factor)
        values /= scale[:, None]
    values = tl.where(values < 0, values - 0.5, values + 0.5).to(tl.int8)  # towards zero: to the nearest
    tl.store(out + (bh * padded + rows)[:, None] * D + columns, values)


@triton.jit(do_not_specialize=["tokens"])
def _channels_to_fp8(
    x,
    scales,
    out,
    stride_b,
    stride_h,
    stride_n,
    heads,
    tokens,
    padded,
    D: tl.constexpr,
    BLOCK: tl.constexpr,
):
    """Channels to fp8, a scale for each, tokens last, and these in the order in which the weights lie in registers.

    The scores of 16 keys leave the tensor cores with keys 2c, 2c + 1, 2c + 8, 2c + 9 in lane c of four; as weights
    they go in again as keys 4c to 4c + 3.
    """
    i, bh = tl.program_id(0), tl.program_id(1).to(tl.int64)
    place, columns = i * BLOCK + tl.arange(0, BLOCK), tl.arange(0, D)
    rows = (place & ~15) | ((place & 2) << 2) | ((place & 12) >> 1) | (place & 1)
    at = x + bh // heads * stride_b + bh % heads * stride_h
    values = tl.load(at + rows.to(tl.int64)[:, None] * stride_n + columns, mask=(rows < tokens)[:, None], other=0.0)
    values = values.to(tl.float32) / tl.load(scales + bh * D + columns)[None, :]
    values = tl.minimum(tl.maximum(values, -448.0), 448.0).to(tl.float8e4nv)
    tl.store(out + (bh * D + columns)[:, None] * padded + place[None, :], tl.trans(values))


def quantise(q, k, v):
    """q, k and v in 8 bits. The keys' mean is taken away, which adds the same to all scores of a row.

    Args:
        q: [B, H, Q, D]; k, v: [B, H, K, D], fp16 or bf16.

    Returns:
        q: [B * H, Q', D] int8, rotated, Q' whole blocks of `ROWS`.
        k: [B * H, K', D] int8, rotated, K' whole blocks of `KEYS`.
        v: [B * H, D, K'] fp8, keys permuted within each 16.
        q_scale: [B * H, Q'] fp32, with the softmax's scale in base 2; k_scale: [B * H, K' / KEYS] fp32;
        v_scale: [B * H, D] fp32.
    """
    (batch, heads, queries, dim), keys = q.shape, k.shape[2]
    rows, blocks, both = -(-queries // ROWS) * ROWS, -(-keys // KEYS), batch * heads
    q8, k8 = (torch.empty(both, n, dim, dtype=torch.int8, device=q.device) for n in (rows, blocks * KEYS))
    v8 = torch.empty(both, dim, blocks * KEYS, dtype=torch.float8_e4m3fn, device=q.device)
    q_scale, k_scale = (torch.empty(both, n, dtype=torch.float32, device=q.device) for n in (rows, blocks))
    mean = k.mean(dim=2, dtype=torch.float32)
    v_scale = torch.linalg.vector_norm(v, float("inf"), dim=2, dtype=torch.float32).clamp_(min=SMALLEST.value) / 448
    sizes = {"D": dim, "num_warps": 8}
    # The rotation's norm, squared over the product of q and k, goes into the scale of q.
    softmax = dim**-0.5 * LOG2E / dim
    _rows_to_int8[rows // ROWS, both](
        q, q, q8, q_scale, *q.stride()[:3], heads, queries, rows, softmax, BLOCK=ROWS, TOGETHER=False, **sizes
    )
    _rows_to_int8[blocks, both](
        k, mean, k8, k_scale, *k.stride()[:3], heads, keys, blocks * KEYS, 1.0, BLOCK=KEYS, TOGETHER=True, **sizes
    )
    _channels_to_fp8[blocks, both](v, v_scale, v8, *v.stride()[:3], heads, keys, blocks * KEYS, BLOCK=KEYS, **sizes)
    return q8, k8, v8, q_scale, k_scale, v_scale.view(both, dim)
