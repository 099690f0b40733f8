"""A source video on its way in: the part to edit, brought to size and rate, through the VAE, a few frames at a time."""

import itertools
import logging
import math
from fractions import Fraction
from typing import NamedTuple

from ..footage.errors import FootageError
from ..footage.geometry import SIZE_STEP, fit_frames, preset_size
from ..footage.reader import open_clip
from ..footage.source_report import describe
from ..footage.source_video import TRAINED_FPS, SourceVideo, part_length
from ..footage.timing import frame_time, padded_frame_count
from ..progress import check, watch
from .clips import encode_frames

CUSTOM = "custom"


class SizeWanted(NamedTuple):
    """The size to edit at, as the user asks for it."""

    preset: str  # of geometry.PRESETS, or CUSTOM
    width: int  # only for CUSTOM
    height: int
    fit: str

    def of(self, clip) -> tuple[int, int]:
        """Width and height for a clip."""
        if self.preset != CUSTOM:
            return preset_size(self.preset, clip.width, clip.height, clip.pixel_aspect)
        for label, value in (("width", self.width), ("height", self.height)):
            if value % SIZE_STEP:
                nearest = max(1, round(value / SIZE_STEP)) * SIZE_STEP
                raise FootageError(f"{label} must be a multiple of {SIZE_STEP}, got {value}. Use {nearest}.")
        return self.width, self.height


class PartWanted(NamedTuple):
    """Which part of a clip to edit, as the user asks for it."""

    start: float  # seconds
    max_frames: int  # 0 for all
    at_source_rate: bool  # else at the rate that the model was trained at


def encode_source(video, vae, size: SizeWanted, part: PartWanted, *, image_fps=0, audio=None):
    """Read, fit and encode the part of a video that is to be edited.

    Args:
        vae: the host's VAE object, of Wan 2.1.
        video, image_fps, audio: as in `open_clip`.

    Returns:
        SourceVideo, and a report of what was found.

    Raises:
        FootageError: the size is no multiple of 16, no frame after the start, or what `open_clip` raises.
    """
    if not math.isfinite(part.start):
        raise FootageError(f"start must be a number of seconds, got {part.start}. Use 0 for the beginning.")
    clip = open_clip(video, image_fps=image_fps, audio=audio, check=check)
    width, height = size.of(clip)
    fps = clip.rate if part.at_source_rate else Fraction(TRAINED_FPS)
    start = clip.begin_at(Fraction(part.start).limit_denominator(10**6))
    reading = _Reading(
        clip,
        start,
        fps,
        part.max_frames,
        lambda frame: fit_frames(frame.unsqueeze(0), width, height, size.fit, clip.pixel_aspect),
    )
    latent = encode_frames(vae, reading.frames, height, width)
    source = SourceVideo(
        latent=latent,
        width=width,
        height=height,
        frames=reading.count,
        fps=fps,
        clip=clip,
        start=start,
        stamps=reading.stamps(),
        original_frames=part_length(clip.rate, fps, reading.count, part.max_frames, reading.end - start),
        fit=size.fit,
        vae=vae,
    )
    report = describe(source, None if reading.count == part.max_frames else reading.end)
    logging.info("LIVEditor: " + "\n".join(report))
    return source, "\n".join(report)


class _Reading:
    """The frames of a part, and what is learnt of the source while they are read."""

    def __init__(self, clip, start, fps, max_frames, fit):
        self._clip, self._start, self._fps, self._fit = clip, start, fps, fit
        self._max_frames = max_frames
        self.count = 0

    def frames(self):
        """The frames of the edit, the last one again up to 4n + 1.  # [1, H, W, 3] each"""
        limit = self._max_frames or None
        total = limit or max(1, round((self._clip.length() - self._start) * self._fps))
        tick, self.count, self._seen = watch(), 0, []

        def show_way_to_start(time):
            check()
            if self.count == 0 and time < self._start:
                tick(float(time), float(self._start))

        self._clip.check = show_way_to_start
        until = None if limit is None else self._start + limit / self._fps
        indices = itertools.count() if limit is None else range(limit)
        times = (self._start + frame_time(i, self._fps) for i in indices)
        for fitted in self._clip.frames_at(times, fit=self._fit, seen=self._seen, until=until):
            if self.count == 0 and self.end <= self._start:
                lasts = max(0.0, float(self.end))
                raise FootageError(
                    f"{self._clip.name}: must have at least one frame after its start, got none after "
                    f"{float(self._start):g} s (it lasts {lasts:.2f} s). Choose another video or an earlier "
                    "start."
                )
            self._clip.check = check
            yield fitted
            self.count += 1
            tick(self.count, total)
        for _ in range(padded_frame_count(self.count) - self.count):
            yield fitted

    @property
    def end(self):
        """When the last picture that was read ends to show, in seconds of the clip."""
        return self._seen[-1].time + self._seen[-1].duration

    def stamps(self):
        """As in SourceVideo."""
        end = self._start + self.count / self._fps
        return tuple(picture.time - self._start for picture in self._seen if picture.time < end)
