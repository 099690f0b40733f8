"""Choosing blocks: softmax of block scores, and the largest of every row. A warp works on a row."""

import tilelang.language as T
import torch

from .compiling import LOG2E, compiled

WARP = 32


@T.macro
def _find_threshold(keys, steps, k, threshold, count, bit):
    """See `_threshold` of the Triton backend; a warp works on a row."""
    threshold[0] = T.cast(0, "uint32")
    bit[0] = T.cast(2147483648, "uint32")
    for _ in T.serial(32):
        count[0] = 0
        for s in T.unroll(steps):
            count[0] += T.if_then_else(keys[s] >= (threshold[0] | bit[0]), 1, 0)
        count[0] = T.warp_reduce_sum(count[0])
        if count[0] >= k:
            threshold[0] = threshold[0] | bit[0]
        if count[0] == k:
            T.loop_break()
        bit[0] = bit[0] >> T.cast(1, "uint32")


def _ordered(value):
    """uint32 keys in the order of fp32 values."""
    bits = T.reinterpret("uint32", value)
    top = T.cast(2147483648, "uint32")
    return T.if_then_else(bits >= top, ~bits, bits | top)


@compiled
def _softmax_with_top_sums(capacity, capacity_of_columns):
    R, M = T.dynamic("R, M")
    steps, steps_of_columns = capacity // WARP, capacity_of_columns // WARP

    @T.prim_func
    def softmax(scores: T.Tensor([R, M], "float32"), sums: T.Tensor([R], "float32"), columns: T.int32, top: T.int32):
        with T.Kernel(R, threads=WARP) as row:
            lane = T.get_thread_binding(0)
            x = T.alloc_local([steps], "float32")
            keys = T.alloc_local([steps_of_columns], "uint32")
            threshold, bit = T.alloc_local([1], "uint32"), T.alloc_local([1], "uint32")
            count = T.alloc_local([1], "int32")
            largest, total, at = (
                T.alloc_local([1], "float32"),
                T.alloc_local([1], "float32"),
                T.alloc_local([1], "float32"),
            )
            largest[0] = -T.infinity("float32")
            for s in T.unroll(steps):
                x[s] = -T.infinity("float32")
                if s * WARP + lane < M:
                    x[s] = scores[row, s * WARP + lane] * LOG2E
                largest[0] = T.max(largest[0], x[s])
            largest[0] = T.warp_reduce_max(largest[0])
            for s in T.unroll(steps_of_columns):
                keys[s] = T.if_then_else(s * WARP + lane < columns, _ordered(x[s]), T.cast(0, "uint32"))
            total[0] = 0
            for s in T.unroll(steps):
                x[s] = T.exp2(x[s] - largest[0])
                total[0] += x[s]
            total[0] = T.warp_reduce_sum(total[0])
            for s in T.unroll(steps):
                x[s] = x[s] / total[0]
                if s * WARP + lane < M:
                    scores[row, s * WARP + lane] = x[s]
            _find_threshold(keys, steps_of_columns, top, threshold, count, bit)
            count[0] = 0
            total[0] = 0
            at[0] = 0
            for s in T.unroll(steps_of_columns):
                if keys[s] > threshold[0]:
                    count[0] += 1
                    total[0] += x[s]
                if keys[s] == threshold[0]:
                    at[0] = T.max(at[0], x[s])
            count[0] = T.warp_reduce_sum(count[0])
            total[0] = T.warp_reduce_sum(total[0])
            at[0] = T.warp_reduce_max(at[0])
            if lane == 0:
                sums[row] = total[0] + T.cast(top - count[0], "float32") * at[0]

    return softmax


def softmax_with_top_sums(scores, *, columns, top):
    size = scores.shape[-1]
    sums = torch.empty(scores.shape[:-1], dtype=torch.float32, device=scores.device)
    _softmax_with_top_sums(_capacity(size), min(_capacity(size), _capacity(columns)))(
        scores.view(-1, size), sums.view(-1), columns, top
    )
    return sums


def _capacity(size):
    """Lengths of rows that kernels are compiled for: powers of two and those between them, multiples of 64 all."""
    power = max(64, 1 << (size - 1).bit_length())
    return power // 4 * 3 if size <= power // 4 * 3 and power > 128 else power


def _in_lanes_before(mask, lane):
    """How many bits of a ballot are of lanes before this one."""
    return T.cast(T.popcount(mask & ((T.cast(1, "uint32") << T.cast(lane, "uint32")) - T.cast(1, "uint32"))), "int32")


