"""What less work costs the small model's edits: 8 bits, fp8 weights, a source that is not computed in every step.

    python tasks.py python tests/benchmarks/precision.py attention weights      on a Hopper GPU
    python tasks.py python tests/benchmarks/precision.py source --edits 3       on any computer

PSNR to the exact edits of two clips, mean over all, and how many are nearest to what was asked. `attention`: the dense
half in 16 and in 8 bits, by the kernel of the pack. `weights`: fp8 weights whose inputs the host rounds, or the pack
once for all layers. `source`: computed in every step or in every other one, at several SRR. Everything else at the
settings of the small model, sparse, whatever is faster.
"""

import argparse
import statistics
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT / "tests" / "support"), str(ROOT / "tests" / "benchmarks")]

import model as calls  # noqa: E402,F401  (makes the pack importable)
import torch  # noqa: E402

sys.path.append(str(ROOT))  # last: its `nodes` is not ComfyUI's
from liveditor.kernels import dense  # noqa: E402
from liveditor.liveditor_core.checkpoint.convert import convert_checkpoint  # noqa: E402
from liveditor.liveditor_core.model import fp8_inputs, load, self_attention  # noqa: E402
from liveditor.nodes.live_edit_sampler import SOURCE_COMPUTED  # noqa: E402
from liveditor.nodes.sparse_attention_settings import SparseAttentionSettings  # noqa: E402
from training import evaluate, score  # noqa: E402

OURS = "liveditor-int8-fp8"


class Edits:
    """Edits of two clips in words that the small model was not trained on."""

    def __init__(self, clips, number):
        self.small = evaluate.Nano(ROOT / "models")
        self.sources = [self.small.source(clips / name, start) for name, start in evaluate.CASES]
        self.names = list(evaluate.EDITS)[:number]
        self.backend = "triton" if torch.cuda.is_available() else "pytorch"

    def show(self, what, model, bits=16, srr=None, **sampling):
        """Prints a line. SRR as recommended if None; `sampling` are inputs of LIVEdit Sampler."""
        self.small.model = model
        sar, recommended, flat_ratio = evaluate.RECOMMENDED["ratios"]
        srr = recommended if srr is None else srr
        settings = sar, srr, flat_ratio, self.backend, "sharpest (as released)"
        model = SparseAttentionSettings.execute(model, *settings, precision_of_attention=f"{bits} bit").result[0]
        found = []
        for source in self.sources:
            pixels = torch.stack(list(source.unedited(evaluate.AS_EDITED)))
            for name in self.names:
                frames = self.small.frames_of(
                    self.small.edit(model, source, evaluate.HELD_OUT[name][0], **sampling), source
                )
                found.append(score.score(frames, pixels, name))
        decibels, right = statistics.mean(each.decibels for each in found), sum(each.recognised for each in found)
        print(f"{what}: {decibels:.2f} dB, {right} of {len(found)} recognised", flush=True)


def attention(edits):
    choose = self_attention.choose_dense_attention

    def ours(options, device, dtype, **how):
        found = choose(options, device, dtype, **how)
        return found._replace(name=OURS, attend=dense.dense_kernel(OURS)) if how.get("bits") == 8 else found

    self_attention.choose_dense_attention = ours  # also where it is not the fastest
    model = edits.small.model
    for bits in (16, 8):
        edits.show(f"attention in {bits} bits", model, bits)
    self_attention.choose_dense_attention = choose


def weights(edits):
    original, folder = ROOT / "models" / "diffusion_models" / evaluate.MODEL, Path(tempfile.mkdtemp())
    convert_checkpoint(original, folder / "fp8.safetensors", weight_type="fp8_e4m3fn_scaled")
    convert_checkpoint(original, folder / "bf16.safetensors")
    model, accept = load._load_model(str(folder / "fp8.safetensors"), {}), fp8_inputs.accept
    fp8_inputs.accept = lambda *_: False
    edits.show("fp8 file, inputs rounded by the host", model)
    fp8_inputs.accept = accept
    edits.show("fp8 file, inputs rounded once", model)
    cast = {"dtype": torch.float8_e4m3fn}
    for name, options in (("kept in fp8", {}), ("multiplied in fp8", {"fp8_optimizations": True})):
        edits.show(f"bf16 file, {name}", load._load_model(str(folder / "bf16.safetensors"), cast | options))


def source(edits):
    for srr in (1.0, 0.5, 0.25):
        for computed in SOURCE_COMPUTED:
            edits.show(f"SRR {srr}, source computed {computed}", edits.small.model, srr=srr, source_computed=computed)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", nargs="+", choices=("attention", "weights", "source"))
    parser.add_argument("--edits", type=int, default=len(evaluate.EDITS), help="how many of the ten")
    parser.add_argument("--clips", type=Path, default=evaluate.CLIP.parent)
    options = parser.parse_args()
    with torch.inference_mode():
        edits = Edits(options.clips, options.edits)
        for name in options.what:
            globals()[name](edits)


if __name__ == "__main__":
    main()
