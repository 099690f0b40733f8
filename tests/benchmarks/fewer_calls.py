"""What fewer calls of the model cost: every edit of the small model on two clips, through the nodes, on a CPU.

    python tasks.py python tests/benchmarks/fewer_calls.py cfg_until    CFG in a share of the steps alone
    python tasks.py python tests/benchmarks/fewer_calls.py few_steps    fewer steps; --lora FILE adds one step with it

A row is the mean over all edits: PSNR to the exact edit; seconds of LIVEdit Sampler. All rows of an edit are computed
one after the other before the next edit, so that what else the machine does weighs on all alike.
"""

import argparse
import statistics
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "support"))

import comfy_library  # noqa: F401  (before anything of ComfyUI)
import host
import torch

sys.path.append(str(host.PACK))
from training import score
from training.edits import EDITS, HELD_OUT
from training.nano import RECOMMENDED

CLIPS = (("bikes.mp4", 0.0), ("carphone_pristine.mp4", 1.0))  # and where in them, in seconds
CFG = (1.5, 2.5)
UNTIL = (1.0, 0.7, 0.5)


def cfg_until():
    """Rows by cfg and share; cfg 1 has no negative prompt."""
    rows = {f"{cfg:g} | {until:g}": {"cfg": cfg, "cfg_until": until} for cfg in CFG for until in UNTIL}
    return "cfg | cfg until", {"1 | ": {"cfg": 1.0}} | rows


def few_steps():
    """Rows by steps, without a LoRA."""
    return "steps", {f"{steps}": {"steps": steps} for steps in (RECOMMENDED["steps"], 4, 2, 1)}


@torch.inference_mode()
def measure(rows, asked):
    """By row a list of (edit, dB, seconds).

    Args:
        rows: by name inputs of LIVEdit Sampler, and `lora`, the path of a file.
        asked: names of edits.
    """
    from liveditor.liveditor_core.model.lora import apply_lora
    from training.evaluate import AS_EDITED, Nano

    nano = Nano(host.PACK / "models")
    plain = nano.with_settings(RECOMMENDED["ratios"])
    found = {name: [] for name in rows}
    for clip, start in CLIPS:
        source = nano.source(host.CLIPS / clip, start)
        pixels = torch.stack(list(source.unedited(AS_EDITED)))
        for edit in asked:
            for name, settings in rows.items():
                settings = dict(settings)
                lora = settings.pop("lora", None)
                model = plain if lora is None else apply_lora(plain, lora, 1.0)[0]
                nano.edit(model, source, "", steps=1)  # loads, and puts the LoRA on
                began = time.perf_counter()
                latent = nano.edit(model, source, HELD_OUT[edit][-1], **settings)
                seconds = time.perf_counter() - began
                found[name].append((edit, score.score(nano.frames_of(latent, source), pixels, edit).decibels, seconds))
            print(f"{clip} {edit}: " + ", ".join(f"{found[name][-1][1]:.1f}" for name in rows), flush=True)
    return found


def table(head, found):
    yield f"| {head} | dB | worst edit | seconds |\n|{'---|' * (head.count('|') + 4)}"
    for name, results in found.items():
        edits, decibels, seconds = zip(*results, strict=True)
        each = {edit: statistics.mean(d for e, d in zip(edits, decibels, strict=True) if e == edit) for edit in edits}
        worst = min(each, key=each.get)
        yield (
            f"| {name} | {statistics.mean(decibels):.2f} | {each[worst]:.1f} ({worst.replace('_', ' ')}) | "
            f"{statistics.median(seconds):.2f} |"
        )


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=("cfg_until", "few_steps"))
    parser.add_argument("--edits", nargs="+", choices=EDITS, default=list(EDITS), metavar="EDIT")
    parser.add_argument("--lora", type=Path)
    options = parser.parse_args()
    head, rows = globals()[options.what]()
    if options.lora is not None:
        rows["1, LoRA"] = {"steps": 1, "lora": options.lora}
    print("\n".join(table(head, measure(rows, options.edits))))


if __name__ == "__main__":
    main()
