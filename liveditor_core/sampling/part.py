"""What is sampled: the whole clip, or of an earlier edit the range to redo, in one window or several."""

from fractions import Fraction
from typing import NamedTuple

import torch

from ..footage.errors import FootageError
from ..footage.source_video import SourceVideo
from ..vae.first_frames import encode_first_frames
from .windows import TIME, WindowSize, plan_windows


class Redo(NamedTuple):
    """A range of an earlier edit that is to be edited anew, in seconds of the part."""

    earlier: dict  # the host's LATENT
    start: float
    end: float


class Part:
    """Latent frames from `start` to `stop`, with the own first frames of windows behind them."""

    def __init__(self, start: int, stop: int, size: WindowSize):
        self.start, self.stop = start, stop
        self.windows = plan_windows(start, stop, size)
        self._starts = [window.start for window in self.windows if window.own_first is not None]
        self._indices = torch.tensor([*range(start, stop), *(first - 1 for first in self._starts)])

    def of(self, whole: torch.Tensor) -> torch.Tensor:
        """Of a tensor of the whole clip; windows' own first frames get what belongs to the frame before the window."""
        return whole.index_select(TIME, self._indices.to(whole.device))

    def source_latent(self, source: SourceVideo) -> torch.Tensor:
        latent = self.of(source.latent)
        if self._starts:
            latent[:, :, self.stop - self.start :] = encode_first_frames(source, self._starts).to(latent)
        return latent

    def sampled(self, latent: torch.Tensor) -> torch.Tensor:
        """The clip's own frames of a sampled latent."""
        return latent[:, :, : self.stop - self.start]


def latents_to_redo(redo: Redo, source: SourceVideo) -> tuple[int, int]:
    """First and last latent frame, exclusive, of a range.

    Raises:
        FootageError: the earlier edit is not of this source's size, or there is nothing between start and end.
    """
    samples, seconds = redo.earlier["samples"], source.frames / source.fps
    begin, end = (Fraction(time).limit_denominator(1000) for time in redo[1:])  # as it was written, not as floats are
    if samples.shape != source.latent.shape:
        raise FootageError(
            f"earlier must be an edit of this source, {tuple(source.latent.shape)}, got {tuple(samples.shape)}. "
            "Connect the LATENT that LIVEdit Sampler made of it, with the same settings in Encode Source Video."
        )
    if not 0 <= begin < min(end, seconds):
        raise FootageError(
            f"redo to must be after redo from, and redo from before the edit ends at {float(seconds):.2f} s, got "
            f"{redo.start:g} to {redo.end:g} s. Say which seconds of the earlier edit to redo."
        )
    first = source.latent_at(begin)
    last = source.latent_at(min(end, seconds) - 1 / (2 * source.fps))
    return first, max(first, last) + 1
