"""In-context sparse attention (arXiv 2605.04569): the method on one page.

The sequence is [target tokens | source tokens]. Every head keeps the source blocks that the target looks at most, the
sharpest query blocks attend densely to the target and those, and all other query blocks attend to a few KV blocks exactly
and to the rest through their means. What the block means alone would have answered is added back through a gate.
"""

import torch

from ..kernels import backend_for
from .block_selection import pooled_residual, select_blocks
from .config import SparseAttentionConfig
from .token_layout import TokenLayout


def in_context_sparse_attention(q, k, v, gate, *, layout: TokenLayout, config: SparseAttentionConfig, dense_attention):
    """Self-attention over target and source tokens.

    Args:
        q, k, v: [B, H, N, D], N = layout.tokens; any strides.
        gate: [B, N] fp32, weight of the pooled residual per token.
        dense_attention: callable (q, k, v) -> out on [B, H, tokens, D], the fastest dense attention at hand.

    Returns:
        [B, H, N, D], dtype of q.

    Raises:
        ValueError: the tensors do not fit the layout.
        BackendUnavailable: the backend that the settings name cannot run here.
    """
    if q.shape[2] != layout.tokens or k.shape != q.shape or v.shape != q.shape or gate.shape != (q.shape[0], q.shape[2]):
        raise ValueError(f"Sparse attention: q, k, v must be [B, H, {layout.tokens}, D] and the gate [B, {layout.tokens}], "
                         f"got {tuple(q.shape)}, {tuple(k.shape)}, {tuple(v.shape)} and {tuple(gate.shape)}.")
    dense_everywhere = config.backend == "dense" or layout.num_target_blocks == 0
    kernels = backend_for("auto" if config.backend == "dense" else config.backend, q.device)
    cut = {"target": layout.target, "block_size": layout.block_size}

    # 1. Block means of q, k, v.
    q_mean, k_mean, v_mean = (kernels.block_means(x, **cut) for x in (q, k, v))
    out = torch.empty_like(q)

    if dense_everywhere:
        residual = pooled_residual(q_mean, k_mean, v_mean, layout=layout)
        blocks = torch.arange(layout.num_blocks, dtype=torch.int32, device=q.device).expand(*q.shape[:2], -1)
        kernels.write_query_blocks(dense_attention(q, k, v), query_blocks=blocks, residual=residual, gate=gate, out=out, block_size=layout.block_size)
        return out

    # 2. Attention between the means chooses the blocks, and its own answer is the pooled residual.
    chosen, residual = select_blocks(q_mean, k_mean, v_mean, layout=layout, config=config, kernels=kernels)
    add = {"residual": residual, "gate": gate, "out": out, "block_size": layout.block_size}

    # 3. The dense half: its query blocks against every token of the KV set.
    if chosen.dense_blocks.shape[-1] > 0:
        rows = kernels.gather_query_blocks(q, query_blocks=chosen.dense_blocks, block_size=layout.block_size)
        values = _dense_half(rows, k, v, chosen.source_blocks, layout, kernels, dense_attention)
        kernels.write_query_blocks(values, query_blocks=chosen.dense_blocks, **add)

    # 4. The sparse half: exact and mean KV blocks in one softmax.
    if chosen.sparse_blocks.shape[-1] > 0:
        kernels.sparse_attention(q, k, v, k_mean=k_mean, v_mean=v_mean, query_blocks=chosen.sparse_blocks,
                                 source_blocks=chosen.source_blocks, exact_blocks=chosen.exact_blocks, target=layout.target, **add)
    return out


def _dense_half(rows, k, v, source_blocks, layout: TokenLayout, kernels, dense_attention):
    """Dense attention of gathered query rows to each head's KV set, without masks or padding.

    A head that keeps a short block has fewer tokens than another, so heads go to the dense kernel in groups of equal
    length: one group where both streams are multiples of the block size, at most four otherwise.
    """
    if source_blocks.shape[-1] == layout.num_source_blocks:
        return dense_attention(rows, k, v)  # everything is kept
    batch_and_heads = rows.shape[:2]
    rows, k, v, source_blocks = (x.flatten(0, 1) for x in (rows, k, v, source_blocks))
    groups = {None: slice(None)}
    if layout.has_tails:
        ends = [layout.kv_block(j) for j in range(layout.num_kv_blocks)]
        lengths = torch.tensor([end - start for start, end in ends], device=k.device)[source_blocks.long()].sum(dim=-1)
        groups = {n: (lengths == n).nonzero().squeeze(-1) for n in lengths.unique().tolist()}
    out = torch.empty_like(rows)
    for heads in groups.values():
        kv = (kernels.gather_kv_set(x[heads], source_blocks=source_blocks[heads], target=layout.target, block_size=layout.block_size) for x in (k, v))
        out[heads] = dense_attention(rows[heads].unsqueeze(0), *(x.unsqueeze(0) for x in kv)).squeeze(0)
    return out.unflatten(0, batch_and_heads)
