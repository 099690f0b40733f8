"""Every weight type: what it costs in time and memory, and in quality.

    python tasks.py python tests/benchmarks/weight_types.py speed --gguf-pack FOLDER      on a GPU
    python tasks.py python tests/benchmarks/weight_types.py quality --gguf-pack FOLDER    on any computer

`speed`: a call of a 14B of random weights, loaded from files as users load them, at released settings: seconds, memory
beside the weights, what was estimated. `--offload`: that many GiB of the weights on the GPU, the others fetched from
RAM while it computes, as on smaller cards. `quality`: of the small model the error of a call, relative to bf16 weights
in fp32, and PSNR to the exact edit of six edits of two clips. FOLDER: the node pack ComfyUI-GGUF.
"""

import argparse
import csv
import importlib.util
import statistics
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT / "tests" / "support"), str(ROOT / "tests" / "benchmarks")]

import model as calls  # noqa: E402
import random_14b  # noqa: E402
import torch  # noqa: E402

import comfy.model_management  # noqa: E402
import folder_paths  # noqa: E402
from liveditor.liveditor_core.checkpoint.weight_types import WEIGHT_TYPES  # noqa: E402
from liveditor.liveditor_core.model import load, registration  # noqa: E402

GIB = 2**30
EDITS = ("night", "invert", "mirror", "sepia", "pixelate", "brighter")


def install_gguf(folder):
    """ComfyUI-GGUF as the host would have loaded it."""
    import nodes

    spec = importlib.util.spec_from_file_location(
        "comfyui_gguf", folder / "__init__.py", submodule_search_locations=[str(folder)]
    )
    sys.modules["comfyui_gguf"] = pack = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(pack)
    nodes.NODE_CLASS_MAPPINGS.update(pack.NODE_CLASS_MAPPINGS)


def quality(options, folder):
    """Prints a line for each weight type."""
    sys.path.append(str(ROOT))  # last: its `nodes` is not ComfyUI's
    from liveditor.liveditor_core.checkpoint.convert import convert_checkpoint
    from training import evaluate, score

    small = evaluate.Nano(ROOT / "models")
    original = ROOT / "models" / "diffusion_models" / evaluate.MODEL
    sources = [small.source(evaluate.CLIP.parent / name, start) for name, start in evaluate.CASES]
    generator = torch.Generator().manual_seed(1)
    latent, other = (torch.randn(1, 16, 5, 14, 32, generator=generator) for _ in range(2))
    text = torch.randn(1, 512, 4096, generator=generator)

    def answers(patcher):
        comfy.model_management.load_models_gpu([patcher])
        return torch.stack(
            [
                patcher.model.apply_model(
                    latent,
                    torch.full((1,), time),
                    c_crossattn=text,
                    transformer_options={},
                    liveditor_source=other,
                )
                for time in (0.9, 0.5, 0.1)
            ]
        )

    reference = folder / "reference.safetensors"
    convert_checkpoint(original, reference)
    exact = answers(load._load_model(str(reference), {"dtype": torch.float32}))
    for name in options.types.split():
        path = folder / f"small{WEIGHT_TYPES[name].extension}"
        convert_checkpoint(original, path, weight_type=name)
        small.model = load._load_model(str(path), {})
        error = ((answers(small.model) - exact).norm() / exact.norm()).item()
        model = small.with_settings(evaluate.RECOMMENDED["ratios"])
        found = [
            score.score(
                small.frames_of(small.edit(model, source, evaluate.HELD_OUT[edit][0]), source),
                torch.stack(list(source.unedited(evaluate.AS_EDITED))),
                edit,
            ).decibels
            for source in sources
            for edit in EDITS
        ]
        size = path.stat().st_size / 1e6
        print(f"{name}: {size:.1f} MB, error of a call {error:.2%}, {statistics.mean(found):.2f} dB", flush=True)
        path.unlink()


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=("speed", "quality"))
    parser.add_argument("--types", default=" ".join(WEIGHT_TYPES), help="separated by blanks")
    parser.add_argument("--sizes", default="960x544x81,832x480x49,832x480x33")
    parser.add_argument("--offload", type=float, default=4.0, help="GiB")
    parser.add_argument("--repeats", type=int, default=2)
    parser.add_argument("--gguf-pack", type=Path, help="without it no type of GGUF is measured")
    parser.add_argument("--csv", type=Path)
    options = parser.parse_args()
    registration.register()
    folder = Path(tempfile.mkdtemp())
    folder_paths.add_model_folder_path("diffusion_models", str(folder))
    if options.gguf_pack:
        install_gguf(options.gguf_pack)
    else:
        options.types = " ".join(name for name in options.types.split() if not WEIGHT_TYPES[name].ggml)
    with torch.inference_mode():
        (speed if options.what == "speed" else quality)(options, folder)


def speed(options, folder):
    """Prints a line for each measurement, and writes them to a CSV file."""
    rows = []
    for name in options.types.split():
        path = folder / f"random{WEIGHT_TYPES[name].extension}"
        started = time.perf_counter()
        random_14b.write_transformer(path, name)
        written = time.perf_counter()
        patcher = load._load_model(str(path), {})
        print(
            f"{name}: {path.stat().st_size / 1e9:.2f} GB, written in {written - started:.0f} s, loaded in "
            f"{time.perf_counter() - written:.0f} s, {patcher.model_size() / GIB:.2f} GiB in memory",
            flush=True,
        )
        shapes = [calls.Shape(size) for size in options.sizes.split(",")]
        for shape in shapes:
            rows.append(calls.measure(name, shape, patcher, options.repeats))
        comfy.model_management.unload_all_models()
        needed = torch.cuda.mem_get_info()[0] - int(options.offload * GIB)
        comfy.model_management.load_models_gpu([patcher], memory_required=needed, minimum_memory_required=needed)
        calls.Shape("480x272x17").call(patcher.model)  # the first transfer of all
        for shape in shapes:
            rows.append(calls.measure(name, shape, patcher, 1, offloaded=True))
        comfy.model_management.unload_all_models()
        for row in rows:
            row.setdefault("bytes", path.stat().st_size)
        del patcher
        comfy.model_management.cleanup_models_gc()
        torch.cuda.empty_cache()
        path.unlink()
        if options.csv:
            with open(options.csv, "w", newline="") as file:
                writer = csv.DictWriter(file, rows[0].keys())
                writer.writeheader()
                writer.writerows(rows)


if __name__ == "__main__":
    main()
