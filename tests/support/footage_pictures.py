"""Pictures for test clips: each says its number in grey blocks, and the way back from a picture to its number."""

from functools import cached_property
from typing import NamedTuple

import av
import numpy as np

BITS, COLUMNS, ROWS = 12, 6, 4  # the number in the two upper rows, every bit turned round in the two lower ones
DARK, BRIGHT = 0.12, 0.88
NUMBER = (0.25, 0.25, 0.75, 0.75)  # left, top, right, bottom as shares of the picture
FLASH = (0.3, 0.04, 0.7, 0.16)  # white while the beep begins, else black
HIDDEN = (0.8, 0.3, 0.9, 0.7)  # magenta with an alpha of 0
HALF = (0.9, 0.3, 1.0, 0.7)  # white with an alpha of one half
LUMA = {"BT.601": (0.299, 0.114), "BT.709": (0.2126, 0.0722), "BT.2020": (0.2627, 0.0593)}  # of red and of blue


class Colours(NamedTuple):
    """How RGB became YUV, and what the file says of it, in FFmpeg's numbers."""

    matrix: str = "BT.709"
    tags: tuple[int, int, int] = (1, 1, 1)  # matrix, primaries, transfer; 2: not said
    full: bool = False
    says_range: bool = True


BT709, BT601 = Colours(), Colours("BT.601", (6, 6, 6))
HLG, PQ = Colours("BT.2020", (9, 9, 18)), Colours("BT.2020", (9, 9, 16))
UNTAGGED_709, UNTAGGED_601 = (Colours(matrix, (2, 2, 2), says_range=False) for matrix in ("BT.709", "BT.601"))


def gradient(width, height):
    """Soft colours, different in every place.  # [H, W, 3] in 0..1, as all pictures here"""
    y, x = np.mgrid[:height, :width]
    return np.stack([0.25 + 0.5 * x / width, 0.25 + 0.5 * y / height, np.full((height, width), 0.5)], axis=-1)


def flat(*rgb):
    """A picture of one colour, in 0..255."""
    return lambda width, height: np.broadcast_to(np.array(rgb) / 255, (height, width, 3))


def ramp(width, height):
    """Grey from black on the left to white on the right."""
    return np.broadcast_to(np.linspace(0, 1, width)[None, :, None], (height, width, 3))


def disc(pixel_aspect=1):
    """A white disc on black that is round where pixels have this aspect."""

    def picture(width, height):
        y, x = np.mgrid[:height, :width]
        x = (x + 0.5 - width / 2) * float(pixel_aspect)
        inside = x**2 + (y + 0.5 - height / 2) ** 2 < (0.3 * min(height, width * pixel_aspect)) ** 2
        return np.repeat(inside[..., None], 3, axis=-1).astype(float)

    return picture


def with_holes(width, height):
    """Colours with alpha: in HIDDEN magenta that must not be seen, in HALF a white to be seen by half."""
    picture = np.concatenate([gradient(width, height), np.ones((height, width, 1))], axis=-1)
    picture[_inside(HIDDEN, width, height)] = (1, 0, 1, 0)
    picture[_inside(HALF, width, height)] = (1, 1, 1, 0.5)
    return picture


def _inside(box, width, height):
    left, top, right, bottom = box
    return (
        slice(round(top * height), round(bottom * height)),
        slice(round(left * width), round(right * width)),
    )


def _cells(width, height):
    """The blocks of the number: upper and lower one of each bit, as slices."""
    left, top, right, bottom = NUMBER
    xs = [round((left + (right - left) * i / COLUMNS) * width) for i in range(COLUMNS + 1)]
    ys = [round((top + (bottom - top) * i / ROWS) * height) for i in range(ROWS + 1)]
    cells = [(slice(ys[j], ys[j + 1]), slice(xs[i], xs[i + 1])) for j in range(ROWS) for i in range(COLUMNS)]
    return list(zip(cells[:BITS], cells[BITS:], strict=True))


def block_levels(picture):
    """The grey of the upper and the lower block of each bit, 0..1."""
    scale = 1 if picture.dtype.kind == "f" else np.iinfo(picture.dtype).max
    grey = picture[..., :3].mean(axis=-1) / scale
    return [
        [grey[_middle(rows), _middle(columns)].mean() for rows, columns in pair]
        for pair in _cells(grey.shape[1], grey.shape[0])
    ]


