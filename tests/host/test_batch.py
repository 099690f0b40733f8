"""Batches with real servers: the same edits as one at a time, and nothing lost or done twice whoever is killed."""

import json
import os
import signal
import subprocess
import sys
import time

import av
import host
import numpy as np
import psutil
import pytest

from liveditor.batch.driver import WORK
from liveditor.batch.journal import DONE, FAILED, QUEUED, RUNNING, Journal
from liveditor.batch.server import PROCESS

pytestmark = pytest.mark.xdist_group("batch")  # their servers are enough for two cores
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


@pytest.fixture(scope="module")
def workflow():
    """The small model's, for 9 frames of 64x48, with the state of an edit saved after every step."""
    path = host.PACK / "workflows" / "api" / "liveditor_demo_api.json"
    graph = json.loads(path.read_text(encoding="utf-8"))
    host.set_inputs(graph, "EncodeSourceVideo", width=64, height=48, max_frames=9)
    host.set_inputs(graph, "LIVEditSampler", steps=SHORT, keep_every=1e-6)
    return graph


@pytest.fixture
def folder(tmp_path, workflow):
    """A folder with a dozen clips, and a list of jobs that gives each one of three instructions."""
    (tmp_path / "workflow.json").write_text(json.dumps(workflow), encoding="utf-8")
    (tmp_path / "clips").mkdir()
    for i in range(12):
        make_clip(tmp_path / "clips" / f"clip{i:02}.mp4", i)
    write_jobs(tmp_path, SHORT)
    return tmp_path


def write_jobs(folder, steps):
    rows = [
        {"video": f"clips/{clip.name}", "instruction": WORDS[i % 3], "LIVEditSampler.steps": steps}
        for i, clip in enumerate(sorted((folder / "clips").iterdir()))
    ]
    (folder / "jobs.jsonl").write_text("\n".join(map(json.dumps, rows)), encoding="utf-8")


def start(folder, *more, workers=2):
    """The batch in a process of its own."""
    command = [sys.executable, "-s", "-m", "batch", folder / "jobs.jsonl", "--out", folder / "out"]
    command += ["--workflow", folder / "workflow.json", "--comfyui", host.COMFYUI, "--base", host.RUN]
    command += ["--workers", workers, "--leave-free", 0.01, *more]
    return subprocess.Popen(
        list(map(str, command)), cwd=host.PACK, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )


def finish(process, code=0):
    said = process.communicate(timeout=600)[0]
    assert process.returncode == code, said
    return said


def rows_of(folder):
    journal = Journal(folder / "out" / WORK)
    try:
        return journal.all()
    finally:
        journal.close()


def wait_for(found, seconds=240):
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if (value := found()) is not None:
            return value
        time.sleep(0.05)
    raise AssertionError("it never came to that")


def at_work(folder):
    """A job whose edit has begun: (row, worker's folder); None while there is none."""
    if not (folder / "out" / WORK / "journal.sqlite").is_file():
        return None
    if not any((folder / "out" / WORK / "user" / "liveditor" / "unfinished").glob("*.safetensors")):
        return None
    for row in rows_of(folder):
        if row["state"] == RUNNING:
            place = folder / "out" / WORK / row["worker"].replace(" ", "_")
            if (place / PROCESS).is_file():
                return row, place
    return None


def server_of(place):
    return json.loads((place / PROCESS).read_text())["pid"]


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


def test_a_batch_is_the_same_as_single_edits_and_is_not_done_again(folder, client, workflow):
    said = finish(start(folder))
    assert "12 done" in said
    rows = assert_all_done_once(folder)
    assert {row["attempts"] for row in rows} == {1} and {row["worker"] for row in rows} == {"worker 0", "worker 1"}
    assert all("LIVEditor: 2 steps" in row["report"] for row in rows)
    assert no_server_is_left(folder)
    for row in rows[:3]:
        clip = folder / "clips" / os.path.basename(row["clip"])
        (host.RUN / "input" / "batch.mp4").write_bytes(clip.read_bytes())
        graph = json.loads(json.dumps(workflow))
        host.set_inputs(graph, "LoadVideo", file="batch.mp4")
        graph["instruction"]["inputs"]["text"] = row["instruction"]
        single = host.saved_file(client.run(graph))
        assert np.array_equal(frames(single), frames(folder / "out" / row["result"]))
    before = {path.name: path.stat().st_mtime_ns for path in (folder / "out").glob("*.mp4")}
    finish(start(folder))
    assert before == {path.name: path.stat().st_mtime_ns for path in (folder / "out").glob("*.mp4")}


