"""A mask at another size: its edges stay where they were drawn."""

from math import ceil
from typing import NamedTuple

import numpy
import torch

ROUNDING = 1e-6  # of positions, and of what the shares of a pixel add up to in single precision


class Span(NamedTuple):
    """What of a mask each row or column of the result covers: number j from `first + j * step` on, `step` long."""

    count: int
    first: float
    step: float


def resample(mask: torch.Tensor, rows: Span, columns: Span) -> torch.Tensor:
    """Bring a mask, or a part of it, to a size.

    A hard mask stays hard: enlarged, a pixel is as the one that its middle lies on; made smaller, it is inside where
    at least half of what it covers was. A soft one is averaged where it gets smaller and runs evenly from pixel to
    pixel where it gets larger, but nothing of it shows beyond the pixels that were drawn.

    Args:
        mask: [H, W] in 0..1, float32 on the CPU.
        rows, columns: in pixels of the mask.

    Returns:
        [rows.count, columns.count], the mask itself where nothing changes.
    """
    height, width = mask.shape
    if (rows, columns) == (Span(height, 0, 1), Span(width, 0, 1)):
        return mask
    values = mask.numpy()

    def scaled(evenly):
        high = _shares(rows, height, evenly) @ values
        return torch.from_numpy(numpy.ascontiguousarray((_shares(columns, width, evenly) @ high.T).T))

    drawn = scaled(evenly=False)
    if not ((values > 0) & (values < 1)).any():
        return (drawn >= 0.5 - ROUNDING).float()
    if min(rows.step, columns.step) > 1:
        return drawn.mul_(1 + ROUNDING).clamp_(max=1)
    return torch.where(drawn > 0, scaled(evenly=True).mul_(1 + ROUNDING).clamp_(max=1), 0)


def _shares(span, size, evenly):
    """How much each pixel of a mask has in each of the result, along an axis.

    Args:
        evenly: to enlarge, go evenly from pixel to pixel, else take the nearest.

    Returns:
        Sparse [span.count, size], every row adds up to 1.
    """
    import scipy.sparse  # only where a mask is resized, as in feather.py

    begin = span.first + numpy.arange(span.count)[:, None] * span.step
    if span.step > 1:
        pixels = numpy.floor(begin) + numpy.arange(ceil(span.step) + 1)
        shares = numpy.minimum(begin + span.step, pixels + 1) - numpy.maximum(begin, pixels)
        shares = numpy.where(shares > ROUNDING, shares, 0) / span.step
    else:
        middle = begin + span.step / 2
        pixels = numpy.floor(middle - 0.5) + (0, 1) if evenly else numpy.floor(middle)
        shares = 1 - abs(middle - 0.5 - pixels) if evenly else numpy.ones_like(pixels)
    # Beyond the border of a mask, where crop cut off a narrow strip of the picture, it is as its nearest pixel.
    pixels = pixels.clip(0, size - 1)
    where = numpy.broadcast_to(numpy.arange(span.count)[:, None], pixels.shape)
    entries = shares.astype("float32").ravel(), (where.ravel(), pixels.astype(int).ravel())
    return scipy.sparse.csr_array(entries, shape=(span.count, size))
