"""In-context sparse attention for training: one dense attention call under a mask, so that gradients flow.

The block means are appended to the keys and values. A sparse query block sees its exact blocks as tokens and every
other block of the KV set as one key that carries the logarithm of its length; a dense one sees tokens only.
"""

import torch

from ...kernels import reference
from .block_selection import pooled_residual, select_blocks
from .config import SparseAttentionConfig
from .token_layout import TokenLayout


def differentiable_attention(q, k, v, gate, *, layout: TokenLayout, config: SparseAttentionConfig):
    """The same as `in_context_sparse_attention`, differentiable; which blocks are chosen has no gradient.

    It holds a mask of all scores and saves no time: for training on short clips.

    Args:
        q, k, v: [B, H, N, D].
        gate: [B, N] fp32.

    Returns:
        [B, H, N, D], dtype of q.
    """
    means = [reference.block_means(x, target=layout.target, block_size=layout.block_size) for x in (q, k, v)]
    residual = pooled_residual(*means, layout=layout)
    starts = reference.kv_block_starts(
        tokens=layout.tokens, target=layout.target, block_size=layout.block_size, device=q.device
    )
    lengths = starts.diff()
    query_block = torch.arange(layout.tokens, device=q.device) // layout.block_size
    kv_block = torch.repeat_interleave(torch.arange(len(lengths), device=q.device), lengths, output_size=layout.tokens)

    if config.backend == "dense" or layout.num_target_blocks == 0:
        out = torch.nn.functional.scaled_dot_product_attention(q, k, v)
    else:
        with torch.no_grad():
            as_tokens, as_means = _visible(*(x.detach() for x in means), layout=layout, config=config)
            bias = torch.cat(
                [
                    torch.where(as_tokens, 0.0, -torch.inf)[..., kv_block],
                    torch.where(as_means, lengths.log(), -torch.inf),
                ],
                dim=-1,
            )
            bias = torch.nn.functional.pad(
                bias, (0, -bias.shape[-1] % 8), value=-torch.inf
            )  # fused kernels want rows of whole vectors
            bias = bias.to(q.dtype)[:, :, query_block]
        keys, values = (
            torch.nn.functional.pad(
                torch.cat([x, mean.to(x.dtype)], dim=2), (0, 0, 0, bias.shape[-1] - x.shape[2] - mean.shape[2])
            )
            for x, mean in ((k, means[1]), (v, means[2]))
        )
        out = torch.nn.functional.scaled_dot_product_attention(q, keys, values, attn_mask=bias)
    return (out.float() + residual[:, :, query_block] * gate[:, None, :, None]).to(q.dtype)


def _visible(q_mean, k_mean, v_mean, *, layout, config):
    """Which KV blocks every query block sees token by token, and which as means.

    Two [B, H, query blocks, KV blocks] bool.
    """
    chosen, _ = select_blocks(q_mean, k_mean, v_mean, layout=layout, config=config, kernels=reference)
    as_tokens = torch.zeros(
        *q_mean.shape[:2], layout.num_blocks, layout.num_kv_blocks, dtype=torch.bool, device=q_mean.device
    )
    in_set = torch.zeros_like(as_tokens[:, :, 0]).scatter_(2, chosen.sparse.kv_set.long(), True)
    is_sparse = torch.zeros_like(as_tokens[..., 0]).scatter_(2, chosen.sparse.query_blocks.long(), True)
    exact = torch.zeros_like(as_tokens[:, :, : chosen.sparse.query_blocks.shape[-1]]).scatter_(
        3, chosen.sparse.exact_blocks.long(), True
    )
    as_tokens.scatter_(2, chosen.sparse.query_blocks.long().unsqueeze(-1).expand_as(exact), exact)
    as_tokens |= ~is_sparse.unsqueeze(-1) & in_set.unsqueeze(2)
    return as_tokens, is_sparse.unsqueeze(-1) & in_set.unsqueeze(2) & ~as_tokens
