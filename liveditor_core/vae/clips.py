"""Clips through the Wan VAE, each in the way that suits its length and its device.

- On a CPU, where the clip fits in memory: the whole clip at once, several times as fast (`whole_clip.py`).
- Elsewhere up to ten seconds: the host's own way, which holds all pixels on the GPU.
- Longer: a few frames at a time, and in tiles if even those are too large (`long_clips.py`).
"""

import logging
from functools import partial

import comfy.model_management

from . import long_clips, whole_clip

try:
    from comfy.ldm.wan.vae import WanVAE
except ImportError:
    WanVAE = ()  # no VAE is one of these, so every clip goes the host's own way

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
    if _whole_at_once(vae, *frames.shape[:3]):
        long_clips.load(vae, 0)
        pixels = vae.process_input(frames.movedim(-1, 0).unsqueeze(0)).to(vae.device)
        return whole_clip.encode(vae.first_stage_model, pixels).to(vae.output_device, vae.vae_output_dtype())
    if not _in_pieces(vae, len(frames)):
        return vae.encode(frames)
    return _or_in_tiles(vae, long_clips.encode, vae.encode_tiled, frames)


def decode_latent(vae, latent):
    """Decode a latent.

    Args:
        vae: the host's VAE object, of Wan 2.1.
        latent: [1, 16, T, h, w].

    Returns:
        [4T - 3, 8h, 8w, 3] in 0..1, as `vae.decode` gives it.
    """
    frames = 4 * latent.shape[2] - 3
    if _whole_at_once(vae, frames, 8 * latent.shape[3], 8 * latent.shape[4]):
        long_clips.load(vae, 0)
        pixels = whole_clip.decode(vae.first_stage_model, latent.to(vae.device))
        pixels = vae.process_output(pixels.to(vae.output_device, vae.vae_output_dtype(), copy=True))
        return pixels[0].movedim(0, -1)
    if not _in_pieces(vae, frames):
        return vae.decode(latent).flatten(0, -4)
    return _or_in_tiles(vae, long_clips.decode, partial(vae.decode_tiled, **TILES), latent).flatten(0, -4)


def decode_tiles(vae, latent, size):
    """Decode a latent in tiles of `size` pixels and 64 frames, which overlap; otherwise as `decode_latent`."""
    stride = vae.spacial_compression_decode()
    across = {"tile_x": size // stride, "tile_y": size // stride, "overlap": min(64, size // 4) // stride}
    frames_per_latent = vae.temporal_compression_decode()
    along = {"tile_t": max(2, 64 // frames_per_latent), "overlap_t": max(1, 8 // frames_per_latent)}
    return vae.decode_tiled(latent, **across, **along).flatten(0, -4)


def _whole_at_once(vae, frames, height, width):
    """Whether a clip may go through in one go, on a CPU: with half of the free memory to spare."""
    model = vae.first_stage_model
    if vae.device.type != "cpu" or type(model) is not WanVAE or not whole_clip.knows(model):
        return False
    needed = whole_clip.memory_needed(model, frames, height, width)
    return needed <= comfy.model_management.get_free_memory(vae.device) / 2


def _in_pieces(vae, frames):
    """Whether a clip goes through a few frames at a time."""
    known = isinstance(vae.first_stage_model, WanVAE) and long_clips.count_cache_layers is not None
    return frames > LONGEST_AT_ONCE and known


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
