"""Colours: decoded frames to RGB, and RGB to the planes that are encoded, by the matrix and range of the clip."""

from typing import NamedTuple

import av
import numpy as np
import torch
import torch.nn.functional as F

from . import hdr
from .errors import FootageError


class Colours(NamedTuple):
    """Code points of ITU-T H.273, as streams carry them, and what white is in the pictures that are given."""

    matrix: int
    primaries: int
    transfer: int
    white: float = 1.0


BT709, BT601 = Colours(1, 1, 1), Colours(6, 6, 6)
UNSPECIFIED, RGB_MATRIX = 2, 0
LIMITED_RANGE, FULL_RANGE = 1, 2  # of a frame's color_range
READABLE = {0, UNSPECIFIED, 3}  # beside those of LUMA_WEIGHTS: not said
# Weights of red and blue in luma, by matrix. What is not here is read as BT.601, as FFmpeg does.
LUMA_WEIGHTS = {
    1: (0.2126, 0.0722),
    4: (0.30, 0.11),
    5: (0.299, 0.114),
    6: (0.299, 0.114),
    7: (0.212, 0.087),
    9: (0.2627, 0.0593),
    10: (0.2627, 0.0593),
}
NAMES = {1: "BT.709", 4: "FCC", 5: "BT.601", 6: "BT.601", 7: "SMPTE 240M", 9: "BT.2020", 10: "BT.2020"}
HD_WIDTH, HD_HEIGHT = 1280, 720  # players take what is not tagged for BT.709 from here on


def colours_of(frame, told=(UNSPECIFIED, UNSPECIFIED)) -> Colours:
    """The colours of a decoded frame; what is not tagged as players take it.

    Args:
        frame: av.VideoFrame.
        told: primaries and transfer of its stream, for PyAV 16, whose frames do not have them.
    """
    if frame.format.is_rgb or frame.format.has_palette:
        primaries, transfer = getattr(frame, "color_primaries", told[0]), getattr(frame, "color_trc", told[1])
        is_hdr = transfer in hdr.TRANSFERS
        return BT709._replace(primaries=int(primaries), transfer=int(transfer)) if is_hdr else BT709
    guess = BT709 if frame.width >= HD_WIDTH or frame.height >= HD_HEIGHT else BT601
    matrix = frame.colorspace if frame.colorspace in LUMA_WEIGHTS else guess.matrix
    guess = BT709 if matrix == BT709.matrix else Colours(matrix, 9, 14) if matrix in (9, 10) else BT601
    primaries, transfer = (
        value if value not in (0, UNSPECIFIED) else other
        for value, other in (
            (getattr(frame, "color_primaries", told[0]), guess.primaries),
            (getattr(frame, "color_trc", told[1]), guess.transfer),
        )
    )
    # The converter shifts levels up to 16 bits, it does not stretch them: white ends at 255 * 256, as the host has it.
    return Colours(int(matrix), int(primaries), int(transfer), _top(bit_depth(frame) if _is_full(frame) else 8))


def _is_full(frame):
    return frame.color_range == FULL_RANGE or frame.format.name.startswith(("yuvj", "gray"))


def _top(bits):
    """The highest level of so many bits, shifted up to 16, of 65535."""
    return (((1 << bits) - 1) << (16 - bits)) / 65535


def require_readable(frame, name):
    """Refuse colours that are coded in another way than by a matrix that is known here."""
    if not frame.format.is_rgb and frame.colorspace not in LUMA_WEIGHTS and frame.colorspace not in READABLE:
        raise FootageError(
            f"{name}: must be coded by BT.601, BT.709, BT.2020 or as RGB, got colour matrix {int(frame.colorspace)} of "
            "ITU-T H.273. Convert it to an ordinary mp4."
        )


def is_tagged(frame) -> bool:
    """Whether a frame says how its colours are coded."""
    return frame.format.is_rgb or frame.format.has_palette or frame.colorspace in LUMA_WEIGHTS


def bit_depth(frame) -> int:
    """Bits of a component, at least 8."""
    return max(8, *(part.bits for part in frame.format.components))


def has_alpha(frame) -> bool:
    return frame.format.has_palette or any(part.is_alpha for part in frame.format.components)


def is_opaque(frame, colours: Colours) -> bool:
    """Whether nothing of a frame with alpha is transparent."""
    return bool(to_rgb(frame, colours)[..., 3].min() == 1)


