"""What footage is to all others: pictures and sound in time, wherever they come from."""

import math
from abc import ABC, abstractmethod
from fractions import Fraction
from typing import NamedTuple

import torch

from .colour import BT709, Colours
from .errors import FootageError


class Picture(NamedTuple):
    """A frame of the source, as it was decoded."""

    time: Fraction  # when it begins to show, in seconds of the clip
    duration: Fraction  # how long, as far as the file says
    frame: object  # for Clip.rgb


class Clip(ABC):
    """Pictures and sound in time. Second 0 is the first picture; nothing is kept of what was read.

    Attributes:
        name: for messages.
        check: called with the time of every picture that is decoded, in seconds; may raise to stop.
        width, height: pixels of a picture, upright.
        pixel_aspect: width of a pixel by its height.
        rate: nominal frames a second.
        bit_depth: of a component.
        colours: of the pictures that are given, not of the file.
        sound: Sound, or None.
        sound_is_whole: whether `sound` is all that the file has, so that it may be taken over as it is.
        notes: lines about what was found, for people.
        errors: what was damaged in the last reading.
        header_length: seconds that the clip lasts as far as is known without reading it, or None.
        has_header: whether the file says that, so that one that ends before was cut off.
    """

    name = "the input"
    check = staticmethod(lambda time: None)
    pixel_aspect = Fraction(1)
    bit_depth = 8
    has_alpha = False
    colours: Colours = BT709
    sound = None
    sound_is_whole = False
    header_length, has_header = None, False

    @property
    def sounds(self) -> tuple:
        """Every sound track, as Sounds in the order of the file; `sound` is one of them."""
        return () if self.sound is None else (self.sound,)

    @abstractmethod
    def pictures(self, start: Fraction):
        """Every picture from the one that shows at `start`, or the last one, as Pictures with rising times."""

    @abstractmethod
    def rgb(self, picture: Picture) -> torch.Tensor:
        """[height, width, 3] in 0..1, or 4 with alpha."""

    @abstractmethod
    def length(self) -> Fraction:
        """Seconds up to the end of the last picture."""

    @abstractmethod
    def count_before(self, time: Fraction) -> int:
        """How many pictures begin to show before a time."""

    def begin_at(self, time: Fraction) -> Fraction:
        """When a part begins that is asked for from a time on: with the next picture, if that is about to come."""
        begin = self.next_after(time)
        return begin if begin is not None and begin - time < 1 / self.rate else time

    @abstractmethod
    def next_after(self, time: Fraction) -> Fraction | None:
        """When the first picture begins to show that does not before a time, or None."""

    def require_unchanged(self):
        """Refuse with SourceChanged if the source is no longer what was opened; what lies in memory always is."""
        return

    def frames_at(self, times, *, alpha=False, fit=lambda frame: frame, seen=None, until=None):
        """The pictures that show at given times, up to the end of the clip.

        Args:
            times: seconds, rising.
            alpha: give transparency as well.
            fit: what is done with every picture, once; what it gives is kept while the picture shows.
            seen: a list to which every picture that showed is added, without its frame.
            until: read on to this time, for `seen`.

        Yields:
            What `fit` gives of [height, width, 3] in 0..1, 4 with alpha; at least once.
        """
        times = iter(times)
        wanted = next(times, None)
        if wanted is None:
            return
        channels, shown, made, given = 4 if alpha else 3, None, None, False
        for picture in self.pictures(wanted):
            while shown is not None and wanted is not None and wanted < picture.time:
                made = fit(self.rgb(shown)[..., :channels]) if made is None else made
                yield made
                given, wanted = True, next(times, None)
            if wanted is None and (until is None or picture.time >= until):
                return
            if seen is not None:
                seen.append(picture._replace(frame=None))
            shown, made = picture, None
        if shown is None:
            raise FootageError(
                f"{self.name}: must have at least one frame in this part, got none. Choose another part."
            )
        end = shown.time + shown.duration
        while wanted is not None and (wanted < end or not given):
            made = fit(self.rgb(shown)[..., :channels]) if made is None else made
            yield made
            given, wanted = True, next(times, None)


class SteadyClip(Clip):
    """A clip whose frames come at a constant rate."""

    @abstractmethod
    def __len__(self):
        """How many frames it has."""

    @property
    def header_length(self):
        return self.length()

    def first_at(self, time: Fraction) -> int:
        """The number of the frame that shows at a time, or of the last one."""
        return min(len(self) - 1, max(0, int(time * self.rate)))

    def length(self):
        return len(self) / self.rate

    def count_before(self, time):
        return min(len(self), math.ceil(time * self.rate))

    def next_after(self, time):
        return math.ceil(time * self.rate) / self.rate
