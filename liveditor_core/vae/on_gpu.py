"""Clips through the Wan VAE with the host's own layers, a few frames at a time, so that no clip lies on the GPU whole.

The VAE is causal in time and keeps what it needs of earlier frames in a cache; the host's own encode and decode use
that too, but hold all pixels on the GPU. The result is the same.
"""

import torch

import comfy.model_management

try:
    from comfy.ldm.wan.vae import count_cache_layers
except ImportError:  # renamed in another version of the host: clips.py then leaves clips to the host's own way
    count_cache_layers = None


def knows(vae) -> bool:
    """Whether the host has the cache."""
    return count_cache_layers is not None


def encode(vae, pieces):
    """Pieces of a clip [k, H, W, 3] in 0..1, 4n + 1 frames together, to pieces of its latent [1, 16, 1, h, w]."""
    model = vae.first_stage_model
    cache = [None] * count_cache_layers(model.encoder)
    parts = _one_then_pairs(pieces)
    following = next(parts)
    while (frames := following) is not None:
        comfy.model_management.throw_exception_if_processing_interrupted()
        following = next(parts, None)
        with comfy.model_management.cuda_device_context(vae.device):
            pixels = vae.process_input(frames.movedim(-1, 0).unsqueeze(0)).to(vae.vae_dtype).to(vae.device)
            out = model.encoder(pixels, feat_cache=cache, feat_idx=[0], final=following is None)
            if out is not None:
                out = model.conv1(out).chunk(2, dim=1)[0].to(vae.output_device, vae.vae_output_dtype())
        if out is not None:
            yield out


def decode(vae, latent):
    """A latent [1, 16, T, h, w] to pieces of its clip [k, 8h, 8w, 3] in 0..1."""
    model = vae.first_stage_model
    cache = [None] * count_cache_layers(model.decoder)
    for part in _one_then_pairs([latent[0].movedim(1, 0)]):
        comfy.model_management.throw_exception_if_processing_interrupted()
        with comfy.model_management.cuda_device_context(vae.device):
            x = model.conv2(part.movedim(0, 1).unsqueeze(0).to(device=vae.device, dtype=vae.vae_dtype))
            pieces = model.decoder(x, feat_cache=cache, feat_idx=[0])
        while pieces:  # what was given out need not stay on the GPU
            pixels = pieces.pop(0).to(device=vae.output_device, dtype=vae.vae_output_dtype())
            yield vae.process_output(pixels)[0].movedim(0, -1)


def _one_then_pairs(pieces):
    """The same frames, the first alone and then two at a time, as the VAE's cache wants them."""
    wanted, kept = 1, []
    for piece in pieces:
        while len(piece):
            missing = wanted - sum(map(len, kept))
            kept.append(piece[:missing])
            piece = piece[missing:]
            if len(kept[-1]) == missing:
                yield torch.cat(kept) if len(kept) > 1 else kept[0]
                wanted, kept = 2, []
    if kept:
        yield torch.cat(kept)
