"""Whole edits by a real ComfyUI server with full-size random weights: seconds, GPU memory and RAM.

    python tasks.py python tests/benchmarks/edit.py --rows "832x480x33 fp8_e4m3fn_scaled 8; 832x480x33 bf16"

A row is WIDTHxHEIGHTxFRAMES, the weight type, and optionally a cap on GPU memory in GiB: another process holds the
rest of the card, so the host sees a smaller one and cannot allocate more, as on a small card; but computes at this
card's speed. Every row is edited twice, to see whether the second needs more. `s/edit` is for 32 steps, of which
`--steps` are run.
"""

import argparse
import csv
import json
import os
import re
import subprocess
import sys
import tempfile
import threading
import time
import types
import urllib.error
import urllib.parse
import urllib.request
from pathlib import Path

import torch

ROOT = Path(__file__).resolve().parents[2]
GIB = 2**30
PORT = 8197
RELEASED_STEPS = 32
TEXT_ENCODER, VAE = "umt5_xxl_random.safetensors", "wan_vae_random.safetensors"
BALLAST = """
import sys, time, torch
free, _ = torch.cuda.mem_get_info()
held = torch.empty(max(0, free - int(float(sys.argv[1]) * 2**30)), dtype=torch.uint8, device="cuda")
print("held", flush=True)
time.sleep(1e6)
"""


def make_models(base, weight_types, small):
    """Random weights in the published layouts: transformer in each weight type, UMT5-XXL in scaled fp8, VAE.

    In a process of its own, for its memory.
    """
    sys.path.append(str(ROOT / "tests" / "support"))
    import comfy_library  # noqa: F401

    package = types.ModuleType("liveditor")
    package.__path__ = [str(ROOT)]
    sys.modules["liveditor"] = package
    import random_14b

    from liveditor.liveditor_core.checkpoint.weight_types import WEIGHT_TYPES

    folders = [base / "models" / name for name in ("diffusion_models", "text_encoders", "vae")]
    for folder in folders:
        folder.mkdir(parents=True, exist_ok=True)
    size = (256, 512, 2) if small else random_14b.FULL
    for name in weight_types.split():
        path = folders[0] / f"{name}{WEIGHT_TYPES[name].extension}"
        if not path.is_file():
            random_14b.write_transformer(path, name, size)
    if small:
        return
    if not (folders[1] / TEXT_ENCODER).is_file():
        random_14b.write_text_encoder(folders[1] / TEXT_ENCODER)
        random_14b.write_vae(folders[2] / VAE)


def make_clip(path, width, height, frames):
    import av
    import numpy as np

    with av.open(str(path), "w") as container:
        stream = container.add_stream("h264", rate=16)
        stream.width, stream.height, stream.pix_fmt = width, height, "yuv420p"
        x, y = np.meshgrid(np.arange(width), np.arange(height))
        for i in range(frames):
            image = np.stack([(x + 5 * i) % 256, (y + 3 * i) % 256, (x + y) % 256], axis=-1).astype(np.uint8)
            container.mux(stream.encode(av.VideoFrame.from_ndarray(image, format="rgb24")))
        container.mux(stream.encode(None))


def file_of(weights):
    return f"{weights}.gguf" if weights.startswith("gguf") else f"{weights}.safetensors"


def prompt(row, steps, seed, small, source_computed="in every step"):
    width, height, frames, weights = row
    text, vae = (
        ("liveditor_nano_text_encoder.safetensors", "liveditor_nano_vae.safetensors") if small else (TEXT_ENCODER, VAE)
    )
    return {
        "video": ("LoadVideo", {"file": f"{width}x{height}x{frames}.mp4"}),
        "load": (
            "LoadLIVEditor",
            {"checkpoint": file_of(weights), "weight_type": "default", "text_encoder": text, "vae": vae},
        ),
        "source": (
            "EncodeSourceVideo",
            {
                "video": ["video", 0],
                "vae": ["load", 2],
                "size": "custom",
                "width": width,
                "height": height,
                "fit": "crop",
                "fps": "16 (as trained)",
                "start": 0.0,
                "max_frames": frames,
                "image_fps": 16.0,
            },
        ),
        "positive": ("CLIPTextEncode", {"clip": ["load", 1], "text": "Make it a snowy evening."}),
        "negative": ("CLIPTextEncode", {"clip": ["load", 1], "text": "still, blurred"}),
        "sample": (
            "LIVEditSampler",
            {
                "model": ["load", 0],
                "positive": ["positive", 0],
                "negative": ["negative", 0],
                "source": ["source", 0],
                "seed": seed,
                "steps": steps,
                "cfg": 2.5,
                "shift": 6.0,
                "source_computed": source_computed,
            },
        ),
        "decode": (
            "DecodeVideo",
            {
                "samples": ["sample", 0],
                "vae": ["load", 2],
                "source": ["source", 0],
                "fps": "as edited",
                "original_size": False,
                "tiling": "auto",
                "tile_size": 256,
            },
        ),
        "save": ("SaveVideo", {"video": ["decode", 0], "filename_prefix": "edit", "format": "mp4", "codec": "h264"}),
        "report": ("PreviewAny", {"source": ["sample", 1]}),
    }


