"""Folders of small clips, batches of them in processes of their own, and what became of the jobs."""

import json
import subprocess
import sys
import time
from pathlib import Path

import av
import host
import numpy as np
import psutil
import safetensors

from liveditor.batch.driver import WORK
from liveditor.batch.journal import DONE, FILE, RUNNING, Journal
from liveditor.batch.server import PROCESS
from liveditor.liveditor_core.sampling.unfinished import DONE as DONE_SAMPLING

WORDS = ("turn it into a night scene", "make it sepia", "invert the colours")
SHORT, LONG = 2, 60  # steps; long enough to be killed in


def make_clip(path, seed):
    """Nine frames of coloured noise that moves."""
    picture = np.random.default_rng(seed).integers(0, 255, (6, 8, 3), np.uint8).repeat(8, 0).repeat(8, 1)
    with av.open(str(path), "w") as container:
        stream = container.add_stream("h264", rate=16)
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
        for i in range(9):
            container.mux(stream.encode(av.VideoFrame.from_ndarray(np.roll(picture, 2 * i, 1), format="rgb24")))
        container.mux(stream.encode(None))


def small_workflow():
    """The small model's, for 9 frames of 64x48, with the state of an edit saved after every step."""
    path = host.PACK / "workflows" / "api" / "liveditor_demo_api.json"
    graph = json.loads(path.read_text(encoding="utf-8"))
    host.set_inputs(graph, "EncodeSourceVideo", width=64, height=48, max_frames=9)
    host.set_inputs(graph, "LIVEditSampler", steps=SHORT, keep_every=1e-6)
    sampler = host.key_of(graph, "LIVEditSampler")
    graph["latent"] = {"class_type": "SaveLatent", "inputs": {"samples": [sampler, 0], "filename_prefix": "latent"}}
    return graph


def folder_of_jobs(tmp_path):
    """A folder with a dozen clips, and a list of jobs that gives each one of three instructions."""
    (tmp_path / "workflow.json").write_text(json.dumps(small_workflow()), encoding="utf-8")
    (tmp_path / "clips").mkdir()
    for i in range(12):
        make_clip(tmp_path / "clips" / f"clip{i:02}.mp4", i)
    write_jobs(tmp_path, SHORT)
    return tmp_path


def write_jobs(folder, steps, latents=True):
    rows = [
        {
            "video": f"clips/{clip.name}",
            "instruction": WORDS[i % 3],
            "LIVEditSampler.steps": steps,
        }
        | ({"SaveLatent.filename_prefix": clip.stem} if latents else {})
        for i, clip in enumerate(sorted((folder / "clips").iterdir()))
    ]
    (folder / "jobs.jsonl").write_text("\n".join(map(json.dumps, rows)), encoding="utf-8")


def start(folder, *more, workers=2, **how):
    """The batch in a process of its own.

    Args:
        how: of its process.
    """
    command = [sys.executable, "-s", "-m", "batch", folder / "jobs.jsonl", "--out", folder / "out"]
    command += ["--workflow", folder / "workflow.json", "--comfyui", host.COMFYUI, "--base", host.RUN]
    command += ["--workers", workers, "--leave-free", 0.01, *more]
    how = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True} | how
    return subprocess.Popen(list(map(str, command)), cwd=host.PACK, **how)


def finish(process, code=0):
    said = process.communicate(timeout=600)[0]
    assert process.returncode == code, said
    return said


def rows_of(folder):
    """The journal's rows, none where there is no journal yet."""
    if not (folder / "out" / WORK / FILE).is_file():
        return []
    journal = Journal(folder / "out" / WORK)
    try:
        return journal.all()
    finally:
        journal.close()


def wait_for(found, seconds=120):
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if (value := found()) is not None:
            return value
        time.sleep(0.05)
    raise AssertionError("it never came to that")


def at_work(folder, workers=2):
    """A job that has been saved, as those of all workers have: (row, worker's folder); None before that."""
    if unfinished_in(folder / "out" / WORK / "user") < workers:
        return None
    for row in rows_of(folder):
        if row["state"] == RUNNING:
            place = folder / "out" / WORK / row["worker"].replace(" ", "_")
            if (place / PROCESS).is_file():
                return row, place
    return None


def unfinished_in(user):
    """How many edits at work have been saved in a user folder."""
    # Results of sampling are kept as well, and one worker may leave one while another one's server still starts.
    return sum(map(_is_unfinished, (user / "liveditor" / "unfinished").glob("*.safetensors")))


def _is_unfinished(file):
    try:
        with safetensors.safe_open(file, "pt") as opened:
            return DONE_SAMPLING not in opened.metadata()
    except OSError:  # it was replaced meanwhile
        return False


def server_of(place):
    """Process of a worker's server."""
    guard = psutil.Process(json.loads((place / PROCESS).read_text())["pid"])
    return guard.children()[0].pid


def latent_of(folder, clip):
    """What the sampler gave for a clip last, in any of some servers' output folders."""
    file = max(folder.rglob(f"{Path(clip).stem}_*.latent"), key=lambda each: each.stat().st_mtime_ns)
    with safetensors.safe_open(file, "pt") as opened:
        return opened.get_tensor("latent_tensor")


def frames(path):
    with av.open(str(path)) as container:
        return np.stack([frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)])


def assert_all_done_once(folder):
    rows, out = rows_of(folder), folder / "out"
    assert [row["state"] for row in rows] == [DONE] * len(rows)
    results = sorted(path.name for path in out.iterdir() if path.suffix == ".mp4")
    assert results == sorted(row["result"] for row in rows) and not list(out.glob("*.part"))
    for name in results:
        assert len(frames(out / name)) == 9
    return rows


def no_server_is_left(folder):
    return not any(
        str(folder) in " ".join(process.info["cmdline"] or ()) for process in psutil.process_iter(["cmdline"])
    )
