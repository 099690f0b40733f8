"""Latents of single pictures, as a clip that begins with them has in its first frame."""

import torch

from ..footage.source_video import SourceVideo, repeat_last
from ..footage.timing import FRAMES_PER_LATENT, frame_time
from .clips import encode_frames


def encode_first_frames(source: SourceVideo, starts: list[int]) -> torch.Tensor:
    """What the source's latent would begin with if the clip began just before each of `starts`.

    The picture is the last one that the latent frame before it stands for, so that a window has frames without a gap.

    Args:
        starts: latent frames, rising, from 1.

    Returns:
        [1, 16, number of starts, H, W] raw VAE latent.
    """
    times = [source.start + frame_time(FRAMES_PER_LATENT * (start - 1), source.fps) for start in starts]
    pictures = repeat_last(source.clip.frames_at(times, fit=source.fitted), len(times))
    return torch.cat(
        [
            encode_frames(source.vae, lambda p=picture: iter([p.unsqueeze(0)]), source.height, source.width)
            for picture in pictures
        ],
        dim=2,
    )