def read_number(picture):
    """The number in a picture, or None where its blocks are unclear or contradict each other.

    Args:
        picture: [H, W, 3 or 4] of a whole picture at any size, uint8, uint16 or floats in 0..1.
    """
    number = 0
    for bit, (upper, lower) in enumerate(block_levels(picture)):
        if abs(upper - lower) < 0.25:
            return None
        number |= int(upper > lower) << bit
    return number


def _middle(part):
    """The inner half of a slice: what scaling and compression leave alone."""
    edge = (part.stop - part.start) // 4
    return slice(part.start + edge, part.stop - edge)


def is_flash(picture):
    """Whether the block of the flash is white."""
    scale = 1 if picture.dtype.kind == "f" else np.iinfo(picture.dtype).max
    return picture[_inside(FLASH, picture.shape[1], picture.shape[0])].mean() / scale > 0.5


class Painter:
    """Makes the frames of a clip.

    Args:
        size: width and height.
        pixels: FFmpeg's pixel format.
        colours: Colours, None for RGB or for BT.601 of limited range.
        background: function of width and height that gives a picture.
        numbered: whether each frame says its number.
    """

    def __init__(self, size, pixels, colours=None, background=gradient, numbered=True):
        self.size, self.pixels, self.numbered = size, pixels, numbered
        self.colours = colours or UNTAGGED_601
        if pixels.startswith("yuvj"):
            self.colours = self.colours._replace(full=True)
        self.is_yuv = pixels.startswith(("yuv", "gray"))
        self.picture = np.array(background(*size), dtype=float)
        if numbered:
            for box in (FLASH, NUMBER):
                self.picture[_inside(box, *size)] = 0 if self.picture.shape[-1] == 3 else (0, 0, 0, 1)

    def frame(self, number, flash=False):
        """av.VideoFrame."""
        greys = []
        if self.numbered:
            greys = [(_inside(FLASH, *self.size), 1.0 if flash else 0.0)]
            for bit, (upper, lower) in enumerate(_cells(*self.size)):
                levels = (BRIGHT, DARK) if number >> bit & 1 else (DARK, BRIGHT)
                greys += list(zip((upper, lower), levels, strict=True))
        return self._yuv(greys) if self.is_yuv else self._rgb(greys)

    def painted(self, picture):
        """A frame of any picture, by FFmpeg's own way into the pixel format."""
        values = np.rint(np.clip(picture, 0, 1) * 255).astype(np.uint8)
        return av.VideoFrame.from_ndarray(values, format="rgb24").reformat(format=self.pixels)

    def _yuv(self, greys):
        frame = av.VideoFrame(*self.size, self.pixels)
        planes = self._planes
        luma = planes[0].copy()
        bits = frame.format.components[0].bits
        for place, level in greys:
            luma[place] = _luma_code(level, bits, self.colours.full)
        for plane, values in zip(frame.planes, (luma, *planes[1:]), strict=True):
            rows = np.frombuffer(plane, values.dtype).reshape(plane.height, -1)
            rows[:, : values.shape[1]] = values
        return frame

    @cached_property
    def _planes(self):
        """The background as the planes of the pixel format: computed exactly, rounded once."""
        frame = av.VideoFrame(*self.size, self.pixels)
        components = frame.format.components
        bits, full = components[0].bits, self.colours.full
        red, blue = LUMA[self.colours.matrix]
        r, g, b = np.moveaxis(self.picture[..., :3], -1, 0)
        y = red * r + (1 - red - blue) * g + blue * b
        scale, top = 1 << bits - 8, (1 << bits) - 1
        planes = [y * top if full else (16 + 219 * y) * scale]
        for colour, share in ((b, blue), (r, red))[: len(components) - 1]:
            chroma = _shrunk((colour - y) / (2 * (1 - share)), frame.planes[1].width, frame.planes[1].height)
            planes.append(chroma * (top if full else 224 * scale) + (1 << bits - 1))
        if len(components) == 4:
            alpha = self.picture[..., 3] if self.picture.shape[-1] == 4 else np.ones_like(y)
            planes.append(alpha * top)
        return [np.rint(plane).clip(0, top).astype(np.uint8 if bits == 8 else np.uint16) for plane in planes]

    def _rgb(self, greys):
        picture = self.picture.copy()
        for place, level in greys:
            picture[place] = level if picture.shape[-1] == 3 else (level, level, level, 1)
        has_alpha = picture.shape[-1] == 4
        if self.pixels == "pal8":
            return _with_palette(picture)
        if self.pixels.endswith(("48le", "48be", "64le", "64be", "16le", "16be", "10le", "12le")):
            values = np.rint(picture * 65535).astype(np.uint16)
            return av.VideoFrame.from_ndarray(values, format="rgba64le" if has_alpha else "rgb48le").reformat(
                format=self.pixels
            )
        values = np.rint(picture * 255).astype(np.uint8)
        return av.VideoFrame.from_ndarray(values, format="rgba" if has_alpha else "rgb24").reformat(format=self.pixels)


