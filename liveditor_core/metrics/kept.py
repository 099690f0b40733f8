"""How well the rest was kept: PSNR, SSIM and the pixels that are the source's bit for bit."""

import math

import torch

from .pair import Pair, share
from .similarity import similarity, windows_within

OUTSIDE, LEAST_CHANGED = "outside the mask", "the least-changed half of each frame"


class _Sum:
    """Over the pixels of a part of all frames."""

    def __init__(self):
        self.pixels = self.exact = self.windows = 0
        self.error = self.similarity = 0.0

    def add(self, error, exact, windows, part):
        """Add a frame.

        Args:
            error: [H, W], the mean squared difference of the channels.
            exact: [H, W] bool.
            windows: what `similarity` gives.
            part: [H, W] bool; None for all of it.

        Returns:
            (PSNR, SSIM) of the frame, as `numbers` gives them.
        """
        frame = _Sum()
        frame.pixels = error.numel() if part is None else int(part.sum())
        frame.error = _total(error, part)
        frame.exact = int((exact if part is None else exact & part).sum())
        if windows is not None:
            within = None if part is None else windows_within(part)
            frame.windows = windows.numel() if within is None else int(within.sum())
            frame.similarity = _total(windows, within)
        for name, value in vars(frame).items():
            setattr(self, name, getattr(self, name) + value)
        return frame.numbers()["psnr"], frame.numbers()["ssim"]

    def numbers(self):
        error = share(self.error, self.pixels)
        return {
            "psnr": -10 * math.log10(error) if error else None,
            "identical": error == 0,
            "ssim": share(self.similarity, self.windows),
            "exact": share(self.exact, self.pixels),
            "exact_pixels": self.exact,
            "pixels": self.pixels,
        }


class Kept:
    """Of the part that should have been kept, and of whole frames."""

    def __init__(self):
        self._part, self._whole, self._masked = _Sum(), _Sum(), False
        self.frames = {"kept_psnr": [], "kept_ssim": []}

    def add(self, pair: Pair):
        error = (pair.after - pair.before).square_().mean(dim=-1)
        exact = (pair.after == pair.before).all(dim=-1)
        windows = similarity(pair.before, pair.after)
        self._masked = pair.outside is not None
        self._whole.add(error, exact, windows, None)
        for values, value in zip(self.frames.values(), self._part.add(error, exact, windows, pair.kept), strict=True):
            values.append(value)

    def numbers(self) -> dict:
        """PSNR is None where nothing differs, which `identical` says, and where there is no pixel."""
        part = OUTSIDE if self._masked else LEAST_CHANGED
        return {"part": part, **self._part.numbers(), "whole_frame": self._whole.numbers()}


def _total(values, part):
    return float((values if part is None else values[part]).sum(dtype=torch.float64))
