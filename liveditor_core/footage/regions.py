"""Regions: masks of where the edit shows; every pixel outside stays the source's own, bit for bit."""

import scipy.ndimage
import torch

from .geometry import FRAMES_AT_ONCE, VAE_STRIDE, fit_frames, resize
from .source_video import AS_EDITED, OutputForm, SourceVideo, restore_size
from .timing import FRAMES_PER_LATENT, pad_frames

LATENT_KEY = "liveditor_mask"  # in a LATENT: the mask that it was sampled with


def fit_mask(mask: torch.Tensor, source: SourceVideo, form: OutputForm) -> torch.Tensor:
    """Bring masks to the frames and the size of an output.

    A mask of the edit's size lies on the edit's frames; one of any other size covers the whole picture of the source.

    Args:
        mask: [M, H, W] in 0..1: one for all frames, one per edited frame, one per frame of the part of the source
            that is edited, or one per frame of the whole video, which more masks than up to the end of that part are
            taken for.
        form: of the output.

    Returns:
        [F, height, width], F = 1 for a mask that serves all frames.

    Raises:
        ValueError: another number of masks, or nothing is in them.
    """
    mask = (
        mask.reshape(-1, *mask.shape[-2:]).float().clamp(0, 1)
    )  # nodes give single masks of two and of four dimensions too
    if not mask.any():
        raise ValueError(
            "Mask: must cover some of the picture, got one that is empty everywhere. Paint where the edit shall "
            "be, or connect no mask."
        )
    if len(mask) > 1:
        mask = mask[_frames(len(mask), source, form.original_rate)]
    mask = mask.unsqueeze(-1)
    on_the_edit = mask.shape[1:3] == (source.height, source.width)
    if on_the_edit and form.original_size:
        mask = restore_size(
            mask, source, lambda: mask.new_zeros(len(mask), source.original_height, source.original_width, 1)
        )
    elif not on_the_edit:
        mask = resize(mask, source.original_width, source.original_height)
        if not form.original_size:
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
    raise ValueError(
        f"Mask: must be one for all frames, or one for each of the {source.frames} edited frames or of the "
        f"source's {source.original_frames}, got {count} masks. "
        "Make them from the video that is edited."
    )


def latent_mask(mask: torch.Tensor, source: SourceVideo) -> torch.Tensor:
    """Where the sampler may change the latent: wherever any pixel of any of its frames is in the mask.

    Returns:
        [1, 1, T, H, W] of 0 and 1.
    """
    mask = fit_mask(mask, source, AS_EDITED)
    mask = pad_frames(mask.expand(source.frames, -1, -1).unsqueeze(-1)).squeeze(-1)
    cells = torch.nn.functional.max_pool2d((mask > 0).float(), VAE_STRIDE)
    return torch.stack([cells[0], *(frames.amax(dim=0) for frames in cells[1:].split(FRAMES_PER_LATENT))])[None, None]


def weights(mask: torch.Tensor, feather: int) -> torch.Tensor:
    """How much of the edit every pixel gets: rises from a mask's edge inwards, over `feather` pixels.

    The picture's own border is no edge.

    Args:
        mask: [F, H, W], from `fit_mask`.

    Returns:
        [F, H, W], 0 where the mask is 0.
    """
    return torch.stack([_risen(one, feather) for one in mask]) if feather else mask


def _risen(mask, feather):
    inside = mask > 0
    if inside.all():
        return mask
    depth = torch.from_numpy(scipy.ndimage.distance_transform_edt(inside.cpu().numpy())).to(mask)
    return mask * (depth / (feather + 1)).clamp(max=1)


def keep_outside(edit: torch.Tensor, source_frames: torch.Tensor, weights: torch.Tensor) -> torch.Tensor:
    """Put the source back outside a mask.

    Args:
        edit, source_frames: [F, H, W, 3]; the edit is overwritten.
        weights: [F or 1, H, W], of the edit.

    Returns:
        [F, H, W, 3].
    """
    for first in range(0, len(edit), FRAMES_AT_ONCE):
        part = slice(first, first + FRAMES_AT_ONCE)
        weight = (weights if len(weights) == 1 else weights[part]).unsqueeze(-1).to(edit)
        unedited = source_frames[part].to(edit)
        # NaN times 0 is NaN: what the edit is outside must not matter.
        edit[part] = torch.where(weight > 0, torch.lerp(unedited, edit[part], weight), unedited)
    return edit
