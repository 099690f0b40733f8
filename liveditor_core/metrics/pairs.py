"""Frames of source and edit that show at the same time, at one size, with what had to be done for that."""

from fractions import Fraction

from ..footage.clip import Clip
from ..footage.comparison import Pairs
from ..footage.geometry import resize
from ..footage.source_video import SourceVideo

OTHER_SHAPE = Fraction(1, 200)  # by which the shapes of two clips may differ without a word


class TimedPairs(Pairs):
    """Every frame of the edit while the source lasts, with what that shows at its time.

    Both at the smaller of their sizes: enlarging one would compare it with what it cannot know.

    Args:
        before: SourceVideo, of which the frames are taken as they were edited; or VIDEO, or Clip.
        after: VIDEO, or Clip.
        check: as in Clip.

    Attributes:
        after_count: frames of the edit, those that have no pair included.
        notes: what is to be known of the comparison, lines for people.
    """

    def __init__(self, before, after, check=Clip.check):
        super().__init__(before, after, check)
        self.notes = []
        self.after_count = self.count
        self._shorten()
        self.after_size = self._edit.width, self._edit.height
        self.before_size = self._size_of_source()
        self.width, self.height = min(self.after_size, self.before_size, key=lambda size: size[0] * size[1])
        self._before_aspect = Fraction(1) if self._is_fitted else self._clip.pixel_aspect
        if (self.width, self.height) != self.after_size:
            self.pixel_aspect = self._before_aspect
        self._describe_sizes()

    @property
    def source(self) -> SourceVideo | None:
        return self._before if isinstance(self._before, SourceVideo) else None

    @property
    def before_rate(self) -> Fraction:
        return self._clip.rate

    @property
    def before_count(self) -> int:
        """How many frames the source has at its rate."""
        return max(1, round(self._clip.length() * self._clip.rate))

    def time(self, number: int) -> Fraction:
        """When in the clip of the source a pair shows, in seconds."""
        return self._clip_time(number)

    def frames(self, first=0):
        """(before, after), [height, width, 3] each."""
        for before, after in super().frames(first):
            yield before, self._sized(after)

    def _fitted(self, frame):
        frame = frame[..., :3]
        return self._sized(self.source.fitted(frame) if self._is_fitted else frame)

    @property
    def _is_fitted(self):
        """Whether frames of the source are taken as they were edited, and not as they were decoded."""
        return self.source is not None and self.before_size != (self._clip.width, self._clip.height)

    def _sized(self, frame):
        frame = frame[..., :3]
        if frame.shape[1::-1] == (self.width, self.height):
            return frame
        return resize(frame.unsqueeze(0), self.width, self.height)[0]

    def _size_of_source(self):
        """As decoded, or as it was edited, where the edit is not at the size of the source."""
        source, decoded = self.source, (self._clip.width, self._clip.height)
        return decoded if source is None or self.after_size == decoded else (source.width, source.height)

    def _shorten(self):
        """Leave out the end of an edit where its source is over."""
        end, all_frames = self._clip.length(), self.count
        while self.count > 1 and self._clip_time(self.count - 1) >= end:
            self.count -= 1
        if self.count < all_frames:
            self.notes.append(
                f"after lasts {float((all_frames - self.count) / self.rate):.2f} s longer than before: its last "
                f"{all_frames - self.count} frames were left out"
            )
        rest = end - self._edit.length()
        if self.source is None and rest > 1 / self.rate + 1 / self._clip.rate:
            self.notes.append(f"before lasts {float(rest):.2f} s longer than after: its end was left out")

    def _describe_sizes(self):
        before, after = self.before_size, self.after_size
        if before != after:
            self.notes.append(
                f"before is {before[0]}x{before[1]}, after {after[0]}x{after[1]}: compared at {self.width}x"
                f"{self.height}, the smaller of both, so that hardly any pixel can be the source's bit for bit"
            )
        shapes = [Fraction(*before) * self._before_aspect, Fraction(*after) * self._edit.pixel_aspect]
        if max(shapes) / min(shapes) - 1 > OTHER_SHAPE:
            self.notes.append(
                "their shapes differ: one was stretched onto the other, and what was cropped or padded does not lie "
                "in the same place. Connect the source from Encode Source Video, which knows how it was fitted"
            )
