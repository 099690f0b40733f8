"""The host's Wan VAE, computed over whole clips in few launches: the same numbers, several times as fast on a CPU.

The host feeds two frames at a time to save memory. Here the taps of a causal convolution in time are stacked as
channels (frames [B, T, H, W, C], channels last), so that it becomes one two-dimensional convolution of all frames.
"""

import torch
import torch.nn.functional as F

import comfy.model_management

# Bytes per pixel, frame and channel of the widest layer at the clip's own size: its input, activation, stacked taps and
# answer in fp32. 27 were measured for the small model (65 frames of 320x240, both ways); the rest is to spare.
BYTES_PER_VALUE = 72


def _dtype(x):
    return torch.bfloat16 if x.is_cuda else torch.float32


def encode(vae, x):
    """Pixels [B, 3, T, H, W], T = 4n + 1, to latents [B, 16, n + 1, H / 8, W / 8] fp32."""
    x = causal(vae.encoder.conv1, x.movedim(1, -1).to(_dtype(x)))
    x = _through((*vae.encoder.downsamples, *vae.encoder.middle), x)
    mean_and_variance = causal(vae.conv1, _head(vae.encoder.head, x))
    return mean_and_variance.chunk(2, dim=-1)[0].movedim(-1, 1).float()


def decode(vae, z):
    """Latents to pixels; shapes as in `encode`."""
    x = causal(vae.decoder.conv1, causal(vae.conv2, z.movedim(1, -1).to(_dtype(z))))
    x = _through((*vae.decoder.middle, *vae.decoder.upsamples), x)
    return _head(vae.decoder.head, x).movedim(-1, 1).float()


def knows(vae) -> bool:
    """Whether every layer of the host's VAE is of a kind that is known here."""
    parts = (vae.encoder.downsamples, vae.encoder.middle, vae.decoder.middle, vae.decoder.upsamples)
    return all(type(layer).__name__ in LAYERS for part in parts for layer in part)


def memory_needed(vae, frames, height, width):
    """Bytes that a clip of this size needs at most on its way through."""
    return BYTES_PER_VALUE * frames * height * width * vae.encoder.conv1.weight.shape[0]


def _through(layers, x):
    for layer in layers:
        comfy.model_management.throw_exception_if_processing_interrupted()
        x = LAYERS[type(layer).__name__](layer, x)
    return x


def normalise_and_gate(x, gamma):
    """RMS norm and SiLU.  # [rows, C]"""
    x = x.float()
    return F.silu(F.normalize(x, dim=1) * gamma.shape[0] ** 0.5 * gamma).to(_dtype(x))


def activation(norm, x):
    """RMS norm and SiLU, of frames."""
    return normalise_and_gate(x.reshape(-1, x.shape[-1]), norm.gamma.flatten()).view(x.shape)


def convolve(x, weight, bias, stride=1, padding=0):
    """[B, T, H, W, C] frame by frame."""
    weight, bias = weight.to(_dtype(x)).contiguous(memory_format=torch.channels_last), bias.to(_dtype(x))
    y = F.conv2d(x.flatten(0, 1).permute(0, 3, 1, 2), weight, bias, stride, padding)
    return y.permute(0, 2, 3, 1).unflatten(0, x.shape[:2])


def causal(conv, x):
    taps, t = conv.weight.shape[2], x.shape[1]
    if taps > 1:
        x = F.pad(x, (0, 0, 0, 0, 0, 0, taps - 1, 0))
        x = torch.cat([x[:, i : i + t] for i in range(taps)], dim=-1)
    return convolve(x, conv.weight.transpose(1, 2).flatten(1, 2), conv.bias, padding=conv.weight.shape[-1] // 2)


def _head(head, x):
    return causal(head[2], activation(head[0], x))


def _residual_block(block, x):
    y = causal(block.residual[2], activation(block.residual[0], x))
    y = causal(block.residual[6], activation(block.residual[3], y))
    return y + (x if isinstance(block.shortcut, torch.nn.Identity) else causal(block.shortcut, x))


def _attention_block(block, x):
    y = (F.normalize(x.float(), dim=-1) * block.norm.scale * block.norm.gamma.flatten()).to(_dtype(x))
    y = convolve(y, block.to_qkv.weight, block.to_qkv.bias)
    q, k, v = (part.flatten(0, 1).flatten(1, 2).unsqueeze(1) for part in y.chunk(3, dim=-1))
    y = F.scaled_dot_product_attention(q, k, v).squeeze(1).view(x.shape)
    return x + convolve(y, block.proj.weight, block.proj.bias)


def resample(layer, x):
    """The first frame stands for itself; after it, two frames become one or one becomes two."""
    if layer.mode == "upsample3d" and x.shape[1] > 1:
        pairs = causal(layer.time_conv, x[:, 1:]).unflatten(-1, (2, -1)).movedim(-2, 2).flatten(1, 2)
        x = torch.cat([x[:, :1], pairs], dim=1)
    if layer.mode.startswith("upsample"):
        x = x.repeat_interleave(2, dim=2, output_size=2 * x.shape[2]).repeat_interleave(
            2, dim=3, output_size=2 * x.shape[3]
        )
        return convolve(x, layer.resample[1].weight, layer.resample[1].bias, padding=1)
    x = convolve(F.pad(x, (0, 0, 0, 1, 0, 1)), layer.resample[1].weight, layer.resample[1].bias, stride=2)
    if layer.mode == "downsample3d" and x.shape[1] > 1:
        triples = torch.cat([x[:, i : x.shape[1] - 2 + i : 2] for i in range(3)], dim=-1)
        conv = layer.time_conv
        x = torch.cat([x[:, :1], convolve(triples, conv.weight.transpose(1, 2).flatten(1, 2), conv.bias)], dim=1)
    return x


LAYERS = {"ResidualBlock": _residual_block, "AttentionBlock": _attention_block, "Resample": resample}
