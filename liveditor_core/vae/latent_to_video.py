"""An edit on its way out: through the VAE, back to the source's size, rate and sound, the source outside a mask."""

import functools

import torch

from comfy_api.latest import InputImpl, Types

from ..footage.reader import FootageError
from ..footage.regions import LATENT_KEY, fit_mask, keep_outside, weights
from ..footage.source_video import OutputForm, SourceVideo, restore_size
from ..footage.timing import take_frames
from .clips import decode_latent, decode_tiles


def decode_edit(samples, vae, source: SourceVideo, form: OutputForm, *, tile_size=None, mask=None, feather=0):
    """Decode an edited latent.

    Args:
        samples: the host's LATENT; of a batch every clip comes one after the other, each with the source's sound.
        vae: the host's VAE object, of Wan 2.1.
        tile_size: pixels; decode in tiles of this size, None to do so only where memory runs out.
        mask: [M, H, W] in 0..1 of where the edit shows; the one it was sampled with if None.
        feather: pixels over which the edit fades in from the mask's edge.

    Returns:
        The host's VIDEO, and its frames [F, H, W, 3].

    Raises:
        FootageError: the latent is not of the source's size, or the mask does not fit.
    """
    latent = samples["samples"]
    if latent.shape[1:] != source.latent.shape[1:]:
        raise FootageError(
            f"the latent must be of the source's size, got {tuple(latent.shape[1:])} against "
            f"{tuple(source.latent.shape[1:])}. Connect the source that this latent was made from."
        )
    read = functools.cache(source.read_frames)  # of a batch every clip may need them, and so may a mask
    mask = samples.get(LATENT_KEY) if mask is None else mask
    if mask is not None:
        share = weights(fit_mask(mask, source, form), feather)

    clips = []
    for item in latent.split(1):
        clip = decode_latent(vae, item) if tile_size is None else decode_tiles(vae, item, tile_size)
        clip = clip[: source.frames]
        if form.original_size:
            clip = restore_size(clip, source, lambda: read(OutputForm(original_rate=False, original_size=True)))
        if form.original_rate:
            clip = take_frames(clip, source.shown_indices())
        clips.append(clip if mask is None else keep_outside(clip, read(form), share))
    images = torch.cat(clips) if len(clips) > 1 else clips[0]
    audio = source.audio
    if audio is not None and len(clips) > 1:
        audio = {**audio, "waveform": torch.cat([audio["waveform"]] * len(clips), dim=-1)}
    rate = source.original_fps if form.original_rate else source.fps
    return InputImpl.VideoFromComponents(Types.VideoComponents(images=images, audio=audio, frame_rate=rate)), images
