"""Edit Metrics on long clips: seconds a frame and RAM, each length in a process of its own.

    python tasks.py python tests/benchmarks/metrics.py [--seconds 10 60] [--size 1920x1080] [--models] [--mask]

Source and edit are made: a picture that moves, with grain, in H.264, 24 frames a second; the edit is darker in a part.
`--models` adds CLIP-L and RAFT with random weights, which take as long as any.
"""

import argparse
import json
import subprocess
import sys
import tempfile
import threading
import time
import types
from fractions import Fraction
from pathlib import Path

import numpy as np

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "tests" / "support"))  # before this folder, for `footage`
RATE = 24
MIB = 2**20


def write(path, seconds, size, edit):
    import av

    width, height = size
    luck = np.random.default_rng(1)
    y, x = np.mgrid[:height, : 2 * width]
    wide = np.stack([120 + 90 * np.sin(x / 57) * np.cos(y / 41), 128 + 100 * np.sin((x + y) / 73), 60 + x % 128], -1)
    wide = (wide + luck.normal(0, 4, wide.shape)).clip(0, 255).astype(np.uint8)
    with av.open(str(path), "w") as out:
        stream = out.add_stream("libx264", rate=RATE, options={"preset": "ultrafast", "crf": "16"})
        stream.width, stream.height, stream.pix_fmt = width, height, "yuv420p"
        for number in range(seconds * RATE):
            left = number * 3 % width
            picture = np.ascontiguousarray(wide[:, left : left + width])
            if edit:
                part = picture[height // 4 : height // 2, width // 4 : width // 2]
                part[...] = part // 2
            frame = av.VideoFrame.from_ndarray(picture, format="rgb24")
            frame.pts, frame.time_base = number, Fraction(1, RATE)
            out.mux(stream.encode(frame))
        out.mux(stream.encode(None))


def load_pack():
    import comfy_library  # noqa: F401

    package = types.ModuleType("liveditor")
    package.__path__ = [str(ROOT)]
    sys.modules.setdefault("liveditor", package)


def models(device):
    """CLIP-L and RAFT as the host has them, with random weights."""
    from torchvision.models.optical_flow import raft_large

    import comfy.clip_vision
    import comfy.model_patcher
    import comfy.sd
    import comfy.sd1_clip
    from comfy.supported_models_base import ClipTarget
    from liveditor.liveditor_core.metrics.host_models import models_of

    clip = comfy.sd.CLIP(ClipTarget(comfy.sd1_clip.SD1Tokenizer, comfy.sd1_clip.SD1ClipModel))
    vision = comfy.clip_vision.ClipVisionModel(
        str(Path(comfy.clip_vision.__file__).with_name("clip_vision_config_vitl.json"))
    )
    for part in (clip.cond_stage_model, vision.model):
        for name, value in part.state_dict().items():
            value.fill_(float("weight" in name)) if "norm" in name else value.normal_(std=0.02)
    flow = raft_large(weights=None, progress=False).eval()
    return models_of(clip, vision, comfy.model_patcher.ModelPatcher(flow, load_device=device, offload_device="cpu"))


def run(before, after, with_models, with_mask):
    """In this process: pairs, seconds a pair, and how much RAM rose at most, MiB."""
    import psutil
    import torch

    load_pack()
    import comfy.model_management
    from liveditor.liveditor_core.footage.file_clip import FileClip
    from liveditor.liveditor_core.metrics.masks import outside_of
    from liveditor.liveditor_core.metrics.measure import Models, measure
    from liveditor.liveditor_core.metrics.pairs import TimedPairs

    device = comfy.model_management.get_torch_device()
    with torch.inference_mode():
        judges = models(device) if with_models else Models()
        process, peak, stop = psutil.Process(), [0], threading.Event()
        base = process.memory_info().rss

        def watch():
            while not stop.wait(0.05):
                peak[0] = max(peak[0], process.memory_info().rss - base)

        thread = threading.Thread(target=watch)
        thread.start()
        begun = time.monotonic()
        try:
            pairs = TimedPairs(FileClip(before), FileClip(after))
            mask = torch.zeros(1, 90, 160)
            mask[:, 22:46, 40:80] = 1
            numbers = measure(
                pairs,
                outside=outside_of(mask, pairs) if with_mask else None,
                models=judges,
                target="a picture that moves",
                source_text="a picture",
                device=device,
            )
            seconds = time.monotonic() - begun
        finally:
            stop.set()
            thread.join()
    numbers.to_json()
    gpu = torch.cuda.max_memory_allocated() / MIB if device.type == "cuda" else 0
    return {
        "device": str(device),
        "pairs": pairs.count,
        "seconds_a_pair": round(seconds / pairs.count, 4),
        "ram_mib": round(peak[0] / MIB),
        "gpu_mib": round(gpu),
        "kept_if_edited": numbers.summary["gate"]["kept_if_edited"],
    }


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=int, nargs="+", default=[10, 60])
    parser.add_argument("--size", default="1920x1080")
    parser.add_argument("--models", action="store_true")
    parser.add_argument("--mask", action="store_true")
    parser.add_argument("--files", nargs=2, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.files:
        print(json.dumps(run(*options.files, options.models, options.mask)))
        return
    flags = [f"--{name}" for name in ("models", "mask") if getattr(options, name)]
    for seconds in options.seconds:
        with tempfile.TemporaryDirectory() as folder:
            files = [str(Path(folder) / f"{name}.mp4") for name in ("before", "after")]
            for path, edit in zip(files, (False, True), strict=True):
                write(path, seconds, tuple(map(int, options.size.split("x"))), edit)
            command = [sys.executable, "-s", __file__, *flags, "--files", *files]
            print(f"{seconds} s of {options.size}:", subprocess.check_output(command, text=True).splitlines()[-1])


if __name__ == "__main__":
    main()
