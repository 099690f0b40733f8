"""Edits of any length with the small model, on real footage: a minute at 25 frames a second, 256x112.

    python tasks.py python tests/benchmarks/long.py minute      one edit of all of it: frames, sound, RAM, joins
    python tasks.py python tests/benchmarks/long.py timeline    three instructions: whose edit every frame is
    python tasks.py python tests/benchmarks/long.py resume      the server killed at half, and the same prompt again
    python tasks.py python tests/benchmarks/long.py redo        five seconds of it edited anew
    python tasks.py python tests/benchmarks/long.py methods     ten seconds, joined in other ways

All but the last go through a server. `--seconds` takes less of the minute; `redo` takes the edit that `minute` left.
"""

import argparse
import shutil
import statistics
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "support"))  # before this folder, for `footage`

import comfy_library  # noqa: F401  (before anything of ComfyUI)
import host
import torch
from joins import HEAD, borders_of, decibels_of, joins, recognised
from long_edits import WINDOW, Done, frames, prompt, run
from minute import RATE, source_frames, write_minute
from process_memory import MemoryOf
from safetensors.torch import load_file, save_file
from through_server import Heard, node

from training.edits import HELD_OUT

MIB = 2**20
SHORT = 17  # frames: what the small model was trained on
EDITS = ("invert", "mirror", "sepia")
EARLIER, EDITED = host.RUN / "input" / "minute.latent", host.RUN / "input" / "minute_edited.mp4"
LEFT = "left by an earlier run"


