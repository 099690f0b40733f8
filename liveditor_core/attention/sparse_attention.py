"""In-context sparse attention (arXiv 2605.04569): the method on one page.

The sequence is [target tokens | source tokens]. Every head keeps the source blocks that the target looks at most, the
sharpest query blocks attend densely to the target and those, and all other query blocks attend to a few KV blocks
exactly and to the rest through their means. What the block means alone would have answered is added back through a
gate.
"""

import torch

from .block_selection import pooled_residual, select_blocks, take_blocks
from .config import SparseAttentionConfig
from .differentiable_attention import differentiable_attention
from .head_groups import all_heads, heads_by_length, in_groups
from .kept_source import KeptSource
from .plan import plan_attention
from .token_layout import TokenLayout


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
    keep=None,
    kept: KeptSource | None = None,
    answered=None,
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
        keep: called with the KeptSource of this call.
        kept: the source of an earlier call, in place of what q, k and v have of it, which may be anything: see
            `with_room`. It is written into k and v, heads keep the source blocks that they kept there, and nothing but
            the target is answered.
        answered: called with `out` and the numbers of heads, b * H + h, of which it holds everything now, as the GPU
            comes to it: with some of them at a time, until all have been named.

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
        return differentiable_attention(q, k, v, gate, layout=layout, config=config)
    plan = plan_attention(layout=layout, config=config, device=q.device, dtype=q.dtype, head_dim=q.shape[-1])
    kernels = plan.kernels
    cut = {"target": layout.target, "block_size": layout.block_size}

    # 1. Block means of q, k, v.
    if kept is None:
        means = [kernels.block_means(x, **cut) for x in (q, k, v)]
    else:
        means = kept.means_beside(q, k, v, layout, kernels)
        kept.fill_in(k, v, layout)
        needed = layout.target
    out = torch.empty_like(q) if out is None else out

    if plan.dense_everywhere:
        if watch is not None:
            watch(None, plan.reasons[0])
        if keep is not None:
            keep(KeptSource.of(k, v, means, _blocks(layout.num_target_kv_blocks, layout.num_kv_blocks, q), layout))
        residual = pooled_residual(*means, layout=layout)
        blocks = _blocks(0, -(-(needed or layout.tokens) // layout.block_size), q)
        every_head, heads = all_heads(q).view(q.shape[:2]), q.shape[1]
        for part in in_groups(q.shape[1], q, tokens=2 * layout.tokens * q.shape[0]):
            rows = min(layout.tokens, blocks.shape[-1] * layout.block_size)  # whole blocks: kernels read no fewer
            answer = dense_attention(q[:, part, :rows], k[:, part], v[:, part]).flatten(0, 1)
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
            if answered is not None:
                answered(out, [b * heads + h for b in range(len(q)) for h in range(heads)[part]])
        return out

    # 2. Attention between the means chooses the blocks, and its own answer is the pooled residual.
    chosen, residual = select_blocks(
        *means, layout=layout, config=config, kernels=kernels, source=None if kept is None else kept.blocks
    )
    if watch is not None:
        watch(chosen, None)
    if needed is not None:
        chosen = chosen.for_queries_below(-(-needed // layout.block_size))
    sparse = chosen.sparse
    # A kernel in 8 bits makes smaller copies of what is gathered.
    copies = 1 if config.attention_bits == 16 else 2
    write = {"residual": residual, "gate": gate, "out": out, "block_size": layout.block_size}

    source_blocks = sparse.kv_set[:, :, layout.num_target_kv_blocks :].contiguous()
    if keep is not None:
        keep(KeptSource.of(k, v, means, source_blocks, layout))
    groups = heads_by_length(source_blocks, layout)

    # 3. The sparse half: exact and mean KV blocks in one softmax.
    if sparse.query_blocks.shape[-1] > 0:
        k_mean, v_mean = (take_blocks(x, sparse.kv_set) for x in means[1:])
        kernels.sparse_attention(q, k, v, k_mean=k_mean, v_mean=v_mean, blocks=sparse, target=layout.target, **write)

    # 4. The dense half: its query blocks against every token of the KV set.
    if chosen.dense_blocks.shape[-1] > 0:
        for same_length, numbers, length in groups():
            tokens = copies * (chosen.dense_blocks.shape[-1] * layout.block_size + length)
            for part in in_groups(len(same_length), q, tokens=tokens):
                head_index = same_length[part]
                rows = kernels.gather_query_blocks(
                    q, head_index=head_index, query_blocks=chosen.dense_blocks, block_size=layout.block_size
                )
                keys, values = (
                    kernels.gather_kv_set(x, head_index=head_index, source_blocks=source_blocks, length=length, **cut)
                    for x in (k, v)
                )
                rows = dense_attention(rows.unsqueeze(0), keys.unsqueeze(0), values.unsqueeze(0)).squeeze(0)
                kernels.write_query_blocks(rows, head_index=head_index, query_blocks=chosen.dense_blocks, **write)
                del rows, keys, values  # before the next group's are gathered
                if answered is not None:
                    answered(out, numbers[part])
    elif answered is not None:
        answered(out, list(range(q.shape[0] * q.shape[1])))
    return out


def _blocks(first, end, q):
    """The blocks from `first` on and before `end`, for every head.  # [B, H, end - first] int32"""
    return torch.arange(first, end, dtype=torch.int32, device=q.device).expand(*q.shape[:2], -1).contiguous()
