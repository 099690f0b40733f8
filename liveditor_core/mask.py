"""Masks: where the edit shows; every pixel outside stays the source's own, bit for bit."""

import scipy.ndimage
import torch

from .video import FRAMES_AT_ONCE, SourceVideo, fit_frames, pad_frames, resize, restore_size

VAE_STRIDE, VAE_FRAMES = 8, 4  # pixels and frames per latent number; the first frame has a latent frame of its own


def fit_mask(mask: torch.Tensor, source: SourceVideo, *, original_rate: bool, original_size: bool) -> torch.Tensor:
    """Bring masks to the frames and the size of an output.

    A mask of the edit's size lies on the edit's frames; one of any other size covers the whole picture of the source.

    Args:
        mask: [M, H, W] in 0..1: one for all frames, one per edited frame, one per frame of the part of the source that is
            edited, or one per frame of the whole video.
        original_rate, original_size: for an output at the source's frame rate or size rather than the edit's.

    Returns:
        [F, height, width], F = 1 for a mask that serves all frames.

    Raises:
        ValueError: another number of masks.
    """
    mask = mask.float().clamp(0, 1)
    if len(mask) > 1:
        mask = mask[_frames(len(mask), source, original_rate)]
    mask = mask.unsqueeze(-1)
    on_the_edit = mask.shape[1:3] == (source.height, source.width)
    if on_the_edit and original_size:
        mask = restore_size(mask, source, lambda: mask.new_zeros(len(mask), source.original_height, source.original_width, 1))
    elif not on_the_edit:
        mask = resize(mask, source.original_width, source.original_height)
        if not original_size:
            mask = fit_frames(mask, source.width, source.height, source.fit)
    return mask.squeeze(-1)


def _frames(count, source, original_rate):
    """Which of `count` masks belongs to each frame of the output."""
    whole_video = count >= source.first_frame + source.original_frames and count != source.frames
    if count == source.original_frames or whole_video:
        first = 0 if count == source.original_frames else source.first_frame
        indices = range(source.original_frames) if original_rate else source.edited_indices()
        return [first + i for i in indices]
    if count == source.frames:
        return source.shown_indices() if original_rate else list(range(count))
    raise ValueError(f"Mask: must be one for all frames, or one for each of the {source.frames} edited frames or of the source's {source.original_frames}, got {count} masks. "
                     "Make them from the video that is edited.")


def latent_mask(mask: torch.Tensor, source: SourceVideo) -> torch.Tensor:
    """Where the sampler may change the latent: wherever any pixel of any of its frames is in the mask.

    Returns:
        [1, 1, T, H, W] of 0 and 1.
    """
    mask = fit_mask(mask, source, original_rate=False, original_size=False)
    mask = pad_frames(mask.expand(source.frames, -1, -1).unsqueeze(-1)).squeeze(-1)
    cells = torch.nn.functional.max_pool2d((mask > 0).float(), VAE_STRIDE)
    return torch.stack([cells[0], *(frames.amax(dim=0) for frames in cells[1:].split(VAE_FRAMES))])[None, None]


def feathered(mask: torch.Tensor, feather: int) -> torch.Tensor:
    """Let a mask rise from its edge inwards, over `feather` pixels; where it is 0 it stays 0. The picture's own border is no edge.

    Args:
        mask: [H, W] in 0..1.
    """
    if feather == 0 or bool((mask > 0).all()):
        return mask
    depth = torch.from_numpy(scipy.ndimage.distance_transform_edt((mask > 0).cpu().numpy())).to(mask)
    return mask * (depth / (feather + 1)).clamp(max=1)


def keep_outside(edit: torch.Tensor, source_frames: torch.Tensor, mask: torch.Tensor, feather: int) -> torch.Tensor:
    """Put the source back outside a mask.

    Args:
        edit, source_frames: [F, H, W, 3]; the edit is overwritten.
        mask: [F or 1, H, W], from `fit_mask`.
        feather: pixels over which the edge fades, inwards.

    Returns:
        [F, H, W, 3].
    """
    weights = [feathered(one, feather).unsqueeze(-1) for one in mask] if len(mask) == 1 else None
    for first in range(0, len(edit), FRAMES_AT_ONCE):
        part = slice(first, first + FRAMES_AT_ONCE)
        weight = weights[0] if weights else torch.stack([feathered(one, feather) for one in mask[part]]).unsqueeze(-1)
        edit[part] = torch.lerp(source_frames[part].to(edit), edit[part], weight.to(edit))
    return edit
