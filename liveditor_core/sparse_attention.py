"""In-context sparse attention (arXiv 2605.04569): the method on one page.

The sequence is [target tokens | source tokens]. Every head keeps the source blocks that the target looks at most, the
sharpest query blocks attend densely to the target and those, and all other query blocks attend to a few KV blocks
exactly and to the rest through their means. What the block means alone would have answered is added back through a
gate.
"""

import math
from typing import NamedTuple

import torch

from ..kernels import choose_backend, sparse_from_tokens
from .block_selection import pooled_residual, select_blocks, take_blocks
from .config import SparseAttentionConfig
from .masked_attention import masked_attention
from .token_layout import TokenLayout


class Plan(NamedTuple):
    """What computes the attention of one sequence, and why."""

    backend: str
    kernels: object
    dense_everywhere: bool
    reasons: tuple


def plan_attention(*, layout: TokenLayout, config: SparseAttentionConfig, device, dtype, head_dim) -> Plan:
    """Choose a backend, and whether sparse attention is worth it at all.

    Raises:
        BackendUnavailable: the backend that the settings name cannot run here.
    """
    choice = choose_backend("auto" if config.backend == "dense" else config.backend, device, dtype, head_dim)
    reasons = [f"{name}: {reason}" for name, reason in choice.reasons.items()]
    dense_because = None
    if config.backend == "dense":
        dense_because = "the settings ask for dense attention"
    elif layout.num_target_blocks == 0:
        dense_because = f"the clip has fewer than {layout.block_size} target tokens"
    elif config.backend == "auto" and layout.tokens < sparse_from_tokens(device):
        dense_because = f"below {sparse_from_tokens(device):,} tokens dense attention is faster on this GPU"
    return Plan(
        choice.name,
        choice.module,
        dense_because is not None,
        (dense_because, *reasons) if dense_because else tuple(reasons),
    )


def compute_left(*, layout: TokenLayout, config: SparseAttentionConfig, device, dtype, head_dim) -> float:
    """Share of dense attention's multiply-adds that is really computed for one sequence."""
    plan = plan_attention(layout=layout, config=config, device=device, dtype=dtype, head_dim=head_dim)
    return 1.0 if plan.dense_everywhere else config.dense_fraction(layout)


# What the dense half gathers at once, in sizes of q: the heads are taken in groups of equal work. At the released
# settings
# that is two groups of twenty heads.
GATHERED_AT_ONCE = 1.1
SMALLEST_GROUP = 1 << 28  # bytes, below which groups save nothing worth a launch


