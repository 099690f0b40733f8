"""Time one call of the whole 14B model in ComfyUI's own hands, and its memory: needs an NVIDIA GPU and ComfyUI.

    python tasks.py python tests/benchmarks/model.py --sizes 960x544x81 --csv model.csv

The weights are random, in the published layout; nothing else is. Everything of one table comes from one run. `peak`
is what a call needs above the weights, `estimate` what ComfyUI is told beforehand.
"""

import argparse
import csv
import statistics
import sys
import time
import types
from pathlib import Path

import torch

ROOT = Path(__file__).resolve().parents[2]
sys.path.append(str(ROOT / "tests" / "support"))
import comfy_library  # noqa: E402,F401
import tiny_models  # noqa: E402

import comfy.model_management  # noqa: E402
import comfy.sd  # noqa: E402

if "liveditor" not in sys.modules:
    package = types.ModuleType("liveditor")
    package.__path__ = [str(ROOT)]
    sys.modules["liveditor"] = package
from liveditor.liveditor_core.attention.config import OPTIONS_KEY, SparseAttentionConfig  # noqa: E402
from liveditor.liveditor_core.checkpoint.quantise import fp8_scale, to_fp8  # noqa: E402
from liveditor.liveditor_core.checkpoint.weights import QUANTISED  # noqa: E402
from liveditor.liveditor_core.model import registration  # noqa: E402
from liveditor.liveditor_core.model.dense_attention import choose_dense_attention  # noqa: E402
from liveditor.liveditor_core.model.source_reuse import REUSE_KEY, SourceReuse  # noqa: E402

GIB = 2**30
DEVICE = torch.device("cuda")
RESIDENT = 8 * GIB
SPARSE, DENSE = SparseAttentionConfig(), SparseAttentionConfig(backend="dense")
EIGHT_BIT = SparseAttentionConfig(attention_bits=8)


def load(weight_type, dim, ffn, layers, foreign=False):
    """A MODEL of ComfyUI from random weights.

    `foreign` leaves out what makes it LIVEditor, so that it is the host's own Wan.
    """
    state = tiny_models.transformer(dim, ffn, layers, device="cuda")
    if foreign:
        state = {key: value for key, value in state.items() if "alpha_" not in key and "source_video" not in key}
    if weight_type == "fp8":
        for key in [key for key in state if QUANTISED.fullmatch(key)]:
            scale = fp8_scale(state[key])
            state[key], state[f"{key}_scale"] = to_fp8(state[key], scale), torch.tensor(scale, device=state[key].device)
            state[key.removesuffix("weight") + "comfy_quant"] = torch.frombuffer(
                bytearray(b'{"format": "float8_e4m3fn"}'), dtype=torch.uint8
            ).clone()
    return comfy.sd.load_diffusion_model_state_dict(state, {"dtype": torch.bfloat16} if weight_type == "bf16" else {})


