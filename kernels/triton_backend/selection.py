"""Choosing blocks: softmax of block scores, and the largest of every row.

A program holds a row of scores.
"""

import torch
import triton
import triton.language as tl


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
def _largest(values, valid, count):
    """Whether each of a row's values is among the `count` largest, of equal ones the earlier; and how many so far."""
    keys = tl.where(valid, _ordered(values), 0)
    threshold = _threshold(keys, count)
    above, equal = keys > threshold, valid & (keys == threshold)
    missing = count - tl.sum(above.to(tl.int32), axis=0)
    chosen = above | (equal & (tl.cumsum(equal.to(tl.int32), axis=0) <= missing))
    return chosen, tl.cumsum(chosen.to(tl.int32), axis=0)


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
    chosen, so_far = _largest(tl.load(values + row * size + position, mask=valid, other=0.0), valid, count)
    tl.store(largest + row * count + so_far - 1, position, mask=chosen)
    tl.store(others + row * (size - count) + position - so_far, position, mask=valid & ~chosen)


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
    chosen, so_far = _largest(tl.load(scores + row * size + position, mask=valid, other=0.0), valid, count)
    blocks = tl.load(kv_set + row // rows_per_head * size + position, mask=chosen)
    tl.store(exact_blocks + row * count + so_far - 1, blocks, mask=chosen)
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
