"""How much changed: by how many levels on average, of how many pixels, and how much of the picture was edited."""

import torch

from .pair import BLOCK, LEVELS, Pair, share

VISIBLE = 16  # levels of 255: what a pixel must change by to count, and a square on average to count as edited
PARTS = ("whole_frame", "inside", "outside")


class Changed:
    """Over whole frames, and inside and outside the mask where there is one."""

    def __init__(self):
        # Pixels, change, pixels that changed visibly, pixels of squares that were edited.
        self._sums = {part: [0, 0.0, 0, 0] for part in PARTS}
        self.frames = {"change": [], "change_inside": [], "change_outside": []}

    def add(self, pair: Pair):
        everywhere = torch.ones_like(pair.change, dtype=torch.bool)
        inside = None if pair.outside is None else ~pair.outside
        for (part, sums), values, where in zip(
            self._sums.items(), self.frames.values(), (everywhere, inside, pair.outside), strict=True
        ):
            if where is None:
                values.append(None)
                continue
            change = pair.change if part == PARTS[0] else pair.change[where]
            total = LEVELS * float(change.sum(dtype=torch.float64))
            visible = int((change > VISIBLE / LEVELS).sum())
            new = change.numel(), total, visible, edited_pixels(pair.change, where)
            sums[:] = (old + more for old, more in zip(sums, new, strict=True))
            values.append(share(total, change.numel()))

    def numbers(self) -> dict:
        """None for no pixel.

        `mean` in levels of 255, `share` of the pixels that changed by more than VISIBLE, `edited`, the share of those
        that lie in edited squares.
        """
        return {
            part: {"mean": share(total, pixels), "share": share(visible, pixels), "edited": share(edited, pixels)}
            for part, (pixels, total, visible, edited) in self._sums.items()
        }


def edited_pixels(change: torch.Tensor, where: torch.Tensor) -> int:
    """How many pixels of a part lie in squares whose share of that part changed by more than VISIBLE on average.

    What coding does to single pixels evens out in a square: of copies of three clips in H.264 at crf 18 to 28 no square
    counts, at crf 35 at most 0.4 %, while of their pixels up to 9 % changed visibly.

    Args:
        change: [H, W].
        where: [H, W] bool, the part.
    """
    part = where.float()
    changed, pixels = (
        torch.nn.functional.avg_pool2d(values[None, None], BLOCK, ceil_mode=True, divisor_override=1)
        for values in (change * part, part)
    )
    return int(pixels[changed > VISIBLE / LEVELS * pixels].sum())
