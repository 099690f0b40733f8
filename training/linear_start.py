"""Begin the VAE as a linear transform code, found in closed form from a few clips, instead of with random weights.

With their residual branches closed, the host's encoder and decoder are chains of small linear maps. The encoder's
become principal components of ever larger patches and of pairs of frames, the decoder's the least-squares inverse of
each, level by level. What the norms and SiLUs before the two last convolutions would do to amplitudes is undone by
channels in pairs of opposite sign, since SiLU(x) - SiLU(-x) = x, and by a large constant, which keeps the norm nearly
constant.
"""

import torch
import torch.nn.functional as F

import comfy.latent_formats
from liveditor.liveditor_core.vae import many_frames

# Features of a patch of 4 and of 8 pixels, and how many of them keep how they change in time.
MEANS_1, MEANS_2, DIFFERENCES = 24, 23, 8
FEATURES = MEANS_2 + DIFFERENCES
LARGE = 6.0  # the constant channel, in standard deviations of all others together


@torch.no_grad()
def begin_linear(vae, x):
    """Set the weights of a VAE of dim 16 on the CPU: close its residual branches, and make the rest a transform code.

    Args:
        x: clips [B, 3, T, H, W] in [-1, 1].
    """
    for name, parameter in vae.named_parameters():
        inside = ".residual." in name or ".to_qkv" in name
        if name.endswith((".residual.6.weight", ".residual.6.bias")) or not inside and not name.endswith("gamma"):
            parameter.zero_()
    small, middle, large = _encoder(vae, x)
    _decoder(vae, x, small, middle, large)


def _encoder(vae, x):
    """Returns what the decoder has to find again: features of patches of 2, 4 and 8 pixels, [B, t, h, w, C] each."""
    encoder = vae.encoder
    first, second, third = (layer for layer in encoder.downsamples if hasattr(layer, "resample"))
    widen = [block.shortcut for block in encoder.downsamples if hasattr(getattr(block, "shortcut", None), "weight")]
    for conv in widen:
        conv.weight[: conv.weight.shape[1], :, 0, 0, 0] = torch.eye(conv.weight.shape[1])
    encoder.conv1.weight[:3, :, -1, 1, 1] = torch.eye(3)

    for place in range(4):  # patches of 2 x 2 pixels, whole
        y, x_ = divmod(place, 2)
        first.resample[1].weight[3 * place : 3 * place + 3, :3, y, x_] = torch.eye(3)
    small = many_frames.resample(
        first, _run(encoder.downsamples, first, many_frames.causal(encoder.conv1, x.movedim(1, -1)))
    )
    _set_patches(second.resample[1].weight, _components(_patches(small[..., :12]), MEANS_1), 12)
    _set_pairs(second.time_conv.weight, range(MEANS_1), [(MEANS_1 + i, i, 1) for i in range(DIFFERENCES)])
    middle = many_frames.resample(second, _run(encoder.downsamples, second, small, before=first))

    wide = _run(encoder.downsamples, third, middle, before=second)
    components = _components(_patches(wide[..., :32]), MEANS_2)
    weight, bias = third.resample[1].weight, third.resample[1].bias
    for sign, start in ((1, 0), (-1, FEATURES)):
        _set_patches(weight[start:], sign * components, 32)
    constant = LARGE * (_patches(wide[..., :32]) @ components.T).square().sum(-1).mean().sqrt()
    bias[-2:] = torch.stack([constant, -constant])
    _set_pairs(
        third.time_conv.weight,
        [*range(MEANS_2), *range(FEATURES, FEATURES + MEANS_2), 62, 63],
        [(start + MEANS_2 + i, i, sign) for sign, start in ((1, 0), (-1, FEATURES)) for i in range(DIFFERENCES)],
    )
    large = many_frames.resample(third, wide)

    head = encoder.head
    values = many_frames.activation(head[0], large)
    values = values[..., :FEATURES] - values[..., FEATURES : 2 * FEATURES]
    matrix, mean = _whiten(values, x)
    head[2].weight[:16, :FEATURES, -1, 1, 1], head[2].weight[:16, FEATURES : 2 * FEATURES, -1, 1, 1] = matrix, -matrix
    head[2].bias[:16] = -matrix @ mean
    vae.conv1.weight[:, :, 0, 0, 0] = torch.eye(32)
    return small[..., :12], middle[..., :32], large[..., :FEATURES]


