"""Every operation in TileLang, for fp16 and bf16 on NVIDIA GPUs; what each means is said in `reference.py`.

Kernels are compiled per number of heads, head dim and dtype, and in steps of a third to a half for rows that lie in
registers, never per length. Tensors are read as [B, N, H, D]: views of that layout as they are, any other after a
copy. TileLang widens offsets to 64 bits wherever a length is not known to it.
"""

import functools
import logging

import torch

logging.getLogger("tilelang.env").setLevel(logging.ERROR)  # it warns of a library that only AMD GPUs need
import tilelang  # noqa: E402
import tilelang.language as T  # noqa: E402

LOG2E = 1.4426950408889634
WARP = 32
OPTIONS = {
    "tl.disable_warp_specialized": True,  # three small programs on a multiprocessor hide more than one with a producer
    "tl.enable_fast_math": True,
    "tl.disable_safe_memory_legalize": True,  # every index below is inside by construction
    "tl.disable_out_of_bound_warning": True,
}


def _compiled(build):
    """Compile what a builder of kernels returns, once per process, kind of GPU and arguments.

    TileLang keeps its own cache on disk.
    """

    @functools.cache
    def compile_for(target, *arguments):
        logging.info(
            f"LIVEditor: TileLang prepares {build.__name__.strip('_')}{arguments}, which takes seconds the first "
            "time on a machine"
        )
        return tilelang.compile(build(*arguments), target=target, pass_configs=OPTIONS)

    def kernel(*arguments):
        return compile_for(_target(), *arguments)

    kernel.build = build
    return kernel


def _target():
    """Of the current device, which the caller has made that of the tensors."""
    major, minor = torch.cuda.get_device_capability()
    return f"cuda -arch=sm_{major}{minor}{'a' if major >= 9 else ''}"


def _kv_start(j, target, block):
    """First token of KV block j; `TokenLayout.kv_block` says the rule."""
    of_target = (target + block - 1) // block
    return T.if_then_else(j < of_target, j * block, T.max((target // block + j - of_target) * block, target))


def _kv_end(j, tokens, target, block):
    of_target = (target + block - 1) // block
    return T.if_then_else(
        j < of_target, T.min((j + 1) * block, target), T.min((target // block + j - of_target + 1) * block, tokens)
    )


def _kv_blocks(tokens, target, block):
    return -(-target // block) + -(-tokens // block) - target // block


def _token_first(x):
    """[B, H, N, D] seen as contiguous [B, N, H, D]."""
    return x.transpose(1, 2).contiguous()


def _dtype(x):
    return str(x.dtype).removeprefix("torch.")


@_compiled
def _block_means(heads, dim, block, dtype):
    B, N, J = T.dynamic("B, N, J")

    @T.prim_func
    def means(x: T.Tensor([B, N, heads, dim], dtype), out: T.Tensor([B, heads, J, dim], "float32"), target: T.int32):
        with T.Kernel(heads, J, B, threads=WARP) as (h, j, b):
            total = T.alloc_fragment([dim], "float32")
            start = T.alloc_var("int32", init=_kv_start(j, target, block))
            end = T.alloc_var("int32", init=_kv_end(j, N, target, block))
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
    out = torch.empty(batch, heads, _kv_blocks(tokens, target, block_size), dim, dtype=torch.float32, device=x.device)
    _block_means(heads, dim, block_size, _dtype(x))(_token_first(x), out, target)
    return out


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


@_compiled
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
        before = T.cast(
            T.popcount(
                T.cast(equal, "uint32") & ((T.cast(1, "uint32") << T.cast(lane, "uint32")) - T.cast(1, "uint32"))
            ),
            "int32",
        )
        is_equal = T.And(keys[s] == threshold[0], s * WARP + lane < size)
        chosen[s] = T.if_then_else(T.Or(keys[s] > threshold[0], T.And(is_equal, number[0] + before < missing[0])), 1, 0)
        number[0] += T.cast(T.popcount(T.cast(equal, "uint32")), "int32")


@_compiled
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
                rank = number[0] + T.cast(
                    T.popcount(mask & ((T.cast(1, "uint32") << T.cast(lane, "uint32")) - T.cast(1, "uint32"))), "int32"
                )
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


@_compiled
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
                rank = number[0] + T.cast(
                    T.popcount(mask & ((T.cast(1, "uint32") << T.cast(lane, "uint32")) - T.cast(1, "uint32"))), "int32"
                )
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


@_compiled
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
        _gather_query_blocks(heads, dim, block_size, _dtype(q))(
            _token_first(q), head_index, query_blocks.flatten(0, 1), out
        )
    return out.transpose(0, 1)


@_compiled
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
            start = T.alloc_var("int32", init=_kv_start(j, target, block))
            length = T.alloc_var("int32", init=_kv_end(j, N, target, block) - start)
            # Kept blocks lie behind each other; only the first can be short with others behind it (the
            # rest of the border block).
            first_length = _kv_end(source_blocks[bh, 0], N, target, block) - _kv_start(
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
    _gather_kv_set(heads, dim, block_size, _dtype(x))(
        _token_first(x), head_index, source_blocks.flatten(0, 1), out, target
    )
    return out[:length].transpose(0, 1)


@_compiled
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
    rows = _token_first(out)
    _write_query_blocks(heads, dim, block_size, _dtype(out))(
        values.transpose(0, 1).contiguous(), head_index, query_blocks.flatten(0, 1), residual.flatten(0, 1), gate, rows
    )
    _write_back(rows, out)


def _write_back(rows, out):
    """What was written goes to `out`, if that was not written itself."""
    if rows.data_ptr() != out.data_ptr():
        out.copy_(rows.transpose(1, 2))


@_compiled
def _sparse_attention(heads, dim, block, dtype, tails):
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
            T.annotate_min_blocks_per_sm(3)
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

            for e in T.Pipelined(E, num_stages=2):
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

            for c0 in T.Pipelined(S // block, num_stages=2):
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


@_compiled
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
                        T.cast(_kv_end(j, N, target, block) - _kv_start(j, target, block), "float32")
                    ) / (8 * dim**-0.5 * LOG2E)
            for r in T.Parallel(block):
                if i * block + r < J and h == 0 and b == 0:
                    j = i * block + r
                    first = T.min(_kv_start(j, target, block), N - block)
                    bounds[0, j] = first
                    bounds[1, j] = _kv_start(j, target, block) - first
                    bounds[2, j] = _kv_end(j, N, target, block) - first

    return prepare


def sparse_attention(
    q, k, v, *, k_mean, v_mean, query_blocks, kv_set, exact_blocks, is_exact, residual, gate, target, out, block_size=64
):
    batch, heads, tokens, dim = q.shape
    size = is_exact.shape[-1] * 32
    k_padded, v_padded = (torch.empty(batch, heads, size, dim, dtype=q.dtype, device=q.device) for _ in range(2))
    weight = torch.empty(batch, heads, size, dtype=torch.float32, device=q.device)
    bounds = torch.empty(3, _kv_blocks(tokens, target, block_size), dtype=torch.int32, device=q.device)
    _prepare(heads, dim, block_size, _dtype(q))(
        k_mean, v_mean, kv_set, gate, k_padded, v_padded, weight, bounds, target
    )
    rows = _token_first(out)
    tails = tokens % block_size > 0 or target % block_size > 0
    _sparse_attention(heads, dim, block_size, _dtype(q), tails)(
        *(_token_first(x) for x in (q, k, v)),
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
    _write_back(rows, out)
