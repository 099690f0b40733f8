"""Long clips through the Wan VAE a few frames at a time, so that neither the clip nor its edit lies on the GPU whole.

The VAE is causal in time and keeps what it needs of earlier frames in a cache; the host's own encode and decode use
that too, but hold all pixels on the GPU. The result is the same.
"""

import logging
from functools import partial

import torch

import comfy.model_management
from comfy.ldm.wan.vae import WanVAE, count_cache_layers

TILES = {"tile_x": 32, "tile_y": 32, "overlap": 8}  # of the latent, as the host decodes when memory ran out
LONGEST_AT_ONCE = 161  # frames, ten seconds: up to here the host's own way


def encode_frames(vae, frames):
    """Encode a clip.

    Args:
        vae: the host's VAE object, of Wan 2.1.
        frames: [F, H, W, 3] in 0..1, F = 4n + 1, H and W multiples of 8.

    Returns:
        [1, 16, n + 1, H / 8, W / 8], as `vae.encode` gives it.
    """
    if len(frames) <= LONGEST_AT_ONCE or not isinstance(vae.first_stage_model, WanVAE):
        return vae.encode(frames)
    return _or_in_tiles(vae, _encode, vae.encode_tiled, frames)


def decode_latent(vae, latent):
    """Decode a latent.

    Args:
        vae: the host's VAE object, of Wan 2.1.
        latent: [1, 16, T, h, w].

    Returns:
        [4T - 3, 8h, 8w, 3] in 0..1, as `vae.decode` gives it.
    """
    if 4 * latent.shape[2] - 3 <= LONGEST_AT_ONCE or not isinstance(vae.first_stage_model, WanVAE):
        return vae.decode(latent).flatten(0, -4)
    return _or_in_tiles(vae, _decode, partial(vae.decode_tiled, **TILES), latent).flatten(0, -4)


def _or_in_tiles(vae, whole, in_tiles, x):
    vae.throw_exception_if_invalid()
    try:
        with comfy.model_management.cuda_device_context(vae.device):
            return whole(vae, x)
    except Exception as error:
        comfy.model_management.raise_non_oom(error)
        logging.warning("LIVEditor: out of memory with whole frames in the VAE, going on in tiles.")
    comfy.model_management.soft_empty_cache()  # after the exception, which holds on to what was allocated
    return in_tiles(x)


def _load(vae, memory):
    comfy.model_management.load_models_gpu([vae.patcher], memory_required=memory, force_full_load=vae.disable_offload)


def _pieces(count):
    """The first of `count` frames alone, then two at a time, as the VAE's cache wants them."""
    return [(0, 1), *((i, min(i + 2, count)) for i in range(1, count, 2))]


def _encode(vae, frames):
    model = vae.first_stage_model
    _load(vae, vae.memory_used_encode((1, 3, len(frames), *frames.shape[1:3]), vae.vae_dtype))
    cache, parts = [None] * count_cache_layers(model.encoder), []
    for first, last in _pieces(len(frames)):
        pixels = vae.process_input(frames[first:last].movedim(-1, 0).unsqueeze(0)).to(vae.vae_dtype).to(vae.device)
        out = model.encoder(pixels, feat_cache=cache, feat_idx=[0], final=last == len(frames))
        if out is not None:
            parts.append(model.conv1(out).chunk(2, dim=1)[0].to(vae.output_device, vae.vae_output_dtype()))
    return torch.cat(parts, dim=2)


def _decode(vae, latent):
    model = vae.first_stage_model
    _load(vae, vae.memory_used_decode(latent.shape, vae.vae_dtype))
    x = model.conv2(latent.to(device=vae.device, dtype=vae.vae_dtype))
    frames = torch.empty(
        1, 4 * x.shape[2] - 3, 8 * x.shape[3], 8 * x.shape[4], 3, device=vae.output_device, dtype=vae.vae_output_dtype()
    )
    cache, done = [None] * count_cache_layers(model.decoder), 0
    for first, last in _pieces(x.shape[2]):
        for pixels in model.decoder(x[:, :, first:last], feat_cache=cache, feat_idx=[0]):
            frames[:, done : done + pixels.shape[2]] = vae.process_output(
                pixels.to(device=vae.output_device, dtype=vae.vae_output_dtype(), copy=True)
            ).movedim(1, -1)
            done += pixels.shape[2]
    return frames
