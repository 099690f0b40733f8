"""How good an edit of the small model is.

Each of its edits can be computed exactly, so the result can be compared with all of them.
"""

import itertools
import math
from fractions import Fraction
from typing import NamedTuple

import av
import torch

from liveditor.liveditor_core.footage.geometry import fit_frames
from liveditor.liveditor_core.footage.timing import frame_at, frame_time

from .edits import EDITS, HELD_OUT, PHRASES

UNEDITED = "unedited"
PHRASE_OF = {
    phrase.lower(): name for phrases in (PHRASES, HELD_OUT) for name, group in phrases.items() for phrase in group
}


class Score(NamedTuple):
    edit: str  # what was asked
    decibels: float  # PSNR to the exact edit
    source_decibels: float  # PSNR of the unedited source to it
    nearest: str  # of all exact edits and the source, the one with the highest PSNR

    @property
    def recognised(self):
        return self.nearest == self.edit


def asked_edit(prompt):
    """The edit that a prompt asks for, if it is one of the phrasings that are trained on or held out."""
    return PHRASE_OF.get(prompt.strip().rstrip(".").lower())


def score(edited, source, edit=None):
    """Compare an edit with all exact edits of its source.

    Args:
        edited, source: [T, H, W, 3] in [0, 1].
        edit: name of the edit that was asked; the nearest one if None.
    """
    source, edited = source.movedim(-1, 1), edited.movedim(-1, 1)
    exact = {UNEDITED: source} | {name: apply(source) for name, apply in EDITS.items()}
    decibels = {name: psnr(edited, frames) for name, frames in exact.items()}
    nearest = max(decibels, key=decibels.get)
    edit = edit or nearest
    return Score(edit, decibels[edit], psnr(source, exact[edit]), nearest)


def psnr(a, b):
    """Peak signal-to-noise ratio of frames in [0, 1], in dB."""
    return -10 * (a - b).square().mean().clamp_min(1e-10).log10().item()


def read_video(path, most=None):
    """Frames [T, H, W, 3] uint8, at most so many, and the frame rate."""
    with av.open(str(path)) as container:
        stream = container.streams.video[0]
        frames = [
            torch.from_numpy(frame.to_ndarray(format="rgb24"))
            for frame in itertools.islice(container.decode(stream), most)
        ]
        return torch.stack(frames), Fraction(stream.average_rate)


def source_frames(path, like, fps, start=0):
    """The frames of a video that an edit of it was made from, cropped to the edit's size.

    Args:
        like: the edit, [T, H, W, 3].
        fps: its frame rate.
        start: where in the video the edit begins, in seconds.

    Returns:
        [T, H, W, 3] in [0, 1].
    """
    with av.open(str(path)) as container:
        rate = Fraction(container.streams.video[0].average_rate)
    first = round(start * rate)
    frames = read_video(path, first + math.ceil(len(like) * rate / fps))[0][first:]
    chosen = [frames[frame_at(frame_time(i, Fraction(fps)), rate, len(frames))] for i in range(len(like))]
    return torch.cat([fit_frames(frame[None].float() / 255, like.shape[2], like.shape[1], "crop") for frame in chosen])
