"""Which blocks attend densely, which source blocks are kept, which KV blocks stay exact: ratios become indices, once."""

from typing import NamedTuple

import torch

from .config import SparseAttentionConfig
from .token_layout import TokenLayout


class Selection(NamedTuple):
    """Indices in ascending order, int32, per batch item and head.

    Q + P is the number of query blocks of the sequence. Source and exact blocks are KV block indices of the layout.
    """

    dense_blocks: torch.Tensor   # [B, H, Q]
    sparse_blocks: torch.Tensor  # [B, H, P]
    source_blocks: torch.Tensor  # [B, H, K]
    exact_blocks: torch.Tensor   # [B, H, P, E]


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
    border = share * means[:, :, i:i + 1] + (1 - share) * means[:, :, i + 1:i + 2]
    return torch.cat([means[:, :, :i], border, means[:, :, i + 2:]], dim=2)


def block_attention(q_mean, k_mean, layout: TokenLayout):
    """Attention between block means.

    Args:
        q_mean, k_mean: [B, H, KV blocks, D] fp32.

    Returns:
        [B, H, query blocks, query blocks] fp32; every row sums to 1.
    """
    q_mean, k_mean = query_block_means(q_mean, layout), query_block_means(k_mean, layout)
    return torch.softmax(q_mean @ k_mean.transpose(-1, -2) * q_mean.shape[-1] ** -0.5, dim=-1)


def select_blocks(attention, q_mean, k_mean, *, layout: TokenLayout, config: SparseAttentionConfig) -> Selection:
    """Apply the method's rules of retrieval, sharpness and exactness.

    Args:
        attention: [B, H, query blocks, query blocks] from `block_attention`.
        q_mean, k_mean: [B, H, KV blocks, D] fp32.
    """
    counts = config.counts(layout)
    n_t = layout.num_target_blocks
    batch, heads = attention.shape[:2]

    relevance = attention[:, :, :n_t, n_t:].sum(dim=2)
    source = _largest(relevance, counts.kept_source).sort(dim=-1).values + layout.num_target_kv_blocks

    sharpness = attention[..., :n_t].topk(min(counts.sharpness_top, n_t), dim=-1).values.sum(dim=-1)
    if config.dense_blocks == "flattest":
        sharpness = -sharpness
    order = _largest(sharpness, layout.num_blocks)
    dense, sparse = order.tensor_split([counts.dense_queries], dim=-1)
    dense, sparse = dense.sort(dim=-1).values, sparse.sort(dim=-1).values

    target = torch.arange(layout.num_target_kv_blocks, device=source.device).expand(batch, heads, -1)
    kv_set = torch.cat([target, source], dim=-1)
    queries = _take_blocks(query_block_means(q_mean, layout), sparse)
    scores = queries @ _take_blocks(k_mean, kv_set).transpose(-1, -2)
    exact = torch.gather(kv_set.unsqueeze(2).expand(-1, -1, sparse.shape[-1], -1), 3, _largest(scores, counts.exact_kv))
    return Selection(*(t.to(torch.int32).contiguous() for t in (dense, sparse, source, exact.sort(dim=-1).values)))


def _largest(values, count):
    """Indices of the `count` largest values along the last dim, largest first; of equal values the earlier one."""
    return values.sort(dim=-1, descending=True, stable=True).indices[..., :count]


def _take_blocks(means, blocks):
    return torch.gather(means, 2, blocks.unsqueeze(-1).expand(-1, -1, -1, means.shape[-1]))
