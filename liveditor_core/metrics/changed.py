"""How much changed: by how many levels on average, and of how many pixels."""

import torch

from .pair import LEVELS, Pair, share

VISIBLE = 16  # levels of 255: what a pixel must change by to count; coding alone changes few by so much
PARTS = ("whole_frame", "inside", "outside")


class Changed:
    """Over whole frames, and inside and outside the mask where there is one."""

    def __init__(self):
        self._sums = {part: [0, 0.0, 0] for part in PARTS}  # pixels, change, pixels that changed visibly
        self.frames = {"change": [], "change_inside": [], "change_outside": []}

    def add(self, pair: Pair):
        inside = None if pair.outside is None else ~pair.outside
        for (part, sums), values, where in zip(
            self._sums.items(), self.frames.values(), (None, inside, pair.outside), strict=True
        ):
            if part != PARTS[0] and where is None:
                values.append(None)
                continue
            change = pair.change if where is None else pair.change[where]
            total = LEVELS * float(change.sum(dtype=torch.float64))
            new = change.numel(), total, int((change > VISIBLE / LEVELS).sum())
            sums[:] = (old + more for old, more in zip(sums, new, strict=True))
            values.append(share(total, change.numel()))

    def numbers(self) -> dict:
        """`mean` in levels of 255, `share` of the pixels that changed by more than VISIBLE; None for no pixel."""
        return {
            part: {"mean": share(total, pixels), "share": share(visible, pixels)}
            for part, (pixels, total, visible) in self._sums.items()
        }
