"""Every operation in Triton, for fp16 and bf16 on NVIDIA GPUs; what each means is said in `reference.py`.

Tensors are read where they lie, through strides and block indices. Sequence lengths are run-time arguments that
Triton must not specialise on, so a new clip length compiles nothing but, past the next power of two, the kernels that
hold a row of block scores. Sums and softmax are fp32. Offsets that can pass 2^31 are int64. The last stride of every
tensor is 1.
"""

import functools

import torch
import triton
import triton.language as tl

try:
    from triton.tools.tensor_descriptor import TensorDescriptor
except ImportError:  # Triton before 3.4
    TensorDescriptor = None

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


@triton.jit(do_not_specialize=["tokens", "target"])
def _block_means(x, out, stride_b, stride_h, stride_n, heads, tokens, target, BLOCK: tl.constexpr, D: tl.constexpr):
    bh, j = (
        tl.program_id(0).to(tl.int64),
        tl.program_id(1),
    )  # neighbours work on one block of neighbouring heads, which lie side by side
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
    _block_means[batch * heads, blocks](
        x, out, *x.stride()[:3], heads, tokens, target, BLOCK=block_size, D=dim, num_warps=1
    )
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


@triton.jit(do_not_specialize=["size", "columns", "top"])
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
    _softmax_with_top_sums[(sums.numel(),)](
        scores,
        sums,
        size,
        columns,
        top,
        M=triton.next_power_of_2(size),
        C=triton.next_power_of_2(columns),
        num_warps=_row_warps(size),
    )
    return sums


@triton.jit(do_not_specialize=["size", "count"])
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
        _split_largest[(rows,)](
            values, largest, others, size, count, M=triton.next_power_of_2(size), num_warps=_row_warps(size)
        )
    return largest, others


