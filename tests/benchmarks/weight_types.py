"""One call of a LIVEditor-14B in each weight type: seconds, memory beside the weights, what was estimated.

    python tasks.py python tests/benchmarks/weight_types.py --gguf-pack FOLDER

Random weights, loaded from files as users load them, then released settings. `offload`: that many GiB of the weights
on the GPU, the others fetched from RAM while it computes, as on smaller cards.
"""

import argparse
import csv
import importlib.util
import sys
import tempfile
import time
from pathlib import Path

sys.path[:0] = [str(Path(__file__).resolve().parents[1] / "support"), str(Path(__file__).resolve().parent)]

import model as calls  # noqa: E402
import random_14b  # noqa: E402
import torch  # noqa: E402

import comfy.model_management  # noqa: E402
import folder_paths  # noqa: E402
from liveditor.liveditor_core.checkpoint.weight_types import WEIGHT_TYPES  # noqa: E402
from liveditor.liveditor_core.model import load, registration  # noqa: E402

GIB = 2**30
TYPES = "bf16 fp8_e4m3fn_scaled int8_tensorwise int8_convrot gguf_q8_0 gguf_q4_1"


def install_gguf(folder):
    """ComfyUI-GGUF as the host would have loaded it."""
    import nodes

    spec = importlib.util.spec_from_file_location(
        "comfyui_gguf", folder / "__init__.py", submodule_search_locations=[str(folder)]
    )
    sys.modules["comfyui_gguf"] = pack = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(pack)
    nodes.NODE_CLASS_MAPPINGS.update(pack.NODE_CLASS_MAPPINGS)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--types", default=TYPES, help="separated by blanks")
    parser.add_argument("--sizes", default="960x544x81,832x480x49,832x480x33")
    parser.add_argument("--offload", type=float, default=4.0, help="GiB")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--gguf-pack", type=Path)
    parser.add_argument("--csv", type=Path)
    parser.add_argument("--small", action="store_true", help="tiny models")
    options = parser.parse_args()
    registration.register()
    folder = Path(tempfile.mkdtemp())
    folder_paths.add_model_folder_path("diffusion_models", str(folder))
    if options.gguf_pack:
        install_gguf(options.gguf_pack)
    rows = []
    for name in options.types.split():
        path = folder / f"random{WEIGHT_TYPES[name].extension}"
        started = time.perf_counter()
        random_14b.write_transformer(path, name, (256, 512, 2) if options.small else random_14b.FULL)
        written = time.perf_counter()
        with torch.inference_mode():
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
