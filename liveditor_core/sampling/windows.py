"""Windows over the latent of a clip that is longer than the model's sequence: where they lie, and how they are joined.

Every window that does not begin with the clip gets a first frame of its own, since the model only knows clips whose
first latent frame stands for a single picture: `vae/first_frames.py` encodes the picture before the window for it. Its
target is sampled along with the clip, behind its end, and thrown away.
"""

from typing import NamedTuple

import torch

from ..footage.errors import FootageError
from ..footage.timing import FRAMES_PER_LATENT

TIME = 2  # dimension of latents
TRAINED, OVERLAP = 81, 16  # frames


class WindowSize(NamedTuple):
    """As the user asks for it, in frames."""

    frames: int
    overlap: int

    @property
    def length(self):
        """In latent frames."""
        return max(0, self.frames - 1) // FRAMES_PER_LATENT + 1

    @property
    def least_overlap(self):
        """In latent frames."""
        return -(-self.overlap // FRAMES_PER_LATENT)


DEFAULT = WindowSize(TRAINED, OVERLAP)


class Window(NamedTuple):
    """Latent frames that are computed in one call of the model.

    Args:
        start, stop: of the clip.
        own_first: where the window's own first frame lies in the sampled latent; None where the clip begins.
        indices: of all its frames in the sampled latent.
        shares: [frames] how much of the result comes from this window, 0 for its own first frame's place in the clip;
            over all windows every frame's shares add up to 1.
    """

    start: int
    stop: int
    own_first: int | None
    indices: torch.Tensor
    shares: torch.Tensor


def plan_windows(start: int, stop: int, size: WindowSize) -> list[Window]:
    """As few windows as cover the latent frames from `start` to `stop`, all of about the same length.

    The sampled latent has these frames first, then the windows' own first frames in order.

    Raises:
        FootageError: the overlap leaves nothing of a window.
    """
    if size.length - 1 - size.least_overlap < 1 and stop - start + int(start > 0) > size.length:
        raise FootageError(
            f"overlap must be at least {2 * FRAMES_PER_LATENT} frames smaller than window, got {size.overlap} of "
            f"{size.frames}. Use {max(0, size.length - 2) * FRAMES_PER_LATENT} or less, or a larger window."
        )
    spans = _spans(start, stop, size)
    shares = _shares(spans, start, stop)
    frames, windows, own = stop - start, [], 0
    for (first, last), share in zip(spans, shares, strict=True):
        indices, own_first = list(range(first - start, last - start)), None
        if first > 0:
            own_first = frames + own
            indices, share, own = [own_first, *indices], torch.cat([share.new_ones(1), share]), own + 1
        windows.append(Window(first, last, own_first, torch.tensor(indices), share))
    return windows


def _spans(start, stop, size):
    frames, overlap, begun = stop - start, size.least_overlap, int(start > 0)
    count = 1
    # A window's own first frame counts: the memory and the time of a call are those of `size.length` frames at most.
    while (length := -(-(frames + (count - 1) * (overlap + 1) + begun) // count)) > size.length:
        count += 1
    if count == 1:
        return [(start, stop)]
    first = start + length - begun
    last = stop - (length - 1)
    steps = count - 2
    later = [round(first - overlap + (last - first + overlap) * i / steps) for i in range(steps)] if steps else []
    return [(start, first), *((at, at + length - 1) for at in (*later, last))]


def _shares(spans, start, stop):
    """Over what two windows have in common, the earlier one's share falls evenly and the later one's rises."""
    shares = [torch.ones(last - first) for first, last in spans]
    for i, ((_, end), (begin, _)) in enumerate(zip(spans, spans[1:], strict=False)):
        common = end - begin
        if common > 0:
            ramp = (torch.arange(common) + 0.5) / common
            shares[i][-common:] *= 1 - ramp
            shares[i + 1][:common] *= ramp
    total = torch.zeros(stop - start)
    for (first, last), share in zip(spans, shares, strict=True):
        total[first - start : last - start] += share
    return [share / total[first - start : last - start] for (first, last), share in zip(spans, shares, strict=True)]


def describe_windows(windows: list[Window]) -> str:
    """How many there are, of how many frames, for a report."""
    longest = FRAMES_PER_LATENT * (max(len(window.indices) for window in windows) - 1) + 1
    common = [before.stop - after.start for before, after in zip(windows, windows[1:], strict=False)]
    text = f"windows: {len(windows)} of {longest} frames"
    return text + f", overlapping by {FRAMES_PER_LATENT * min(common)} or more" if common else text
