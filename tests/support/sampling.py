"""Sampling with a tiny MODEL through the host, as its nodes do it."""

from fractions import Fraction

import torch

import comfy.patcher_extension
import nodes as host_nodes
from comfy.model_management import InterruptProcessingException
from liveditor.liveditor_core.footage.frames_clip import FramesClip
from liveditor.liveditor_core.footage.source_video import SourceVideo
from liveditor.liveditor_core.model.registration import SOURCE_KEY

FRAMES, HEIGHT, WIDTH = 5, 20, 28  # latent; 700 tokens a stream: 10 whole target blocks and tails
STEPS = 2


def sample(model, conditioning, latent, sampler="flow_unipc", scheduler="wan_flow", cfg=2.5, steps=STEPS, seed=7):
    empty = {"samples": torch.zeros_like(latent)}
    out = host_nodes.KSampler().sample(model, seed, steps, cfg, sampler, scheduler, *conditioning, empty)[0]["samples"]
    assert out.shape == latent.shape and torch.isfinite(out).all()
    return out


def recording(model, record):
    """A clone that hands every call of the transformer to `record` (x, source)."""

    def wrapper(executor, x, *args, **kwargs):
        record(x, kwargs[SOURCE_KEY])
        return executor(x, *args, **kwargs)

    model = model.clone()
    model.add_wrapper(comfy.patcher_extension.WrappersMP.DIFFUSION_MODEL, wrapper)
    return model


def source_video(latent, frames=None, vae=None):
    """A source of a latent; its pictures are black if there are none.

    Args:
        frames: [F, H, W, 3], F of them for the latent's frames.
        vae: only needed where windows begin within the clip.
    """
    count, height, width = 4 * latent.shape[2] - 3, 8 * latent.shape[3], 8 * latent.shape[4]
    frames = torch.zeros(count, height, width, 3) if frames is None else frames
    return SourceVideo(
        latent=latent,
        width=width,
        height=height,
        frames=count,
        fps=Fraction(16),
        clip=FramesClip(frames, Fraction(16)),
        start=Fraction(0),
        stamps=tuple(Fraction(i, 16) for i in range(count)),
        original_frames=count,
        fit="crop",
        vae=vae,
    )


class Calls:
    """The calls of a model: target and source of every one."""

    def __init__(self, model, stop_after=None):
        self.of, self._stop_after = [], stop_after
        self.model = recording(model, self._record)

    def _record(self, x, source):
        if self._stop_after is not None and len(self.of) >= self._stop_after:
            raise InterruptProcessingException
        self.of.append((x.clone(), source.clone()))

    def __len__(self):
        return len(self.of)


class Quick(Calls):
    """The same with a function of latent, source and noise level in place of the transformer, in no time."""

    def __init__(self, model, stop_after=None):
        self.of, self._stop_after = [], stop_after
        self.model = model.clone()
        self.model.set_model_unet_function_wrapper(self._call)

    def _call(self, _, args):
        x, source = args["input"], args["c"][SOURCE_KEY]
        self._record(x, source)
        text = args["c"]["c_crossattn"].float().mean((1, 2)).view(-1, 1, 1, 1, 1)
        level = args["timestep"].view(-1, 1, 1, 1, 1)
        return torch.tanh(x.float() * (1 + level / 9) + source + 99 * text) + x.float().roll(1, 2) / 9
