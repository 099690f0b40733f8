"""The kernel, in Gluon: a warp that loads, and two groups of four warps that attend, 64 queries each.

In every step a group multiplies queries and keys, then the weights of the step before and their values, and makes new
weights while the second product still runs. fp8 products keep few bits of their sum, so that every step's goes to fp32.
"""

from triton.experimental import gluon
from triton.experimental.gluon import language as gl
from triton.experimental.gluon.language.nvidia.hopper import mbarrier, tma, warpgroup_mma, warpgroup_mma_wait
from triton.experimental.gluon.nvidia.hopper import TensorDescriptor

from .quantise import KEYS, ROWS

GROUP = ROWS // 2  # queries of one group of warps
STAGES = 2  # tiles of keys and of values in shared memory; more were no faster
WEIGHT_BITS = gl.constexpr(8.0)  # the largest weight is 2^8, so that fp8 (448 at most) holds 2^-17 as well


@gluon.jit
def _load(
    q,
    k,
    v,
    memory,
    row_q,
    row_k,
    row_v,
    tiles,
    M: gl.constexpr,
    N: gl.constexpr,
    D: gl.constexpr,
    S: gl.constexpr,
):
    """The last tile first: it alone may be short, and the others need no mask."""
    q_tiles, k_tiles, v_tiles, q_ready, k_ready, k_free, v_ready, v_free = memory
    mbarrier.expect(q_ready, 2 * M * D)
    for group in gl.static_range(2):
        tma.async_copy_global_to_shared(q, [row_q + group * M, 0], q_ready, q_tiles.index(group))
    for t in range(tiles):
        stage, phase = t % S, (t // S) & 1
        first = gl.where(t == 0, tiles - 1, t - 1) * N
        mbarrier.wait(k_free.index(stage), phase ^ 1)
        mbarrier.expect(k_ready.index(stage), N * D)
        tma.async_copy_global_to_shared(k, [row_k + first, 0], k_ready.index(stage), k_tiles.index(stage))
        mbarrier.wait(v_free.index(stage), phase ^ 1)
        mbarrier.expect(v_ready.index(stage), N * D)
        tma.async_copy_global_to_shared(v, [row_v, first], v_ready.index(stage), v_tiles.index(stage))


@gluon.jit
def _before_the_wait(x):
    """x, which cannot be negative, and what it is made of, computed before the next wait for a product.

    The assembler would move all of it behind the wait, and so next to nothing beside the product. It keeps an arrival
    at a barrier where it is, even one that never happens.
    """
    return gl.inline_asm_elementwise(
        "{ .reg .pred never; setp.lt.f32 never, $1, 0f00000000; @never bar.arrive 15, 256; mov.f32 $0, $1; }",
        "=f,f",
        [x],
        dtype=gl.float32,
        is_pure=False,
        pack=1,
    )


@gluon.jit
def _to_fp8(weights, M: gl.constexpr, N: gl.constexpr):
    """Four weights to an int32, in the order in which they are an operand. As single bytes they would fill a register
    each from one step to the next.
    """
    x = weights.reshape([M, N // 16, 2, 4, 2]).permute([0, 1, 3, 2, 4]).reshape([M, N // 4, 2, 2])
    even, odd = gl.split(x)
    a, c = gl.split(even)
    b, d = gl.split(odd)
    return gl.inline_asm_elementwise(
        "{ .reg .b16 low, high; cvt.rn.satfinite.e4m3x2.f32 low, $2, $1; cvt.rn.satfinite.e4m3x2.f32 high, $4, $3; "
        "mov.b32 $0, {low, high}; }",
        "=r,f,f,f,f",
        [a, b, c, d],
        dtype=gl.int32,
        is_pure=False,  # stays behind the wait: the product before still reads the registers that it writes
        pack=1,
    )


@gluon.jit
def _operand(x, LAYOUT: gl.constexpr, M: gl.constexpr, N: gl.constexpr):
    a, b, c, d = x.to(gl.int8), (x >> 8).to(gl.int8), (x >> 16).to(gl.int8), (x >> 24).to(gl.int8)
    x = gl.join(gl.join(a, c), gl.join(b, d)).reshape([M, N]).to(gl.float8e4nv, bitcast=True)
    return gl.convert_layout(x, LAYOUT, assert_trivial=True)


@gluon.jit
def _attend_group(
    memory,
    q_scale,
    k_scale,
    v_scale,
    out,
    row_q,
    first,
    queries,
    keys,
    tiles,
    stride_on,
    GROUP: gl.constexpr,
    M: gl.constexpr,
    N: gl.constexpr,
    D: gl.constexpr,
    S: gl.constexpr,
):
    q_tiles, k_tiles, v_tiles, q_ready, k_ready, k_free, v_ready, v_free = memory
    SCORES: gl.constexpr = gl.NVMMADistributedLayout(version=[3, 0], warps_per_cta=[4, 1], instr_shape=[16, N, 32])
    ANSWER: gl.constexpr = gl.NVMMADistributedLayout(version=[3, 0], warps_per_cta=[4, 1], instr_shape=[16, D, 32])
    WEIGHTS: gl.constexpr = gl.DotOperandLayout(operand_index=0, parent=ANSWER, k_width=4)
    ROWS: gl.constexpr = gl.SliceLayout(1, SCORES)
    OUT_ROWS: gl.constexpr = gl.SliceLayout(1, ANSWER)
    of_rows = gl.load(q_scale + row_q + GROUP * M + gl.arange(0, M, layout=ROWS))
    no_scores = gl.zeros([M, N], gl.int32, SCORES)
    nothing = gl.zeros([M, D], gl.float32, ANSWER)
    answer = gl.zeros([M, D], gl.float32, ANSWER)
    mine = q_tiles.index(GROUP)

    mbarrier.wait(q_ready, 0)
    mbarrier.wait(k_ready.index(0), 0)
    scores = warpgroup_mma(mine, k_tiles.index(0).permute((1, 0)), no_scores, use_acc=False, is_async=True)
    scores = warpgroup_mma_wait(0, [scores])
    mbarrier.arrive(k_free.index(0), count=1)
    scale = of_rows * gl.load(k_scale + tiles - 1)
    attended = (tiles - 1) * N + gl.arange(0, N, layout=gl.SliceLayout(0, SCORES)) < keys
    x = gl.where(attended[None, :], scores.to(gl.float32), float("-inf"))
    top = gl.max(x, axis=1) * scale
    weights = gl.exp2(x * scale[:, None] - (top - WEIGHT_BITS)[:, None])
    total = gl.sum(weights, axis=1)
    rescale = gl.full([M], 0.0, gl.float32, ROWS)
    packed = _to_fp8(weights, M, N)

    for t in range(1, tiles):
        stage, phase = t % S, (t // S) & 1
        before, before_phase = (t - 1) % S, ((t - 1) // S) & 1
        scale = of_rows * gl.load(k_scale + t - 1)
        mbarrier.wait(k_ready.index(stage), phase)
        scores = warpgroup_mma(mine, k_tiles.index(stage).permute((1, 0)), no_scores, use_acc=False, is_async=True)
        mbarrier.wait(v_ready.index(before), before_phase)
        operand = _operand(packed, WEIGHTS, M, N)
        more = warpgroup_mma(operand, v_tiles.index(before).permute((1, 0)), nothing, use_acc=False, is_async=True)
        scores = warpgroup_mma_wait(1, [scores])
        mbarrier.arrive(k_free.index(stage), count=1)
        x = scores.to(gl.float32)
        new_top = gl.maximum(top, gl.max(x, axis=1) * scale)
        new_weights = gl.exp2(x * scale[:, None] - (new_top - WEIGHT_BITS)[:, None])
        new_rescale = gl.exp2(top - new_top)
        total = _before_the_wait(total * new_rescale + gl.sum(new_weights, axis=1))
        more, total = warpgroup_mma_wait(0, [more, total])
        mbarrier.arrive(v_free.index(before), count=1)
        answer = answer * gl.convert_layout(rescale, OUT_ROWS, assert_trivial=True)[:, None] + more
        packed = _to_fp8(new_weights, M, N)
        top, rescale = new_top, new_rescale

    stage = (tiles - 1) % S
    mbarrier.wait(v_ready.index(stage), ((tiles - 1) // S) & 1)
    operand = _operand(packed, WEIGHTS, M, N)
    more = warpgroup_mma(operand, v_tiles.index(stage).permute((1, 0)), nothing, use_acc=False, is_async=True)
    more = warpgroup_mma_wait(0, [more])
    answer = answer * gl.convert_layout(rescale, OUT_ROWS, assert_trivial=True)[:, None] + more
    channels = gl.arange(0, D, layout=gl.SliceLayout(0, ANSWER))
    total = gl.convert_layout(total, OUT_ROWS, assert_trivial=True)
    answer = answer / total[:, None] * gl.load(v_scale + channels)[None, :]
    rows = first + GROUP * M + gl.arange(0, M, layout=OUT_ROWS)
    place = rows.to(gl.int64)[:, None] * stride_on + channels[None, :]
    gl.store(out + place, answer.to(out.dtype.element_ty), mask=(rows < queries)[:, None])


@gluon.jit(do_not_specialize=["queries", "keys"])
def _attend(
    q,
    k,
    v,
    q_scale,
    k_scale,
    v_scale,
    out,
    heads,
    queries,
    keys,
    padded_q,
    padded_k,
    stride_ob,
    stride_oh,
    stride_on,
    M: gl.constexpr,
    N: gl.constexpr,
    D: gl.constexpr,
    S: gl.constexpr,
):
    i, bh = gl.program_id(0), gl.program_id(1)
    tiles = gl.cdiv(keys, N)
    q_tiles = gl.allocate_shared_memory(gl.int8, [2, M, D], q.layout)
    k_tiles = gl.allocate_shared_memory(gl.int8, [S, N, D], k.layout)
    v_tiles = gl.allocate_shared_memory(gl.float8e4nv, [S, D, N], v.layout)
    q_ready = gl.allocate_shared_memory(gl.int64, [1], mbarrier.MBarrierLayout())
    k_ready = gl.allocate_shared_memory(gl.int64, [S, 1], mbarrier.MBarrierLayout())
    k_free = gl.allocate_shared_memory(gl.int64, [S, 1], mbarrier.MBarrierLayout())
    v_ready = gl.allocate_shared_memory(gl.int64, [S, 1], mbarrier.MBarrierLayout())
    v_free = gl.allocate_shared_memory(gl.int64, [S, 1], mbarrier.MBarrierLayout())
    mbarrier.init(q_ready, count=1)
    for stage in gl.static_range(S):
        mbarrier.init(k_ready.index(stage), count=1)
        mbarrier.init(k_free.index(stage), count=2)
        mbarrier.init(v_ready.index(stage), count=1)
        mbarrier.init(v_free.index(stage), count=2)
    row_q, row_k, row_v = bh * padded_q + i * (2 * M), bh * padded_k, bh * D
    k_scale += bh * (padded_k // N)
    v_scale += bh * D
    out += (bh // heads).to(gl.int64) * stride_ob + (bh % heads).to(gl.int64) * stride_oh
    memory = (q_tiles, k_tiles, v_tiles, q_ready, k_ready, k_free, v_ready, v_free)
    first = i * (2 * M)
    gl.warp_specialize(
        [
            (
                _attend_group,
                (memory, q_scale, k_scale, v_scale, out, row_q, first, queries, keys, tiles, stride_on, 0, M, N, D, S),
            ),
            (
                _attend_group,
                (memory, q_scale, k_scale, v_scale, out, row_q, first, queries, keys, tiles, stride_on, 1, M, N, D, S),
            ),
            (_load, (q, k, v, memory, row_q, row_k, row_v, tiles, M, N, D, S)),
        ],
        [4, 1],
        [240, 24],
    )


def layouts(dim):
    """How tiles of q, k and of v lie in shared memory."""
    rows, columns = (
        gl.NVMMASharedLayout(swizzle_byte_width=width, element_bitwidth=8, rank=2) for width in (dim, KEYS)
    )
    return rows, columns


def attend(q, k, v, q_scale, k_scale, v_scale, out, *, keys):
    """Write the attention of what `quantise` gives.

    Args:
        out: [B, H, Q, D] fp16 or bf16.
        keys: how many of k's rows there are, the rest being padding.
    """
    both, padded_q, dim = q.shape
    rows, columns = layouts(dim)
    _attend[padded_q // ROWS, both](
        TensorDescriptor.from_tensor(q.view(-1, dim), [GROUP, dim], rows),
        TensorDescriptor.from_tensor(k.view(-1, dim), [KEYS, dim], rows),
        TensorDescriptor.from_tensor(v.view(-1, k.shape[1]), [dim, KEYS], columns),
        q_scale,
        k_scale,
        v_scale,
        out,
        out.shape[1],
        out.shape[2],
        keys,
        padded_q,
        k.shape[1],
        *out.stride()[:3],
        M=GROUP,
        N=KEYS,
        D=dim,
        S=STAGES,
        num_warps=4,
    )
