"""Clips of any length through the Wan VAE, both ways, a few frames at a time.

- On a CPU with its layers computed anew, several times as fast (`on_cpu.py`); elsewhere with the host's (`on_gpu.py`).
- In tiles of the picture where asked for, or where memory ran out (`tiles.py`).
- A VAE of a class that is not known goes the host's own way, whole.
"""

import logging

import torch

import comfy.model_management

from . import on_cpu, on_gpu, tiles

try:
    from comfy.ldm.wan.vae import WanVAE
except ImportError:
    WanVAE = ()  # no VAE is one of these, so every clip goes the host's own way

# Pixels of a tile where memory ran out. Decoding takes the more of the two; encoding reads the clip once for each tile.
ENCODE_TILE, DECODE_TILE = 512, 256
MANY = 81  # frames: the host's estimate of memory only tells a few from many
REPORTED = 17  # frames at most from one report of progress to the next


def encode_frames(vae, read, height, width):
    """Encode a clip.

    Args:
        vae: the host's VAE object, of Wan 2.1.
        read: gives a fresh iterator over pieces of the clip, [k, H, W, 3] in 0..1, 4n + 1 frames together; called
            again where memory ran out.
        height, width: multiples of 8.

    Returns:
        [1, 16, n + 1, H / 8, W / 8], as `vae.encode` gives it.
    """
    vae.throw_exception_if_invalid()
    way = _way(vae)
    if way is None:
        return vae.encode(torch.cat(list(read())))
    try:
        _load(vae, way, vae.memory_used_encode, (1, 3, MANY, height, width))
        return torch.cat(list(way.encode(vae, read())), dim=2)
    except Exception as error:
        _go_on_if_out_of_memory(error)
    comfy.model_management.soft_empty_cache()  # after the exception, which holds on to what was allocated
    _load(vae, way, vae.memory_used_encode, (1, 3, MANY, min(height, ENCODE_TILE), min(width, ENCODE_TILE)))
    return tiles.encode(lambda pieces: way.encode(vae, pieces), read, height, width, ENCODE_TILE)


def decode_latent(vae, latent, progress=None):
    """Decode a latent, with whole frames only.

    Args:
        vae: the host's VAE object, of Wan 2.1.
        latent: [1, 16, T, h, w].
        progress: called with frames done and frames in all.

    Returns:
        An iterator over pieces of the clip in order, [k, 8h, 8w, 3] in 0..1, 4T - 3 frames together.
    """
    vae.throw_exception_if_invalid()
    way = _way(vae)
    if way is None:
        pieces = [vae.decode(latent).flatten(0, -4)]
    else:
        _load(vae, way, vae.memory_used_decode, latent.shape)
        pieces = way.decode(vae, latent)
    yield from _Reports(progress, _frames(latent)).each(pieces)


def decode_into(vae, latent, spool, tile_size=None, progress=None):
    """Decode a latent into a spool, after what it holds.

    Args:
        vae, latent, progress: as in `decode_latent`.
        spool: a `Spool` of frames of 8h x 8w pixels.
        tile_size: pixels; decode in tiles of this size, None to do so only where memory runs out.
    """
    first = len(spool)
    if tile_size is None:
        try:
            for pixels in decode_latent(vae, latent, progress):
                spool.append(pixels)
            return
        except Exception as error:
            _go_on_if_out_of_memory(error)
        comfy.model_management.soft_empty_cache()  # after the exception, which holds on to what was allocated
        spool.set_length(first)
    _decode_tiles(vae, latent, spool, tile_size or DECODE_TILE, progress)


def _decode_tiles(vae, latent, spool, size, progress):
    vae.throw_exception_if_invalid()
    way, first, frames, (height, width) = _way(vae), len(spool), _frames(latent), latent.shape[-2:]
    if way is None:
        side, overlap = size // tiles.STRIDE, tiles.overlap(size)
        pixels = vae.decode_tiled(
            latent, tile_x=side, tile_y=side, overlap=overlap, tile_t=latent.shape[2], overlap_t=1
        ).flatten(0, -4)
        for piece in _Reports(progress, frames).each([pixels]):
            spool.append(piece)
        return
    small = latent[..., : size // tiles.STRIDE, : size // tiles.STRIDE]
    _load(vae, way, vae.memory_used_decode, small.shape)
    spool.set_length(first + frames)
    reports = _Reports(progress, frames * tiles.number(tiles.STRIDE * height, tiles.STRIDE * width, size))
    for frame, y, x, pixels in tiles.decode(lambda part: reports.each(way.decode(vae, part)), latent, size):
        spool.add(first + frame, y, x, pixels)


class _Reports:
    """Of how many frames are done, of `total`."""

    def __init__(self, progress, total):
        self.progress, self.done, self.total = progress, 0, total

    def each(self, pieces):
        """The same frames, in pieces that are small enough to report after each."""
        for piece in pieces:
            for part in piece.split(REPORTED):
                comfy.model_management.throw_exception_if_processing_interrupted()
                yield part
                self.done += len(part)
                if self.progress is not None:
                    self.progress(self.done, self.total)


def _frames(latent):
    return 4 * latent.shape[2] - 3


def _way(vae):
    """The module that a VAE's clips go through, None for the host's own way."""
    model = vae.first_stage_model
    if vae.device.type == "cpu" and type(model) is WanVAE and on_cpu.knows(vae):
        return on_cpu
    return on_gpu if isinstance(model, WanVAE) and on_gpu.knows(vae) else None


def _load(vae, way, estimate, shape):
    """Bring a VAE to its device, and on a GPU make room for what it needs there."""
    memory = 0 if way is on_cpu else estimate(shape, vae.vae_dtype)
    comfy.model_management.load_models_gpu([vae.patcher], memory_required=memory, force_full_load=vae.disable_offload)


def _go_on_if_out_of_memory(error):
    comfy.model_management.raise_non_oom(error)
    logging.warning("LIVEditor: out of memory with whole frames in the VAE, going on in tiles.")
