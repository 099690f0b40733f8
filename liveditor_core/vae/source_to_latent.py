"""A source video on its way in: the part to edit, brought to size and rate, through the VAE."""

import logging
from functools import partial
from typing import NamedTuple

from ..footage.geometry import SIZE_STEP, fit_frames, preset_size
from ..footage.reader import FootageError, read_part
from ..footage.source_video import SourceVideo
from ..footage.timing import frame_indices, pad_frames, padded_frame_count
from .clips import encode_frames

CUSTOM = "custom"


class SizeWanted(NamedTuple):
    """The size to edit at, as the user asks for it."""

    preset: str  # of geometry.PRESETS, or CUSTOM
    width: int  # only for CUSTOM
    height: int
    fit: str


def encode_source(video, vae, size: SizeWanted, *, start, max_frames, at_source_rate, image_fps) -> SourceVideo:
    """Read, fit and encode the part of a video that is to be edited.

    Args:
        vae: the host's VAE object, of Wan 2.1.
        video, start, max_frames, at_source_rate, image_fps: as in `read_part`.

    Raises:
        FootageError: the size is no multiple of 16, or what `read_part` raises.
    """
    width, height = size.width, size.height
    for label, value in (("width", width), ("height", height)):
        if size.preset == CUSTOM and value % SIZE_STEP:
            nearest = max(1, round(value / SIZE_STEP)) * SIZE_STEP
            raise FootageError(f"{label} must be a multiple of {SIZE_STEP}, got {value}. Use {nearest}.")
    read = partial(
        read_part, video, start=start, max_frames=max_frames, at_source_rate=at_source_rate, image_fps=image_fps
    )
    part = read()
    original_frames, original_height, original_width = part.frames.shape[:3]
    if size.preset != CUSTOM:
        width, height = preset_size(size.preset, original_width, original_height)
    indices = frame_indices(original_frames, part.fps, part.edit_fps)[: max_frames or None]
    fitted = fit_frames(part.frames[indices], width, height, size.fit)
    latent = encode_frames(vae, pad_frames(fitted))
    added = padded_frame_count(len(fitted)) - len(fitted)
    logging.info(
        f"LIVEditor: source of {len(fitted)} frames at {float(part.edit_fps):g} fps, {width}x{height}"
        + (f", {added} frames added for the VAE and cut again later" if added else "")
    )
    return SourceVideo(
        latent=latent,
        width=width,
        height=height,
        frames=len(fitted),
        fps=part.edit_fps,
        original_width=original_width,
        original_height=original_height,
        original_frames=original_frames,
        original_fps=part.fps,
        first_frame=part.first_frame,
        fit=size.fit,
        audio=part.audio,
        read_original=lambda: read().frames,
    )
