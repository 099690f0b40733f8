"""A batch of edits on one GPU and on several: seconds, and how many times faster.

    python tasks.py python tests/benchmarks/batch.py --gpus 2

The 14B in random weights, real servers, everything of an edit from the clip to the file. One edit on every GPU goes
before it that is not counted: kernels are compiled by then. `whole` is the command, servers' starts included, `edits`
from the first edit's begin to the last one's end, weights loaded by each worker included, `loaded` the seconds of an
edit once its worker has done one, divided by the workers.
"""

import argparse
import csv
import json
import os
import sqlite3
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import edit
import torch

ROOT = Path(__file__).resolve().parents[2]
INSTRUCTIONS = "Make it a snowy evening.", "Turn it into a pencil sketch.", "Paint the wall red."


def make_jobs(folder, count, size, seed):
    """Clips that differ, a list of them with instructions in turn, and a workflow."""
    folder.mkdir(parents=True, exist_ok=True)
    rows = []
    for number in range(count):
        edit.make_clip(folder / f"{seed}_{number}.mp4", *size)
        rows.append({"video": f"{seed}_{number}.mp4", "instruction": INSTRUCTIONS[number % len(INSTRUCTIONS)]})
        rows[-1]["LIVEditSampler.seed"] = seed + number
    jobs = folder / f"{seed}.csv"
    with open(jobs, "w", newline="") as file:
        writer = csv.DictWriter(file, rows[0].keys())
        writer.writeheader()
        writer.writerows(rows)
    return jobs


def run(jobs, workers, options, graph):
    """One batch: a row of the table."""
    out = Path(tempfile.mkdtemp(dir=options.folder))
    front = Path(os.environ["LIVEDITOR_COMFYUI"]).parent / "front"
    which = ["--gpus", ",".join(map(str, range(workers)))] if torch.cuda.is_available() else ["--workers", workers]
    server = f"{options.server} --disable-api-nodes" + (f" --front-end-root {front}" if front.is_dir() else "")
    command = [sys.executable, "-m", "batch", jobs, "--out", out, "--workflow", graph, *which, f"--server={server}"]
    command += ["--comfyui", os.environ["LIVEDITOR_COMFYUI"], "--base", options.folder]
    started = time.time()
    subprocess.run(list(map(str, command)), cwd=ROOT, check=True)
    whole = time.time() - started
    with sqlite3.connect(next((out / ".batch").rglob("journal.sqlite"))) as journal:
        done = journal.execute(
            "SELECT worker, ended - seconds, ended, report FROM jobs WHERE state = 'done' ORDER BY ended"
        ).fetchall()
    seen, loaded = set(), []
    for worker, begun, ended, report in done:
        loaded += [ended - begun] if worker in seen else []
        seen.add(worker)
        print(f"{worker}: {ended - begun:.1f} s, {edit.seconds_per_step(report)} s a step", flush=True)
    print(done[-1][-1], flush=True)
    return {
        "GPUs": workers,
        "edits done": len(done),
        "whole s": round(whole, 1),
        "edits s": round(max(each[2] for each in done) - min(each[1] for each in done), 1),
        "loaded s": round(statistics.median(loaded) / workers, 2) if loaded else None,
    }


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", default="832x480x33", help="WIDTHxHEIGHTxFRAMES")
    parser.add_argument("--weights", default="fp8_e4m3fn_scaled")
    parser.add_argument("--gpus", type=int, default=2)
    parser.add_argument("--edits", type=int, default=8)
    parser.add_argument("--steps", type=int, default=4)
    parser.add_argument("--folder", type=Path, help="where to put the models, 22 GB; those that are there are used")
    parser.add_argument("--server", default="", help="arguments for ComfyUI, as one string")
    parser.add_argument("--small", action="store_true", help="a tiny transformer and the small models, without a GPU")
    options = parser.parse_args()
    options.folder = (options.folder or Path(tempfile.mkdtemp())).resolve()
    size = tuple(map(int, options.size.split("x")))
    edit.prepare_base(options.folder, [options.weights], options.small)
    graph = options.folder / "workflow.json"
    graph.write_text(json.dumps(edit.as_api(edit.prompt((*size, options.weights), options.steps, 1, options.small))))
    run(make_jobs(options.folder / "clips", options.gpus, size, 1), options.gpus, options, graph)
    first = None
    for workers in (1, options.gpus):
        row = run(make_jobs(options.folder / "clips", options.edits, size, 1000 * workers), workers, options, graph)
        first = first or row
        times = {
            f"{name} times": round(first[f"{name} s"] / row[f"{name} s"], 2)
            for name in ("whole", "edits", "loaded")
            if first[f"{name} s"] and row[f"{name} s"]  # there is none loaded where a worker has done but one
        }
        card = torch.cuda.get_device_name() if torch.cuda.is_available() else "none"
        print({"GPU": card, "size": options.size, "steps": options.steps} | row | times, flush=True)


if __name__ == "__main__":
    main()