def in_context_sparse_attention(
    q,
    k,
    v,
    gate,
    *,
    layout: TokenLayout,
    config: SparseAttentionConfig,
    dense_attention,
    out=None,
    needed=None,
    watch=None,
):
    """Self-attention over target and source tokens.

    Args:
        q, k, v: [B, H, N, D], N = layout.tokens; any strides.
        gate: [B, N] fp32, weight of the pooled residual per token.
        dense_attention: callable (q, k, v) -> out on [B, H, tokens, D], the fastest dense attention at hand.
        out: where to write, of q's shape and dtype; q itself will do, since a block of queries is read before its
            answer is written.
        watch: called with the Selection and None, or with None and why attention is dense everywhere.
        needed: how many of the first tokens must be answered, all if None; the rest of the result may then hold
            anything.

    Returns:
        [B, H, N, D], dtype of q.

    Raises:
        ValueError: the tensors do not fit the layout.
        BackendUnavailable: the backend that the settings name cannot run here.
    """
    if (
        q.shape[2] != layout.tokens
        or k.shape != q.shape
        or v.shape != q.shape
        or gate.shape != (q.shape[0], q.shape[2])
    ):
        raise ValueError(
            f"Sparse attention: q, k, v must be [B, H, {layout.tokens}, D] and the gate [B, {layout.tokens}], "
            f"got {tuple(q.shape)}, {tuple(k.shape)}, {tuple(v.shape)} and {tuple(gate.shape)}."
        )
    q, k, v = (x if x.stride(-1) == 1 else x.contiguous() for x in (q, k, v))
    if torch.is_grad_enabled() and q.requires_grad:
        return masked_attention(q, k, v, gate, layout=layout, config=config)
    plan = plan_attention(layout=layout, config=config, device=q.device, dtype=q.dtype, head_dim=q.shape[-1])
    kernels = plan.kernels
    cut = {"target": layout.target, "block_size": layout.block_size}

    # 1. Block means of q, k, v.
    q_mean, k_mean, v_mean = (kernels.block_means(x, **cut) for x in (q, k, v))
    out = torch.empty_like(q) if out is None else out

    if plan.dense_everywhere:
        if watch is not None:
            watch(None, plan.reasons[0])
        residual = pooled_residual(q_mean, k_mean, v_mean, layout=layout)
        blocks = (
            torch.arange(layout.num_blocks, dtype=torch.int32, device=q.device).expand(*q.shape[:2], -1).contiguous()
        )
        every_head = _all_heads(q).view(q.shape[:2])
        for part in _in_groups(q.shape[1], q, tokens=2 * layout.tokens * q.shape[0]):
            answer = dense_attention(q[:, part], k[:, part], v[:, part]).flatten(0, 1)
            kernels.write_query_blocks(
                answer,
                head_index=every_head[:, part].flatten(),
                query_blocks=blocks,
                residual=residual,
                gate=gate,
                out=out,
                block_size=layout.block_size,
            )
            del answer  # before the next group's
        return out

    # 2. Attention between the means chooses the blocks, and its own answer is the pooled residual.
    chosen, residual = select_blocks(q_mean, k_mean, v_mean, layout=layout, config=config, kernels=kernels)
    if watch is not None:
        watch(chosen, None)
    if needed is not None:
        chosen = chosen.for_queries_below(-(-needed // layout.block_size))
    add = {"residual": residual, "gate": gate, "out": out, "block_size": layout.block_size}

    source_blocks = chosen.kv_set[:, :, layout.num_target_kv_blocks :].contiguous()
    groups = _heads_by_length(source_blocks, layout)

    # 3. The sparse half: exact and mean KV blocks in one softmax.
    if chosen.sparse_blocks.shape[-1] > 0:
        k_mean, v_mean = (take_blocks(x, chosen.kv_set) for x in (k_mean, v_mean))
        kernels.sparse_attention(
            q,
            k,
            v,
            k_mean=k_mean,
            v_mean=v_mean,
            query_blocks=chosen.sparse_blocks,
            kv_set=chosen.kv_set,
            exact_blocks=chosen.exact_blocks,
            is_exact=chosen.is_exact,
            target=layout.target,
            **add,
        )

    # 4. The dense half: its query blocks against every token of the KV set.
    if chosen.dense_blocks.shape[-1] > 0:
        for same_length, length in groups():
            for part in _in_groups(
                len(same_length), q, tokens=chosen.dense_blocks.shape[-1] * layout.block_size + length
            ):
                head_index = same_length[part]
                rows = kernels.gather_query_blocks(
                    q, head_index=head_index, query_blocks=chosen.dense_blocks, block_size=layout.block_size
                )
                keys, values = (
                    kernels.gather_kv_set(x, head_index=head_index, source_blocks=source_blocks, length=length, **cut)
                    for x in (k, v)
                )
                rows = dense_attention(rows.unsqueeze(0), keys.unsqueeze(0), values.unsqueeze(0)).squeeze(0)
                kernels.write_query_blocks(rows, head_index=head_index, query_blocks=chosen.dense_blocks, **add)
                del rows, keys, values  # before the next group's are gathered
    return out


def _all_heads(x):
    """Every head of every batch item.  # [B * H] int32"""
    return torch.arange(x.shape[0] * x.shape[1], dtype=torch.int32, device=x.device)


def _in_groups(heads, q, *, tokens):
    """Slices of equally many heads, whose queries and answers, keys and values stay below what may lie gathered at
    once.

    Args:
        tokens: queries and keys of one head.
    """
    needed = 2 * tokens * heads * q.shape[-1] * q.element_size()
    groups = min(heads, math.ceil(needed / max(SMALLEST_GROUP, GATHERED_AT_ONCE * q.numel() * q.element_size())))
    size = math.ceil(heads / max(1, groups))
    return [slice(first, first + size) for first in range(0, heads, size)]


def _heads_by_length(source_blocks, layout: TokenLayout):
    """Heads grouped by how many tokens their KV sets hold, so that each group attends densely without masks or padding.

    A head that keeps a short block has fewer tokens than one that does not: one group where both streams are multiples
    of the block size, at most four otherwise.

    Returns:
        A function that gives the groups: head_index [G] int32 and the number of tokens. It waits for the GPU to have
        come thus far; call it after queueing more work.
    """
    whole = layout.target + source_blocks.shape[-1] * layout.block_size
    if not layout.has_tails or source_blocks.shape[-1] == 0:
        return lambda: [(_all_heads(source_blocks), whole)]
    missing = torch.zeros(source_blocks.shape[:2], dtype=torch.int32, device=source_blocks.device)
    for block in {layout.num_target_kv_blocks, layout.num_kv_blocks - 1}:  # the only source blocks that can be short
        start, end = layout.kv_block(block)
        missing += (source_blocks == block).any(dim=-1) * (layout.block_size - (end - start))
    order = missing.flatten().argsort(stable=True).to(torch.int32)
    missing = _on_its_way_to_host(missing)

    def groups():
        first = 0
        for lost, count in zip(*(x.tolist() for x in missing().unique(return_counts=True)), strict=True):
            yield order[first : first + count], whole - lost
            first += count

    return groups


def _on_its_way_to_host(x):
    """A function that gives a tensor's copy in the host's memory, and waits for no more than what was queued before
    it.
    """
    if x.device.type != "cuda":
        return x.cpu
    host = torch.empty(x.shape, dtype=x.dtype, pin_memory=True)
    host.copy_(x, non_blocking=True)
    done = torch.cuda.Event()
    done.record(torch.cuda.current_stream(x.device))

    def wait():
        done.synchronize()
        return host

    return wait