@triton.jit(do_not_specialize=["rows_per_head", "size", "words", "count"])
def _choose_exact(scores, kv_set, exact_blocks, is_exact, rows_per_head, size, words, count, M: tl.constexpr):
    row = tl.program_id(0).to(tl.int64)
    position = tl.arange(0, M)
    valid = position < size
    keys = tl.where(valid, _ordered(tl.load(scores + row * size + position, mask=valid, other=0.0)), 0)
    threshold = _threshold(keys, count)
    above, equal = keys > threshold, valid & (keys == threshold)
    missing = count - tl.sum(above.to(tl.int32), axis=0)
    chosen = above | (equal & (tl.cumsum(equal.to(tl.int32), axis=0) <= missing))
    before = tl.cumsum(chosen.to(tl.int32), axis=0)
    blocks = tl.load(kv_set + row // rows_per_head * size + position, mask=chosen)
    tl.store(exact_blocks + row * count + before - 1, blocks, mask=chosen)
    bits = (chosen | ~valid).to(tl.int32) << (position % 32)
    word = tl.arange(0, M // 32)
    tl.store(is_exact + row * words + word, tl.sum(tl.reshape(bits, (M // 32, 32)), axis=1), mask=word < words)


def choose_exact(scores, *, kv_set, count):
    scores = scores.contiguous()
    size = scores.shape[-1]
    words = -(-size // 64) * 2
    exact_blocks = torch.empty(*scores.shape[:-1], count, dtype=torch.int32, device=scores.device)
    is_exact = torch.empty(*scores.shape[:-1], words, dtype=torch.int32, device=scores.device)
    rows = scores.numel() // size
    if rows:
        _choose_exact[(rows,)](
            scores,
            kv_set,
            exact_blocks,
            is_exact,
            scores.shape[-2],
            size,
            words,
            count,
            M=max(64, triton.next_power_of_2(size)),
            num_warps=_row_warps(size),
        )
    return exact_blocks, is_exact


def _row_warps(size):
    """Few, for the search counts across the whole row again and again."""
    return 1 if size <= 1024 else 2 if size <= 2048 else 4 if size <= 4096 else 16


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
    start, end = _kv_block(j, tokens, target, BLOCK)
    # Kept blocks lie behind each other; only the first can be short with others behind it (the rest of the border
    # block).
    place = tl.where(slot < 0, start, target + slot * BLOCK)
    if slot > 0:
        first_start, first_end = _kv_block(tl.load(source_blocks + bh * kept), tokens, target, BLOCK)
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
):
    i, bh = tl.program_id(0), tl.program_id(1)
    b, h = bh // heads, bh % heads
    bh = bh.to(tl.int64)
    row = bh * tl.num_programs(0) + i
    block = tl.load(blocks + row)
    within, columns = tl.arange(0, BLOCK), tl.arange(0, D)
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
        offset_v = within[:, None] * stride_vn + columns
        k_mean += bh * padded * D
        v_mean += bh * padded * D
        offset_mean = within[:, None] * D + columns
    # A product by a power of two is exact, and makes the compiler keep the queries in registers. Shared memory is what
    # limits how many programs a multiprocessor runs side by side: 64 KiB in place of 80 means three in place of two.
    queries = (queries * 0.125).to(queries.dtype)

    top = tl.full([BLOCK], float("-inf"), tl.float32)  # running maximum of the scores, before scaling
    total = tl.zeros([BLOCK], tl.float32)
    answer = tl.zeros([BLOCK, D], tl.float32)

    exact_blocks += row * exact_count
    for e in range(exact_count):
        j = tl.load(exact_blocks + e)
        if TAILS:
            # A short block is read with its neighbour's tokens, whose scores are masked: cheaper than to
            # mask the loads.
            start, end = _kv_block(j, tokens, target, BLOCK)
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
        scores = tl.dot(queries, tl.trans(keys))
        if TAILS:
            scores = tl.where(attended[None, :], scores, float("-inf"))
        new_top = tl.maximum(top, tl.max(scores, axis=1))
        weights = tl.exp2(scores * scale - (new_top * scale)[:, None])
        rescale = tl.exp2((top - new_top) * scale)
        total = total * rescale + tl.sum(weights, axis=1)
        answer = tl.dot(weights.to(values.dtype), values, answer * rescale[:, None])
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
            keys = tl.load(k_mean + c * D + offset_mean)
            values = tl.load(v_mean + c * D + offset_mean)
        scores = tl.dot(queries, tl.trans(keys)) * scale + tl.load(weight_of_mean + c + within)[None, :]
        scores = tl.where(is_mean[None, :], scores, float("-inf"))
        new_top = tl.maximum(top, tl.max(scores, axis=1))
        weights = tl.exp2(scores - new_top[:, None])
        rescale = tl.exp2(top - new_top)
        total = total * rescale + tl.sum(weights, axis=1)
        answer = tl.dot(weights.to(values.dtype), values, answer * rescale[:, None])
        top = new_top

    pooled = tl.load(residual + (bh * sequence_blocks + block) * D + columns)
    weight = tl.load(gate + b * tokens + rows, mask=inside, other=0.0)
    answer = answer / total[:, None] + weight[:, None] * pooled[None, :]
    tl.store(
        out
        + b.to(tl.int64) * stride_ob
        + h.to(tl.int64) * stride_oh
        + rows.to(tl.int64)[:, None] * stride_on
        + columns,
        answer.to(out.dtype.element_ty),
        mask=inside[:, None],
    )


@triton.jit(do_not_specialize=["tokens", "target", "size"])
def _pad_means(
    k_mean, v_mean, kv_set, k_out, v_out, weight, tokens, target, size, padded, BLOCK: tl.constexpr, D: tl.constexpr
):
    bh, i = tl.program_id(0).to(tl.int64), tl.program_id(1)
    place, columns = i * BLOCK + tl.arange(0, BLOCK), tl.arange(0, D)
    valid = place < size
    start, end = _kv_block(tl.load(kv_set + bh * size + place, mask=valid, other=0), tokens, target, BLOCK)
    tl.store(weight + bh * padded + place, tl.log2((end - start).to(tl.float32)))
    source, destination = bh * size * D + place[:, None] * D + columns, bh * padded * D + place[:, None] * D + columns
    tl.store(k_out + destination, tl.load(k_mean + source, mask=valid[:, None], other=0.0).to(k_out.dtype.element_ty))
    tl.store(v_out + destination, tl.load(v_mean + source, mask=valid[:, None], other=0.0).to(v_out.dtype.element_ty))


def sparse_attention(
    q, k, v, *, k_mean, v_mean, query_blocks, kv_set, exact_blocks, is_exact, residual, gate, target, out, block_size=64
):
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
    descriptors = _has_copy_engine(q.device) and all(_describable(x) for x in tensors)
    if descriptors:
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
        DESCRIPTORS=descriptors,
        num_warps=4,
        num_stages=2,
        **({"maxnreg": 168} if descriptors and dim == 128 else {}),
    )  # three programs on a multiprocessor


@functools.cache
def _has_copy_engine(device):
    """Hopper and later copy whole tiles by descriptor; a thread's addresses cost registers."""
    return TensorDescriptor is not None and device.type == "cuda" and torch.cuda.get_device_capability(device) >= (9, 0)


def _describable(x):
    """The copy engine's rule: rows of 16 aligned bytes."""
    unit = 16 // x.element_size()
    return x.data_ptr() % 16 == 0 and x.stride(-1) == 1 and all(stride % unit == 0 for stride in x.stride()[:-1])


def _token_major(heads, tokens, dim, like):
    """[heads, tokens, dim] whose heads lie side by side per token, the order that FlashAttention reads without a
    copy.
    """
    return torch.empty(tokens, heads, dim, dtype=like.dtype, device=like.device).transpose(0, 1)
