"""The part of a video that is to be edited: frames, sound and rates, from a file or from frames in memory."""

import math
import os
from fractions import Fraction
from typing import NamedTuple

import av
import torch

from comfy_api.latest import InputImpl

from .sound import audio_window

TRAINED_FPS = 16


class FootageError(ValueError):
    """A video cannot be used; the message says why and what to do, without the name of the node."""


class Part(NamedTuple):
    """The part of a video that is to be edited."""

    frames: torch.Tensor  # [F, H, W, 3] in 0..1, at the source's rate
    audio: dict | None  # the host's AUDIO
    fps: Fraction  # of the source
    edit_fps: Fraction
    first_frame: int  # where in the whole video it begins


def read_part(video, *, start, max_frames, at_source_rate, image_fps) -> Part:
    """Read a part of a VIDEO, or of a batch of IMAGE frames.

    Args:
        video: the host's VIDEO, or [F, H, W, C] in 0..1.
        start: seconds.
        max_frames: how many frames to edit at most, 0 for all.
        at_source_rate: edit at the source's frame rate, else at the rate that the model was trained at.
        image_fps: the frame rate of IMAGE frames.

    Raises:
        FootageError: nothing that FFmpeg can read, no picture, or no frame after the start.
    """
    start_at = start
    if isinstance(video, torch.Tensor):
        frames, audio, fps = video, None, Fraction(image_fps).limit_denominator(1001)
    else:
        frames, audio, fps, start = _read_video(video, start, max_frames, at_source_rate)
    edit_fps = _edit_fps(fps, at_source_rate)
    first = round(start * fps)
    # Of a file the host has left out all frames before the start.
    first_frame = first if start == start_at else math.ceil(start_at * fps - Fraction(1, 10**6))
    if len(frames) == 0 or first >= len(frames):
        raise FootageError(
            f"the video must have at least one frame after its start, got none after {start_at:g} s. "
            "Choose another video or an earlier start."
        )
    wanted = math.ceil(max_frames * fps / edit_fps) if max_frames else None
    frames = frames[first:][:wanted, ..., :3]
    return Part(frames, audio_window(audio, start, len(frames) / fps), fps, edit_fps, first_frame)


def _read_video(video, start, max_frames, at_source_rate):
    """Decode a VIDEO, of a file only the part that is needed; returns the start within what was decoded as well."""
    try:
        fps = video.get_frame_rate()
        if isinstance(video, InputImpl.VideoFromFile):
            seconds = max(0.0, video.get_duration() - start)
            if max_frames:
                seconds = min(seconds, float((max_frames + 1) / min(fps, _edit_fps(fps, at_source_rate))))
            # A window of no length would mean all of the video to the host.
            video, start = video.as_trimmed(start, seconds or 1e-3, strict_duration=False), 0.0
        components = video.get_components()
    except (av.error.FFmpegError, ValueError, StopIteration) as error:
        name = video.get_stream_source()
        name = os.path.basename(name) if isinstance(name, str) else "the input"
        raise FootageError(
            f"{name}: must be a video that FFmpeg can read, with a picture ({error}). "
            "Choose another file or convert it to mp4."
        ) from error
    return components.images, components.audio, components.frame_rate, start


def _edit_fps(fps, at_source_rate):
    return fps if at_source_rate else Fraction(TRAINED_FPS)
