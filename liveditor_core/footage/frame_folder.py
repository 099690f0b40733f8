"""A folder of pictures as a clip, as benchmarks have their frames."""

import re
from fractions import Fraction
from pathlib import Path

import numpy as np
import torch
from PIL import Image, UnidentifiedImageError

from .clip import Picture, SteadyClip
from .errors import FootageError

PICTURES = {".jpg", ".jpeg", ".png", ".bmp", ".webp", ".tif", ".tiff"}


def pictures_in(folder: Path) -> list[Path]:
    """In the order of the numbers in their names: 2 before 10."""
    found = (each for each in Path(folder).iterdir() if each.suffix.lower() in PICTURES)
    return sorted(found, key=lambda each: [int(p) if p.isdigit() else p for p in re.split(r"(\d+)", each.name)])


class FrameFolder(SteadyClip):
    """Pictures at a constant rate; one is in memory at a time.

    Args:
        folder: with pictures of one size in it.
        rate: frames a second, which no picture tells.

    Raises:
        FootageError: there is no picture in it.
    """

    def __init__(self, folder: Path, rate: Fraction):
        self._files, self.name = pictures_in(folder), Path(folder).name
        if not self._files:
            raise FootageError(f"{folder}: must hold pictures, got none. Give a folder of frames, or a video.")
        self.rate = Fraction(rate).limit_denominator(1001)
        self.height, self.width = _read(self._files[0]).shape[:2]
        self.notes, self.errors = [f"{len(self)} pictures, {self.width}x{self.height}"], []

    def __len__(self):
        return len(self._files)

    def pictures(self, start):
        for index in range(self.first_at(start), len(self)):
            yield Picture(index / self.rate, 1 / self.rate, index)

    def rgb(self, picture):
        found = _read(self._files[picture.frame])
        if found.shape[:2] != (self.height, self.width):
            height, width = found.shape[:2]
            raise FootageError(
                f"{self._files[picture.frame]}: must be of the size of the first picture, {self.width}x{self.height}, "
                f"got {width}x{height}. Make all of one size."
            )
        return torch.from_numpy(found).float().div(255)


def _read(path):
    try:
        with Image.open(path) as picture:
            return np.asarray(picture.convert("RGB")).copy()
    except (OSError, UnidentifiedImageError) as error:
        raise FootageError(f"{path}: cannot be read as a picture: {error}") from None