class Shape:
    """Inputs of one call: latents of a clip and a text."""

    def __init__(self, size):
        self.name = size
        width, height, frames = map(int, size.split("x"))
        shape = 1, 16, (frames - 1) // 4 + 1, height // 8, width // 8
        generator = torch.Generator(DEVICE).manual_seed(1)
        self.latent, self.source = (torch.randn(shape, device=DEVICE, generator=generator) for _ in range(2))
        self.text = torch.randn(1, 512, 4096, device=DEVICE, generator=generator)
        self.tokens = 2 * shape[2] * (shape[3] // 2) * (shape[4] // 2)

    def call(self, model, config=SPARSE, foreign=False, options=None):
        """What the sampler does for one conditioning."""
        options = {**(options or {}), OPTIONS_KEY: config.to_options()}
        sources = {"context_latents": [self.source]} if foreign else {registration.SOURCE_KEY: self.source}
        return model.apply_model(
            self.latent,
            torch.full((1,), 0.8, device=DEVICE),
            c_crossattn=self.text,
            transformer_options=options,
            **sources,
        )


def check(patcher):
    """Refuse to time what is wrong: every shortcut of inference against the plain operations that training takes."""
    shape = Shape("480x272x17")
    comfy.model_management.load_models_gpu([patcher], memory_required=GIB)
    config = SparseAttentionConfig(backend="triton")
    ours = shape.call(patcher.model, config=config).float()
    with torch.inference_mode(False), torch.enable_grad():
        plain = shape.call(patcher.model, config=config).float()
    error = ((ours - plain).norm() / plain.norm()).item()
    print(f"shortcuts against plain operations, {shape.tokens:,} tokens: relative difference {error:.2e}", flush=True)
    if not error < 2e-2:
        raise SystemExit("the model's answers are wrong; not timed")


def measure(name, shape, patcher, repeats, offloaded=False, **how):
    """Median seconds of a call, its peak above what was there before, in GiB, and the estimate."""
    model = patcher.model
    if not offloaded:
        comfy.model_management.load_models_gpu([patcher], memory_required=model.memory_required(shape.latent.shape))
    if repeats > 1:
        shape.call(model, **how)
    torch.cuda.synchronize()
    torch.cuda.empty_cache()
    torch.cuda.reset_peak_memory_stats()
    before = torch.cuda.memory_allocated()
    seconds = []
    for _ in range(repeats):
        started = time.perf_counter()
        shape.call(model, **how)
        torch.cuda.synchronize()
        seconds.append(time.perf_counter() - started)
    peak = (torch.cuda.max_memory_allocated() - before) / GIB
    name += f", {patcher.loaded_size() / GIB:.1f} GiB of weights on the GPU" if offloaded else ""
    row = {
        "what": name,
        "size": shape.name,
        "tokens": shape.tokens,
        "seconds": round(statistics.median(seconds), 3),
        "peak GiB": round(peak, 2),
        "estimate GiB": round(model.memory_of_call(1, shape.tokens) / GIB, 2),
        "GPU": torch.cuda.get_device_name(),
    }
    print(
        f"{name:28} {shape.name:>12} {shape.tokens:7,} tokens {row['seconds']:7.3f} s  peak {row['peak GiB']:5.2f}  "
        f"estimate {row['estimate GiB']:5.2f} GiB",
        flush=True,
    )
    return row


def reusing(shape, patcher, repeats, config=SPARSE):
    """A call that keeps its source and one that computes none, and how far apart their answers lie."""
    model, sigmas, rows = patcher.model, torch.tensor([0.8, 0.7, 0.0], device=DEVICE), []
    kept = model.memory_of_kept_source(shape.latent.shape, config, DEVICE) / GIB
    for place in ("on the GPU", "in RAM"):
        reuse, answers = SourceReuse(in_ram=place == "in RAM"), []
        for step, name in enumerate((f"source kept {place}", "source not computed")):
            options = {REUSE_KEY: reuse, "uuids": [0], "sample_sigmas": sigmas, "sigmas": sigmas[step : step + 1]}
            rows.append(measure(name, shape, patcher, repeats, config=config, options=options))
            answers.append(shape.call(model, config=config, options=options).float())
        error = ((answers[1] - answers[0]).norm() / answers[0].norm()).item()
        print(f"  {kept:.2f} GiB kept; the same noise level without the source: relative difference {error:.2e}")
        reuse.clear()
    return rows


def profile(shape, model):
    """Where one call's time goes: kernels by their share."""
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CUDA]) as profiler:
        shape.call(model)
        torch.cuda.synchronize()
    events = sorted(profiler.key_averages(), key=lambda event: -event.device_time_total)
    total = sum(event.self_device_time_total for event in events)
    print(f"kernels of one call, {total / 1e6:.3f} s:")
    for event in events[:26]:
        print(
            f"  {event.self_device_time_total / total:6.1%} {event.self_device_time_total / 1e3:9.1f} ms "
            f"{event.count:6} x {event.key[:110]}"
        )


