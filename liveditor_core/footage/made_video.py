"""A VIDEO for the host whose frames are made one at a time whenever it is read, so that its length does not matter."""

import contextlib
import copy
import itertools
import os
import tempfile
import weakref
from abc import abstractmethod
from collections.abc import Sequence
from fractions import Fraction

import torch

from comfy_api.latest import Input, Types

from .clip import Picture, SteadyClip
from .colour import Colours
from .sound import Sound
from .writer import EncodedSound, Request, VideoForm, write_video


class MadeVideo(Input.Video):
    """Frames at a constant rate, with sound.

    Args:
        form: of the file that it is written to.
        sounds: tracks, whose second 0 is the first frame; none for silence.
        folder: for a file, where somebody asks for one.
        watch: called before frames are read one after the other; gives a function that is called with the number of
            those that are done and of all, and may raise to stop.
    """

    def __init__(self, form: VideoForm, sounds: Sequence[Sound], folder, watch):
        self.form, self.sounds, self._folder, self._watch = form, tuple(sounds), folder, watch
        self._window = (0, None)  # frames, of those that are made
        self._file = None

    @abstractmethod
    def made(self, first: int):
        """All frames from one on.  # [H, W, 3] in 0..1 each"""

    @abstractmethod
    def count(self) -> int:
        """Of all frames."""

    def __len__(self):
        first, end = self._window
        return (self.count() if end is None else end) - first

    def frames(self, first=0):
        """The frames from one on, without those that were trimmed.  # [H, W, 3] in 0..1 each"""
        return itertools.islice(self.made(self._window[0] + first), len(self) - first)

    def _watched(self):
        tick, total = self._watch(), len(self)
        for done, frame in enumerate(self.frames(), 1):
            yield frame
            tick(done, total)

    @property
    def rate(self) -> Fraction:
        return self.form.rate

    @property
    def is_trimmed(self):
        return self._window != (0, None)

    @property
    def sound(self) -> Sound | None:
        """The track that a player takes."""
        return next((sound for sound in self.sounds if sound.label.is_default), self.sounds[0] if self.sounds else None)

    def get_components(self):
        images = torch.empty(len(self), self.form.height, self.form.width, 3)
        for image, frame in zip(images, self._watched(), strict=True):
            image.copy_(frame)
        audio = self.sound and self.sound.read(self._window[0] / self.rate, len(self) / self.rate)
        return Types.VideoComponents(images=images, audio=audio, frame_rate=self.rate)

    def save_to(self, path, format="auto", codec="auto", metadata=None, bit_depth=None, crf=None, **_newer):
        path = os.fspath(path) if isinstance(path, os.PathLike) else path
        request = Request(format, codec, crf, metadata)
        form = self.form if bit_depth is None else self.form._replace(deep=bit_depth > 8)
        write_video(path, form, self._watched(), self._tracks(path, request), request)

    def _tracks(self, _path, _request):
        """For `write_video`."""
        return [self._encoded(sound) for sound in self.sounds]

    def _encoded(self, sound):
        return EncodedSound(sound, self._window[0] / self.rate, len(self) / self.rate)

    def as_trimmed(self, start_time=None, duration=None, strict_duration=False):
        total = len(self) / self.rate
        start = Fraction(start_time or 0).limit_denominator(10**6)
        start = max(Fraction(0), total + start) if start < 0 else start
        wanted = Fraction(duration or 0).limit_denominator(10**6) or total - start
        if start >= total or strict_duration and start + wanted > total:
            return None
        trimmed = copy.copy(self)
        first = self._window[0] + min(len(self) - 1, round(start * self.rate))
        trimmed._window = (first, min(self._window[0] + len(self), first + max(1, round(wanted * self.rate))))
        trimmed._file = None
        return trimmed

    def get_stream_source(self):
        if self._file is None or not os.path.exists(self._file):
            handle, path = tempfile.mkstemp(suffix=".mp4", dir=self._folder)
            os.close(handle)
            weakref.finalize(self, _remove, path)
            self.save_to(path)
            self._file = path
        return self._file

    def get_dimensions(self):
        return self.form.width, self.form.height

    def get_bit_depth(self):
        return 10 if self.form.deep else 8

    def get_duration(self):
        return float(len(self) / self.rate)

    def get_frame_count(self):
        return len(self)

    def get_frame_rate(self):
        return self.rate

    def get_container_format(self):
        return "mp4"

    def as_clip(self, _check):
        """For `open_clip`: footage without a file between."""
        return _MadeClip(self)


class _MadeClip(SteadyClip):
    """A MadeVideo as footage."""

    name = "the video"

    def __init__(self, video: MadeVideo):
        form = video.form
        self._video, self.rate, self.pixel_aspect = video, form.rate, form.pixel_aspect
        self.width, self.height = form.width, form.height
        self.colours: Colours = form.colours
        self.bit_depth = 10 if form.deep else 8
        self.sound = video.sound and video.sound.later(video._window[0] / form.rate)
        self._own = self.sound
        self.notes, self.errors = [f"made by a node before, {self.width}x{self.height}"], []

    def __len__(self):
        return len(self._video)

    @property
    def sounds(self):
        if self.sound is not self._own:  # another one was given
            return super().sounds
        return tuple(sound.later(self._video._window[0] / self.rate) for sound in self._video.sounds)

    def pictures(self, start):
        first = self.first_at(start)
        for i, frame in enumerate(self._video.frames(first), first):
            yield Picture(i / self.rate, 1 / self.rate, frame)

    def rgb(self, picture):
        return picture.frame


def _remove(path):
    with contextlib.suppress(OSError):  # gone already, or still open somewhere on Windows
        os.remove(path)
