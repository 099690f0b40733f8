"""Sizes: which one a video is edited at, how its frames are brought there, and the way back.

What is W x H pixels of aspect p is shown as (W * p) x H. Only a source has pixels that are not square, never an edit.
"""

from fractions import Fraction
from itertools import product
from math import isqrt
from typing import NamedTuple

import torch


class Preset(NamedTuple):
    """Sizes to edit at: those that a model was trained at, and any others of about the same area."""

    trained: tuple[tuple[int, int], ...]  # width x height; the first gives the area
    tolerance: Fraction  # by how much another size may differ in area


PRESETS = {
    "auto 540p": Preset(((960, 544), (544, 960), (720, 720), (960, 480), (480, 960)), Fraction(5, 100)),
    # The same shapes at 480p.
    "auto 480p": Preset(((832, 480), (480, 832), (624, 624), (832, 416), (416, 832)), Fraction(5, 100)),
    # Of the small model that comes with the pack; steps of 16 are coarse there.
    "auto small model": Preset(((256, 112), (112, 256), (192, 192)), Fraction(15, 100)),
}
FITS = ("crop", "pad", "stretch")
VAE_STRIDE = 8
SIZE_STEP = 16  # VAE stride 8 times patch 2: the pixels of a token
FRAMES_AT_ONCE = 16
NARROW = Fraction(3, 100)  # of a side of the picture: what crop may cut off of it without being missed
WIDEST = 3  # width to height, or height to width, of a size that is chosen: far beyond what was trained


class Box(NamedTuple):
    """A part of a picture, in pixels; `right` and `bottom` are the first ones beyond it."""

    left: int
    top: int
    right: int
    bottom: int

    @property
    def width(self):
        return self.right - self.left

    @property
    def height(self):
        return self.bottom - self.top

    def within(self, other: "Box") -> "Box":
        """The part of it that lies in another one."""
        return Box(*map(max, self[:2], other[:2]), *map(min, self[2:], other[2:]))


class Border(NamedTuple):
    """What lies around a part of a picture: pixels on each side, and the share of the picture in all."""

    left: int
    top: int
    right: int
    bottom: int
    share: float


def preset_size(preset: str, width: int, height: int, pixel_aspect=1) -> tuple[int, int]:
    """The width and height to edit a source at.

    The nearest of the sizes that the model was trained at, if crop cuts off no more than NARROW there; else one of
    about the same area in the source's own shape, so that next to nothing of the picture is lost.

    Args:
        width, height, pixel_aspect: of the source.
    """
    trained, tolerance = PRESETS[preset]
    width = round(width * pixel_aspect)

    def cut(size):
        return _cut_share(width, height, *size)

    nearest = min(trained, key=cut)
    if cut(nearest) <= NARROW:
        return nearest
    if max(width, height) > WIDEST * min(width, height):
        width, height = (WIDEST, 1) if width > height else (1, WIDEST)
    area = trained[0][0] * trained[0][1]
    sides, slack = range(SIZE_STEP, isqrt(2 * WIDEST * area), SIZE_STEP), int(tolerance * area)
    sizes = [size for size in product(sides, sides) if abs(size[0] * size[1] - area) <= slack]
    return min(sizes, key=lambda size: (cut(size), abs(size[0] * size[1] - area), size))


def _cut_share(width, height, new_width, new_height):
    """How much of a side of the picture crop cuts off, exactly."""
    wide, high = Fraction(width) * new_height, Fraction(height) * new_width
    return 1 - min(wide, high) / max(wide, high)


def resize(frames: torch.Tensor, width: int, height: int) -> torch.Tensor:
    """Bicubic with antialiasing, a few frames at a time.

    Args:
        frames: [F, H, W, C] in 0..1.

    Returns:
        [F, height, width, C] in 0..1.
    """
    if frames.shape[1:3] == (height, width):
        return frames
    out = frames.new_empty(len(frames), height, width, frames.shape[3])
    for part, result in zip(frames.split(FRAMES_AT_ONCE), out.split(FRAMES_AT_ONCE), strict=True):
        scaled = torch.nn.functional.interpolate(
            part.movedim(-1, 1), size=(height, width), mode="bicubic", antialias=True
        )
        result.copy_(scaled.movedim(1, -1).clamp_(0, 1))
    return out


