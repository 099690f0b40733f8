"""Where the mask of an edit is not, for every pair of frames that is compared."""

import torch

from ..footage.errors import FootageError
from ..footage.mask_sizes import Span, resample
from ..footage.regions import BLACK, MOST_OFF, Region
from ..footage.source_video import OutputForm
from ..footage.timing import frame_at, frame_time
from .pairs import TimedPairs


def outside_of(mask: torch.Tensor, pairs: TimedPairs):
    """A function of a pair's number to where the mask is not.  # [height, width] bool, of the pairs' size

    Where the source is one of Encode Source Video, the mask lies as it does in Decode Video: one of the edit's size on
    the edit's frames, any other on the whole picture of the source; outside the part that was edited it is nowhere.
    Between other clips it covers the whole picture. What is up to BLACK is outside.

    Args:
        mask: [M, H, W] in 0..1, single ones of two and of four dimensions too: one for all frames, or one for each
            frame of the edit or of the source.

    Raises:
        ValueError: another number of masks, or nothing is inside.
    """
    return _OfSource(mask, pairs) if pairs.source is not None else _OfClips(mask, pairs)


class _OfSource:
    def __init__(self, mask, pairs):
        self._pairs, source = pairs, pairs.source
        self._source = source
        self._form = OutputForm(
            original_rate=pairs.rate == source.original_fps,
            original_size=pairs.before_size == (source.original_width, source.original_height),
        )
        self._region = Region(mask, source, self._form)

    def __call__(self, number):
        pairs, source = self._pairs, self._source
        since = pairs.time(number) - source.start
        if not 0 <= since < source.seconds(self._form):
            return torch.ones(pairs.height, pairs.width, dtype=torch.bool)
        index = frame_at(since, source.rate(self._form), len(self._region))
        return _outside(self._region.weights(index), pairs.width, pairs.height)


class _OfClips:
    def __init__(self, mask, pairs):
        self._masks, self._pairs, self._kept = mask.reshape(-1, *mask.shape[-2:]), pairs, (None, None)
        self._index = self._reading()
        if not (self._masks > BLACK).any():
            raise FootageError(
                "Mask: must cover some of the picture, got one that is empty everywhere. Paint where the edit is, or "
                "connect no mask."
            )

    def _reading(self):
        """Which mask belongs to a pair."""
        count, pairs = len(self._masks), self._pairs
        if count == 1:
            return lambda number: 0
        of_after, of_before = pairs.after_count, pairs.before_count
        if abs(count - of_after) <= MOST_OFF:
            return lambda number: min(number, count - 1)
        if abs(count - of_before) <= MOST_OFF:
            return lambda number: frame_at(frame_time(number, pairs.rate), pairs.before_rate, count)
        raise FootageError(
            f"Mask: must be one, or one for each frame of after ({of_after}) or of before ({of_before}), got {count}. "
            "Make the masks of one of these clips."
        )

    def __call__(self, number):
        index = self._index(number)
        if index != self._kept[0]:
            mask = (self._masks[index].cpu().float() > BLACK).float()
            self._kept = index, _outside(mask, self._pairs.width, self._pairs.height)
        return self._kept[1]


def _outside(weights, width, height):
    """Where nothing is inside, at another size.  # [height, width] bool"""
    inside = (weights > 0).float()
    if inside.shape != (height, width):
        inside = resample(inside, _span(inside.shape[0], height), _span(inside.shape[1], width))
    return inside == 0


def _span(size, count):
    return Span(count, 0, size / count)
