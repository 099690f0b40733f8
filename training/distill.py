"""Train a LoRA for few steps: `python tasks.py python -m training.distill --help`.

The sampler itself is trained through: from noise, few steps with the LoRA shall end at the exact edit. So it learns the
very steps that will be taken, the sampler's corrections included. Minutes on a CPU.
"""

from . import common  # noqa: F401  (before anything of ComfyUI)

# isort: split
import argparse
import inspect
import random
from pathlib import Path

import torch

import comfy.model_management
from liveditor.liveditor_core.attention.config import OPTIONS_KEY, SparseAttentionConfig
from liveditor.liveditor_core.sampling.flow_unipc import sample_flow_unipc, wan_flow_sigmas

from .common import CLIP, Average, Clock, adam, device, save, set_learning_rate
from .data import Scenes, read_pictures, read_video
from .nano import FEW_STEPS, LONGEST, LORA, VAE
from .transformer import Pool, find, resume, shape
from .vae import Autoencoder

SHAPES = ((17, (256, 112)), (9, (192, 128)), (9, (112, 176)))  # frames, size
CELLS = 5 * 14 * 32  # of a latent of the first
LAYERS = [f"{attention}.{name}" for attention in ("self_attn", "cross_attn") for name in "qkvo"] + ["ffn.0", "ffn.2"]
CHECKED = 8  # batches of clips that are never trained on


class LoRA(torch.nn.Module):
    """Adds a product of two thin matrices to linear layers of the transformer's blocks, while it is on."""

    def __init__(self, model, rank):
        super().__init__()
        self.on, self.pairs = True, torch.nn.ModuleDict()
        for number, block in enumerate(model.blocks):
            for name in LAYERS:
                layer = block.get_submodule(name)
                pair = torch.nn.ParameterDict(
                    {
                        "A": torch.randn(rank, layer.in_features) * layer.in_features**-0.5,
                        "B": torch.zeros(layer.out_features, rank),
                    }
                )
                self.pairs[f"blocks/{number}/{name}".replace(".", "/")] = pair  # a module's name has no dots
                layer.register_forward_hook(lambda _, args, out, pair=pair: self._add(args[0], out, pair))

    def _add(self, x, out, pair):
        return out + x @ pair["A"].T @ pair["B"].T if self.on else out

    def file_weights(self):
        """As ComfyUI names them, fp16."""
        return {
            f"diffusion_model.{name.replace('/', '.')}.lora_{part}.weight": pair[part].half()
            for name, pair in self.pairs.items()
            for part in "AB"
        }


