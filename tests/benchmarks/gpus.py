"""One edit on several GPUs: seconds a step, memory of each GPU, and how far it is from the edit on one.

    python tasks.py python tests/benchmarks/gpus.py --size 960x544x81 --gpus 2

The weights are random, in the published layout and full size; nothing else is. Everything of one table comes from one
run: cfg 1 on one GPU and by *Split Heads over GPUs*, then cfg 2.5, also by *MultiGPU CFG Split*; each after an edit of
one step, which moves the weights, and without its own first step. `--pretend` takes one GPU, or a CPU, for several:
that shows what is computed, not how fast.
"""

import argparse
import csv
import re
import sys
import tempfile
import types
from fractions import Fraction
from pathlib import Path

import torch

ROOT = Path(__file__).resolve().parents[2]
sys.path.append(str(ROOT / "tests" / "support"))
import comfy_library  # noqa: E402,F401
import random_14b  # noqa: E402

import comfy.model_management  # noqa: E402
import comfy.sd  # noqa: E402

if "liveditor" not in sys.modules:
    package = types.ModuleType("liveditor")
    package.__path__ = [str(ROOT)]
    sys.modules["liveditor"] = package
from comfy_extras.nodes_multigpu import MultiGPUCFGSplitNode  # noqa: E402
from liveditor.liveditor_core.footage.frames_clip import FramesClip  # noqa: E402
from liveditor.liveditor_core.footage.source_video import SourceVideo  # noqa: E402
from liveditor.liveditor_core.model import registration  # noqa: E402
from liveditor.liveditor_core.sampling.edit import edit  # noqa: E402
from liveditor.nodes.split_heads import SplitHeads  # noqa: E402

SMALL = (512, 512, 2)


def source_of(size):
    """A source whose pictures nobody reads, and texts."""
    width, height, frames = map(int, size.split("x"))
    generator = torch.Generator().manual_seed(1)
    latent = torch.randn(1, 16, (frames - 1) // 4 + 1, height // 8, width // 8, generator=generator)
    source = SourceVideo(
        latent=latent,
        width=width,
        height=height,
        frames=frames,
        fps=Fraction(16),
        clip=FramesClip(torch.zeros(frames, 8, 8, 3), Fraction(16)),
        start=Fraction(0),
        stamps=tuple(Fraction(i, 16) for i in range(frames)),
        original_frames=frames,
        fit="crop",
        vae=None,
    )
    return source, [[[each, {}]] for each in torch.randn(2, 1, 512, 4096, generator=generator)]


def pretend(count):
    """Let the host see one device as so many; it tells them by their numbers."""
    kind = "cuda" if torch.cuda.is_available() else "cpu"
    devices = [comfy.model_management.get_torch_device(), *(torch.device(kind, i) for i in range(count))]
    devices = list(dict.fromkeys([*devices, torch.device(kind)]))[:count]
    comfy.model_management.get_all_torch_devices = lambda exclude_current=False: devices


@torch.inference_mode()  # as the server runs nodes
def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", default="960x544x81", help="WIDTHxHEIGHTxFRAMES")
    parser.add_argument("--weights", default="fp8_e4m3fn_scaled")
    parser.add_argument("--gpus", type=int, default=2)
    parser.add_argument("--checkpoint", type=Path, help="a file of the weights, written if it is not there")
    parser.add_argument("--steps", type=int, default=4)
    parser.add_argument("--pretend", action="store_true")
    parser.add_argument("--small", action="store_true", help="a tiny model, to try this script without a GPU")
    parser.add_argument("--csv", type=Path)
    options = parser.parse_args()
    if options.pretend:
        pretend(options.gpus)
    found = len(comfy.model_management.get_all_torch_devices())
    if found < options.gpus:
        raise SystemExit(f"--gpus {options.gpus}: there are {found}; --pretend shows what is computed")
    registration.register()
    path = options.checkpoint or Path(tempfile.mkdtemp()) / "random.safetensors"
    if not path.is_file():
        random_14b.write_transformer(path, options.weights, SMALL if options.small else random_14b.FULL)
    model = comfy.sd.load_diffusion_model(str(path))
    source, texts = source_of(options.size)

    def heads(of, size=options.gpus):
        return SplitHeads.execute(of, size).result[0]

    def cfg_split(of):
        return MultiGPUCFGSplitNode.execute(of, options.gpus).result[0]

    ways = [(1.0, "one GPU", lambda of: of), (1.0, "heads", heads), (2.5, "one GPU", lambda of: of)]
    ways += [(2.5, "CFG split", cfg_split), (2.5, "heads", heads)]
    if options.gpus >= 4:
        ways.append((2.5, "CFG split, heads", lambda of: heads(cfg_split(of), options.gpus // 2)))
    alone, rows = {}, []
    for cfg, name, of in ways:
        patcher = of(model)
        edit(patcher, *texts, source, seed=7, steps=1, cfg=cfg, shift=6.0)  # kernels are compiled, weights are moved
        samples, report = edit(patcher, *texts, source, seed=7, steps=options.steps, cfg=cfg, shift=6.0)
        samples = samples["samples"].float()
        seconds = float(report.split("time: ")[1].split(" s per step")[0])
        first, wanted = alone.setdefault(cfg, (seconds, samples))
        row = {
            "cfg": cfg,
            "way": name,
            "GPUs": 1 if name == "one GPU" else options.gpus,
            "tokens": 2 * samples.shape[2] * (samples.shape[3] // 2) * (samples.shape[4] // 2),
            "s/step": seconds,
            "times one GPU": round(first / seconds, 3),
            "relative difference": f"{((samples - wanted).norm() / wanted.norm()).item():.2e}",
            "GiB above weights": ", ".join(re.findall(r"([\d.]+) GiB of it above", report)),
            "GPU": torch.cuda.get_device_name() if torch.cuda.is_available() else "none",
        }
        rows.append(row)
        print(f"{row}\n{report}\n", flush=True)
        if options.csv:
            with open(options.csv, "w", newline="") as file:
                writer = csv.DictWriter(file, row.keys())
                writer.writeheader()
                writer.writerows(rows)


if __name__ == "__main__":
    main()
