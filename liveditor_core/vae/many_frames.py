"""The layers of the host's Wan VAE over many frames in few launches: the same numbers, several times as fast on a CPU.

The host feeds two frames at a time through convolutions in three dimensions. Here frames [B, T, H, W, C], channels
last, go through convolutions in two, as many as are given. They are a whole clip, or a piece of one: then `carried`
keeps, by layer, what the next piece needs of the frames of this one.
"""

from typing import NamedTuple

import torch
import torch.nn.functional as F


class Step(NamedTuple):
    """`run(layer, frames, carried)` gives the frames for the next step; none where it waits for more of them."""

    run: object
    layer: torch.nn.Module


def encoder_steps(vae) -> list[Step]:
    """From pixels in -1..1 to the mean and the variance of latents, 16 channels each."""
    layers = (*vae.encoder.downsamples, *vae.encoder.middle)
    return [
        Step(causal, vae.encoder.conv1),
        *map(_step, layers),
        Step(_head, vae.encoder.head),
        Step(causal, vae.conv1),
    ]


def decoder_steps(vae) -> list[Step]:
    """From latents to pixels in -1..1."""
    layers = (*vae.decoder.middle, *vae.decoder.upsamples)
    first = [Step(causal, vae.conv2), Step(causal, vae.decoder.conv1)]
    return [*first, *map(_step, layers), Step(_head, vae.decoder.head)]


def knows(vae) -> bool:
    """Whether every layer of the host's VAE is of a kind that is known here."""
    parts = (vae.encoder.downsamples, vae.encoder.middle, vae.decoder.middle, vae.decoder.upsamples)
    return all(type(layer).__name__ in LAYERS for part in parts for layer in part)


def encode(vae, x):
    """A whole clip: pixels [B, 3, T, H, W], T = 4n + 1, to latents [B, 16, n + 1, H / 8, W / 8] fp32."""
    return _whole(encoder_steps(vae), x).chunk(2, dim=1)[0]


def decode(vae, z):
    """A whole clip: latents to pixels; shapes as in `encode`."""
    return _whole(decoder_steps(vae), z)


def _whole(steps, x):
    x = x.movedim(1, -1).to(_dtype(x))
    for step in steps:
        x = step.run(step.layer, x)
    return x.movedim(-1, 1).float()


def _step(layer):
    return Step(LAYERS[type(layer).__name__], layer)


def _dtype(x):
    return torch.bfloat16 if x.is_cuda else torch.float32


def normalise_and_gate(x, gamma):
    """RMS norm and SiLU.  # [rows, C]"""
    y, scale = F.normalize(x.float(), dim=1), gamma * gamma.shape[0] ** 0.5
    if torch.is_grad_enabled():
        return F.silu(y * scale).to(_dtype(x))
    return F.silu(y.mul_(scale), inplace=True).to(_dtype(x))  # memory that is new costs more than the arithmetic


def activation(norm, x):
    """RMS norm and SiLU, of frames."""
    return normalise_and_gate(x.reshape(-1, x.shape[-1]), norm.gamma.flatten()).view(x.shape)


def convolve(x, weight, bias, stride=1, padding=0):
    """[B, T, H, W, C] frame by frame."""
    weight = weight.to(_dtype(x)).contiguous(memory_format=torch.channels_last)
    bias = None if bias is None else bias.to(_dtype(x))
    y = F.conv2d(x.flatten(0, 1).permute(0, 3, 1, 2), weight, bias, stride, padding)
    return y.permute(0, 2, 3, 1).unflatten(0, x.shape[:2])