def _decoder(vae, x, small, middle, large):
    decoder = vae.decoder
    first, second, third = (layer for layer in decoder.upsamples if hasattr(layer, "resample"))
    vae.conv2.weight[:, :, 0, 0, 0] = torch.eye(16)
    for block in decoder.upsamples:
        if hasattr(getattr(block, "shortcut", None), "weight"):
            block.shortcut.weight[: block.shortcut.weight.shape[1], :, 0, 0, 0] = torch.eye(
                block.shortcut.weight.shape[1]
            )
    z = many_frames.encode(vae, x).movedim(1, -1)
    _solve(decoder.conv1.weight[:, :, -1], decoder.conv1.bias, z, large)
    for layer, means in ((first, MEANS_2), (second, MEANS_1)):
        for frame, sign in ((0, -1), (1, 1)):
            rows = layer.time_conv.weight[64 * frame : 64 * frame + 64, :, 2, 0, 0]
            rows[:means, :means] = torch.eye(means)
            rows[:DIFFERENCES, means : means + DIFFERENCES] = sign * torch.eye(DIFFERENCES)

    def solve(layer, before, y, target):
        y = _run(decoder.upsamples, layer, y, before)
        if layer.mode == "upsample3d":
            pairs = many_frames.causal(layer.time_conv, y[:, 1:]).unflatten(-1, (2, -1)).movedim(-2, 2).flatten(1, 2)
            y = torch.cat([y[:, :1], pairs], dim=1)
        y = y.repeat_interleave(2, dim=2).repeat_interleave(2, dim=3)
        conv = layer.resample[1]
        _solve(conv.weight, conv.bias, y, target)
        return many_frames.convolve(y, conv.weight, conv.bias, padding=1)

    y = solve(first, None, many_frames.causal(decoder.conv1, z), middle)
    y = solve(second, first, y, small)
    y = solve(third, second, y, x.movedim(1, -1))
    conv = third.resample[1]
    conv.weight[8:11], conv.bias[8:11] = -conv.weight[:3], -conv.bias[:3]
    conv.bias[7] = LARGE * y[..., :3].square().sum(-1).mean().sqrt()
    conv.bias[15] = -conv.bias[7]
    y[..., 8:11], y[..., 7], y[..., 15] = -y[..., :3], conv.bias[7], conv.bias[15]
    _solve(
        decoder.head[2].weight[:, :, -1],
        decoder.head[2].bias,
        many_frames.activation(decoder.head[0], y),
        x.movedim(1, -1),
    )


def _run(layers, until, x, before=None):
    """Run layers up to `until`, itself not included, from after `before` on."""
    layers = list(layers)
    for layer in layers[layers.index(before) + 1 if before is not None else 0 : layers.index(until)]:
        x = many_frames.LAYERS[type(layer).__name__](layer, x)
    return x


def _patches(x):
    """[B, T, H, W, C] to [B, T, H / 2, W / 2, 4 * C]"""
    return torch.cat([x[:, :, dy::2, dx::2] for dy in (0, 1) for dx in (0, 1)], dim=-1)


def _components(x, count):
    """Principal components, [count, C], largest first."""
    rows = x.flatten(0, -2).double()
    return torch.linalg.eigh(rows.T @ rows).eigenvectors.flip(1)[:, :count].T.float()


def _set_patches(weight, components, channels):
    for place in range(4):
        weight[: len(components), :channels, place // 2, place % 2] = components[
            :, place * channels : (place + 1) * channels
        ]


def _set_pairs(weight, means, differences):
    """Of two frames the mean of some channels; and half the difference of some, into other channels."""
    for i in means:
        weight[i, i, 1:, 0, 0] = 0.5
    for to, channel, sign in differences:
        weight[to, channel, 1:, 0, 0] = sign * torch.tensor([-0.5, 0.5])


def _whiten(values, x):
    """A matrix [16, C] and a mean that give 16 uncorrelated latents, turned so that the host's preview shows the
    picture.
    """
    rows = values.flatten(0, -2).double()
    mean = rows.mean(0)
    eigen, vectors = torch.linalg.eigh((rows - mean).T @ (rows - mean) / len(rows))
    matrix = (vectors / eigen.sqrt()).flip(1)[:, :16].T
    wan = comfy.latent_formats.Wan21()
    colours = F.avg_pool2d(x.transpose(1, 2).flatten(0, 1), 8).unflatten(0, (len(x), -1))
    colours = (
        torch.cat([colours[:, :1], colours[:, 1:].unflatten(1, (-1, 4)).mean(2)], dim=1)
        .movedim(2, -1)
        .flatten(0, -2)
        .double()
    )
    colours = colours - torch.tensor(wan.latent_rgb_factors_bias)
    u, _, v = torch.linalg.svd(torch.tensor(wan.latent_rgb_factors).double() @ (colours.T @ ((rows - mean) @ matrix.T)))
    return (u @ v @ matrix).float(), mean.float()


def _solve(weight, bias, x, target):
    """Least squares for a 3 x 3 convolution of [B, T, H, W, C] into the first channels of its output."""
    inputs = F.unfold(x.flatten(0, 1).movedim(-1, 1), 3, padding=1).transpose(1, 2).flatten(0, 1)
    target = target.flatten(0, -2)
    chosen = torch.randperm(len(inputs), generator=torch.Generator().manual_seed(0))[:200_000]
    inputs, target = F.pad(inputs[chosen], (0, 1), value=1.0).double(), target[chosen].double()
    square = inputs.T @ inputs
    solution = torch.linalg.solve(
        square + 1e-5 * square.diagonal().mean() * torch.eye(len(square)), inputs.T @ target
    ).T.float()
    weight[: len(solution)] = solution[:, :-1].view(len(solution), -1, 3, 3)
    bias[: len(solution)] = solution[:, -1]
