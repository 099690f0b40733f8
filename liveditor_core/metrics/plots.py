"""Curves of what was measured of every frame."""

import numpy as np
import torch
from PIL import Image, ImageDraw, ImageFont

from .measure import Numbers

WIDTH, HEIGHT = 900, 150  # pixels of a panel
_LEFT, _RIGHT, _TOP, _BOTTOM = 70, 20, 34, 26
_INK, _PAPER, _GRID = (40, 40, 48), (250, 250, 252), (215, 215, 222)
_COLOURS = ((196, 62, 40), (40, 96, 190), (60, 140, 70))
# Title, and the names of the curves with what they are called; a panel is drawn if anything of it was measured.
_PANELS = (
    ("SSIM of what should be kept", {"kept_ssim": "edit"}),
    (
        "mean change, levels of 255",
        {"change": "whole frame", "change_inside": "inside the mask", "change_outside": "outside"},
    ),
    ("flicker, levels of 255", {"flicker_edit": "edit", "flicker_source": "source"}),
    ("warp error", {"warp_error_edit": "edit", "warp_error_source": "source"}),
    ("flow similarity", {"flow_similarity": "edit"}),
    ("cosine of frame and text", {"text_edit": "edit", "text_source": "source"}),
    ("cosine of the change and the words' change", {"direction": "edit"}),
    ("cosine of neighbouring frames", {"consistency_edit": "edit", "consistency_source": "source"}),
)


def plots(numbers: Numbers) -> torch.Tensor:
    """A panel for each kind of number, over the frames of the edit.

    Returns:
        [1, H, WIDTH, 3] in 0..1.
    """
    panels = [
        (title, {label: numbers.frames[name] for name, label in curves.items() if name in numbers.frames})
        for title, curves in _PANELS
    ]
    panels = [panel for panel in panels if panel[1]]
    picture = Image.new("RGB", (WIDTH, HEIGHT * len(panels) + 10), _PAPER)
    draw = ImageDraw.Draw(picture)
    for number, (title, curves) in enumerate(panels):
        _panel(draw, HEIGHT * number, title, curves)
    return torch.from_numpy(np.asarray(picture).copy()).float().div(255).unsqueeze(0)


def _panel(draw, top, title, curves):
    font, small = ImageFont.load_default(15), ImageFont.load_default(12)
    draw.text((_LEFT, top + 8), title, _INK, font)
    there = [value for values in curves.values() for value in values if value is not None]
    low, high = min(there), max(there)
    if high - low < 1e-3 * max(abs(high), 1e-6):  # a level line lies in the middle
        low, high = low - max(abs(low), 1e-3) / 10, high + max(abs(high), 1e-3) / 10
    frames = max(len(values) for values in curves.values())
    above, below = top + _TOP, top + HEIGHT - _BOTTOM

    def place(frame, value):
        across = (WIDTH - _LEFT - _RIGHT) * (frame / (frames - 1) if frames > 1 else 0.5)
        return _LEFT + across, below - (below - above) * (value - low) / (high - low)

    for value in (low, (low + high) / 2, high):
        y = place(0, value)[1]
        draw.line([(_LEFT, y), (WIDTH - _RIGHT, y)], _GRID)
        draw.text((_LEFT - 6, y), f"{value:.3g}", _INK, small, anchor="rm")
    for frame in sorted({0, frames // 2, frames - 1}):
        draw.text((place(frame, low)[0], below + 5), str(frame + 1), _INK, small, anchor="ma")
    right = WIDTH - _RIGHT
    for (label, values), colour in reversed(list(zip(curves.items(), _COLOURS, strict=False))):
        points = [place(frame, value) for frame, value in enumerate(values) if value is not None]
        if len(points) > 1:
            draw.line(points, colour, 2, joint="curve")
        if len(points) < 40:
            for x, y in points:
                draw.ellipse((x - 2, y - 2, x + 2, y + 2), fill=colour)
        draw.text((right, top + 10), label, colour, small, anchor="ra")
        right -= draw.textlength(label, small) + 18
