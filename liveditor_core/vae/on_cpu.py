"""Clips through the Wan VAE on a CPU, in pieces of as many frames as a budget of memory allows (`many_frames.py`)."""

import ctypes
import sys

import torch

import comfy.model_management

from . import many_frames

TRIM = getattr(ctypes.CDLL(None), "malloc_trim", None) if sys.platform == "linux" else None
LARGE = 8 << 20  # bytes
BUDGET = 256 << 20  # bytes that one piece may take on its way through; a single frame is always let through
# Bytes that a frame takes per pixel and channel of the widest layer of its size, fp32. 20 were measured for the small
# model (65 frames of 320x240 and 5 of 960x544, both ways); the rest is to spare.
BYTES_PER_VALUE = 24
MOST = 17  # frames of pixels at once, so that progress shows where even more would fit


def knows(vae) -> bool:
    """Whether a VAE of the host's can be computed here."""
    return many_frames.knows(vae.first_stage_model)


def encode(vae, pieces):
    """Pieces of a clip [k, H, W, 3] in 0..1, 4n + 1 frames together, to pieces of its latent [1, 16, k, h, w]."""
    stages = _stages(many_frames.encoder_steps(vae.first_stage_model))
    pixels = (
        vae.process_input(piece.to(vae.device, torch.float32)).unsqueeze(0) for piece in _gathered(pieces, stages[0])
    )
    for x in _through(stages, pixels):
        yield x.movedim(-1, 1).chunk(2, dim=1)[0].to(vae.output_device, vae.vae_output_dtype())


def decode(vae, latent):
    """A latent [1, 16, T, h, w] to pieces of its clip [k, 8h, 8w, 3] in 0..1."""
    stages = _stages(many_frames.decoder_steps(vae.first_stage_model))
    for x in _through(stages, [latent.movedim(1, -1).to(vae.device, torch.float32)]):
        yield vae.process_output(x[0].to(vae.output_device, vae.vae_output_dtype()))


def _stages(steps):
    """The steps in groups with frames of one size, each but the last ending where the size changes."""
    ends = [i + 1 for i, step in enumerate(steps) if step.run is many_frames.resample]
    return [steps[first:last] for first, last in zip([0, *ends], [*ends, len(steps)], strict=True)]


def _through(stages, pieces):
    """Pieces [1, k, H, W, C] through all stages; what one gives goes in pieces again through the next."""
    carried = {}
    for stage in stages:
        pieces = _through_one(stage, pieces, carried)
    return pieces


def _through_one(stage, pieces, carried):
    for piece in pieces:
        for x in piece.split(_at_once(stage, *piece.shape[2:4]), dim=1):
            for step in stage:
                comfy.model_management.throw_exception_if_processing_interrupted()
                x = step.run(step.layer, x, carried)
                _give_back(x)
            if x.shape[1]:
                yield x


def _gathered(pieces, stage):
    """Pieces [k, H, W, 3], small ones together, since few frames at a time take longer."""
    together = []
    for piece in pieces:
        if together and sum(map(len, together)) + len(piece) > min(MOST, _at_once(stage, *piece.shape[1:3])):
            yield torch.cat(together)
            together = []
        together.append(piece)
    yield torch.cat(together)


def _give_back(x):
    """Let glibc return what was freed, after large pieces: it keeps a quarter of a piece's memory else."""
    if TRIM is not None and x.numel() * x.element_size() >= LARGE:
        TRIM(0)


def _at_once(stage, height, width):
    """How many frames of this size may go through a stage in one piece."""
    return max(1, BUDGET // (BYTES_PER_VALUE * max(map(_values_per_pixel, stage)) * height * width))


def _values_per_pixel(step):
    """Of a frame that comes in, at the widest place of a step."""
    if step.run is many_frames.resample and step.layer.mode.startswith("upsample"):
        return step.layer.dim * (8 if step.layer.mode == "upsample3d" else 4)
    return max(weight.shape[0] for weight in step.layer.parameters())
