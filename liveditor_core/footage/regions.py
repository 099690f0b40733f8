"""Regions: masks of where the edit shows; every pixel outside stays the source's own, bit for bit."""

import functools
import logging
from bisect import bisect_right

import torch

from .feather import fade_in
from .geometry import VAE_STRIDE, Box, edited_box, placement
from .mask_sizes import Span, resample
from .source_video import AS_EDITED, OutputForm, SourceVideo
from .timing import FRAMES_PER_LATENT, padded_frame_count

LATENT_KEY = "liveditor_mask"  # in a LATENT: the mask that it was sampled with
# Masks that went through a video file or a segmenter have black that is not quite 0 and white that is not quite 1
# (16 and 235 of 255 are 0.06 and 0.92). In between, soft mattes rise evenly.
BLACK, WHITE = 0.1, 0.9
NEARLY_ALL = 0.95
ROWS = 256
MOST_OFF = 2  # frames: segmenters and loaders lose or repeat one or two at the ends of a clip


class Region:
    """Where an edit shows in an output, made frame by frame.

    A mask of the edit's size lies on the edit's frames; one of any other size covers the whole picture of the source.
    Up to BLACK it is outside, from WHITE on it is wholly inside.

    Args:
        mask: [M, H, W] in 0..1, single ones of two and of four dimensions too: one for all frames, one per edited
            frame, one per frame of the part of the source that is edited, as decoded or at its nominal rate, or one
            per frame of the whole video, which more masks than up to the end of that part are taken for.
        form: of the output.
        feather: pixels of the output over which the edit fades in from the mask's edge, inwards.

    Raises:
        ValueError: another number of masks, or nothing is in those that the output needs.
    """

    def __init__(self, mask: torch.Tensor, source: SourceVideo, form: OutputForm, feather: int = 0):
        self._masks = mask.reshape(-1, *mask.shape[-2:])
        self._indices = _mask_of_each_frame(len(self._masks), source, form)
        _check_share(self._masks, sorted(set(self._indices)))
        self._place(source, form)
        self._feather = feather
        self._kept = None, None

    def __len__(self):
        """How many frames the output has."""
        return len(self._indices)

    def weights(self, i: int) -> torch.Tensor:
        """How much of the edit every pixel of frame `i` of the output gets; 0 is exactly the source's pixel.

        Returns:
            [H, W] on the CPU, to be read only: it is kept for the next frame that the same mask serves.
        """
        index = self._indices[i]
        if index != self._kept[0]:
            self._kept = index, self._make(self._masks[index])
        return self._kept[1]

    def _place(self, source, form):
        """Find what of a mask each pixel of the output lies on, how far the edit reaches, and where edges count."""
        edit = Box(0, 0, source.width, source.height)
        original = Box(0, 0, source.original_width, source.original_height)
        mask = Box(0, 0, self._masks.shape[2], self._masks.shape[1])
        sizes = *original[2:], *edit[2:], source.fit, source.pixel_aspect
        picture = placement(*sizes)
        self._output = original if form.original_size else edit
        if form.original_size:
            self._reached = edited_box(*sizes)
        else:
            self._reached = edit if mask == edit else picture.within(edit)
        # The picture's own border is no edge, though black bars lie behind it; where crop cut it off there is one.
        self._faded = self._output if form.original_size else self._reached
        on_output, on_mask = original if form.original_size else picture, picture if mask == edit else mask
        self._columns, self._rows = (
            _span(*(box[axis::2] for box in (self._reached, on_output, on_mask))) for axis in (0, 1)
        )

    def _make(self, mask):
        mask = mask.cpu().float().sub(BLACK).div_(WHITE - BLACK).clamp_(0, 1)
        mask = resample(mask, self._rows, self._columns)
        reached, output, faded = self._reached, self._output, self._faded
        if reached != output:
            around = reached.left, output.right - reached.right, reached.top, output.bottom - reached.bottom
            mask = torch.nn.functional.pad(mask, around)
        if self._feather:
            fade_in(mask[faded.top : faded.bottom, faded.left : faded.right], self._feather)
        return mask


def _span(reached, on_output, on_mask):
    """Along an axis: what of the mask is reached, from where the picture begins and ends on output and mask."""
    step = (on_mask[1] - on_mask[0]) / (on_output[1] - on_output[0])
    return Span(reached[1] - reached[0], on_mask[0] + (reached[0] - on_output[0]) * step, step)


