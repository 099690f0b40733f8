"""Where an edit changed its source, as a VIDEO."""

import torch

from ..footage.made_video import MadeVideo
from ..footage.writer import VideoForm
from ..inspection.plots import colours
from .pair import LEVELS
from .pairs import TimedPairs

FULL = 64  # levels of 255 that are shown as the most
SHOWN_FROM = 4  # below, the source is seen alone; coding changes pixels by so much
DIM = 0.5  # of the source beneath
_LUMA = torch.tensor([0.299, 0.587, 0.114])


def painted(before: torch.Tensor, after: torch.Tensor) -> torch.Tensor:
    """The source in dim grey, and over it how much each pixel changed, from dark to light.  # [H, W, 3] each"""
    change = (after - before).abs().mean(dim=-1) * LEVELS
    grey = (before @ _LUMA.to(before)).mul_(DIM).unsqueeze(-1).expand_as(before)
    shown = ((change - SHOWN_FROM) / SHOWN_FROM).clamp_(0, 1).unsqueeze(-1)
    return torch.lerp(grey, colours(change / FULL).to(before), shown)


class ChangeMap(MadeVideo):
    """Made frame by frame whenever it is read, with the edit's sound. Args as in MadeVideo."""

    def __init__(self, pairs: TimedPairs, folder, watch):
        self._pairs = pairs
        form = VideoForm(pairs.width, pairs.height, pairs.rate, pairs.colours, False, pairs.pixel_aspect)
        super().__init__(form, pairs.sounds, folder, watch)

    def count(self):
        return self._pairs.count

    def made(self, first):
        return (painted(before, after) for before, after in self._pairs.frames(first))
