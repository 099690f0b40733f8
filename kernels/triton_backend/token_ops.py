"""`token_ops` in Triton: each reads and writes every token once.

A program holds one token's channels; sums are fp32.
"""

import torch
import triton
import triton.language as tl

WARPS = 8


@triton.jit(do_not_specialize=["tokens"])
def _add_and_normalise(
    x,
    update,
    gate,
    scale,
    shift,
    total,
    out,
    stride_xb,
    stride_xn,
    stride_ub,
    stride_un,
    stride_tb,
    stride_tn,
    gate_b,
    scale_b,
    shift_b,
    tokens,
    eps,
    C: tl.constexpr,
    BLOCK: tl.constexpr,
    UPDATE: tl.constexpr,
    GATE: tl.constexpr,
    NORM: tl.constexpr,
):
    row = tl.program_id(0).to(tl.int64)
    b, n = row // tokens, row % tokens
    columns = tl.arange(0, BLOCK)
    inside = columns < C
    values = tl.load(x + b * stride_xb + n * stride_xn + columns, mask=inside, other=0.0, eviction_policy="evict_first")
    if UPDATE:
        added = tl.load(
            update + b * stride_ub + n * stride_un + columns, mask=inside, other=0.0, eviction_policy="evict_first"
        ).to(tl.float32)
        if GATE:
            added *= tl.load(gate + b * gate_b + columns, mask=inside, other=0.0)
        values += added
        tl.store(total + b * stride_tb + n * stride_tn + columns, values, mask=inside)
    if NORM:
        centred = tl.where(inside, values - tl.sum(values, axis=0) / C, 0.0)
        normal = centred * tl.rsqrt(tl.sum(centred * centred, axis=0) / C + eps)
        normal = normal * tl.load(scale + b * scale_b + columns, mask=inside, other=0.0) + tl.load(
            shift + b * shift_b + columns, mask=inside, other=0.0
        )
        tl.store(out + row * C + columns, normal.to(out.dtype.element_ty), mask=inside)


def _launch(x, update, gate, scale, shift, eps, total, out):
    batch, tokens, channels = x.shape
    update, total = (x if tensor is None else tensor for tensor in (update, total))
    vectors = [x if vector is None else vector for vector in (gate, scale, shift)]
    steps = [0 if vector.shape[0] == 1 else vector.stride(0) for vector in vectors]
    _add_and_normalise[batch * tokens,](
        x,
        update,
        *vectors,
        total,
        x if out is None else out,
        *x.stride()[:2],
        *update.stride()[:2],
        *total.stride()[:2],
        *steps,
        tokens,
        eps,
        C=channels,
        BLOCK=triton.next_power_of_2(channels),
        UPDATE=update is not x,
        GATE=gate is not None,
        NORM=out is not None,
        num_warps=WARPS,
    )


def add_and_normalise(x, update, *, gate, scale, shift, eps, dtype, in_place):
    total = None if update is None else x if in_place else torch.empty_like(x)
    out = torch.empty(x.shape, dtype=dtype, device=x.device)
    _launch(x, update, gate, scale, shift, eps, total, out)
    return x if total is None else total, out


def add(x, update, *, gate, in_place):
    total = x if in_place else torch.empty_like(x)
    _launch(x, update, gate, None, None, 0.0, total, None)
    return total


@triton.jit(do_not_specialize=["tokens"])
def _normalise_and_rotate(
    x,
    weight,
    rotations,
    stride_b,
    stride_n,
    stride_r,
    tokens,
    eps,
    C: tl.constexpr,
    BLOCK: tl.constexpr,
    PAIRS: tl.constexpr,
):
    row = tl.program_id(0).to(tl.int64)
    b, n = row // tokens, row % tokens
    columns = tl.arange(0, BLOCK)
    inside = columns < C
    x += b * stride_b + n * stride_n + columns
    values = tl.load(x, mask=inside, other=0.0).to(tl.float32)
    values *= tl.rsqrt(tl.sum(values * values, axis=0) / C + eps) * tl.load(
        weight + columns, mask=inside, other=0.0
    ).to(tl.float32)
    even, odd = tl.split(tl.reshape(values, (BLOCK // 2, 2)))
    rotation = rotations + n * stride_r + tl.arange(0, BLOCK // 2) % PAIRS * 4  # of every head the same
    cosine, sine = tl.load(rotation), tl.load(rotation + 2)
    rotated = tl.reshape(tl.join(even * cosine - odd * sine, even * sine + odd * cosine), (BLOCK,))
    tl.store(x, rotated.to(x.dtype.element_ty), mask=inside)


def normalise_and_rotate(x, *, weight, rotations, eps):
    batch, tokens, channels = x.shape
    if not rotations[0, 0].is_contiguous():
        rotations = rotations.contiguous()
    _normalise_and_rotate[batch * tokens,](
        x,
        weight,
        rotations,
        *x.stride()[:2],
        rotations.stride(1),
        tokens,
        eps,
        C=channels,
        BLOCK=triton.next_power_of_2(channels),
        PAIRS=rotations.shape[3],
        num_warps=WARPS,
    )
    return x