def _mask_of_each_frame(count, source, form):
    """Which of `count` masks belongs to each frame of the output: the one of what is visible at its time."""
    times = source.times(form)
    if count == 1:
        return [0] * len(times)

    def visible(time):
        return max(0, bisect_right(source.stamps, time) - 1)

    decoded, before = len(source.stamps), functools.cache(source.frames_before)
    whole = functools.cache(source.all_frames)
    readings = (
        (source.frames, "edited frames", lambda time: int(time * source.fps)),
        (decoded, "frames of the source", visible),
        (source.original_frames, "frames of the source at its rate", lambda time: int(time * source.original_fps)),
    )
    for off in range(MOST_OFF + 1):
        found = next((reading for reading in readings if abs(reading[0] - count) == off < count), None)
        # Counting may mean to read through the whole file.
        if found is None and count >= decoded - off and before() + decoded - off <= count <= whole() + off:
            found = (
                before() + decoded,
                "frames of the video up to the part's end",
                lambda time: before() + visible(time),
            )
        if found:
            number, what, index = found
            if off:
                logging.warning(
                    f"LIVEditor: {count} masks, taken for those of the {number} {what}"
                    + (", the last one again for what is missing." if count < number else ".")
                )
            return [min(count - 1, number - 1, index(time)) for time in times]
    raise ValueError(
        f"Mask: must be one for all frames, or one for each of the {source.frames} edited frames or of the "
        f"source's {decoded}, got {count} masks. Make them from the video that is edited."
    )


def _check_share(masks, used):
    if not any((masks[i] > BLACK).any() for i in used):
        raise ValueError(
            "Mask: must cover some of the picture in the part that is edited, got one that is empty everywhere there. "
            "Paint where the edit shall be, or connect no mask."
        )
    step = max(1, min(masks.shape[1:]) // 256)  # some of the pixels: all of 300 masks at 3840x2160 take seconds
    some = masks[:, ::step, ::step]
    share = sum(int(torch.count_nonzero(some[i] > BLACK)) for i in used) / (len(used) * some[0].numel())
    # All white is meant so; all but black is what an inverted mask or a matte of little contrast looks like.
    if share >= NEARLY_ALL and any((masks[i] < WHITE).any() for i in used):
        logging.warning(
            f"LIVEditor: the mask has {int(share * 100)} % of the picture inside, so that nearly all of it may change. "
            f"Outside is what is darker than {BLACK:.0%}: if less is meant, invert the mask or raise its contrast."
        )


def latent_mask(mask: torch.Tensor, source: SourceVideo) -> torch.Tensor:
    """Where the sampler may change the latent: wherever any pixel of any of its frames is in the mask.

    Returns:
        [1, 1, T, H, W] of 0 and 1.

    Raises:
        ValueError: what `Region` raises, or nothing of the mask is left at the size of the edit.
    """
    region = Region(mask, source, AS_EDITED)
    latents = (padded_frame_count(len(region)) - 1) // FRAMES_PER_LATENT + 1
    cells = torch.zeros(1, 1, latents, source.height // VAE_STRIDE, source.width // VAE_STRIDE)
    for i in range(len(region)):  # frames that are added for the VAE repeat the last one, in the same latent frame
        opened = torch.nn.functional.max_pool2d((region.weights(i) > 0).float()[None], VAE_STRIDE)[0]
        latent = cells[0, 0, -(-i // FRAMES_PER_LATENT)]
        torch.maximum(latent, opened, out=latent)
    if not cells.any():
        raise ValueError(
            "Mask: must cover some of what is edited, got one that is too thin for the size of the edit, or lies in "
            "what fit crop cuts off. Paint more, edit at a larger size, or choose fit pad."
        )
    return cells


def keep_outside(edit: torch.Tensor, source_frames: torch.Tensor, weights: torch.Tensor) -> torch.Tensor:
    """Put the source back outside a mask.

    Args:
        edit, source_frames: [H, W, 3], or [F, H, W, 3] of a few frames.
        weights: [H, W], or [F, H, W], of the edit.

    Returns:
        As `source_frames`, and in their type, so that what is outside is theirs bit for bit.
    """
    edit, weights = edit.to(source_frames), weights.to(source_frames).unsqueeze(-1)
    out = torch.empty_like(source_frames)
    rows = source_frames.dim() - 3
    # A few rows at a time: at 3840x2160 all that lies between takes as much as ten frames of the video.
    for kept, edited, share, result in zip(
        *(x.split(ROWS, rows) for x in (source_frames, edit, weights, out)), strict=True
    ):
        # NaN times 0 is NaN: what the edit is outside must not matter.
        result.copy_(torch.where(share > 0, torch.lerp(kept, edited, share), kept))
    return out
