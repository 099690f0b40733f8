"""Pictures of an AttentionRecord: heat over frames, and plots of every recorded transformer block."""

import numpy as np
import torch
from PIL import Image, ImageDraw, ImageFont

from ..footage.geometry import FRAMES_AT_ONCE, SIZE_STEP
from ..footage.timing import FRAMES_PER_LATENT
from .record import AttentionRecord, source_heat

# From dark to light, so that it reads without colours as well.
_SCALE = (
    torch.tensor([(13, 8, 60), (84, 20, 125), (170, 45, 110), (235, 95, 60), (252, 175, 50), (250, 250, 165)]) / 255
)
_WIDTH, _ROW, _MARGIN, _TITLE = 900, 14, 64, 44
_INK, _PAPER, _GRID = (40, 40, 48), (250, 250, 252), (150, 150, 160)


def colours(values: torch.Tensor) -> torch.Tensor:
    """[...] in 0..1 to [..., 3] in 0..1."""
    place = values.clamp(0, 1) * (len(_SCALE) - 1)
    low = place.floor().long().clamp(max=len(_SCALE) - 2)
    return torch.lerp(_SCALE[low], _SCALE[low + 1], (place - low).unsqueeze(-1))


def over_frames(frames: torch.Tensor, heat: torch.Tensor, opacity: float) -> torch.Tensor:
    """Lay a heat map over the frames it is about.

    Args:
        frames: [F, H, W, 3] in 0..1, of the edit's size, before padding to 4n + 1.
        heat: [latent frames, rows, columns] in 0..1, a value per token.
        opacity: of the heat, 0..1.

    Returns:
        [F, H, W, 3].
    """
    painted = colours(heat)
    out = torch.empty_like(frames)
    for first in range(0, len(frames), FRAMES_AT_ONCE):
        part = slice(first, first + FRAMES_AT_ONCE)
        latent_frames = [-(-frame // FRAMES_PER_LATENT) for frame in range(len(frames))[part]]
        over = painted[latent_frames].repeat_interleave(SIZE_STEP, dim=1).repeat_interleave(SIZE_STEP, dim=2)
        out[part] = torch.lerp(frames[part], over[:, : frames.shape[1], : frames.shape[2]].to(frames), opacity)
    return out


def plots(record: AttentionRecord, step: int) -> torch.Tensor:
    """What every recorded transformer block chose in one step: a row per block, along the sequence.

    Returns:
        [1, H, W, 3] in 0..1.
    """
    layout = record.layout
    blocks = sorted(block for at, block in record.choices if at == step)
    chosen = [record.choices[step, block] for block in blocks]
    sharpness = torch.stack([one.sharpness.mean(dim=0) for one in chosen])
    low, high = sharpness.min().item(), sharpness.max().item()
    panels = [
        (
            "source blocks retrieved, share of heads",
            torch.stack([one.retrieved.float().mean(dim=0) for one in chosen]),
            0.0,
            1.0,
            None,
        ),
        ("sharpness of query blocks, mean of heads", sharpness, low, high, layout.num_target_blocks),
        (
            "query blocks that attend densely, share of heads",
            torch.stack([one.dense.float().mean(dim=0) for one in chosen]),
            0.0,
            1.0,
            layout.num_target_blocks,
        ),
    ]
    row = max(_ROW, 120 // len(blocks))
    height = len(panels) * (_TITLE + row * len(blocks) + 30) + 50
    picture = Image.new("RGB", (_WIDTH, height), _PAPER)
    draw = ImageDraw.Draw(picture)
    font, small = ImageFont.load_default(15), ImageFont.load_default(12)
    draw.text((_MARGIN, 10), f"step {step}", _INK, font)
    top = 30
    for title, values, low, high, border in panels:
        draw.text((_MARGIN, top + 12), title, _INK, font)
        _legend(picture, draw, small, low, high, top + 14)
        top += _TITLE
        across, down = _WIDTH - 2 * _MARGIN, row * len(blocks)
        pixels = colours((values - low) / max(high - low, 1e-9)).mul(255).round().byte().numpy()
        picture.paste(Image.fromarray(pixels).resize((across, down), Image.Resampling.BOX), (_MARGIN, top))
        every = max(1, 14 // row + (len(blocks) > 20))
        for i, block in enumerate(blocks):
            if i % every == 0:
                draw.text((_MARGIN - 8, top + (i + 0.5) * row), str(block), _INK, small, anchor="rm")
        parts = (
            [("source", 0, 1)]
            if border is None
            else [("target", 0, border / values.shape[1]), ("source", border / values.shape[1], 1)]
        )
        for name, start, end in parts:
            draw.text(
                (_MARGIN + across * (start + end) / 2, top + down + 4),
                f"{name}, first frame to last",
                _INK,
                small,
                anchor="ma",
            )
            if start:
                draw.line([(_MARGIN + across * start, top - 4), (_MARGIN + across * start, top + down + 4)], _GRID, 2)
        top += down + 30
    draw.text((_MARGIN, top), "rows: transformer blocks", _INK, small)
    return torch.from_numpy(np.asarray(picture).copy()).float().div(255).unsqueeze(0)


def _legend(picture, draw, font, low, high, top):
    bar = colours(torch.linspace(0, 1, 100)).mul(255).round().byte().numpy()[None].repeat(12, axis=0)
    left = _WIDTH - _MARGIN - 150
    picture.paste(Image.fromarray(bar), (left, top))
    draw.text((left - 6, top + 6), f"{low:.2g}", _INK, font, anchor="rm")
    draw.text((left + 106, top + 6), f"{high:.2g}", _INK, font, anchor="lm")


def heat_of(record: AttentionRecord, step: int, block: int | None, head: int | None) -> torch.Tensor:
    """How large a share of the heads retrieved each source token.

    Args:
        block: a transformer block, or None for all that were recorded.
        head: an attention head, or None for all.

    Returns:
        [latent frames, rows, columns] in 0..1.
    """
    chosen = [choice.retrieved for (at, of), choice in record.choices.items() if at == step and block in (None, of)]
    shares = torch.stack([one.float().mean(dim=0) if head is None else one[head].float() for one in chosen]).mean(dim=0)
    return source_heat(shares, record.layout, record.grid)