def ask(path, body=None):
    request = urllib.request.Request(
        f"http://127.0.0.1:{PORT}/{path}",
        None if body is None else json.dumps(body).encode(),
        {"Content-Type": "application/json"},
    )
    with urllib.request.urlopen(request, timeout=60) as answer:
        return json.loads(answer.read())


class Server:
    """ComfyUI in a process of its own, and how much memory it comes to take."""

    def __init__(self, base, arguments):
        self.log = base / "server.log"
        front = Path(os.environ["LIVEDITOR_COMFYUI"]).parent / "front"
        command = [
            sys.executable,
            "-s",
            os.path.join(os.environ["LIVEDITOR_COMFYUI"], "main.py"),
            "--port",
            str(PORT),
            "--disable-auto-launch",
            "--disable-api-nodes",
            "--base-directory",
            str(base),
            "--database-url",
            "sqlite:///:memory:",
            *(["--front-end-root", str(front)] if front.is_dir() else []),
            *([] if torch.cuda.is_available() else ["--cpu"]),
            *arguments,
        ]
        with open(self.log, "wb") as log:
            self._process = subprocess.Popen(command, stdout=log, stderr=subprocess.STDOUT)

    def __enter__(self):
        for _ in range(600):
            try:
                ask("system_stats")
                break
            except (urllib.error.URLError, ConnectionError):
                if self._process.poll() is not None:
                    raise SystemExit(self.log.read_text()[-3000:]) from None
                time.sleep(0.3)
        self._before = _used()
        self.reset()
        threading.Thread(target=self._watch, daemon=True).start()
        return self

    def __exit__(self, *_):
        self._process.terminate()
        self._process.wait()

    def reset(self):
        self.vram, self.ram = 0, 0

    def _watch(self):
        while self._process.poll() is None:
            self.vram = max(self.vram, _used() - self._before)
            with open(f"/proc/{self._process.pid}/status") as status:
                self.ram = max(
                    [self.ram, *(int(line.split()[1]) * 1024 for line in status if line.startswith("VmRSS"))]
                )
            time.sleep(0.05)

    def offloaded(self):
        """Bytes of the weights that the host left in RAM when it loaded the model last, as its log says.

        None where it decides that weight by weight.
        """
        *_, last = self.log.read_text(errors="replace").split("Requested to load LIVEditor")
        found = re.search(r"loaded partially;.*?([\d.]+) MB offloaded|LIVEditor loaded completely", last)
        return float(found[1] or 0) * 2**20 if found else None

    def run(self, graph):
        """Seconds of a prompt, and its report; or None and what went wrong."""
        self.reset()
        started = time.perf_counter()
        answer = ask("prompt", {"prompt": as_api(graph)})
        if "prompt_id" not in answer or answer.get("node_errors"):
            raise SystemExit(f"refused: {answer}")
        while not (history := ask(f"history/{answer['prompt_id']}")):
            time.sleep(0.1)
        entry = history[answer["prompt_id"]]
        if entry["status"]["status_str"] != "success":
            return None, next(
                data["exception_message"] for kind, data in entry["status"]["messages"] if kind == "execution_error"
            )
        return time.perf_counter() - started, entry["outputs"]["report"]["text"][0]


def _used():
    if not torch.cuda.is_available():
        return 0
    free, total = torch.cuda.mem_get_info()
    return total - free


