"""The sparse half: exact and mean KV blocks in one softmax."""

import functools

import torch
import triton
import triton.language as tl

from .blocks import kv_block

try:
    from triton.tools.tensor_descriptor import TensorDescriptor
except ImportError:  # Triton before 3.4
    TensorDescriptor = None

LOG2E = 1.4426950408889634


@triton.jit(do_not_specialize=["tokens", "target", "exact_count", "sequence_blocks"])
def _sparse_attention(
    q,
    k,
    v,
    k_mean,
    v_mean,
    weight_of_mean,
    blocks,
    exact_blocks,
    is_exact,
    residual,
    gate,
    out,
    stride_qb,
    stride_qh,
    stride_qn,
    stride_kb,
    stride_kh,
    stride_kn,
    stride_vb,
    stride_vh,
    stride_vn,
    stride_ob,
    stride_oh,
    stride_on,
    heads,
    tokens,
    target,
    padded,
    exact_count,
    sequence_blocks,
    scale,
    BLOCK: tl.constexpr,
    D: tl.constexpr,
    TAILS: tl.constexpr,
    DESCRIPTORS: tl.constexpr,
    HALVES: tl.constexpr,
):
    tl.static_assert(not (DESCRIPTORS and HALVES), "descriptors read all channels of a block")
    WIDTH: tl.constexpr = D // 2 if HALVES else D  # channels of an answer; in halves there are two of them
    i, bh = tl.program_id(0), tl.program_id(1)
    b, h = bh // heads, bh % heads
    bh = bh.to(tl.int64)
    row = bh * tl.num_programs(0) + i
    block = tl.load(blocks + row)
    within, columns, channels = tl.arange(0, BLOCK), tl.arange(0, D), tl.arange(0, WIDTH)
    rows = block * BLOCK + within
    inside = rows < tokens
    if DESCRIPTORS:
        queries = q.load([b, h, block * BLOCK, 0]).reshape(BLOCK, D)
    else:
        queries = tl.load(
            q
            + b.to(tl.int64) * stride_qb
            + h.to(tl.int64) * stride_qh
            + rows.to(tl.int64)[:, None] * stride_qn
            + columns,
            mask=inside[:, None],
            other=0.0,
        )
        k += b.to(tl.int64) * stride_kb + h.to(tl.int64) * stride_kh
        v += b.to(tl.int64) * stride_vb + h.to(tl.int64) * stride_vh
        offset_k = within[:, None] * stride_kn + columns
        offset_v = within[:, None] * stride_vn + channels
        k_mean += bh * padded * D
        v_mean += bh * padded * D
        offset_k_mean = within[:, None] * D + columns
        offset_v_mean = within[:, None] * D + channels
    # A product by a power of two is exact, and makes the compiler keep the queries in registers. Shared memory is what
    # limits how many programs a multiprocessor runs side by side: 64 KiB in place of 80 means three in place of two.
    queries = (queries * 0.125).to(queries.dtype)

    top = tl.full([BLOCK], float("-inf"), tl.float32)  # running maximum of the scores, before scaling
    total = tl.zeros([BLOCK], tl.float32)
    answer = tl.zeros([BLOCK, WIDTH], tl.float32)
    if HALVES:
        upper_answer = tl.zeros([BLOCK, WIDTH], tl.float32)

    exact_blocks += row * exact_count
    for e in range(exact_count):
        j = tl.load(exact_blocks + e)
        if TAILS:
            # A short block is read with its neighbour's tokens, whose scores are masked: cheaper than to
            # mask the loads.
            start, end = kv_block(j, tokens, target, BLOCK)
            first = start if DESCRIPTORS else tl.minimum(start, tokens - BLOCK)
            attended = within < end - start if DESCRIPTORS else (first + within >= start) & (first + within < end)
        else:
            first = j * BLOCK
        if DESCRIPTORS:
            keys = k.load([b, h, first, 0]).reshape(BLOCK, D)
            values = v.load([b, h, first, 0]).reshape(BLOCK, D)
        else:
            keys = tl.load(k + first.to(tl.int64) * stride_kn + offset_k)
            values = tl.load(v + first.to(tl.int64) * stride_vn + offset_v)
            if HALVES:
                upper_values = tl.load(v + first.to(tl.int64) * stride_vn + offset_v + WIDTH)
        scores = tl.dot(queries, tl.trans(keys))
        if TAILS:
            scores = tl.where(attended[None, :], scores, float("-inf"))
        new_top = tl.maximum(top, tl.max(scores, axis=1))
        weights = tl.exp2(scores * scale - (new_top * scale)[:, None])
        rescale = tl.exp2((top - new_top) * scale)
        total = total * rescale + tl.sum(weights, axis=1)
        answer = tl.dot(weights.to(values.dtype), values, answer * rescale[:, None])
        if HALVES:
            upper_answer = tl.dot(weights.to(values.dtype), upper_values, upper_answer * rescale[:, None])
        top = new_top

    # All other blocks of the KV set through their means, each with the weight of its length: log2 of it on the score.
    top *= scale
    weight_of_mean += bh * padded
    is_exact += row * (padded // 32)
    for c in range(0, padded, BLOCK):
        word = tl.where(
            within < 32, tl.load(is_exact + c // 32), tl.load(is_exact + c // 32 + 1)
        )  # a bit for every block
        is_mean = ((word >> (within % 32)) & 1) == 0
        if DESCRIPTORS:
            keys = k_mean.load([b, h, c, 0]).reshape(BLOCK, D)
            values = v_mean.load([b, h, c, 0]).reshape(BLOCK, D)
        else:
            keys = tl.load(k_mean + c * D + offset_k_mean)
            values = tl.load(v_mean + c * D + offset_v_mean)
            if HALVES:
                upper_values = tl.load(v_mean + c * D + offset_v_mean + WIDTH)
        scores = tl.dot(queries, tl.trans(keys)) * scale + tl.load(weight_of_mean + c + within)[None, :]
        scores = tl.where(is_mean[None, :], scores, float("-inf"))
        new_top = tl.maximum(top, tl.max(scores, axis=1))
        weights = tl.exp2(scores - new_top[:, None])
        rescale = tl.exp2(top - new_top)
        total = total * rescale + tl.sum(weights, axis=1)
        answer = tl.dot(weights.to(values.dtype), values, answer * rescale[:, None])
        if HALVES:
            upper_answer = tl.dot(weights.to(values.dtype), upper_values, upper_answer * rescale[:, None])
        top = new_top

    residual += (bh * sequence_blocks + block) * D + channels
    pooled = tl.load(residual)
    weight = tl.load(gate + b * tokens + rows, mask=inside, other=0.0)
    answer = answer / total[:, None] + weight[:, None] * pooled[None, :]
    out += b.to(tl.int64) * stride_ob + h.to(tl.int64) * stride_oh
    place = out + rows.to(tl.int64)[:, None] * stride_on + channels
    tl.store(place, answer.to(out.dtype.element_ty), mask=inside[:, None])
    if HALVES:
        upper_answer = upper_answer / total[:, None] + weight[:, None] * tl.load(residual + WIDTH)[None, :]
        tl.store(place + WIDTH, upper_answer.to(out.dtype.element_ty), mask=inside[:, None])


@triton.jit(do_not_specialize=["tokens", "target", "size"])
def _pad_means(
    k_mean, v_mean, kv_set, k_out, v_out, weight, tokens, target, size, padded, BLOCK: tl.constexpr, D: tl.constexpr
):
    bh, i = tl.program_id(0).to(tl.int64), tl.program_id(1)
    place, columns = i * BLOCK + tl.arange(0, BLOCK), tl.arange(0, D)
    valid = place < size
    start, end = kv_block(tl.load(kv_set + bh * size + place, mask=valid, other=0), tokens, target, BLOCK)
    tl.store(weight + bh * padded + place, tl.log2((end - start).to(tl.float32)))
    source, destination = bh * size * D + place[:, None] * D + columns, bh * padded * D + place[:, None] * D + columns
    tl.store(k_out + destination, tl.load(k_mean + source, mask=valid[:, None], other=0.0).to(k_out.dtype.element_ty))
    tl.store(v_out + destination, tl.load(v_mean + source, mask=valid[:, None], other=0.0).to(v_out.dtype.element_ty))


def sparse_attention(q, k, v, *, k_mean, v_mean, blocks, residual, gate, target, out, block_size=64):
    query_blocks, kv_set, exact_blocks, is_exact = blocks
    batch, heads, tokens, dim = q.shape
    padded = is_exact.shape[-1] * 32
    k_padded, v_padded = (torch.empty(batch, heads, padded, dim, dtype=q.dtype, device=q.device) for _ in range(2))
    weight = torch.empty(batch, heads, padded, dtype=torch.float32, device=q.device)
    _pad_means[batch * heads, padded // 64](
        k_mean,
        v_mean,
        kv_set,
        k_padded,
        v_padded,
        weight,
        tokens,
        target,
        kv_set.shape[-1],
        padded,
        BLOCK=block_size,
        D=dim,
        num_warps=4,
    )
    tensors = q, k, v, k_padded, v_padded
    strides = *q.stride()[:3], *k.stride()[:3], *v.stride()[:3], *out.stride()[:3]
    form = form_for(_capability(q.device), dim, describable=all(_describable(x) for x in tensors))
    if form["DESCRIPTORS"]:
        tensors = (TensorDescriptor(x, list(x.shape), list(x.stride()), [1, 1, block_size, dim]) for x in tensors)
    _sparse_attention[query_blocks.shape[-1], batch * heads](
        *tensors,
        weight,
        query_blocks,
        exact_blocks,
        is_exact,
        residual,
        gate,
        out,
        *strides,
        heads,
        tokens,
        target,
        padded,
        exact_blocks.shape[-1],
        residual.shape[2],
        8 * dim**-0.5 * LOG2E,
        BLOCK=block_size,
        D=dim,
        TAILS=tokens % block_size > 0 or target % block_size > 0,
        **form,
    )


def form_for(capability, dim, *, describable):
    """How `_sparse_attention` is compiled for a card: its constants that depend on it, and the compiler's options.

    Tensor cores that work for four warps at once, by wgmma (compute capability 9) or tcgen05 (10 and 11), take all
    channels at once, and the copy engine beside them spares the addresses that cost registers. For other tensor cores
    the compiler deals the warps out over the channels where there are more of these than rows, and every row's softmax
    goes through shared memory from warp to warp. Of two halves of 64 channels each warp has rows of its own.

    Args:
        capability: (major, minor); (0, 0) for the CPU.
        dim: channels of a head.
        describable: whether the tensors lie as a descriptor asks.
    """
    four_warps_at_once = capability[0] in (9, 10, 11)
    descriptors = four_warps_at_once and describable and TensorDescriptor is not None
    halves = dim == 128 and not four_warps_at_once
    return {
        "DESCRIPTORS": descriptors,
        "HALVES": halves,
        "num_warps": 4,
        # By registers two programs in halves fit on a multiprocessor. Where its shared memory has room for three stages
        # of both, 161 KiB, these gain a little: 11.3 ms in place of 11.9, as code for A100 on a H100.
        "num_stages": 3 if halves and capability in ((8, 0), (8, 7)) else 2,
        **({"maxnreg": 168} if descriptors and dim == 128 else {}),  # three programs on a multiprocessor of Hopper
    }


@functools.cache
def _capability(device):
    return torch.cuda.get_device_capability(device) if device.type == "cuda" else (0, 0)


def _describable(x):
    """The copy engine's rule: rows of 16 aligned bytes."""
    unit = 16 // x.element_size()
    return x.data_ptr() % 16 == 0 and x.stride(-1) == 1 and all(stride % unit == 0 for stride in x.stride()[:-1])