def compiled(shape, patcher, rows, repeats):
    """torch.compile through ComfyUI's own node: as fast, and right after the settings change."""
    import comfy.patcher_extension
    from comfy_extras.nodes_torch_compile import TorchCompileModel

    model = patcher.model
    (node,) = TorchCompileModel.execute(patcher, "inductor").args
    (wrapper,) = node.get_all_wrappers(comfy.patcher_extension.WrappersMP.APPLY_MODEL)
    options = {"wrappers": {comfy.patcher_extension.WrappersMP.APPLY_MODEL: {"compile": [wrapper]}}}
    started = time.perf_counter()
    shape.call(model, options=options)
    torch.cuda.synchronize()
    print(f"first compiled call: {time.perf_counter() - started:.1f} s")
    rows.append(measure("sparse, compiled", shape, patcher, repeats, options=options))
    for config in (SparseAttentionConfig(0.125, 0.25, 0.25), SPARSE):
        eager, ours = (
            shape.call(model, config=config).float(),
            shape.call(model, config=config, options=options).float(),
        )
        error = ((ours - eager).norm() / eager.norm()).item()
        print(f"  compiled against eager, {config.to_options()}: relative difference {error:.2e}")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--sizes",
        default="960x544x81",
        help="WIDTHxHEIGHTxFRAMES, separated by commas; all but sparse, 8bit, reuse and offload is done for the first "
        "alone",
    )
    parser.add_argument("--weights", default="bf16", choices=("bf16", "fp8"))
    parser.add_argument(
        "--what",
        default="sparse,dense,host,profile",
        help="of sparse, 8bit (attention), reuse (the source computed in every other call), dense, host (its own Wan), "
        "compile, profile, offload (8 GiB of the weights on the GPU, the others in RAM)",
    )
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--csv", type=Path)
    for name, value in (("dim", 5120), ("ffn", 13824), ("layers", 40)):
        parser.add_argument(f"--{name}", type=int, default=value, help=f"default {value}, the 14B's")
    options = parser.parse_args()
    what, size = options.what.split(","), (options.dim, options.ffn, options.layers)
    print(
        f"{torch.cuda.get_device_name()}, torch {torch.__version__}, weights {options.weights}; dense half by "
        f"{choose_dense_attention({}, DEVICE, torch.bfloat16).name}",
        flush=True,
    )
    rows = []
    with torch.inference_mode():
        registration.register()
        patcher = load(options.weights, *size)
        check(patcher)
        for name in options.sizes.split(","):
            shape = Shape(name)
            for kind, config in (("sparse", SPARSE), ("8bit", EIGHT_BIT), ("dense", DENSE)):
                if kind in what and (kind != "dense" or name == options.sizes.split(",")[0]):
                    rows.append(measure(kind, shape, patcher, options.repeats, config=config))
            if "reuse" in what:
                rows += reusing(shape, patcher, options.repeats)
            if "profile" in what and name == options.sizes.split(",")[0]:
                profile(shape, patcher.model)
            if "compile" in what and name == options.sizes.split(",")[0]:
                compiled(shape, patcher, rows, options.repeats)
        if "offload" in what:  # as on a card with little room for weights: the host leaves the others in RAM
            comfy.model_management.unload_all_models()
            needed = torch.cuda.mem_get_info()[0] - RESIDENT
            comfy.model_management.load_models_gpu([patcher], memory_required=needed, minimum_memory_required=needed)
            Shape("480x272x17").call(patcher.model)  # the first transfer of all
            rows += [measure("sparse", Shape(name), patcher, 1, offloaded=True) for name in options.sizes.split(",")]
        if "host" in what:
            comfy.model_management.unload_all_models()
            del patcher
            patcher = load(options.weights, *size, foreign=True)
            shape = Shape(options.sizes.split(",")[0])
            rows.append(measure("ComfyUI's Wan with a source", shape, patcher, 2, foreign=True))
    for row in rows:
        row["weights"] = options.weights
    if options.csv:
        with open(options.csv, "w", newline="") as file:
            writer = csv.DictWriter(file, rows[0].keys())
            writer.writeheader()
            writer.writerows(rows)


if __name__ == "__main__":
    main()
