"""Source and edit beside each other, at the same times, a frame at a time."""

import functools
from fractions import Fraction

import torch

from .edited_video import EditedVideo
from .geometry import fit_frames, resize
from .made_video import MadeVideo
from .reader import open_clip
from .source_video import SourceVideo, repeat_last
from .timing import frame_time
from .writer import VideoForm

LAYOUTS = ("side by side", "above each other", "wipe")
LARGEST_PREVIEW = 1920  # pixels a side; browsers decode twice that in hardware
PREVIEW = "preview"


def lay_out(before: torch.Tensor, after: torch.Tensor, layout: str, progress: float) -> torch.Tensor:
    """Two pictures in one, in one of LAYOUTS.

    Args:
        before, after: [H, W, 3].
        progress: 0..1 through the video; of a wipe, whose border runs over the picture once, from left to right, and
            leaves the second picture behind it.
    """
    if layout != "wipe":
        return torch.cat([before, after], dim=1 if layout == "side by side" else 0)
    out, border = before.clone(), round(before.shape[1] * progress)
    out[:, :border] = after[:, :border]
    if 0 < border < before.shape[1]:
        out[:, border - 1 : border + 1] = 1
    return out


class Pairs:
    """The frames of an edit, each with what the source shows at its time.

    Args:
        before: SourceVideo, or any VIDEO.
        after: VIDEO.
        check: as in Clip.
    """

    def __init__(self, before, after, check):
        self._before, self._after = before, after
        self._clip = before.clip if isinstance(before, SourceVideo) else open_clip(before, check=check)
        self._edit = open_clip(after, check=check)
        self.rate, self.width, self.height = self._edit.rate, self._edit.width, self._edit.height
        self.pixel_aspect = self._edit.pixel_aspect
        self.sounds, self.colours = self._edit.sounds, self._edit.colours
        self.count = max(1, round(self._edit.length() * self.rate))

    def frames(self, first=0):
        """(before, after), [H, W, 3] each, of the size of the edit."""
        numbers = range(first, self.count)
        after = repeat_last(self._edit.frames_at(frame_time(i, self.rate) for i in numbers), len(numbers))
        for unedited, edit in zip(self._unedited(numbers), after, strict=True):
            yield self._fitted(unedited), edit

    def _unedited(self, numbers):
        """Frames of the source; of a batch of edits, which start over, in several readings."""
        times = [self._clip_time(i) for i in numbers]
        starts = [0, *(i for i in range(1, len(times)) if times[i] < times[i - 1]), len(times)]
        for first, end in zip(starts, starts[1:], strict=False):
            yield from repeat_last(self._clip.frames_at(times[first:end]), end - first)

    def _clip_time(self, index):
        """When in the clip of the source a frame of the edit shows."""
        if isinstance(self._before, SourceVideo):
            if isinstance(self._after, EditedVideo):
                return self._after.clip_time(index)
            return frame_time(index, self.rate) + (0 if self._is_whole_clip else self._before.start)
        return frame_time(index, self.rate)

    @functools.cached_property
    def _is_whole_clip(self):
        """Whether an edit that was loaded again is as long as the whole clip and not as the part."""
        seconds, frame = self._edit.length(), 1 / self.rate
        part = self._before.original_frames / self._before.original_fps
        return abs(seconds - part) > 2 * frame and abs(seconds - self._clip.length()) <= 2 * frame

    def _fitted(self, frame):
        frame, source, aspect = frame[..., :3], self._before, self._clip.pixel_aspect
        if isinstance(source, SourceVideo):
            if (self.width, self.height) == (source.original_width, source.original_height):
                return frame
            frame, aspect = source.fitted(frame), Fraction(1)
        return fit_frames(frame.unsqueeze(0), self.width, self.height, "pad", aspect / self.pixel_aspect)[0]


class ComparedVideo(MadeVideo):
    """Source and edit in one VIDEO.

    Args:
        layout: of LAYOUTS, or PREVIEW: side by side, not larger than browsers play well, of even sides and square
            pixels.
        folder, watch: as in MadeVideo.
    """

    def __init__(self, pairs: Pairs, layout: str, folder, watch):
        self._pairs, self._layout = pairs, layout
        width, height, aspect = pairs.width, pairs.height, pairs.pixel_aspect
        if layout == PREVIEW:
            width, aspect = width * aspect, Fraction(1)
            scale = min(1, LARGEST_PREVIEW / max(height, width))
            width, height = (max(2, round(side * scale / 2) * 2) for side in (width, height))
        self.shown = width, height
        if layout != "wipe":
            width, height = (width, 2 * height) if layout == "above each other" else (2 * width, height)
        super().__init__(
            VideoForm(width, height, pairs.rate, pairs.colours, False, aspect), pairs.sounds, folder, watch
        )

    def count(self):
        return self._pairs.count

    def made(self, first):
        for index, pair in enumerate(self._pairs.frames(first), first):
            if self._layout == PREVIEW:
                pair = [resize(frame.unsqueeze(0), *self.shown)[0] for frame in pair]
            layout = "side by side" if self._layout == PREVIEW else self._layout
            yield lay_out(*pair, layout, index / max(1, self.count() - 1))
