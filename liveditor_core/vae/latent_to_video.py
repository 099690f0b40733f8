"""An edit on its way out: through the VAE into a spool, from which it is put together whenever it is read."""

import os
import time

import torch

import comfy.utils
import folder_paths

from ..footage.edited_video import SOURCE_FORM, EditedVideo
from ..footage.errors import FootageError, SourceChanged
from ..footage.regions import LATENT_KEY, Region
from ..footage.source_video import OutputForm, SourceVideo
from ..footage.spool import Spool
from ..footage.timing import padded_frame_count
from ..progress import watch
from .clips import decode_into


def decode_edit(
    samples, vae, source: SourceVideo, form: OutputForm, folder, *, tile_size=None, mask=None, feather=0, whole=False
) -> EditedVideo:
    """Decode an edited latent.

    Args:
        samples: the host's LATENT; of a batch every clip comes one after the other, each with the source's sound.
        vae: the host's VAE object, of Wan 2.1.
        folder: for the decoded frames, at the size of the edit; they go with the video.
        tile_size: pixels; decode in tiles of this size, None to do so only where memory runs out.
        mask: [M, H, W] in 0..1 of where the edit shows; the one it was sampled with if None.
        feather: pixels over which the edit fades in from the mask's edge.
        whole: give the whole clip with the edit in its place.

    Raises:
        FootageError: the latent is not of the source's size, the mask does not fit, the source has changed, or the
            disk is full.
    """
    latent = samples["samples"]
    if latent.shape[1:] != source.latent.shape[1:]:
        raise FootageError(
            f"the latent must be of the source's size, got {tuple(latent.shape[1:])} against "
            f"{tuple(source.latent.shape[1:])}. Connect the source that this latent was made from."
        )
    mask = samples.get(LATENT_KEY) if mask is None else mask
    try:
        source.clip.require_unchanged()
    except SourceChanged as error:
        raise SourceChanged(f"{error} {_keep(latent, mask is not None)}") from error
    region = None if mask is None else Region(mask, source, SOURCE_FORM if whole else form, feather)
    spool = Spool(folder, source.height, source.width, len(latent) * padded_frame_count(source.frames))
    for number, item in enumerate(latent.split(1), 1):
        decode_into(vae, item, spool, tile_size, watch())
        spool.set_length(number * source.frames)  # without those that were added for the VAE
    return EditedVideo(source, spool, form, region, whole=whole, watch=watch)


def _keep(latent, has_mask):
    """Write an edit where *Load Latent* finds it, so that hours of sampling are not lost; says so."""
    name = time.strftime("liveditor_%Y%m%d_%H%M%S.latent")
    path = os.path.join(folder_paths.get_input_directory(), name)
    comfy.utils.save_torch_file(
        {"latent_tensor": latent.contiguous(), "latent_format_version_0": torch.tensor([])}, path
    )
    return f"The edit is kept: Load Latent has it as {name} and can stand in for the sampler" + (
        "; connect its mask to Decode Video." if has_mask else "."
    )
