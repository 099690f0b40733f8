"""Source and edit beside each other, frame by frame."""

from fractions import Fraction

import torch

from .geometry import fit_frames, resize
from .source_video import OutputForm, SourceVideo
from .timing import take_frames

LAYOUTS = ("side by side", "above each other", "wipe")
LARGEST_PREVIEW = 1920  # pixels a side; browsers decode twice that in hardware


def lay_out(before: torch.Tensor, after: torch.Tensor, layout: str) -> torch.Tensor:
    """Both clips in one picture, in one of LAYOUTS.  # [F, H, W, 3] each"""
    if layout == "wipe":
        return wipe(before, after)
    return torch.cat([before, after], dim=2 if layout == "side by side" else 1)


def wipe(before: torch.Tensor, after: torch.Tensor) -> torch.Tensor:
    """A border that runs once over the picture from left to right and leaves the second clip behind it.

    Args:
        before, after: [F, H, W, 3], F at least 1.

    Returns:
        [F, H, W, 3].
    """
    out, width = before.clone(), before.shape[2]
    for i in range(len(out)):
        border = round(width * i / max(1, len(out) - 1))
        out[i, :, :border] = after[i, :, :border]
        if 0 < border < width:
            out[i, :, border - 1 : border + 1] = 1
    return out


def frames_beside(before, after, fps):
    """The frames of `before` at the times of those of `after`, at their size.  # [F, H, W, 3]"""
    height, width = after.shape[1:3]
    if isinstance(before, SourceVideo):
        form = OutputForm(
            original_rate=fps == before.original_fps and len(after) % before.original_frames == 0,
            original_size=(width, height) == (before.original_width, before.original_height),
        )
        frames = before.read_frames(form)
        indices = [i % len(frames) for i in range(len(after))]  # a batch of edits comes one after the other
    else:
        parts = before.get_components()
        frames, rate = parts.images[..., :3], Fraction(parts.frame_rate)
        indices = [min(len(frames) - 1, int((i + Fraction(1, 2)) / fps * rate)) for i in range(len(after))]
    return fit_frames(take_frames(frames, indices), width, height, "pad")


def for_preview(frames):
    """Not larger than browsers play well, and of even sides, as H.264 wants them."""
    height, width = frames.shape[1:3]
    scale = min(1, LARGEST_PREVIEW / max(height, width))
    return resize(frames, max(2, round(width * scale / 2) * 2), max(2, round(height * scale / 2) * 2))
