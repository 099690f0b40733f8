"""A source video as the nodes hand it on: the part that is edited, and where it lies in its clip."""

import math
from dataclasses import dataclass
from fractions import Fraction
from typing import NamedTuple

import torch

from .clip import Clip
from .geometry import Box, edited_box, fit_frames
from .timing import FRAMES_PER_LATENT, frame_at, frame_time

TRAINED_FPS = 16


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
        clip: to read it again.
        start: where in the clip the part begins, in seconds.
        stamps: when each frame of the source that shows in the part begins to, in seconds from the part's start;
            rising, the first not after 0.
        original_frames: of the part at the clip's own rate.
        fit: how the source was fitted into the edit's size.
        vae: the host's VAE that encoded it, for the frames at which windows of a long clip begin.
    """

    latent: torch.Tensor
    width: int
    height: int
    frames: int
    fps: Fraction
    clip: Clip
    start: Fraction
    stamps: tuple[Fraction, ...]
    original_frames: int
    fit: str
    vae: object = None

    @property
    def original_width(self):
        return self.clip.width

    @property
    def original_height(self):
        return self.clip.height

    @property
    def pixel_aspect(self):
        return self.clip.pixel_aspect

    @property
    def original_fps(self):
        return self.clip.rate

    def count(self, form: OutputForm) -> int:
        """Frames of an output."""
        return self.original_frames if form.original_rate else self.frames

    def rate(self, form: OutputForm) -> Fraction:
        return self.original_fps if form.original_rate else self.fps

    def size(self, form: OutputForm) -> tuple[int, int]:
        """Width and height of an output."""
        return (self.original_width, self.original_height) if form.original_size else (self.width, self.height)

    def edited_index(self, index: int, form: OutputForm) -> int:
        """Which edited frame shows at the time of a frame of an output."""
        return frame_at(frame_time(index, self.rate(form)), self.fps, self.frames) if form.original_rate else index

    def frames_before(self) -> int:
        """How many frames of the clip begin to show before the first of `stamps`."""
        return self.clip.count_before(self.start + self.stamps[0])

    def all_frames(self) -> int:
        """How many frames the whole clip has."""
        return self.clip.count_before(self.clip.length() + 1)

    def seconds(self, form: OutputForm) -> Fraction:
        return self.count(form) / self.rate(form)

    def times(self, form: OutputForm) -> list[Fraction]:
        """What time of the part each frame of an output stands for, in seconds."""
        rate = self.rate(form)
        return [frame_time(i, rate) for i in range(self.count(form))]

    def latent_at(self, time: Fraction) -> int:
        """Which latent frame stands for a time of the part, in seconds."""
        return -(-frame_at(time, self.fps, self.frames) // FRAMES_PER_LATENT)

    def latent_times(self) -> list[Fraction]:
        """What time of the part each latent frame stands for: the middle of its frames, in seconds."""
        later = range(1, self.latent.shape[2])
        return [frame_time(0, self.fps), *((FRAMES_PER_LATENT * i - 1) / self.fps for i in later)]

    @property
    def covered(self) -> Box:
        """Which part of the source's picture an edit covers that is back at its size."""
        return edited_box(
            self.original_width, self.original_height, self.width, self.height, self.fit, self.pixel_aspect
        )

    def unedited(self, form: OutputForm, first=0, *, alpha=False):
        """The frames of the source that an output stands for, read again, from one on.

        Yields:
            [H, W, 3] each, 4 with alpha.
        """
        times = [self.start + time for time in self.times(form)[first:]]
        fit = {} if form.original_size else {"fit": self.fitted}
        yield from repeat_last(self.clip.frames_at(times, alpha=alpha, **fit), len(times))

    def fitted(self, frame: torch.Tensor) -> torch.Tensor:
        """A frame of the source as it was edited.  # [H, W, C]"""
        return fit_frames(frame.unsqueeze(0), self.width, self.height, self.fit, self.pixel_aspect)[0]

    def sound(self, form: OutputForm) -> dict | None:
        """The host's AUDIO of an output."""
        sound = self.clip.sound
        return sound and sound.read(self.start, self.seconds(form))


def repeat_last(frames, count: int):
    """Frames up to a count, the last one again where they end before."""
    frame = None
    for i, frame in enumerate(frames):
        yield frame
        if i + 1 == count:
            return
    for _ in range(count - i - 1):
        yield frame


def part_length(clip_rate: Fraction, fps: Fraction, frames: int, max_frames: int, shown: Fraction) -> int:
    """How many frames of the clip's own rate lie in a part.

    Args:
        frames, fps: of the edit.
        max_frames: how many were asked for, 0 for all.
        shown: seconds up to the end of the last picture that was read.
    """
    count = round(shown * clip_rate)
    if frames == max_frames:
        count = min(count, math.ceil(frames * clip_rate / fps))
    return max(1, count)
