"""A frame of the source and the frame of the edit that shows at the same time, with what was measured of both."""

from typing import NamedTuple

import torch

from ..footage.errors import FootageError

LEVELS = 255  # changes are told in levels, of which 8 bits have so many
BLOCK = 16  # pixels a side: what changed little is looked for in squares of this size


class Pair(NamedTuple):
    """Two pictures of one time.

    Attributes:
        before, after: [H, W, 3] float32 in 0..1.
        change: [H, W], the mean of the absolute differences of the channels.
        outside: [H, W] bool, where the mask is not; None without a mask.
        kept: [H, W] bool, the part that is asked whether it was kept: outside the mask, or the least-changed half.
    """

    before: torch.Tensor
    after: torch.Tensor
    change: torch.Tensor
    outside: torch.Tensor | None
    kept: torch.Tensor


def pair_of(before: torch.Tensor, after: torch.Tensor, outside: torch.Tensor | None) -> Pair:
    """Args as in Pair.

    Raises:
        FootageError: a value is NaN or infinite.
    """
    change = (after - before).abs_().mean(dim=-1)
    if not change.isfinite().all():
        raise FootageError(
            "before and after must be of finite values, got NaN or infinity in a frame. Whatever made it failed: make "
            "it again."
        )
    return Pair(before, after, change, outside, least_changed(change) if outside is None else outside)


def least_changed(change: torch.Tensor) -> torch.Tensor:
    """The half of the picture's blocks that changed least, the first ones where several changed alike.

    Args:
        change: [H, W].

    Returns:
        [H, W] bool.
    """
    height, width = change.shape
    means = torch.nn.functional.avg_pool2d(change[None, None], BLOCK, ceil_mode=True, count_include_pad=False)[0, 0]
    chosen = torch.zeros(means.numel(), dtype=torch.bool, device=change.device)
    chosen[means.flatten().sort(stable=True).indices[: -(-means.numel() // 2)]] = True
    blocks = chosen.view_as(means).repeat_interleave(BLOCK, dim=0).repeat_interleave(BLOCK, dim=1)
    return blocks[:height, :width]


def mean_of(values) -> float | None:
    """The mean of those that there are."""
    there = [value for value in values if value is not None]
    return sum(there) / len(there) if there else None


def share(part, whole) -> float | None:
    return part / whole if whole else None
