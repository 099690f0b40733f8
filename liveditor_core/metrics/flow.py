"""Motion: whether the edit moves as its source does, and whether it stays the same where that moves.

Flow from one frame to the next says for each pixel where it went: at pixel p of the first lies what the second has at
p + flow(p).
"""

import torch

from ..footage.errors import FootageError
from ..footage.geometry import resize
from .pair import Pair, share

LONGEST, SHORTEST, STRIDE = 640, 128, 8  # pixels a side that flow is estimated at; RAFT needs 128, and multiples of 8
STILL = 0.05  # pixels that the mean of both clips moves by from frame to frame; below nothing can be said of motion


def flow_size(width: int, height: int) -> tuple[int, int]:
    """The width and height that flow is estimated at."""
    scale = min(1, LONGEST / max(width, height))
    return tuple(max(SHORTEST, round(side * scale / STRIDE) * STRIDE) for side in (width, height))


def warped(picture: torch.Tensor, flow: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """What lies where a flow leads.

    Args:
        picture: [H, W, C], the second of two frames.
        flow: [2, H, W], pixels to the right and down, from the first to the second.

    Returns:
        [H, W, C], linear between pixels; and [H, W] bool, whether it lies within the picture.
    """
    height, width = flow.shape[1:]
    x = torch.arange(width, device=flow.device) + flow[0]
    y = (torch.arange(height, device=flow.device)[:, None]) + flow[1]
    grid = torch.stack([2 * x / max(1, width - 1) - 1, 2 * y / max(1, height - 1) - 1], dim=-1)
    found = torch.nn.functional.grid_sample(
        picture.movedim(-1, 0)[None], grid[None], mode="bilinear", padding_mode="border", align_corners=True
    )
    return found[0].movedim(0, -1), (x >= 0) & (x <= width - 1) & (y >= 0) & (y <= height - 1)


def seen_in_both(there: torch.Tensor, back: torch.Tensor) -> torch.Tensor:
    """Where flow there and back leads to about the same place, so that nothing hides the pixel in the second frame.

    As of Sundaram, Brox and Keutzer 2010: |there + back|^2 <= 0.01 (|there|^2 + |back|^2) + 0.5.

    Args:
        there, back: [2, H, W].

    Returns:
        [H, W] bool.
    """
    back, within = warped(back.movedim(0, -1), there)
    back = back.movedim(-1, 0)
    lengths = there.square().sum(dim=0) + back.square().sum(dim=0)
    return within & ((there + back).square().sum(dim=0) <= 0.01 * lengths + 0.5)


class Flow:
    """Of neighbouring frames.

    Args:
        estimate: flow from each of a batch of frames to one of another: two [N, H, W, 3] in 0..1 of `flow_size` to
            [N, 2, H, W] in pixels.
        every: look at each so-manieth pair of neighbours only.

    Raises:
        FootageError: the flow is not finite.
    """

    def __init__(self, estimate, every: int = 1):
        self._estimate, self._every, self._last, self._count = estimate, every, None, 0
        self._pixels = self._seen = 0
        self._apart = self._moved_edit = self._moved_source = self._error_edit = self._error_source = 0.0
        self.frames = {"warp_error_edit": [], "warp_error_source": [], "flow_similarity": []}

    def add(self, pair: Pair):
        number, self._count = self._count, self._count + 1
        looks, is_next = number and (number - 1) % self._every == 0, number % self._every == 0
        now = self._scaled(pair) if looks or is_next else None
        found = self._compare(self._last, now) if looks else (None, None, None)
        self._last = now
        for values, value in zip(self.frames.values(), found, strict=True):
            values.append(value)

    def _scaled(self, pair):
        height, width = pair.change.shape
        self._scale = torch.tensor([width, height], device=pair.change.device) / torch.tensor(
            flow_size(width, height), device=pair.change.device
        )
        return resize(torch.stack([pair.before, pair.after]), *flow_size(width, height))

    def _compare(self, last, now):
        first, second = torch.cat([last, now[:1]]), torch.cat([now, last[:1]])
        source, edit, back = flows = self._estimate(first, second).to(now)
        if not flows.isfinite().all():
            raise FootageError(
                "OPTICAL_FLOW must give finite flow, got NaN or infinity. Its file is damaged: load another."
            )
        seen = seen_in_both(source, back)
        errors = [(last[i] - warped(now[i], source)[0]).square().mean(dim=-1)[seen] for i in (1, 0)]
        scale = self._scale[:, None, None]
        apart, moved_edit, moved_source = (
            float((flow * scale).square().sum(dim=0).sqrt().sum(dtype=torch.float64))
            for flow in (edit - source, edit, source)
        )
        error_edit, error_source = (float(error.sum(dtype=torch.float64)) for error in errors)
        count, pixels = int(seen.sum()), seen.numel()
        self._pixels, self._seen = self._pixels + pixels, self._seen + count
        self._apart, self._moved_edit = self._apart + apart, self._moved_edit + moved_edit
        self._moved_source += moved_source
        self._error_edit, self._error_source = self._error_edit + error_edit, self._error_source + error_source
        return (
            share(error_edit, count),
            share(error_source, count),
            _similarity(apart, moved_edit, moved_source, pixels),
        )

    def numbers(self) -> dict:
        """Warp errors are mean squares of differences in 0..1; motion is in pixels of the pictures, a frame."""
        return {
            "warp_error_edit": share(self._error_edit, self._seen),
            "warp_error_source": share(self._error_source, self._seen),
            "similarity": _similarity(self._apart, self._moved_edit, self._moved_source, self._pixels),
            "motion_edit": share(self._moved_edit, self._pixels),
            "motion_source": share(self._moved_source, self._pixels),
            "motion_apart": share(self._apart, self._pixels),
            "seen_in_both": share(self._seen, self._pixels),
            "every": self._every,
        }


def _similarity(apart, moved_edit, moved_source, pixels):
    """1 where both move alike, 0 where one stands still or moves the other way; None where nothing moves."""
    moved = moved_edit + moved_source
    return 1 - apart / moved if moved > 2 * STILL * pixels else None
