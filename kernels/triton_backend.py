"""Every operation in Triton, for fp16 and bf16 on NVIDIA GPUs; what each means is said in `reference.py`.

Tensors are read where they lie, through strides and block indices; sequence lengths are run-time arguments, so a new clip
length compiles nothing. Sums and softmax are fp32. Offsets that can pass 2^31 are int64.
"""

import functools

import torch
import triton
import triton.language as tl

LOG2E = 1.4426950408889634


@triton.jit
def _kv_block(j, tokens, target, BLOCK: tl.constexpr):
    """First token of KV block j and one past its last; `TokenLayout.kv_block` says the rule."""
    of_target = (target + BLOCK - 1) // BLOCK
    is_target = j < of_target
    first = tl.where(is_target, j, target // BLOCK + j - of_target) * BLOCK
    start = tl.where(is_target, first, tl.maximum(first, target))
    end = tl.minimum(first + BLOCK, tl.where(is_target, target, tokens))
    return start, end


@triton.jit
def _block_means(x, out, stride_b, stride_h, stride_n, heads, tokens, target, BLOCK: tl.constexpr, D: tl.constexpr):
    bh, j = tl.program_id(0).to(tl.int64), tl.program_id(1)  # neighbours work on one block of neighbouring heads, which lie side by side
    start, end = _kv_block(j, tokens, target, BLOCK)
    rows, columns = start + tl.arange(0, BLOCK), tl.arange(0, D)
    base = x + bh // heads * stride_b + bh % heads * stride_h
    values = tl.load(base + rows.to(tl.int64)[:, None] * stride_n + columns, mask=(rows < end)[:, None], other=0.0)
    mean = tl.sum(values.to(tl.float32), axis=0) / (end - start)
    tl.store(out + (bh * tl.num_programs(1) + j) * D + columns, mean)


def block_means(x, *, target, block_size=64):
    batch, heads, tokens, dim = x.shape
    blocks = -(-target // block_size) + -(-tokens // block_size) - target // block_size
    out = torch.empty(batch, heads, blocks, dim, dtype=torch.float32, device=x.device)
    _block_means[batch * heads, blocks](x, out, *x.stride()[:3], heads, tokens, target, BLOCK=block_size, D=dim, num_warps=4)
    return out


@triton.jit
def _threshold(keys, k):
    """A bound that k of the uint32 keys reach, or the k-th largest itself where equal ones would make it more.

    Found bit by bit from the top; random rows are cut long before the last bit.
    """
    threshold = tl.full((), 0, tl.uint32)
    bit = tl.full((), 2147483648, tl.uint32)
    while bit != 0:
        candidate = threshold | bit
        count = tl.sum((keys >= candidate).to(tl.int32), axis=0)
        threshold = tl.where(count >= k, candidate, threshold)
        bit = tl.where(count == k, 0, bit >> 1).to(tl.uint32)
    return threshold


@triton.jit
def _ordered(values):
    """uint32 keys in the order of fp32 values."""
    bits = values.to(tl.int32, bitcast=True)
    flipped = tl.where(bits < 0, ~bits, bits | (-2147483648))
    return flipped.to(tl.uint32, bitcast=True)


@triton.jit
def _softmax_with_top_sums(scores, sums, size, columns, top, M: tl.constexpr, C: tl.constexpr):
    row = tl.program_id(0).to(tl.int64)
    scores += row * size
    position = tl.arange(0, M)
    x = tl.load(scores + position, mask=position < size, other=float("-inf")) * 1.4426950408889634
    largest = tl.max(x, axis=0)
    x = tl.exp2(x - largest)
    share = 1 / tl.sum(x, axis=0)
    # The same scores once more, out of the cache: the search is dear and needs only the first columns.
    position_c = tl.arange(0, C)
    c = tl.load(scores + position_c, mask=position_c < columns, other=float("-inf"))
    keys = tl.where(position_c < columns, _ordered(c), 0)
    c = tl.exp2(c * 1.4426950408889634 - largest)
    tl.store(scores + position, x * share, mask=position < size)
    threshold = _threshold(keys, top)
    above = keys > threshold
    at = tl.max(tl.where(keys == threshold, c, 0.0), axis=0)
    missing = top - tl.sum(above.to(tl.int32), axis=0)
    tl.store(sums + row, (tl.sum(tl.where(above, c, 0.0), axis=0) + missing * at) * share)


def softmax_with_top_sums(scores, *, columns, top):
    size = scores.shape[-1]
    sums = torch.empty(scores.shape[:-1], dtype=torch.float32, device=scores.device)
    _softmax_with_top_sums[(sums.numel(),)](scores, sums, size, columns, top, M=triton.next_power_of_2(size), C=triton.next_power_of_2(columns),
                                            num_warps=_row_warps(size))
    return sums


@triton.jit
def _split_largest(values, largest, others, size, count, M: tl.constexpr):
    row = tl.program_id(0).to(tl.int64)
    position = tl.arange(0, M)
    valid = position < size
    keys = tl.where(valid, _ordered(tl.load(values + row * size + position, mask=valid, other=0.0)), 0)
    threshold = _threshold(keys, count)
    above, equal = keys > threshold, valid & (keys == threshold)
    missing = count - tl.sum(above.to(tl.int32), axis=0)
    chosen = above | (equal & (tl.cumsum(equal.to(tl.int32), axis=0) <= missing))
    before = tl.cumsum(chosen.to(tl.int32), axis=0)  # chosen ones up to and including this
    tl.store(largest + row * count + before - 1, position, mask=chosen)
    tl.store(others + row * (size - count) + position - before, position, mask=valid & ~chosen)


def split_largest(values, *, count):
    values = values.contiguous()
    size = values.shape[-1]
    largest = torch.empty(*values.shape[:-1], count, dtype=torch.int32, device=values.device)
    others = torch.empty(*values.shape[:-1], size - count, dtype=torch.int32, device=values.device)
    rows = values.numel() // size
    if rows:
        _split_largest[(rows,)](values, largest, others, size, count, M=triton.next_power_of_2(size), num_warps=_row_warps(size))
    return largest, others


def _row_warps(size):
    """Few, for the search counts across the whole row again and again."""
    return 1 if size <= 1024 else 2 if size <= 2048 else 4 if size <= 4096 else 16


@triton.jit
def _gather_query_blocks(x, out, head_index, blocks, stride_b, stride_h, stride_n, stride_oh, stride_on, heads, tokens, BLOCK: tl.constexpr, D: tl.constexpr):
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
    _gather_query_blocks[len(head_index), count](q, out, head_index, query_blocks, *q.stride()[:3], *out.stride()[:2], heads, tokens,
                                                 BLOCK=block_size, D=dim, num_warps=4)
    return out


@triton.jit
def _gather_kv_set(x, out, head_index, source_blocks, stride_b, stride_h, stride_n, stride_oh, stride_on, heads, tokens, target, kept,
                   BLOCK: tl.constexpr, D: tl.constexpr):
    g, i = tl.program_id(0).to(tl.int64), tl.program_id(1)
    bh = tl.load(head_index + g).to(tl.int64)
    of_target = (target + BLOCK - 1) // BLOCK
    slot = i - of_target
    j = tl.where(slot < 0, i, tl.load(source_blocks + bh * kept + slot, mask=slot >= 0, other=0))
    start, end = _kv_block(j, tokens, target, BLOCK)
    # Kept blocks lie behind each other; only the first can be short with others behind it (the rest of the border block).
    place = tl.where(slot < 0, start, target + slot * BLOCK)
    if slot > 0:
        first_start, first_end = _kv_block(tl.load(source_blocks + bh * kept), tokens, target, BLOCK)
        place -= BLOCK - (first_end - first_start)
    within, columns = tl.arange(0, BLOCK), tl.arange(0, D)
    inside = (within < end - start)[:, None]
    values = tl.load(x + bh // heads * stride_b + bh % heads * stride_h + (start + within).to(tl.int64)[:, None] * stride_n + columns, mask=inside)
    tl.store(out + g * stride_oh + (place + within).to(tl.int64)[:, None] * stride_on + columns, values, mask=inside)


def gather_kv_set(x, *, head_index, source_blocks, length, target, block_size=64):
    _, heads, tokens, dim = x.shape
    kept = source_blocks.shape[-1]
    out = _token_major(len(head_index), length, dim, x)
    _gather_kv_set[len(head_index), -(-target // block_size) + kept](x, out, head_index, source_blocks, *x.stride()[:3], *out.stride()[:2], heads, tokens,
                                                                     target, kept, BLOCK=block_size, D=dim, num_warps=4)
    return out


@triton.jit
def _write_query_blocks(values, head_index, blocks, residual, gate, out, stride_vh, stride_vn, stride_b, stride_h, stride_n, heads, tokens, sequence_blocks,
                        BLOCK: tl.constexpr, D: tl.constexpr):
    g, i = tl.program_id(0).to(tl.int64), tl.program_id(1)
    bh = tl.load(head_index + g).to(tl.int64)
    b = bh // heads
    block = tl.load(blocks + bh * tl.num_programs(1) + i)
    within, columns = tl.arange(0, BLOCK), tl.arange(0, D)
    rows = block * BLOCK + within
    inside = rows < tokens
    x = tl.load(values + g * stride_vh + (i * BLOCK + within).to(tl.int64)[:, None] * stride_vn + columns, mask=inside[:, None], other=0.0)
    pooled = tl.load(residual + (bh * sequence_blocks + block) * D + columns)
    weight = tl.load(gate + b * tokens + rows, mask=inside, other=0.0)
    x = x.to(tl.float32) + weight[:, None] * pooled[None, :]
    tl.store(out + b * stride_b + bh % heads * stride_h + rows.to(tl.int64)[:, None] * stride_n + columns, x.to(out.dtype.element_ty), mask=inside[:, None])


def write_query_blocks(values, *, head_index, query_blocks, residual, gate, out, block_size=64):
    _, heads, tokens, dim = out.shape
    _write_query_blocks[len(head_index), query_blocks.shape[-1]](values, head_index, query_blocks, residual, gate, out, *values.stride()[:2], *out.stride()[:3],
                                                                 heads, tokens, residual.shape[2], BLOCK=block_size, D=dim, num_warps=4)


@triton.jit
def _sparse_attention(q, k, v, k_mean, v_mean, blocks, kv_set, exact_blocks, is_exact, residual, gate, out,
                      stride_qb, stride_qh, stride_qn, stride_kb, stride_kh, stride_kn, stride_vb, stride_vh, stride_vn, stride_ob, stride_oh, stride_on,
                      heads, tokens, target, in_set, exact_count, kv_blocks, sequence_blocks, scale,
                      BLOCK: tl.constexpr, D: tl.constexpr, MEANS: tl.constexpr, TAILS: tl.constexpr):
    i, bh = tl.program_id(0), tl.program_id(1).to(tl.int64)
    b, h = bh // heads, bh % heads
    row = bh * tl.num_programs(0) + i
    block = tl.load(blocks + row)
    within, columns = tl.arange(0, BLOCK), tl.arange(0, D)
    rows = block * BLOCK + within
    inside = rows < tokens
    queries = tl.load(q + b * stride_qb + h * stride_qh + rows.to(tl.int64)[:, None] * stride_qn + columns, mask=inside[:, None], other=0.0)
    # A product by a power of two is exact, and makes the compiler keep the queries in registers. Shared memory is what
    # limits how many programs a multiprocessor runs side by side: 64 KiB in place of 80 means three, and 14 % less time.
    queries = (queries * 0.125).to(queries.dtype)
    k += b * stride_kb + h * stride_kh
    v += b * stride_vb + h * stride_vh
    offset_k = within[:, None] * stride_kn + columns
    offset_v = within[:, None] * stride_vn + columns

    top = tl.full([BLOCK], float("-inf"), tl.float32)  # running maximum of the scores, before scaling
    total = tl.zeros([BLOCK], tl.float32)
    answer = tl.zeros([BLOCK, D], tl.float32)

    exact_blocks += row * exact_count
    for e in range(0, exact_count):
        j = tl.load(exact_blocks + e)
        if TAILS:
            start, end = _kv_block(j, tokens, target, BLOCK)
            attended = within < end - start
            start = start.to(tl.int64)
            keys = tl.load(k + start * stride_kn + offset_k, mask=attended[:, None], other=0.0)
            values = tl.load(v + start * stride_vn + offset_v, mask=attended[:, None], other=0.0)
            scores = tl.where(attended[None, :], tl.dot(queries, tl.trans(keys)), float("-inf"))
        else:
            start = j.to(tl.int64) * BLOCK
            keys = tl.load(k + start * stride_kn + offset_k)
            values = tl.load(v + start * stride_vn + offset_v)
            scores = tl.dot(queries, tl.trans(keys))
        new_top = tl.maximum(top, tl.max(scores, axis=1))
        weights = tl.exp2(scores * scale - (new_top * scale)[:, None])
        rescale = tl.exp2((top - new_top) * scale)
        total = total * rescale + tl.sum(weights, axis=1)
        answer = tl.dot(weights.to(values.dtype), values, answer * rescale[:, None])
        top = new_top

    # All other blocks of the KV set through their means, each with the weight of its length: log2 of it on the score.
    top *= scale
    lane = tl.arange(0, MEANS)
    k_mean += bh * in_set * D
    v_mean += bh * in_set * D
    for c in range(0, in_set, MEANS):
        position = c + lane
        in_range = position < in_set
        j = tl.load(kv_set + bh * in_set + position, mask=in_range, other=0)
        attended = in_range & (tl.load(is_exact + row * kv_blocks + j) == 0)
        keys = tl.load(k_mean + position[:, None] * D + columns, mask=in_range[:, None], other=0.0)
        values = tl.load(v_mean + position[:, None] * D + columns, mask=in_range[:, None], other=0.0)
        scores = tl.dot(queries, tl.trans(keys)) * scale
        if TAILS:
            start, end = _kv_block(j, tokens, target, BLOCK)
            scores += tl.log2((end - start).to(tl.float32))[None, :]
        else:
            scores += tl.log2(BLOCK * 1.0)
        scores = tl.where(attended[None, :], scores, float("-inf"))
        new_top = tl.maximum(top, tl.max(scores, axis=1))
        weights = tl.exp2(scores - new_top[:, None])
        rescale = tl.exp2(top - new_top)
        total = total * rescale + tl.sum(weights, axis=1)
        answer = tl.dot(weights.to(values.dtype), values, answer * rescale[:, None])
        top = new_top

    pooled = tl.load(residual + (bh * sequence_blocks + block) * D + columns)
    weight = tl.load(gate + b * tokens + rows, mask=inside, other=0.0)
    answer = answer / total[:, None] + weight[:, None] * pooled[None, :]
    tl.store(out + b * stride_ob + h * stride_oh + rows.to(tl.int64)[:, None] * stride_on + columns, answer.to(out.dtype.element_ty), mask=inside[:, None])


def sparse_attention(q, k, v, *, k_mean, v_mean, query_blocks, source_blocks, exact_blocks, residual, gate, target, out, block_size=64):
    batch, heads, tokens, dim = q.shape
    kv_blocks = k_mean.shape[2]
    of_target = torch.arange(-(-target // block_size), dtype=torch.int32, device=q.device).expand(batch, heads, -1)
    kv_set = torch.cat([of_target, source_blocks], dim=-1)
    k_mean, v_mean = (torch.gather(x, 2, kv_set.long().unsqueeze(-1).expand(-1, -1, -1, dim)).to(q.dtype) for x in (k_mean, v_mean))
    is_exact = torch.zeros(*query_blocks.shape, kv_blocks, dtype=torch.int8, device=q.device).scatter_(3, exact_blocks.long(), 1)
    _sparse_attention[query_blocks.shape[-1], batch * heads](
        q, k, v, k_mean, v_mean, query_blocks, kv_set, exact_blocks, is_exact, residual, gate, out,
        *q.stride()[:3], *k.stride()[:3], *v.stride()[:3], *out.stride()[:3],
        heads, tokens, target, kv_set.shape[-1], exact_blocks.shape[-1], kv_blocks, residual.shape[2], 8 * dim**-0.5 * LOG2E,
        BLOCK=block_size, D=dim, MEANS=64, TAILS=tokens % block_size > 0 or target % block_size > 0, num_warps=4, **_sparse_options(q.device, dim))


@functools.cache
def _sparse_options(device, dim):
    """Three programs side by side on a multiprocessor of Hopper, see `_sparse_attention`; elsewhere what fits."""
    hopper = device.type == "cuda" and torch.cuda.get_device_capability(device) == (9, 0)
    return {"num_stages": 2, "maxnreg": 168} if hopper and dim == 128 else {"num_stages": 2}


def _token_major(heads, tokens, dim, like):
    """[heads, tokens, dim] whose heads lie side by side per token, the order that FlashAttention reads without a copy."""
    return torch.empty(tokens, heads, dim, dtype=like.dtype, device=like.device).transpose(0, 1)