def _with_palette(picture):
    """Six levels of each colour, and one entry that is transparent."""
    levels = np.rint(picture[..., :3] * 5).astype(np.uint8)
    indices = levels[..., 0] * 36 + levels[..., 1] * 6 + levels[..., 2]
    if picture.shape[-1] == 4:
        indices[picture[..., 3] < 0.5] = 255
    palette = np.zeros((256, 4), np.uint8)
    cube = np.arange(216)
    palette[:216] = np.stack([np.full(216, 255), cube // 36 * 51, cube // 6 % 6 * 51, cube % 6 * 51], axis=-1)
    return av.VideoFrame.from_ndarray((indices.astype(np.uint8), palette), format="pal8")


def _luma_code(level, bits, full):
    return round(level * ((1 << bits) - 1)) if full else round((16 + 219 * level) * (1 << bits - 8))


def _shrunk(plane, width, height):
    """Means of as many pixels as one of chroma stands for."""
    across, down = -(-plane.shape[1] // width), -(-plane.shape[0] // height)
    missing = ((0, height * down - plane.shape[0]), (0, width * across - plane.shape[1]))
    return np.pad(plane, missing, mode="edge").reshape(height, down, width, across).mean(axis=(1, 3))


def shown(frame):
    """A decoded frame as a player shows it: by its tags, or BT.709 from 720 lines up.  # uint8 [H, W, 3]"""
    if frame.format.is_rgb or not frame.format.name.startswith("yuv"):
        return frame.to_ndarray(format="rgb24")
    untagged = "BT.709" if frame.height >= 720 else "BT.601"
    picture = rgb_of(frame, {1: "BT.709", 5: "BT.601", 6: "BT.601", 9: "BT.2020"}.get(frame.colorspace, untagged))
    return np.rint(picture.clip(0, 1) * 255).astype(np.uint8)


def rgb_of(frame, matrix):
    """The colours of a decoded YUV frame, computed without FFmpeg.

    Args:
        frame: av.VideoFrame of planar YUV.
        matrix: of LUMA.

    Returns:
        [H, W, 3], 0..1 but for what lies outside.
    """
    bits = frame.format.components[0].bits
    dtype = np.uint8 if bits == 8 else np.uint16
    full = frame.color_range == 2 or frame.format.name.startswith("yuvj")
    planes = [np.frombuffer(plane, dtype).reshape(plane.height, -1)[:, : plane.width] for plane in frame.planes[:3]]
    scale, top = 1 << bits - 8, (1 << bits) - 1
    y = planes[0] / top if full else (planes[0] / scale - 16) / 219
    height, width = y.shape
    u, v = (
        np.repeat(np.repeat(plane, -(-height // plane.shape[0]), 0), -(-width // plane.shape[1]), 1)[:height, :width]
        for plane in planes[1:]
    )
    u, v = ((plane - float(1 << bits - 1)) / (top if full else 224 * scale) for plane in (u, v))
    red, blue = LUMA[matrix]
    r, b = y + 2 * (1 - red) * v, y + 2 * (1 - blue) * u
    return np.stack([r, (y - red * r - blue * b) / (1 - red - blue), b], axis=-1)
