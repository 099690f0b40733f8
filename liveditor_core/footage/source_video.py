"""A source video as the nodes hand it on, and the way back from an edit to its size."""

from collections.abc import Callable
from dataclasses import dataclass
from fractions import Fraction
from typing import NamedTuple

import torch

from .geometry import fit_frames, resize, scaled_size
from .timing import frame_indices, take_frames


class OutputForm(NamedTuple):
    """How an edit is given out: at the rate and the size it was edited at, or at those of its source."""

    original_rate: bool
    original_size: bool


AS_EDITED = OutputForm(original_rate=False, original_size=False)


@dataclass(frozen=True)
class SourceVideo:
    """A source video as the sampler reads it, and what is needed to put the edit back in its place.

    Args:
        latent: [1, 16, T, H, W] raw VAE latent.
        width, height: pixels of the edit.
        frames, fps: of the edit, before padding to 4n + 1 frames.
        original_width, original_height, original_frames, original_fps: of the part of the source that is edited.
        first_frame: where in the whole source that part begins.
        fit: how the source was fitted into the edit's size.
        audio: the host's AUDIO of that part, or None.
        read_original: gives the original frames again.  # [original_frames, H, W, 3]
    """

    latent: torch.Tensor
    width: int
    height: int
    frames: int
    fps: Fraction
    original_width: int
    original_height: int
    original_frames: int
    original_fps: Fraction
    first_frame: int
    fit: str
    audio: dict | None
    read_original: Callable[[], torch.Tensor]

    def edited_indices(self) -> list[int]:
        """Which original frame each edited one was made from."""
        return frame_indices(self.original_frames, self.original_fps, self.fps)[: self.frames]

    def shown_indices(self) -> list[int]:
        """Which edited frame is shown at the time of each original one."""
        indices = frame_indices(self.frames, self.fps, self.original_fps)[: self.original_frames]
        return indices + indices[-1:] * (self.original_frames - len(indices))  # rounding may leave the last frame out

    def read_frames(self, form: OutputForm) -> torch.Tensor:
        """The unedited frames that an output stands for, read again from the source.  # [F, H, W, 3]"""
        frames = self.read_original()
        if not form.original_rate:
            frames = take_frames(frames, self.edited_indices())
        return frames if form.original_size else fit_frames(frames, self.width, self.height, self.fit)


def restore_size(frames: torch.Tensor, source: SourceVideo, original: Callable[[], torch.Tensor]) -> torch.Tensor:
    """Undo `fit_frames`: bring an edit back to the size of its source.

    Where the source was cropped, the edit covers what was kept, and the cut-off border is the source's own.

    Args:
        frames: [F, source.height, source.width, C].
        original: gives the source frames that belong to these.  # [F, H, W, C]

    Returns:
        [F, original_height, original_width, C].
    """
    width, height = source.original_width, source.original_height
    if source.fit == "stretch":
        return resize(frames, width, height)
    w, h = scaled_size(width, height, source.width, source.height, source.fit)
    x, y = abs(w - source.width) // 2, abs(h - source.height) // 2
    if source.fit == "pad":
        return resize(frames[:, y : y + h, x : x + w], width, height)
    left, top = round(x * width / w), round(y * height / h)
    right, bottom = round((x + source.width) * width / w), round((y + source.height) * height / h)
    inside = resize(frames, right - left, bottom - top)
    if (left, top, right, bottom) == (0, 0, width, height):
        return inside
    out = original().to(inside).clone()
    out[:, top:bottom, left:right] = inside
    return out
