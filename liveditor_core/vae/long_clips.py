"""Long clips through the Wan VAE a few frames at a time, so that neither the clip nor its edit lies on the GPU whole.

The VAE is causal in time and keeps what it needs of earlier frames in a cache; the host's own encode and decode use
that too, but hold all pixels on the GPU. The result is the same.
"""

import torch

import comfy.model_management

try:
    from comfy.ldm.wan.vae import count_cache_layers
except ImportError:  # renamed in another version of the host: clips.py then leaves long clips to the host's own way
    count_cache_layers = None


def load(vae, memory):
    """Bring a VAE to its device, and make room for what it needs there, in bytes."""
    comfy.model_management.load_models_gpu([vae.patcher], memory_required=memory, force_full_load=vae.disable_offload)


def _pieces(count):
    """The first of `count` frames alone, then two at a time, as the VAE's cache wants them."""
    return [(0, 1), *((i, min(i + 2, count)) for i in range(1, count, 2))]


def encode(vae, frames):
    """As `encode_frames` of clips.py."""
    model = vae.first_stage_model
    load(vae, vae.memory_used_encode((1, 3, len(frames), *frames.shape[1:3]), vae.vae_dtype))
    cache, parts = [None] * count_cache_layers(model.encoder), []
    for first, last in _pieces(len(frames)):
        pixels = vae.process_input(frames[first:last].movedim(-1, 0).unsqueeze(0)).to(vae.vae_dtype).to(vae.device)
        out = model.encoder(pixels, feat_cache=cache, feat_idx=[0], final=last == len(frames))
        if out is not None:
            parts.append(model.conv1(out).chunk(2, dim=1)[0].to(vae.output_device, vae.vae_output_dtype()))
    return torch.cat(parts, dim=2)


def decode(vae, latent):
    """As `decode_latent` of clips.py."""
    model = vae.first_stage_model
    load(vae, vae.memory_used_decode(latent.shape, vae.vae_dtype))
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