def scaled_size(width, height, new_width, new_height, fit, pixel_aspect=1) -> tuple[int, int]:
    """Size of the whole source, scaled to cover (crop), to fit inside (pad) or to be (stretch) the new size."""
    if fit == "stretch":
        return new_width, new_height
    width = float(width * pixel_aspect)
    scale = (max if fit == "crop" else min)(new_width / width, new_height / height)
    if fit == "crop":
        return max(new_width, round(width * scale)), max(new_height, round(height * scale))
    return min(new_width, max(1, round(width * scale))), min(new_height, max(1, round(height * scale)))


def placement(width, height, new_width, new_height, fit, pixel_aspect=1) -> Box:
    """Where the whole source lies on the new size, in pixels of that; with crop it reaches beyond."""
    w, h = scaled_size(width, height, new_width, new_height, fit, pixel_aspect)
    # Halves are rounded towards the middle: an odd pixel is cut off, or is black, at the right and at the bottom.
    left, top = int((new_width - w) / 2), int((new_height - h) / 2)
    return Box(left, top, left + w, top + h)


def fit_frames(frames: torch.Tensor, width: int, height: int, fit: str, pixel_aspect=1) -> torch.Tensor:
    """Bring frames to a size: scale and centre-crop, scale and pad with black, or stretch.

    Args:
        frames: [F, H, W, C] in 0..1.
        pixel_aspect: of these frames; the result has square pixels.

    Returns:
        [F, height, width, C].
    """
    box = placement(frames.shape[2], frames.shape[1], width, height, fit, pixel_aspect)
    scaled = resize(frames, box.width, box.height)
    if fit == "pad":
        around = (0, 0, box.left, width - box.right, box.top, height - box.bottom)
        return torch.nn.functional.pad(scaled, around)
    return scaled[:, -box.top : height - box.top, -box.left : width - box.left]


def edited_box(width, height, new_width, new_height, fit, pixel_aspect=1) -> Box:
    """Which part of the source an edit at the new size covers when it is back at the source's size.

    With crop, a border of up to NARROW is filled from the edit; what else was cut off stays the source's own.
    """
    if fit != "crop" or _cut_share(width * pixel_aspect, height, new_width, new_height) <= NARROW:
        return Box(0, 0, width, height)
    box = placement(width, height, new_width, new_height, fit, pixel_aspect)
    across, down = width / box.width, height / box.height
    return Box(
        round(-box.left * across),
        round(-box.top * down),
        round((new_width - box.left) * across),
        round((new_height - box.top) * down),
    )


def unedited_border(width, height, new_width, new_height, fit, pixel_aspect=1) -> Border:
    """What of the source stays unedited when an edit at the new size is back at the source's size."""
    box = edited_box(width, height, new_width, new_height, fit, pixel_aspect)
    share = 1 - box.width * box.height / (width * height)
    return Border(box.left, box.top, width - box.right, height - box.bottom, share)


def restore_frames(frames: torch.Tensor, width: int, height: int, fit: str, pixel_aspect=1) -> tuple[torch.Tensor, Box]:
    """Undo `fit_frames`: bring an edit back to the size of its source.

    A narrow border that crop cut off is filled with the mirrored edit, so that no strip of the source is left there.

    Args:
        frames: [F, H, W, C] in 0..1, the edit.
        width, height, pixel_aspect: of the source.

    Returns:
        [F, H', W', C], and where they belong in the source's picture: `edited_box`.
    """
    edit = frames.shape[2], frames.shape[1]
    covered = edited_box(width, height, *edit, fit, pixel_aspect)
    if covered == (0, 0, width, height):
        box = placement(width, height, *edit, fit, pixel_aspect)
        if fit == "crop":
            around = (-box.left, box.right - edit[0], -box.top, box.bottom - edit[1])
            frames = torch.nn.functional.pad(frames.movedim(-1, 1), around, mode="reflect").movedim(1, -1)
        else:
            frames = frames[:, box.top : box.bottom, box.left : box.right]
    return resize(frames, covered.width, covered.height), covered
