"""Sizes, frame rates and frame counts on the way into the model, and their inverse on the way out."""

from collections.abc import Callable
from dataclasses import dataclass
from fractions import Fraction

import torch

# Width x height that LIVEditor-14B was trained at, and the same shapes at 480p.
PRESETS = {
    "auto 540p": ((960, 544), (544, 960), (720, 720), (960, 480), (480, 960)),
    "auto 480p": ((832, 480), (480, 832), (624, 624), (832, 416), (416, 832)),
}
FITS = ("crop", "pad", "stretch")
VAE_STRIDE = 8
SIZE_STEP = 16  # VAE stride 8 times patch 2: the pixels of a token
FRAMES_PER_LATENT = 4  # but for the first frame, which has a latent frame of its own
FRAMES_AT_ONCE = 16


@dataclass(frozen=True)
class SourceVideo:
    """A source video as the sampler reads it, and what is needed to put the edit back in its place.

    Args:
        latent: [1, 16, T, H, W] raw VAE latent.
        width, height: pixels of the edit.
        frames, fps: of the edit, before padding to 4n + 1 frames.
        original_width, original_height, original_frames, original_fps: of the part of the source that is edited.
        first_frame: where in the whole source that part begins.
        fit: how the source was fitted into the edit's size.
        audio: the host's AUDIO of that part, or None.
        read_original: gives the original frames again.  # [original_frames, H, W, 3]
    """

    latent: torch.Tensor
    width: int
    height: int
    frames: int
    fps: Fraction
    original_width: int
    original_height: int
    original_frames: int
    original_fps: Fraction
    first_frame: int
    fit: str
    audio: dict | None
    read_original: Callable[[], torch.Tensor]

    def edited_indices(self) -> list[int]:
        """Which original frame each edited one was made from."""
        return frame_indices(self.original_frames, self.original_fps, self.fps)[: self.frames]

    def shown_indices(self) -> list[int]:
        """Which edited frame is shown at the time of each original one."""
        indices = frame_indices(self.frames, self.fps, self.original_fps)[: self.original_frames]
        return indices + indices[-1:] * (self.original_frames - len(indices))  # rounding may leave the last frame out

    def read_frames(self, *, original_rate: bool, original_size: bool) -> torch.Tensor:
        """The unedited frames that an output stands for, read again from the source.  # [F, H, W, 3]"""
        frames = self.read_original()
        if not original_rate:
            frames = take_frames(frames, self.edited_indices())
        return frames if original_size else fit_frames(frames, self.width, self.height, self.fit)


def preset_size(preset: str, width: int, height: int) -> tuple[int, int]:
    """The preset's width and height that are nearest in aspect ratio to a source of `width` x `height`."""
    return min(PRESETS[preset], key=lambda size: abs(size[0] / size[1] - width / height))


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


def resize(frames: torch.Tensor, width: int, height: int) -> torch.Tensor:
    """Bicubic with antialiasing, a few frames at a time.

    Args:
        frames: [F, H, W, C] in 0..1.

    Returns:
        [F, height, width, C] in 0..1.
    """
    if frames.shape[1:3] == (height, width):
        return frames
    out = frames.new_empty(len(frames), height, width, frames.shape[3])
    for part, result in zip(frames.split(FRAMES_AT_ONCE), out.split(FRAMES_AT_ONCE), strict=True):
        scaled = torch.nn.functional.interpolate(
            part.movedim(-1, 1), size=(height, width), mode="bicubic", antialias=True
        )
        result.copy_(scaled.movedim(1, -1).clamp_(0, 1))
    return out


def _scaled_size(width, height, new_width, new_height, fit):
    """Size of the whole source, scaled to cover (crop) or to fit inside (pad) the new size."""
    scale = (max if fit == "crop" else min)(new_width / width, new_height / height)
    if fit == "crop":
        return max(new_width, round(width * scale)), max(new_height, round(height * scale))
    return min(new_width, max(1, round(width * scale))), min(new_height, max(1, round(height * scale)))


def fit_frames(frames: torch.Tensor, width: int, height: int, fit: str) -> torch.Tensor:
    """Bring frames to a size: scale and centre-crop, scale and pad with black, or stretch.

    Args:
        frames: [F, H, W, C] in 0..1.

    Returns:
        [F, height, width, C].
    """
    if fit == "stretch":
        return resize(frames, width, height)
    w, h = _scaled_size(frames.shape[2], frames.shape[1], width, height, fit)
    scaled = resize(frames, w, h)
    x, y = abs(w - width) // 2, abs(h - height) // 2
    if fit == "crop":
        return scaled[:, y : y + height, x : x + width]
    out = scaled.new_zeros(len(scaled), height, width, scaled.shape[3])
    out[:, y : y + h, x : x + w] = scaled
    return out


def restore_size(frames: torch.Tensor, source: SourceVideo, original: Callable[[], torch.Tensor]) -> torch.Tensor:
    """Undo `fit_frames`: bring an edit back to the size of its source.

    Where the source was cropped, the edit covers what was kept, and the cut-off border is the source's own.

    Args:
        frames: [F, source.height, source.width, C].
        original: gives the source frames that belong to these.  # [F, H, W, C]

    Returns:
        [F, original_height, original_width, C].
    """
    width, height = source.original_width, source.original_height
    if source.fit == "stretch":
        return resize(frames, width, height)
    w, h = _scaled_size(width, height, source.width, source.height, source.fit)
    x, y = abs(w - source.width) // 2, abs(h - source.height) // 2
    if source.fit == "pad":
        return resize(frames[:, y : y + h, x : x + w], width, height)
    left, top = round(x * width / w), round(y * height / h)
    right, bottom = round((x + source.width) * width / w), round((y + source.height) * height / h)
    inside = resize(frames, right - left, bottom - top)
    if (left, top, right, bottom) == (0, 0, width, height):
        return inside
    out = original().to(inside).clone()
    out[:, top:bottom, left:right] = inside
    return out


def wipe(before: torch.Tensor, after: torch.Tensor) -> torch.Tensor:
    """A border that runs once over the picture from left to right and leaves the second clip behind it.

    Args:
        before, after: [F, H, W, 3], F at least 1.

    Returns:
        [F, H, W, 3].
    """
    out, width = before.clone(), before.shape[2]
    for i in range(len(out)):
        border = round(width * i / max(1, len(out) - 1))
        out[i, :, :border] = after[i, :, :border]
        if 0 < border < width:
            out[i, :, border - 1 : border + 1] = 1
    return out


def audio_window(audio: dict | None, start: float, seconds: float) -> dict | None:
    """The part of an AUDIO from `start` that lasts `seconds`."""
    if audio is None:
        return None
    rate = audio["sample_rate"]
    first = round(start * rate)
    return {**audio, "waveform": audio["waveform"][..., first : first + round(seconds * rate)]}