def causal(conv, x, carried=None):
    """Each frame with those before it: of this piece, of the one before, and zeros before the first."""
    taps, t, padding = conv.weight.shape[2], x.shape[1], conv.weight.shape[-1] // 2
    if x.is_cuda:
        return _stacked(conv, x)
    y = convolve(x, conv.weight[:, :, -1], conv.bias, padding=padding)
    before = None if carried is None else carried.get(conv)
    for back in range(1, taps):  # as fast as one convolution of stacked frames, with a third of the memory
        kernel = conv.weight[:, :, -1 - back]
        if t > back:
            y[:, back:] += convolve(x[:, : t - back], kernel, None, padding=padding)
        if before is not None:
            y[:, :back] += convolve(before[:, taps - 1 - back :][:, :t], kernel, None, padding=padding)
    if carried is not None and taps > 1:
        if before is None:
            before = carried[conv] = x.new_zeros(x.shape[0], taps - 1, *x.shape[2:])
        before[:, :-t] = before[:, t:]  # in place: what lives long is allocated once, between what comes and goes
        before[:, -t:] = x[:, 1 - taps :]
    return y


def _stacked(conv, x):
    """`causal` of a whole clip in one launch, with the taps as channels."""
    taps, t = conv.weight.shape[2], x.shape[1]
    if taps > 1:
        x = F.pad(x, (0, 0, 0, 0, 0, 0, taps - 1, 0))
        x = torch.cat([x[:, i : i + t] for i in range(taps)], dim=-1)
    return convolve(x, conv.weight.transpose(1, 2).flatten(1, 2), conv.bias, padding=conv.weight.shape[-1] // 2)


def _head(head, x, carried=None):
    return causal(head[2], activation(head[0], x), carried)


def _residual_block(block, x, carried=None):
    y = causal(block.residual[2], activation(block.residual[0], x), carried)
    y = activation(block.residual[3], y)  # by this name, so that what it was made from is let go
    y = causal(block.residual[6], y, carried)
    y += x if isinstance(block.shortcut, torch.nn.Identity) else causal(block.shortcut, x)
    return y


def _attention_block(block, x, carried=None):
    y = (F.normalize(x.float(), dim=-1) * block.norm.scale * block.norm.gamma.flatten()).to(_dtype(x))
    y = convolve(y, block.to_qkv.weight, block.to_qkv.bias)
    q, k, v = (part.flatten(0, 1).flatten(1, 2).unsqueeze(1) for part in y.chunk(3, dim=-1))
    y = F.scaled_dot_product_attention(q, k, v).squeeze(1).view(x.shape)
    return x + convolve(y, block.proj.weight, block.proj.bias)


def resample(layer, x, carried=None):
    """The clip's first frame stands for itself; after it, two frames become one or one becomes two."""
    first = 0 if carried and layer in carried else 1
    if layer.mode == "upsample3d":
        if carried is not None:
            carried[layer] = None  # the first frame is over
        if x.shape[1] > first:
            pairs = causal(layer.time_conv, x[:, first:], carried).unflatten(-1, (2, -1)).movedim(-2, 2).flatten(1, 2)
            x = torch.cat([x[:, :first], pairs], dim=1)
    if layer.mode.startswith("upsample"):
        x = x.repeat_interleave(2, dim=2, output_size=2 * x.shape[2]).repeat_interleave(
            2, dim=3, output_size=2 * x.shape[3]
        )
        return convolve(x, layer.resample[1].weight, layer.resample[1].bias, padding=1)
    x = convolve(F.pad(x, (0, 0, 0, 1, 0, 1)), layer.resample[1].weight, layer.resample[1].bias, stride=2)
    return _halve(layer, x, first, carried) if layer.mode == "downsample3d" else x


def _halve(layer, x, first, carried):
    """Two frames with the one before them become one; what lacks its second waits for the next piece."""
    alone = x[:, :first]
    if not first:
        x = torch.cat([carried[layer], x], dim=1)
    count = (x.shape[1] - 1) // 2
    if carried is not None:
        carried[layer] = x[:, 2 * count :].clone()
    if not count:
        return alone
    triples = torch.cat([x[:, i : i + 2 * count - 1 : 2] for i in range(3)], dim=-1)
    conv = layer.time_conv
    return torch.cat([alone, convolve(triples, conv.weight.transpose(1, 2).flatten(1, 2), conv.bias)], dim=1)


LAYERS = {"ResidualBlock": _residual_block, "AttentionBlock": _attention_block, "Resample": resample}