@T.macro
def _choose(values, row, lane, size, count, keys, chosen, steps, threshold, bit, number, missing):
    """chosen[s] is 1 where the lane's s-th value is among the `count` largest, of equal ones the earlier."""
    for s in T.unroll(steps):
        keys[s] = T.cast(0, "uint32")
        if s * WARP + lane < size:
            keys[s] = _ordered(values[row, s * WARP + lane])
    _find_threshold(keys, steps, count, threshold, number, bit)
    number[0] = 0
    for s in T.unroll(steps):
        number[0] += T.if_then_else(keys[s] > threshold[0], 1, 0)
    missing[0] = count - T.warp_reduce_sum(number[0])
    number[0] = 0  # equal ones so far
    for s in T.unroll(steps):
        equal = T.ballot(T.if_then_else(T.And(keys[s] == threshold[0], s * WARP + lane < size), 1, 0))
        before = _in_lanes_before(T.cast(equal, "uint32"), lane)
        is_equal = T.And(keys[s] == threshold[0], s * WARP + lane < size)
        chosen[s] = T.if_then_else(T.Or(keys[s] > threshold[0], T.And(is_equal, number[0] + before < missing[0])), 1, 0)
        number[0] += T.cast(T.popcount(T.cast(equal, "uint32")), "int32")


@compiled
def _split_largest(capacity):
    R, M, K, L = T.dynamic("R, M, K, L")
    steps = capacity // WARP

    @T.prim_func
    def split(
        values: T.Tensor([R, M], "float32"), largest: T.Tensor([R, K], "int32"), others: T.Tensor([R, L], "int32")
    ):
        with T.Kernel(R, threads=WARP) as row:
            lane = T.get_thread_binding(0)
            keys, chosen = T.alloc_local([steps], "uint32"), T.alloc_local([steps], "int32")
            threshold, bit = T.alloc_local([1], "uint32"), T.alloc_local([1], "uint32")
            number, missing = T.alloc_local([1], "int32"), T.alloc_local([1], "int32")
            _choose(values, row, lane, M, K, keys, chosen, steps, threshold, bit, number, missing)
            number[0] = 0  # chosen ones so far
            for s in T.unroll(steps):
                mask = T.cast(T.ballot(chosen[s]), "uint32")
                rank = number[0] + _in_lanes_before(mask, lane)
                if chosen[s] == 1:
                    largest[row, rank] = s * WARP + lane
                elif s * WARP + lane < M:
                    others[row, s * WARP + lane - rank] = s * WARP + lane
                number[0] += T.cast(T.popcount(mask), "int32")

    return split


def split_largest(values, *, count):
    size = values.shape[-1]
    if count in (0, size):  # a tensor without elements has no place in memory
        everything = torch.arange(size, dtype=torch.int32, device=values.device).expand(values.shape).contiguous()
        return (everything, everything[..., :0]) if count else (everything[..., :0], everything)
    largest = torch.empty(*values.shape[:-1], count, dtype=torch.int32, device=values.device)
    others = torch.empty(*values.shape[:-1], size - count, dtype=torch.int32, device=values.device)
    rows = values.numel() // size
    if rows:
        _split_largest(_capacity(size))(
            values.reshape(rows, size).contiguous(), largest.view(rows, count), others.view(rows, size - count)
        )
    return largest, others


@compiled
def _choose_exact(capacity):
    R, G, M, K, W = T.dynamic("R, G, M, K, W")
    steps = capacity // WARP

    @T.prim_func
    def choose(
        scores: T.Tensor([R, M], "float32"),
        kv_set: T.Tensor([G, M], "int32"),
        exact_blocks: T.Tensor([R, K], "int32"),
        is_exact: T.Tensor([R, W], "int32"),
        rows_per_head: T.int32,
    ):
        with T.Kernel(R, threads=WARP) as row:
            lane = T.get_thread_binding(0)
            keys, chosen = T.alloc_local([steps], "uint32"), T.alloc_local([steps], "int32")
            threshold, bit = T.alloc_local([1], "uint32"), T.alloc_local([1], "uint32")
            number, missing = T.alloc_local([1], "int32"), T.alloc_local([1], "int32")
            _choose(scores, row, lane, M, K, keys, chosen, steps, threshold, bit, number, missing)
            number[0] = 0
            for s in T.unroll(steps):
                mask = T.cast(T.ballot(chosen[s]), "uint32")
                rank = number[0] + _in_lanes_before(mask, lane)
                place = s * WARP + lane
                if chosen[s] == 1:
                    exact_blocks[row, rank] = kv_set[row // rows_per_head, place]
                past_end = T.cast(T.ballot(T.if_then_else(place >= M, 1, 0)), "uint32")
                if T.And(lane == 0, s < W):
                    is_exact[row, s] = T.reinterpret("int32", mask | past_end)
                number[0] += T.cast(T.popcount(mask), "int32")

    return choose


def choose_exact(scores, *, kv_set, count):
    batch, heads, rows, size = scores.shape
    exact_blocks = torch.empty(batch, heads, rows, count, dtype=torch.int32, device=scores.device)
    is_exact = torch.empty(batch, heads, rows, -(-size // 64) * 2, dtype=torch.int32, device=scores.device)
    if scores.numel():
        _choose_exact(_capacity(size))(
            scores.reshape(-1, size).contiguous(),
            kv_set.view(-1, size),
            exact_blocks.view(-1, count),
            is_exact.view(-1, is_exact.shape[-1]),
            rows,
        )
    return exact_blocks, is_exact