def predicted(row, small):
    """What the server says beforehand of a row's edit, see liveditor_core/model/fit.py."""
    width, height, frames, _ = row
    _, files = prompt(row, 1, 1, small)["load"]
    tokens = 2 * ((frames - 1) // 4 + 1) * (height // 16) * (width // 16)
    return ask("liveditor/fit?" + urllib.parse.urlencode({**files, "tokens": tokens}))


def prepare_base(base, weight_types, small, gguf_pack=None):
    """A base directory for ComfyUI, with this pack and the models; those that are there are used again."""
    for name in ("custom_nodes", "input", "output", "temp", "user"):
        (base / name).mkdir(parents=True, exist_ok=True)
    if not (base / "custom_nodes" / "liveditor").exists():
        (base / "custom_nodes" / "liveditor").symlink_to(ROOT)
    if gguf_pack and not (base / "custom_nodes" / "ComfyUI-GGUF").exists():
        (base / "custom_nodes" / "ComfyUI-GGUF").symlink_to(gguf_pack.resolve())
    if all((base / "models" / "diffusion_models" / file_of(weights)).is_file() for weights in weight_types):
        return
    make = ["--rows", "", "--folder", base, "--make-models", " ".join(weight_types), *(["--small"] if small else [])]
    subprocess.run([sys.executable, __file__, *make], check=True)


def as_api(graph):
    """A graph as the server takes it."""
    return {key: {"class_type": name, "inputs": inputs} for key, (name, inputs) in graph.items()}


def seconds_per_step(report):
    return float(report.split("time: ")[1].split(" s per step")[0])


def run_rows(base, cap, rows, options):
    """All rows under one cap, in one server."""
    ballast = None
    if cap:
        ballast = subprocess.Popen([sys.executable, "-c", BALLAST, cap], stdout=subprocess.PIPE, text=True)
        if ballast.stdout.readline() != "held\n":
            raise SystemExit("the rest of the card could not be held, so there is no cap")
    try:
        with Server(base, options.server) as server:
            for row in rows:
                width, height, frames, weights = row
                make_clip(base / "input" / f"{width}x{height}x{frames}.mp4", width, height, frames)
                foreseen = predicted(row, options.small)
                print(f"foreseen: {foreseen}", flush=True)
                how = options.small, options.source_computed
                first = server.run(prompt(row, options.steps, 1, *how))
                vram_first = server.vram
                print(f"first: {first[0]} s\n{first[1]}", flush=True)
                seconds, report = (
                    server.run(prompt(row, options.second_steps or options.steps, 2, *how)) if first[0] else first
                )
                name = {
                    "GPU": torch.cuda.get_device_name() if torch.cuda.is_available() else "none",
                    "size": f"{width}x{height}",
                    "frames": frames,
                    "weights": weights,
                    "cap GiB": cap or "",
                    "server": " ".join(options.server),
                }
                print(f"--- {name}\n{report}", flush=True)
                if seconds is None:
                    print(server.log.read_text(errors="replace")[-6000:], flush=True)
                    continue
                each = seconds_per_step(first[1])
                left = server.offloaded()
                result = name | {
                    "foreseen in RAM GiB": round((foreseen["in_ram"] or 0) / GIB, 2),
                    "in RAM GiB": "" if left is None else round(left / GIB, 2),
                    "VRAM GiB": round(vram_first / GIB, 2),
                    "VRAM of a second edit GiB": round(server.vram / GIB, 2),
                    "RAM GiB": round(server.ram / GIB, 1),
                    "s/step": each,
                    "s/edit": round(first[0] + (RELEASED_STEPS - options.steps) * each, 1),
                }
                print({key: value for key, value in result.items() if key not in name}, flush=True)
                yield result
    finally:
        if ballast:
            ballast.kill()


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", required=True, help="rows separated by semicolons, in the order to run them")
    parser.add_argument("--steps", type=int, default=3)
    parser.add_argument("--source-computed", default="in every step", choices=("in every step", "in every other step"))
    parser.add_argument("--second-steps", type=int, help="of the second edit of a row, where it shall have fewer")
    parser.add_argument(
        "--folder", type=Path, help="where to put the models, about 50 GB; those that are there are used again"
    )
    parser.add_argument("--small", action="store_true", help="tiny models, to try this script without a GPU")
    parser.add_argument("--csv", type=Path)
    parser.add_argument("--server", default="", type=str.split, help="arguments for ComfyUI, as one string")
    parser.add_argument("--gguf-pack", type=Path, help="folder of ComfyUI-GGUF, for weight types of GGUF")
    parser.add_argument("--make-models", help=argparse.SUPPRESS)
    options = parser.parse_args()
    base = options.folder or Path(tempfile.mkdtemp())
    if options.make_models:
        return make_models(base, options.make_models, options.small)
    rows = [
        (*map(int, size.split("x")), weights, *cap)
        for size, weights, *cap in (row.split() for row in options.rows.split(";") if row.strip())
    ]
    prepare_base(base, sorted({row[3] for row in rows}), options.small, options.gguf_pack)
    results = []
    for cap in dict.fromkeys(row[4] if len(row) > 4 else "" for row in rows):
        for result in run_rows(
            base, cap, [row[:4] for row in rows if (row[4] if len(row) > 4 else "") == cap], options
        ):
            results.append(result)
            if options.csv:  # after every row: a run may be cut off
                with open(options.csv, "w", newline="") as file:
                    writer = csv.DictWriter(file, results[0].keys())
                    writer.writeheader()
                    writer.writerows(results)


if __name__ == "__main__":
    main()
