"""The clip that a VIDEO or a batch of IMAGE frames is."""

import io
from fractions import Fraction

import torch

from comfy_api.latest import InputImpl

from .clip import Clip
from .errors import FootageError
from .file_clip import FileClip, Window
from .frames_clip import FramesClip
from .sound import SamplesSound


def open_clip(video, *, image_fps: float = 0, audio: dict | None = None, check=Clip.check) -> Clip:
    """Open footage.

    Args:
        video: the host's VIDEO, or [F, H, W, C] in 0..1; or a Clip, which is given back.
        image_fps: the frame rate of IMAGE frames.
        audio: the host's AUDIO; takes the place of the video's own sound.
        check: as in Clip.

    Raises:
        FootageError: nothing that FFmpeg can read, no picture, or IMAGE frames without a rate.
    """
    if isinstance(video, torch.Tensor):
        if not image_fps:
            raise FootageError(
                "image_fps must be set for IMAGE input, got 0: frames alone do not say how fast they play. Use the "
                "fps of Get Video Components, or of whatever made the frames."
            )
        return _frames(video, image_fps, audio, "the frames")
    if isinstance(video, Clip):
        return video
    clip = video.as_clip(check) if hasattr(video, "as_clip") else _open_video(video, check)
    if audio is not None:
        clip.sound = SamplesSound(audio)
    return clip


def _open_video(video, check):
    source = video.get_stream_source() if isinstance(video, InputImpl.VideoFromFile) else None
    if not isinstance(source, str | io.BytesIO):
        parts = video.get_components()
        return _frames(parts.images, parts.frame_rate, parts.audio, "the video")
    try:
        start, duration = video.get_active_trim_window()
    except ValueError as error:
        raise FootageError(
            f"{source}: must tell its length to be trimmed from its end ({error}). Give Trim Video a start from the "
            "beginning."
        ) from error
    start = Fraction(start).limit_denominator(10**6)
    end = start + Fraction(duration).limit_denominator(10**6) if duration else None
    return FileClip(source, Window(start, end), check)


def _frames(frames, rate, audio, name):
    if not len(frames):
        raise FootageError(f"{name}: must be at least one frame, got none. Connect another video.")
    return FramesClip(frames, Fraction(rate), audio, name)