def sample(editor, source, context, noise, steps, shift):
    """From noise to data, [B, 16, T, H, W], with the pack's sampler; with gradients where they are wanted."""
    options = {OPTIONS_KEY: SparseAttentionConfig(backend="dense").to_options()}

    def predict(x, sigma):
        velocity = editor.model(x, sigma * 1000, context, liveditor_source=source, transformer_options=options)
        return x - sigma.view(-1, 1, 1, 1, 1) * velocity

    predict.latent_image = torch.zeros(1)
    sigmas = wan_flow_sigmas(shift, steps).to(noise)
    return inspect.unwrap(sample_flow_unipc)(predict, sigmas[0] * noise, sigmas, disable=True)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("models", type=Path, help="folder with the files that the trainings wrote")
    parser.add_argument("--out", type=Path, required=True, help=f"folder for {LORA}")
    parser.add_argument("--clip", type=Path, default=CLIP, help="bigbuckbunny.mp4 (default: the one tasks.py fetched)")
    parser.add_argument("--pictures", type=Path, help="folder of photographs to cut textures from")
    parser.add_argument("--student-steps", type=int, default=FEW_STEPS["steps"], help="that the LoRA is for")
    parser.add_argument("--shift", type=float, default=FEW_STEPS["shift"], help="of their noise levels")
    parser.add_argument("--dim", type=int, default=256)
    parser.add_argument("--layers", type=int, default=6)
    parser.add_argument("--ffn", type=int, default=1024)
    parser.add_argument("--rank", type=int, default=16)
    parser.add_argument("--shapes", type=shape, nargs="+", default=SHAPES, metavar="FRAMES:WIDTHxHEIGHT")
    parser.add_argument("--batch", type=int, default=3, help="clips of 17 frames at 256x112; as many cells at others")
    parser.add_argument("--pool", type=int, default=4, help="clips to encode of every shape, at most 16")
    parser.add_argument("--fresh-every", type=int, default=80, help="steps after which those of a shape are drawn anew")
    parser.add_argument("--minutes", type=float, default=20, help="of training proper; making the pool comes before")
    parser.add_argument("--steps", type=int, default=1_000_000)
    parser.add_argument("--learning-rate", type=float, default=1e-3)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()

    comfy.model_management.in_training = True  # the host then rotates by operations that have gradients
    torch.set_num_threads(options.threads)
    torch.manual_seed(options.seed)
    random.seed(options.seed)
    editor = resume(options.models, options.dim, options.layers, options.ffn).to(device()).requires_grad_(False)
    lora = LoRA(editor.model, options.rank).to(device())
    autoencoder = Autoencoder.load(find(options.models, VAE)).to(device()).eval().requires_grad_(False)
    scenes = Scenes(device(), options.seed + 1, read_video(options.clip, 360), read_pictures(options.pictures))
    pools = [Pool(autoencoder, scenes, options.pool, *each) for each in options.shapes]
    unseen = Pool(autoencoder, scenes, 2, *options.shapes[0])

    def draw(pool):
        source, target, texts = pool.draw(max(1, options.batch * CELLS // pool.latents[0, 0, 0].numel()))
        context = editor.text(editor.text.tokens(texts).to(device()), LONGEST + 1)
        return source.float(), target.float(), context, torch.randn_like(target.float())

    def miss(source, target, context, noise):
        """Mean squared distance from the exact edit."""
        return (sample(editor, source, context, noise, options.student_steps, options.shift) - target).square().mean()

    with torch.no_grad():
        held_out = [draw(unseen) for _ in range(CHECKED)]

    @torch.no_grad()
    def check():
        return sum(miss(*batch).item() for batch in held_out) / len(held_out)

    lora.on = False
    print(f"{sum(p.numel() for p in lora.parameters()):,} parameters; without them {check():.4f}", flush=True)
    lora.on = True
    optimiser = adam([{"params": list(lora.parameters()), "weight_decay": 0.0}], betas=(0.9, 0.98))
    average = Average(lora, 0.98)
    clock, losses = Clock(options.minutes, options.steps), []
    for step in clock:
        optimiser.zero_grad()
        loss = miss(*draw(pools[step % len(pools)]))
        loss.backward()
        torch.nn.utils.clip_grad_norm_(lora.parameters(), 1.0)
        set_learning_rate(optimiser, clock.learning_rate(options.learning_rate, warmup=20))
        optimiser.step()
        average.update(lora)
        losses.append(loss.item())
        if step % options.fresh_every == options.fresh_every - 1:
            pools[step // options.fresh_every % len(pools)].refresh()
        if step % 20 == 19:
            print(f"{clock.elapsed():6.0f} s, step {step + 1}: {sum(losses) / len(losses):.4f}", flush=True)
            losses = []
    lora.load_state_dict(average.values)
    print(f"{clock.step} steps in {clock.elapsed():.0f} s; with them {check():.4f}")
    metadata = {
        "format": "pt",
        "what": f"liveditor-nano: LoRA for steps: {options.student_steps}, shift: {options.shift:g}",
        "licence": "Apache-2.0",
        "trained": "training/distill.py of the LIVEditor pack, on procedural scenes and the clip bigbuckbunny",
    }
    save(options.out / LORA, lora.file_weights(), metadata)


if __name__ == "__main__":
    main()