def plan(count):
    """The windows' spans of a clip of so many frames."""
    from liveditor.liveditor_core.footage.timing import padded_frame_count
    from liveditor.liveditor_core.sampling.windows import WindowSize, plan_windows

    size = WindowSize(WINDOW["window"], WINDOW["overlap"])
    return [(each.start, each.stop) for each in plan_windows(0, (padded_frame_count(count) - 1) // 4 + 1, size)]


def minute(file, seconds):
    """One edit of all of it, and short clips of it for comparison."""
    source = source_frames(host.RUN / "input" / file)
    words = HELD_OUT["invert"][0]
    peaks = {}
    for name, count in (("3 seconds", 75), ("all", 0)):
        with host.Server() as server, MemoryOf(server.pid) as memory:
            done = run(server.client, prompt(server.client, file, words, {"max_frames": count}))
        peaks[name] = memory.growth
        print(f"{name}: RAM {memory.growth / MIB:.0f} MiB, seconds {rounded(done.seconds)}\n{done.report}", flush=True)
    shutil.copy(done.video, EDITED)
    save_file({"latent_tensor": done.latent, "latent_format_version_0": torch.tensor([])}, EARLIER)
    edited = frames(done.video)
    heard, original = (Heard(path) for path in (done.video, host.RUN / "input" / file))
    print(f"frames {len(edited)} of {len(source)}; sound {lasts(heard):.3f} of {lasts(original):.3f} s")
    print(f"RAM above that of 3 seconds: {(peaks['all'] - peaks['3 seconds']) / MIB:.0f} MiB")
    print(f"| {HEAD}")
    print(f"| {joins(edited, source, 'invert', borders_of(plan(len(source)))).row()} |", flush=True)
    short = []
    with host.Server() as server:
        for start in range(0, len(source) - SHORT, len(source) // 15):
            part = {"max_frames": SHORT, "start": start / RATE}
            path = run(server.client, prompt(server.client, file, words, part)).video
            short.append(decibels_of(frames(path), source[start : start + SHORT], "invert"))
    print(f"short clips of {SHORT} frames: {statistics.mean(short):.2f} dB over {len(short)}")


def timeline(file, seconds):
    """Three instructions, with a transition of half a second."""
    source = source_frames(host.RUN / "input" / file)
    starts = [0.0, round(seconds / 3, 2), round(2 * seconds / 3, 2)]
    words = "\n".join(f"{start} {HELD_OUT[edit][0]}" for start, edit in zip(starts, EDITS, strict=True))
    with host.Server() as server:
        done = run(server.client, prompt(server.client, file, words))
    found = recognised(frames(done.video), source)
    right = total = 0
    for start, stop, edit in zip(starts, [*starts[1:], seconds], EDITS, strict=True):
        # Half a transition on either side belongs to both.
        inside = [name for i, name in enumerate(found) if start + 0.25 * (start > 0) <= (i + 0.5) / RATE < stop - 0.25]
        right, total = right + inside.count(edit), total + len(inside)
        print(f"{edit} from {start} s: {inside.count(edit)} of {len(inside)} frames are its own")
    print(f"in all {right / total:.1%}")
    for start, edit, before in zip(starts[1:], EDITS[1:], EDITS, strict=False):
        at = round(start * RATE)
        near = range(at - RATE, at + RATE)
        came = next(i for i in near if found[i] == edit) / RATE
        went = max(i + 1 for i in near if found[i] == before) / RATE
        print(f"{edit} asked at {start} s: seen from {came} s on, {before} until {went} s")
    print(done.report)


def resume(file, seconds):
    """The server killed at half."""
    often = {"keep_every": 0.05}
    with host.Server() as server:
        exact = run(server.client, prompt(server.client, file, HELD_OUT["invert"][0], **often))
    with host.Server() as server:

        def kill_at_half(done, total):
            if done >= total / 2:
                server._process.kill()

        try:
            run(server.client, prompt(server.client, file, HELD_OUT["invert"][0], **often), kill_at_half)
        except Exception as gone:
            print(f"killed: {type(gone).__name__}")
    states = list((host.RUN / "user" / "liveditor" / "unfinished").glob("*"))
    print(f"kept: {', '.join(f'{path.name} {path.stat().st_size / MIB:.1f} MiB' for path in states)}")
    first = []
    with host.Server() as server:
        asked = prompt(server.client, file, HELD_OUT["invert"][0], **often)
        again = run(server.client, asked, lambda done, total: first.append((done, total)))
    print(
        f"first call after: {first[0][0]} of {first[0][1]}; sampler {again.seconds['sample']:.0f} s against "
        f"{exact.seconds['sample']:.0f} s; bit-equal: {torch.equal(again.latent, exact.latent)}"
    )
    print(f"left: {list((host.RUN / 'user' / 'liveditor').glob('**/*.*'))}\n{again.report}")


def redo(file, seconds):
    """Five seconds of it edited anew, in other words and with another seed; of what *minute* left, if that is there."""
    source = source_frames(host.RUN / "input" / file)
    start = round(seconds / 2) - 2.0
    with host.Server() as server:
        asked = prompt(server.client, file, HELD_OUT["invert"][0])
        asked["earlier"], asked["old words"] = asked["sample"], asked["words"]
        first = _left_by_minute(len(source)) or run(server.client, asked)
        if first.report == LEFT:
            asked["earlier"] = node("LoadLatent", latent=EARLIER.name)
            asked["sample"] = {**asked["sample"], "inputs": dict(asked["sample"]["inputs"])}
        new = {"earlier": ["earlier", 0], "redo_from": start, "redo_to": start + 5.0, "seed": 7}
        for edit in ("sepia", "invert"):
            asked["other"] = {**asked["words"], "inputs": asked["words"]["inputs"] | {"text": HELD_OUT[edit][0]}}
            sample = asked["sample"]
            asked["sample"] = {**sample, "inputs": sample["inputs"] | new | {"positive": ["other", 0]}}
            done = run(server.client, asked)
            edited, before = frames(done.video), frames(first.video)
            changed = (done.latent != first.latent).flatten(3).any(3).any(1)[0].nonzero().flatten().tolist()
            print(
                f"{edit}: latents {changed[0]} to {changed[-1]} changed, {len(changed)} of {done.latent.shape[2]}; "
                f"sampler {done.seconds['sample']:.0f} s against {first.seconds.get('sample', 0):.0f} s"
            )
            found = recognised(edited, source)
            inside = found[round(start * RATE) : round((start + 5) * RATE)]
            print(f"  inside {inside.count(edit)} of {len(inside)} frames are {edit}")
            after = [int(abs(edited[i].astype(int) - before[i]).max()) for i in range(len(edited))]
            ends = round((start + 5) * RATE)
            print(f"  largest difference of the two files after the range, by frame: {after[ends : ends + 24]}")
            at = [4 * changed[0] - 3, 4 * (changed[-1] + 1) - 3]
            print(f"| {HEAD}\n| {joins(edited, source, 'invert', at).row()} |\n{done.report}", flush=True)


def _left_by_minute(count):
    """The edit of the whole minute, None where there is none of so many frames."""
    if not (EARLIER.is_file() and EDITED.is_file()):
        return None
    latent = load_file(EARLIER)["latent_tensor"]
    return Done(EDITED, latent, LEFT, {}) if latent.shape[2] == plan(count)[-1][1] else None


def lasts(heard):
    return float(heard.length) / heard.rate


@torch.inference_mode()
def methods(file, seconds):
    """Ways to join windows, in this process: four seconds with one cut, of two edits."""
    import ways_to_join

    from liveditor.liveditor_core.sampling.edit import edit
    from liveditor.liveditor_core.sampling.windows import WindowSize
    from training.evaluate import Nano
    from training.nano import RECOMMENDED

    nano = Nano(host.PACK / "models")
    model = nano.with_settings(RECOMMENDED["ratios"])
    count, start = 101, 8.0
    path = host.RUN / "input" / file
    source = nano.source(path, start, frames=count)
    pixels = source_frames(path)[round(start * RATE) :][:count]
    settings = {name: RECOMMENDED[name] for name in ("steps", "cfg", "shift")} | {"seed": 42}
    size = WindowSize(frames=WINDOW["window"], overlap=WINDOW["overlap"])
    whole = WindowSize(4 * count, 0)
    by_the_host = ways_to_join.by_the_host

    def ours(size, put=lambda model: model):
        return lambda asked: edit(put(model), asked, asked, source, size=size, **settings)[0]["samples"]

    ways = {
        "whole, no windows": ours(whole),
        "**blended in every step, each with its own first frame**": ours(size),
        "the same without overlap": ours(size._replace(overlap=0)),
        "blended, no first frames (host, overlap-linear)": ours(whole, by_the_host(size)),
        "blended, the frame before as first (host, causal fix)": ours(whole, by_the_host(size, causal_window_fix=True)),
        "the same, pyramid": ours(whole, by_the_host(size, fuse="pyramid", causal_window_fix=True)),
        "the same, shuffled noise": ours(whole, by_the_host(size, causal_window_fix=True, freenoise=True)),
        "windows that shift from step to step (host, uniform)": ours(
            whole, by_the_host(size, "standard_uniform", causal_window_fix=True)
        ),
        "one after the other, overlap pinned, own first frames": lambda asked: ways_to_join.one_after_the_other(
            model, asked, source, size, **settings
        ),
    }
    borders = borders_of(plan(count))
    print(f"{count} frames, windows of {size.frames}, overlap {size.overlap}; borders at {borders}")
    print(f"| way | edit | {HEAD.replace('|---|', '|---|---|---|', 1)}")
    for edit_name in ("invert", "mirror"):
        asked = nano.clip.encode_from_tokens_scheduled(nano.clip.tokenize(HELD_OUT[edit_name][0]))
        for name, way in ways.items():
            edited = nano.frames_of({"samples": way(asked)}, source)
            print(f"| {name} | {edit_name} | {joins(edited, pixels, edit_name, borders).row()} |", flush=True)
        short = []
        for first in range(0, count - SHORT + 1, SHORT):
            clip = nano.source(path, start + first / RATE, frames=SHORT)
            edited = nano.frames_of(nano.edit(model, clip, HELD_OUT[edit_name][0]), clip)
            short.append(decibels_of(edited, pixels[first : first + SHORT], edit_name))
        print(f"| short clips of {SHORT} frames | {edit_name} | {statistics.mean(short):.2f} |", flush=True)


def rounded(seconds):
    return {name: round(value, 1) for name, value in seconds.items() if value >= 1}


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=("minute", "timeline", "resume", "redo", "methods"))
    parser.add_argument("--seconds", type=float, default=60)
    options = parser.parse_args()
    began = time.monotonic()
    file = write_minute(host.RUN / "input" / "minute.mp4", options.seconds).name
    globals()[options.what](file, options.seconds)
    print(f"{time.monotonic() - began:.0f} s in all")


if __name__ == "__main__":
    main()
