"""Sizes: which one a video is edited at, and how its frames are brought there."""

import torch

# Width x height that LIVEditor-14B was trained at, and the same shapes at 480p.
PRESETS = {
    "auto 540p": ((960, 544), (544, 960), (720, 720), (960, 480), (480, 960)),
    "auto 480p": ((832, 480), (480, 832), (624, 624), (832, 416), (416, 832)),
}
FITS = ("crop", "pad", "stretch")
VAE_STRIDE = 8
SIZE_STEP = 16  # VAE stride 8 times patch 2: the pixels of a token
FRAMES_AT_ONCE = 16


def preset_size(preset: str, width: int, height: int) -> tuple[int, int]:
    """The preset's width and height that are nearest in aspect ratio to a source of `width` x `height`."""
    return min(PRESETS[preset], key=lambda size: abs(size[0] / size[1] - width / height))


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


def scaled_size(width, height, new_width, new_height, fit):
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
    w, h = scaled_size(frames.shape[2], frames.shape[1], width, height, fit)
    scaled = resize(frames, w, h)
    x, y = abs(w - width) // 2, abs(h - height) // 2
    if fit == "crop":
        return scaled[:, y : y + height, x : x + width]
    out = scaled.new_zeros(len(scaled), height, width, scaled.shape[3])
    out[:, y : y + h, x : x + w] = scaled
    return out
