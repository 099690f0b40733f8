"""How well the windows of a long edit join: against the exact edit, at their borders and elsewhere.

Every latent frame stands for four frames of the film, and from one to the next any edit steps a little more than from
frame to frame within. Windows begin and end there; so their borders are compared with the other frames at which a
latent frame begins, and with all others besides.
"""

import statistics
import sys
from typing import NamedTuple

import host
import torch

sys.path.append(str(host.PACK))
from training.edits import EDITS
from training.score import UNEDITED

CUT = 0.08  # mean change of a frame from which on it is a cut of the film, and left out
FRAMES_PER_LATENT = 4
AT_ONCE = 64  # frames


class Joins(NamedTuple):
    """Of one edit."""

    decibels: float  # mean over frames of the PSNR to the exact edit
    at_borders: float  # median over the frames next to borders, less the median over all
    worst_at_borders: float  # their tenth percentile, less that of all
    change: float  # from frame to frame at borders, relative to the exact edit's, in parts of that where others begin
    change_of_all: float  # the same in parts of that of all other frames
    colour: float  # by how many of 255 levels the mean colour errs otherwise than in the frame before, at borders
    colour_elsewhere: float  # where other latent frames begin

    def row(self):
        """For a table in Markdown."""
        return (
            f"{self.decibels:.2f} | {self.at_borders:+.2f} | {self.worst_at_borders:+.2f} | {self.change:.2f} "
            f"({self.change_of_all:.2f}) | {self.colour:.2f} / {self.colour_elsewhere:.2f}"
        )


HEAD = "dB | at borders | worst tenth | change (of all) | colour step\n|---|---|---|---|---|---|"


def joins(edited, source, edit, borders):
    """Measure an edit.

    Args:
        edited, source: [F, H, W, 3] in 0..1, or uint8.
        edit: name of the exact edit.
        borders: frames at which a window begins or the one before ends.
    """
    edited, source = (_floats(frames) for frames in (edited, source))
    exact = EDITS[edit](source)
    decibels = psnr_of_each(edited, exact)
    change, wanted = _changes(edited), _changes(exact)
    colour = _changes_of(255 * (edited - exact).mean((2, 3)))
    steps = {i - 1 for i in borders if 0 < i < len(edited)}
    still = {i for i in range(len(wanted)) if wanted[i] < CUT}
    begins = {i for i in still if i % FRAMES_PER_LATENT == 0}  # the step to frame 4n + 1
    at, elsewhere = sorted(steps & still), sorted(begins - steps)
    near = sorted({j for i in borders for j in (i - 1, i, i + 1, i + 2) if 0 <= j < len(edited)})

    def mean(values, where):
        return statistics.mean(values[i].item() for i in where)

    def relative(where):
        return mean(change, where) / mean(wanted, where)

    return Joins(
        decibels.mean().item(),
        (decibels[near].median() - decibels.median()).item(),
        (decibels[near].quantile(0.1) - decibels.quantile(0.1)).item(),
        relative(at) / relative(elsewhere),
        relative(at) / relative(sorted(still - steps)),
        mean(colour, at),
        mean(colour, elsewhere),
    )


def decibels_of(edited, source, edit):
    """Mean over frames of the PSNR to the exact edit."""
    edited, source = (_floats(frames) for frames in (edited, source))
    return psnr_of_each(edited, EDITS[edit](source)).mean().item()


def borders_of(spans):
    """Frames at which windows begin and end.

    Args:
        spans: first and last latent frame, exclusive, of every window.
    """
    last = spans[-1][1]
    return sorted({FRAMES_PER_LATENT * i - 3 for span in spans for i in span if 0 < i < last})


def recognised(edited, source):
    """Which exact edit every frame is nearest to; the source counts as one."""
    names, found = [*EDITS, UNEDITED], []
    for start in range(0, len(edited), AT_ONCE):
        ours, its = (_floats(frames[start : start + AT_ONCE]) for frames in (edited, source))
        exact = [*(apply(its) for apply in EDITS.values()), its]
        nearest = torch.stack([psnr_of_each(ours, each) for each in exact]).argmax(0)
        found += [names[i] for i in nearest]
    return found


def psnr_of_each(a, b):
    """Of every frame, in dB."""
    return -10 * (a - b).square().flatten(1).mean(1).clamp_min(1e-10).log10()


def _floats(frames):
    frames = torch.as_tensor(frames)
    frames = frames.float() / 255 if frames.dtype == torch.uint8 else frames
    return frames.movedim(-1, 1)


def _changes(frames):
    return torch.stack([(after - before).abs().mean() for before, after in zip(frames, frames[1:], strict=False)])


def _changes_of(colours):
    return (colours[1:] - colours[:-1]).abs().mean(1)
