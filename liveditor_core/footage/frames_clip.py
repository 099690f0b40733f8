"""A clip of frames that lie in memory: IMAGE batches, and VIDEO made of tensors."""

from fractions import Fraction

import torch

from .clip import Picture, SteadyClip
from .sound import SamplesSound
from .timing import file_rate


class FramesClip(SteadyClip):
    """Frames at a constant rate.

    Args:
        frames: [F, H, W, C] in 0..1, C of 3, or 4 with alpha.
        rate: frames a second.
        audio: the host's AUDIO, or None.
    """

    def __init__(self, frames: torch.Tensor, rate: Fraction, audio: dict | None = None, name="the frames"):
        self._frames, self.name = frames, name
        self.rate = file_rate(Fraction(rate))
        self.height, self.width = frames.shape[1:3]
        self.has_alpha = frames.shape[3] == 4
        self.sound = SamplesSound(audio) if audio is not None else None
        self.notes = [f"{len(frames)} frames in memory, {self.width}x{self.height}"]
        self.notes.append(self.sound.note if self.sound else "no sound")
        self.errors = []

    def __len__(self):
        return len(self._frames)

    def pictures(self, start):
        for index in range(self.first_at(start), len(self)):
            yield Picture(index / self.rate, 1 / self.rate, index)

    def rgb(self, picture):
        frame = self._frames[picture.frame].float().cpu()
        if self.has_alpha:
            return torch.cat([frame[..., :3] * frame[..., 3:], frame[..., 3:]], dim=-1)
        return frame
