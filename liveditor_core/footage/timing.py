"""Frame rates and frame counts: which frame is shown when, and how many the VAE wants."""

from fractions import Fraction

import torch

FRAMES_PER_LATENT = 4  # but for the first frame, which has a latent frame of its own


def frame_indices(count: int, fps: Fraction, new_fps: Fraction) -> list[int]:
    """Which of `count` frames at `fps` to show at `new_fps`, so that the clip lasts as long; at least one."""
    new_count = max(1, round(count * new_fps / fps))
    return [min(count - 1, int((i + Fraction(1, 2)) * fps / new_fps)) for i in range(new_count)]


def take_frames(frames: torch.Tensor, indices: list[int]) -> torch.Tensor:
    """Frames by their numbers; without a copy where those are all of them."""
    return frames if indices == list(range(len(frames))) else frames[indices]


def padded_frame_count(count: int) -> int:
    """The next 4n + 1, which is what the VAE encodes without losing frames."""
    return -(-(count - 1) // FRAMES_PER_LATENT) * FRAMES_PER_LATENT + 1


def pad_frames(frames: torch.Tensor) -> torch.Tensor:
    """Repeat the last frame up to 4n + 1 frames.  # [F, H, W, C]"""
    missing = padded_frame_count(len(frames)) - len(frames)
    return torch.cat([frames, frames[-1:].expand(missing, *frames.shape[1:])]) if missing else frames