def to_rgb(frame, colours: Colours) -> torch.Tensor:
    """A decoded frame as RGB, HDR mapped to SDR; where it is transparent, on black.

    YUV goes through 16 bits and gives the very numbers of the host's own reader, which are a little dark: white is
    `colours.white`. RGB is never taken through YUV.

    Args:
        frame: av.VideoFrame; its tag of the matrix is overwritten.
        colours: of the clip.

    Returns:
        [H, W, 3] fp32 in 0..1, or [H, W, 4] with alpha for a frame that has it.
    """
    alpha, bits = has_alpha(frame), bit_depth(frame)
    if frame.format.is_rgb or frame.format.has_palette:
        name = ("rgba64le" if alpha else "rgb48le") if bits > 8 else ("rgba" if alpha else "rgb24")
        top = 65535 if bits > 8 else 255
        picture = torch.from_numpy(frame.reformat(format=name).to_ndarray().astype(np.float32)).mul_(1 / top)
    else:
        frame.colorspace = colours.matrix
        # PyAV 16 does not read the tags, and does what it is told only where source and target differ.
        told = {"src_colorspace": colours.matrix, "dst_colorspace": "DEFAULT"}
        told["src_color_range"] = FULL_RANGE if _is_full(frame) else LIMITED_RANGE
        picture = _planes(frame.reformat(format="gbrap16le" if alpha else "gbrp16le", **told))
        if alpha:
            picture[..., 3] = (picture[..., 3] / _top(bits)).clamp_(0, 1)
    if colours.transfer in hdr.TRANSFERS:
        picture[..., :3] = hdr.to_sdr((picture[..., :3] / colours.white).clamp_(0, 1), colours.transfer)
    if alpha:
        picture[..., :3] *= picture[..., 3:]
    return picture


def _planes(frame):
    """Planes of 16 bits, green first, as RGB: without a copy of the whole, which counts at 3840x2160."""
    picture = torch.empty(len(frame.planes), frame.height, frame.width)
    for plane, channel in zip(frame.planes, (1, 2, 0, 3), strict=False):
        levels = np.frombuffer(plane, "<u2").reshape(frame.height, -1)[:, : frame.width]
        np.multiply(levels, np.float32(1 / 65535), out=picture[channel].numpy(), casting="unsafe")
    return picture.movedim(0, -1)


def shown_colours(colours: Colours) -> Colours:
    """The colours of what `to_rgb` gives."""
    return BT709 if colours.transfer in hdr.TRANSFERS else colours


def to_frame(picture: torch.Tensor, colours: Colours, deep: bool) -> av.VideoFrame:
    """RGB as a frame to encode: 4:2:0, limited range, rounded; chroma is the mean of its four pixels, as it is read.

    Args:
        picture: [H, W, 3] in 0..1, H and W even.
        deep: 10 bits, else 8.
    """
    height, width = picture.shape[:2]
    step = 4 if deep else 1
    to_yuv = _to_yuv(colours.matrix) * (step / colours.white)
    planes = (to_yuv @ picture.float().reshape(-1, 3).T).view(3, height, width)
    planes = (planes[0] + 16 * step, *F.avg_pool2d(planes[1:].add_(128 * step), 2))
    frame = av.VideoFrame(width, height, "yuv420p10le" if deep else "yuv420p")
    for plane, values in zip(frame.planes, planes, strict=True):
        levels = values.round_().clamp_(0, 1023 if deep else 255).numpy().astype("<u2" if deep else "u1")
        row = plane.line_size // levels.itemsize
        padded = np.zeros((levels.shape[0], row), levels.dtype)
        padded[:, : levels.shape[1]] = levels
        plane.update(padded.tobytes())
    frame.colorspace, frame.color_range = colours.matrix, LIMITED_RANGE
    return frame


def _to_yuv(matrix):
    """RGB in 0..1 to levels of 8 bits without their offsets.  # [3, 3]"""
    red, blue = LUMA_WEIGHTS[matrix]
    luma = torch.tensor([red, 1 - red - blue, blue])
    r, _, b = torch.eye(3)
    return torch.stack([219 * luma, 112 * (b - luma) / (1 - blue), 112 * (r - luma) / (1 - red)])


def tag(encoder, colours: Colours):
    """Let an encoder write the colours into its stream."""
    encoder.colorspace, encoder.color_primaries, encoder.color_trc = colours[:3]
    encoder.color_range = LIMITED_RANGE
