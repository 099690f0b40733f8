"""Which blocks attend densely, which source blocks are kept, which KV blocks stay exact.

Ratios become indices, once.
"""

from typing import NamedTuple

import torch

from ...kernels import SparseBlocks
from .config import SparseAttentionConfig
from .token_layout import TokenLayout


class Selection(NamedTuple):
    """Indices in ascending order, int32, per batch item and head; with the sparse half's query blocks they are all."""

    dense_blocks: torch.Tensor  # [B, H, Q], the query blocks that attend densely
    sparse: SparseBlocks
    sharpness: torch.Tensor  # [B, H, query blocks] fp32: attention that the sharpest places get

    def for_queries_below(self, block):
        """The same without query blocks from `block` on. Waits for the GPU.

        Some heads keep a few of those, because others need as many.
        """
        dense, sparse = torch.stack(
            [
                (blocks < block).sum(dim=-1).amax() if blocks.shape[-1] else blocks.new_zeros((), dtype=torch.int64)
                for blocks in (self.dense_blocks, self.sparse.query_blocks)
            ]
        ).tolist()
        return Selection(
            self.dense_blocks[..., :dense].contiguous(),
            SparseBlocks(
                self.sparse.query_blocks[..., :sparse].contiguous(),
                self.sparse.kv_set,
                self.sparse.exact_blocks[:, :, :sparse].contiguous(),
                self.sparse.is_exact[:, :, :sparse].contiguous(),
            ),
            self.sharpness,
        )


def query_block_means(means, layout: TokenLayout):
    """Means of query blocks from means of KV blocks: they differ only in the block over the border.

    Args:
        means: [B, H, KV blocks, D] fp32.

    Returns:
        [B, H, query blocks, D] fp32.
    """
    if layout.num_kv_blocks == layout.num_blocks:
        return means
    i = layout.num_target_blocks
    start, end = layout.query_block(i)
    share = (layout.target - start) / (end - start)
    border = share * means[:, :, i : i + 1] + (1 - share) * means[:, :, i + 1 : i + 2]
    return torch.cat([means[:, :, :i], border, means[:, :, i + 2 :]], dim=2)


def select_blocks(q_mean, k_mean, v_mean, *, layout: TokenLayout, config: SparseAttentionConfig, kernels, source=None):
    """Apply the method's rules of retrieval, sharpness and exactness to block means.

    Args:
        q_mean, k_mean, v_mean: [B, H, KV blocks, D] fp32.
        kernels: a backend's module.
        source: [B, H, K] int32, the KV blocks of the source that each head keeps; by the rule of retrieval if None.

    Returns:
        Selection, and the pooled residual [B, H, query blocks, D] fp32: what attention between block means answers.
    """
    counts = config.counts(layout)
    n_t = layout.num_target_blocks
    queries, keys, values = (query_block_means(x, layout) for x in (q_mean, k_mean, v_mean))
    attention = torch.matmul(queries * queries.shape[-1] ** -0.5, keys.transpose(-1, -2))
    sharpness = kernels.softmax_with_top_sums(attention, columns=n_t, top=min(counts.sharpness_top, n_t))
    residual = attention @ values

    if source is None:
        source, _ = kernels.split_largest(attention[:, :, :n_t, n_t:].sum(dim=2), count=counts.kept_source)
        source = source + layout.num_target_kv_blocks
    order = -sharpness if config.dense_first == "flattest" else sharpness
    dense, sparse = kernels.split_largest(order, count=counts.dense_queries)

    target = torch.arange(layout.num_target_kv_blocks, dtype=torch.int32, device=source.device).expand(
        *source.shape[:2], -1
    )
    kv_set = torch.cat([target, source], dim=-1)
    scores = take_blocks(queries, sparse) @ take_blocks(k_mean, kv_set).transpose(-1, -2)
    exact = kernels.choose_exact(scores, kv_set=kv_set, count=counts.exact_kv)
    return Selection(dense, SparseBlocks(sparse, kv_set, *exact), sharpness), residual


def pooled_residual(q_mean, k_mean, v_mean, *, layout: TokenLayout):
    """The pooled residual alone, where attention is dense everywhere; shapes as in `select_blocks`."""
    q, k, v = (query_block_means(x, layout) for x in (q_mean, k_mean, v_mean))
    return torch.softmax(q @ k.transpose(-1, -2) * q.shape[-1] ** -0.5, dim=-1) @ v


def take_blocks(means, blocks):
    """Means of chosen blocks: [B, H, blocks, D] and [B, H, M] to [B, H, M, D]."""
    return torch.gather(means, 2, blocks.long().unsqueeze(-1).expand(-1, -1, -1, means.shape[-1]))