@pytest.mark.parametrize("who", ["server", "worker"])
def test_a_killed(folder, who):
    for clip in sorted((folder / "clips").iterdir())[4:]:
        clip.unlink()
    write_jobs(folder, LONG)
    process = start(folder)
    row, place = wait_for(lambda: at_work(folder))
    server = server_of(place)
    pid = server if who == "server" else psutil.Process(server).ppid()
    assert pid != process.pid
    os.kill(pid, signal.SIGKILL)
    finish(process)
    rows = assert_all_done_once(folder)
    (again,) = [each for each in rows if each["key"] == row["key"]]
    assert again["attempts"] == 2 and again["deaths"] == 1 and "went on at step" in again["report"]
    assert sum(each["attempts"] for each in rows) == len(rows) + 1
    assert no_server_is_left(folder)


def test_a_killed_driver(folder):
    for clip in sorted((folder / "clips").iterdir())[4:]:
        clip.unlink()
    write_jobs(folder, LONG)
    process = start(folder)
    wait_for(lambda: at_work(folder))
    process.kill()
    process.wait()
    wait_for(lambda: no_server_is_left(folder) or None, 60)  # workers end with their driver, servers with them
    assert any(row["state"] == RUNNING for row in rows_of(folder))
    finish(start(folder))
    rows = assert_all_done_once(folder)
    assert any("went on at step" in row["report"] for row in rows)
    assert all(row["deaths"] == 0 for row in rows)


def test_interrupted_it_saves_and_goes_on(folder):
    for clip in sorted((folder / "clips").iterdir())[2:]:
        clip.unlink()
    write_jobs(folder, LONG)
    process = start(folder, workers=1)
    wait_for(lambda: at_work(folder))
    process.send_signal(signal.SIGINT)
    assert "2 queued" in finish(process, 3)
    assert {row["state"] for row in rows_of(folder)} == {QUEUED} and no_server_is_left(folder)
    finish(start(folder, workers=1))
    assert any("went on at step" in row["report"] for row in assert_all_done_once(folder))


def test_clips_that_cannot_be_read_are_reported_and_may_be_tried_again(folder):
    clips = sorted((folder / "clips").iterdir())
    for clip in clips[3:]:
        clip.unlink()
    write_jobs(folder, SHORT)
    whole = clips[1].read_bytes()
    clips[1].write_bytes(b"no video at all")
    said = finish(start(folder, workers=1), 1)
    assert "2 done, 1 failed" in said
    (bad,) = [row for row in rows_of(folder) if row["state"] == FAILED]
    assert bad["clip"] == str(clips[1]) and bad["message"]
    command = [sys.executable, "-s", "-m", "batch"]
    status = subprocess.run([*command, "status", folder / "out"], cwd=host.PACK, capture_output=True, text=True)
    assert status.returncode == 1 and f"failed: {bad['name']}" in status.stdout
    assert bad["name"] in (folder / "out" / "index.html").read_text()
    retried = subprocess.run(
        [*command, "retry", folder / "out", bad["name"]], cwd=host.PACK, capture_output=True, text=True
    )
    assert retried.returncode == 1 and rows_of(folder)[1]["attempts"] == 2
    clips[1].write_bytes(whole)
    finish(start(folder, workers=1))
    assert [row["state"] for row in rows_of(folder) if row["clip"] == str(clips[1])].count(DONE) == 1


def test_a_workflow_of_the_canvas_and_settings_for_all(folder):
    for clip in sorted((folder / "clips").iterdir())[1:]:
        clip.unlink()
    write_jobs(folder, SHORT)
    size = {"size": "custom", "width": 64, "height": 48}
    sizes = [f"--set=EncodeSourceVideo.{name}={value}" for name, value in size.items()]
    finish(start(folder, "--workflow", host.PACK / "workflows" / "liveditor_demo.json", *sizes, workers=1))
    (row,) = assert_all_done_once(folder)
    assert "of 72 tokens" in row["report"]


@pytest.mark.parametrize(
    "arguments, said",
    [
        (["none"], "there is no such file or folder"),
        (["jobs.jsonl", "--comfyui", "."], "there is no ComfyUI"),
        (["status", "."], "no batch has run here"),
        (["jobs.jsonl", "--set", "LIVEditSampler.seed"], "must be NODE.INPUT=VALUE"),
    ],
)
def test_what_it_cannot_do_is_said_at_once(folder, arguments, said):
    out = [] if arguments[0] == "status" else ["--out", "out"]
    run = subprocess.run(
        [sys.executable, "-s", "-m", "batch", *arguments, *out],
        cwd=folder,
        env=os.environ | {"PYTHONPATH": str(host.PACK)},
        capture_output=True,
        text=True,
    )
    assert run.returncode == 2 and said in run.stderr and "Traceback" not in run.stderr
