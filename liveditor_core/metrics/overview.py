"""A picture of many edits' numbers: every edit a dot, the mean a line with its confidence interval."""

from PIL import Image, ImageDraw, ImageFont

WIDTH, HEIGHT = 900, 64  # pixels, the latter of a number's strip
_LEFT, _RIGHT, _TOP = 330, 50, 40
_INK, _PAPER, _GRID = (40, 40, 48), (250, 250, 252), (215, 215, 222)
_DOT, _MEAN, _COPY = (96, 132, 190), (196, 62, 40), (120, 120, 128)
# Column, what it is called, and what an unedited copy of the source would have: a number, a column, or None.
_STRIPS = (
    ("kept_if_edited", "kept if edited", 0.0),
    ("psnr", "PSNR of what should be kept, dB", None),
    ("ssim", "SSIM of what should be kept", 1.0),
    ("exact", "kept bit for bit, share", 1.0),
    ("change_share", "share of pixels that changed", 0.0),
    ("flicker_excess", "flicker beyond the source's", 0.0),
    ("warp_error_edit", "warp error", "warp_error_source"),
    ("flow_similarity", "flow similarity", 1.0),
    ("text_edit", "cosine of frame and text", "text_source"),
    ("text_gain", "its gain over the source", 0.0),
    ("direction", "direction of the change", 0.0),
    ("score_gain", "gain of the score", 0.0),
    ("consistency_edit", "cosine of neighbouring frames", "consistency_source"),
)


def overview(rows: list[dict], means: dict, title: str) -> Image.Image:
    """A strip for each number that was measured.

    Args:
        rows: of the table.
        means: of them, as `means_of` gives them.
    """
    strips = [strip for strip in _STRIPS if strip[0] in means]
    picture = Image.new("RGB", (WIDTH, _TOP + HEIGHT * len(strips) + 10), _PAPER)
    draw = ImageDraw.Draw(picture)
    draw.text((20, 10), title, _INK, ImageFont.load_default(16))
    for number, (column, label, copy) in enumerate(strips):
        values = [float(row[column]) for row in rows if row[column] is not None]
        copy = means[copy]["mean"] if isinstance(copy, str) else copy
        _strip(draw, _TOP + HEIGHT * number, label, values, means[column], copy)
    return picture


def _strip(draw, top, label, values, mean, copy):
    small, middle = ImageFont.load_default(12), top + HEIGHT // 2 - 6
    low, high = min([*values, *([] if copy is None else [copy])]), max([*values, *([] if copy is None else [copy])])
    if high - low < 1e-9:
        low, high = low - max(abs(low), 1e-3) / 10, high + max(abs(high), 1e-3) / 10

    def place(value):
        return _LEFT + (WIDTH - _LEFT - _RIGHT) * (value - low) / (high - low)

    draw.text((20, middle - 16), label, _INK, ImageFont.load_default(14))
    interval = "" if mean["low"] is None else f", 95 % from {mean['low']:.4g} to {mean['high']:.4g}"
    draw.text((20, middle + 4), f"mean {mean['mean']:.4g} of {mean['of']}{interval}", _COPY, small)
    draw.line([(_LEFT, middle), (WIDTH - _RIGHT, middle)], _GRID)
    for value in (low, high):
        draw.text((place(value), middle + 14), f"{value:.3g}", _COPY, small, anchor="ma")
    if copy is not None:
        draw.line([(place(copy), middle - 16), (place(copy), middle + 12)], _COPY)
        draw.text((place(copy), middle - 28), "unedited copy", _COPY, ImageFont.load_default(10), anchor="ma")
    if mean["low"] is not None:
        draw.rectangle((place(mean["low"]), middle - 2, place(mean["high"]), middle + 2), fill=_MEAN)
    for value in values:
        x = place(value)
        draw.ellipse((x - 4, middle - 4, x + 4, middle + 4), fill=_DOT)
    x = place(mean["mean"])
    draw.line([(x, middle - 12), (x, middle + 12)], _MEAN, 3)
