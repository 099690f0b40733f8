"""What the target's attention needs of the source, kept from one step for the next, which then computes no source."""

from typing import NamedTuple

import torch

from ...kernels.reference import kv_block_starts
from .token_layout import TokenLayout


class KeptSource(NamedTuple):
    """Of one block of the transformer."""

    q_mean: torch.Tensor  # [B, H, source KV blocks, D] fp32, as the next two
    k_mean: torch.Tensor
    v_mean: torch.Tensor
    blocks: torch.Tensor  # [B, H, K] int32, KV blocks that a head keeps, ascending
    keys: torch.Tensor  # [B, H, K * block_size, D] of their tokens, as the next; short blocks with what follows them
    values: torch.Tensor

    @classmethod
    def of(cls, k, v, means, blocks, layout: TokenLayout) -> "KeptSource":
        """Copies of what a computed source leaves behind.

        Args:
            k, v: [B, H, N, D].
            means: of q, k and v, [B, H, KV blocks, D] fp32.
            blocks: [B, H, K] int32.
        """
        rows = _rows(blocks, layout, k.shape[-1])
        return cls(
            *(mean[:, :, layout.num_target_kv_blocks :].clone() for mean in means),
            blocks.clone(),
            *(torch.gather(x, 2, rows) for x in (k, v)),
        )

    def apart(self, prompts: int) -> "list[KeptSource]":
        """The same for each of so many prompts of one batch."""
        return [KeptSource(*part) for part in zip(*(x.chunk(prompts) for x in self), strict=True)]

    @classmethod
    def together(cls, parts: "list[KeptSource]") -> "KeptSource":
        """The prompts of one batch."""
        return cls(*(torch.cat(x) for x in zip(*parts, strict=True)))

    def fill_in(self, k, v, layout: TokenLayout):
        """Write the kept tokens where they lie in k and v, [B, H, N, D]; the others of the source stay."""
        rows = _rows(self.blocks, layout, k.shape[-1])
        for x, kept in ((k, self.keys), (v, self.values)):
            x.scatter_(2, rows, kept)

    def means_beside(self, q, k, v, layout: TokenLayout, kernels):
        """Block means of the target's tokens in q, k and v, [B, H, N, D], before the kept ones.

        Returns:
            Three times [B, H, KV blocks, D] fp32.
        """
        cut = {"target": layout.target, "block_size": layout.block_size}
        own = (
            kernels.block_means(x[:, :, : layout.target], **cut)[:, :, : layout.num_target_kv_blocks] for x in (q, k, v)
        )
        kept = self.q_mean, self.k_mean, self.v_mean
        return [torch.cat(both, dim=2) for both in zip(own, kept, strict=True)]


def with_room(x, layout: TokenLayout):
    """The target's tokens with room for the source behind them.

    Args:
        x: [B, target, ...].

    Returns:
        [B, N, ...], behind the target anything that is finite where a kernel reads.
    """
    out = x.new_empty(x.shape[0], layout.tokens, *x.shape[2:])
    out[:, : layout.target] = x
    # Kernels read whole blocks: what lies past the end of the target's last one gets no weight, but must not be NaN.
    out[:, layout.target : layout.target + layout.block_size] = 0
    return out


def bytes_of_kept_source(layout: TokenLayout, kept_blocks: int, *, num_heads, head_dim, size) -> int:
    """Of one block of the transformer, for one batch item.

    Args:
        kept_blocks: how many each head keeps.
        size: bytes of a number of keys and values.
    """
    means = 3 * layout.num_source_blocks * head_dim * 4
    return num_heads * (means + 2 * kept_blocks * layout.block_size * head_dim * size)


def _rows(blocks, layout, head_dim):
    """Tokens of KV blocks, as many for short ones.  # [B, H, K * block_size, D] int64, D times the same"""
    starts = kv_block_starts(
        tokens=layout.tokens, target=layout.target, block_size=layout.block_size, device=blocks.device
    )
    rows = starts[blocks.long()].unsqueeze(-1) + torch.arange(layout.block_size, device=blocks.device)
    return rows.clamp_max(layout.tokens - 1).flatten(2).unsqueeze(-1).expand(-1, -1, -1, head_dim)
