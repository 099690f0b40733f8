"""Record queries, keys and values of the small model while it edits, for the tests and benchmarks of attention:

`python tasks.py python -m training.activations FOLDER tests/activations/nano.safetensors`
"""

from . import common  # noqa: F401  (before anything of ComfyUI)

# isort: split
import argparse
import json
from pathlib import Path

import torch

from liveditor.liveditor_core.model import self_attention

from . import evaluate
from .common import CLIP, save
from .nano import RECOMMENDED

SIZE, FRAMES, CLIP_NAME, PROMPT = (128, 96), 17, "bikes.mp4", "make it look like night"
LAYERS = 6
RECORDED = [(3, layer) for layer in range(LAYERS)] + [(9, 0), (9, LAYERS - 1)]  # step, layer


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "models", type=Path, help="folder with the files that the trainings wrote, or models/ of the pack"
    )
    parser.add_argument("out", type=Path, help="safetensors file to write")
    parser.add_argument("--clips", type=Path, default=CLIP.parent, help=f"folder with {CLIP_NAME}")
    options = parser.parse_args()
    tensors, calls, attend = {}, 0, self_attention._attend

    def record(q, k, v, gate, layout, transformer_options, **how):
        nonlocal calls
        step, layer = divmod(calls, LAYERS)
        if (step, layer) in RECORDED:
            for name, x in (("q", q), ("k", k), ("v", v)):
                tensors[f"step{step}.layer{layer}.{name}"] = x.transpose(1, 2).to(
                    torch.bfloat16, copy=True
                )  # the answer is written over q
            tensors[f"step{step}.layer{layer}.gate"] = gate.float()
            assert (layout.target, layout.source) == (tokens, tokens)
        calls += 1
        return attend(q, k, v, gate, layout, transformer_options, **how)

    tokens = (FRAMES + 3) // 4 * (SIZE[0] // 16) * (SIZE[1] // 16)
    self_attention._attend = record
    try:
        with torch.inference_mode():
            nano = evaluate.Nano(options.models)
            nano.edit(
                nano.with_settings(RECOMMENDED["ratios"]),
                nano.source(options.clips / CLIP_NAME, size=SIZE, frames=FRAMES),
                PROMPT,
            )
    finally:
        self_attention._attend = attend
    assert calls == RECOMMENDED["steps"] * LAYERS
    save(
        options.out,
        tensors,
        {
            "what": "q, k, v [1, tokens, heads, 128] and gates [1, tokens] of liveditor-nano",
            "target_tokens": json.dumps(tokens),
            "made": f"training/activations.py: {CLIP_NAME}, {SIZE[0]}x{SIZE[1]}, {FRAMES} frames, '{PROMPT}'",
        },
    )


if __name__ == "__main__":
    main()
