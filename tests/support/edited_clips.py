"""Sources for tests that put an edit back, without a latent."""

from fractions import Fraction

from liveditor.liveditor_core.footage.source_video import SourceVideo


def part_of(clip, size, frames, start, shown):
    """A part of a clip at 25 frames a second, edited at 16.

    Args:
        size: width and height of the edit.
        frames: of the edit.
        start: seconds.
        shown: how many frames of the clip lie in the part.
    """
    return SourceVideo(
        latent=None,
        width=size[0],
        height=size[1],
        frames=frames,
        fps=Fraction(16),
        clip=clip,
        start=Fraction(start),
        stamps=tuple(Fraction(i, 25) for i in range(shown)),
        original_frames=shown,
        fit="crop",
    )
