"""Footage of every kind through a real server: the frames that were visible, the sound in step, the colours as shot.

What one clip shows stands in `footage_cases.py`; here is what takes more than a clip: damage, cancelling, neighbours.
"""

import os
import re
import threading
import time

import av
import footage
import host
import pytest
import random_footage
import through_server
from footage import Clip, Sound, steady, truth
from footage_cases import EDIT_RATE, Case, all_cases, colour, judge, tags
from footage_pictures import BT709, flat, read_number, shown
from process_memory import MemoryOf
from through_server import CameOut, components, graph, in_step, node, put, run, send_case, with_defaults, with_report

SOUND = (Sound("aac"),)
BEEPING = {"stamps": steady(25, 50), "flashes": (0.4, 1.4), "sounds": SOUND}
RANDOM_SHARE = 25


def cases():
    """Cases with names that differ."""
    names = {}
    for case in all_cases():
        count = names[case.name] = names.get(case.name, 0) + 1
        yield pytest.param(case, id=case.name + (f" ({count})" if count > 1 else ""))


@pytest.mark.parametrize("case", cases())
def test_kinds_of_footage(client, case, request):
    name = re.sub(r"\W+", "_", request.node.callspec.id)
    out = send_case(client, case, name)
    assert out is None or not judge(case, out)


# Damaged files


def decoded(path):
    """Numbers and stamps of the pictures that FFmpeg decodes, None for those that damage made unreadable."""
    found = []
    with av.open(str(path)) as container:
        stream = container.streams.video[0]
        for packet in container.demux(stream):
            try:
                found += [(read_number(shown(f)), f.pts * stream.time_base) for f in packet.decode()]
            except av.FFmpegError:
                continue
    return [(number, stamp - found[0][1]) for number, stamp in found]


@pytest.mark.parametrize(
    "clip",
    [
        Clip("mp4", cut=0.6, **BEEPING),
        Clip("mkv", cut=0.6, **BEEPING),
        Clip("mp4", key_every=5, noise=((0.5, 300),), **BEEPING),
        Clip("ts", key_every=5, noise=((0.5, 400),), **BEEPING),
        Clip("avi", "mjpeg", "yuvj420p", noise=((0.5, 3000),), **BEEPING),
    ],
    ids=lambda clip: f"{clip.container} {'cut off' if clip.cut < 1 else 'noise'}",
)
def test_what_decodes_of_a_damaged_file(client, clip, request):
    """Where a picture can be read it is the right one, and the report says a word."""
    file = put(clip, re.sub(r"\W+", "_", request.node.callspec.id))
    out = run(client, with_report(graph(client, file)))
    good = {number for number, stamp in decoded(host.RUN / "input" / file) if number == stamp * 25}
    last = max(good)
    should = truth(clip._replace(stamps=clip.stamps[: last + 1])).numbers
    assert len(good) >= 20 and len(out.numbers) >= len(should) - 1
    for seen, number in zip(out.numbers, should, strict=False):
        assert seen == number or number not in good
    assert re.search("damaged|cut off|broken|not decode|unreadable", out.report, re.IGNORECASE), out.report


@pytest.mark.parametrize("container", ["mp4", "ts", "mkv"])
def test_sound_with_damaged_packets(client, container):
    """All of the picture, and the sound up to the damage; beeps after it are in their place or missing."""
    clip = Clip(container, **BEEPING | {"sounds": (Sound("aac", broken=(0.8, 1.0)),)})
    out = run(client, with_report(graph(client, put(clip, "damaged_sound"))))
    assert out.numbers == truth(clip).numbers
    beeps = [beep for beep in out.sound.beeps() if not 0.7 < beep < 1.1]
    assert beeps and all(abs(beep - flash) < 1 / 16 for beep, flash in zip(beeps, clip.flashes, strict=False))
    assert "sound" in out.report


def test_random_files(server, client):
    """Whole ones off by one frame at most, damaged ones as far as they go, and a refusal says what to do."""
    faults = []
    for seed in range(RANDOM_SHARE):
        verdict = through_server.send_random(client, seed, host.RUN / "input")
        assert server.alive(), f"seed {seed} killed the server: {random_footage.describe(seed)}"
        if verdict.fault:
            faults.append(f"seed {seed}: {verdict.fault}")
    assert not faults, "\n".join(faults)


# Colours over several passes


def test_colours_stay_over_five_passes(client):
    """The saved file goes in again."""
    clip = Clip(colours=BT709, background=flat(220, 40, 40), numbered=False, stamps=steady(EDIT_RATE, 3))
    file = put(clip, "passes_0")
    for i in range(5):
        out = run(client, graph(client, file))
        file = f"passes_{i + 1}.mp4"
        os.replace(out.path, host.RUN / "input" / file)
    assert not judge(Case("five passes", clip, (colour, tags)), out)


# Cancelling, memory, and files that change


def test_reading_stops_within_a_second(client):
    """Reading the end of a long clip takes many seconds where nobody interrupts."""
    for container, codec in (("mp4", "mpeg4"), ("mkv", "libx264")):
        file = f"long.{container}"
        clip = Clip(container, codec, size=(1280, 720), stamps=steady(25, 3))
        footage.write_long(clip, host.RUN / "input" / file, 20000)
        asked = []

        def interrupt(asked=asked):
            asked.append(time.monotonic())
            client.post("interrupt", {})

        def when_it_reads(message, interrupt=interrupt):
            if isinstance(message, dict) and message["type"] == "executing" and message["data"]["node"] == "encode":
                threading.Timer(0.1, interrupt).start()

        with pytest.raises(host.WorkflowFailed, match="interrupted"):
            client.run(graph(client, file, {"start": 795.0, "max_frames": 5}), when_it_reads)
        assert time.monotonic() - asked[0] < 1


def test_reading_needs_the_memory_of_the_edit(server, client):
    """320 frames of 640x360 for 81 of 32x32: 840 MiB if they were all held."""
    clip = Clip(size=(640, 360), stamps=steady(60, 320), sounds=SOUND)
    file = put(clip, "sixty")
    run(client, graph(client, file, {"max_frames": 5}))
    with MemoryOf(server.pid) as memory:
        out = run(client, graph(client, file, {"max_frames": 81}))
    assert out.numbers == truth(clip, max_frames=81).numbers
    assert memory.growth < 150 * 2**20, f"{memory.growth / 2**20:.0f} MiB"


@pytest.mark.parametrize("change", ["replaced", "deleted"])
def test_a_source_that_changes_while_the_edit_runs(client, change):
    """The edit ends with the frames of before, or in a message that names the file; never with other frames."""
    clip = Clip("mkv", "ffv1", **BEEPING | {"sounds": ()})
    file = put(clip, f"changing_{change}")
    path = host.RUN / "input" / file
    prompt = graph(client, file)
    prompt["pause"] = node("Pause", samples=["encode", 3], seconds=0.5)
    prompt["decode"]["inputs"]["samples"] = ["pause", 0]

    def change_it(message):
        if isinstance(message, dict) and message["type"] == "executing" and message["data"]["node"] == "pause":
            if change == "deleted":
                path.unlink()
            else:
                os.replace(footage.write(clip._replace(numbered=False), path.with_stem("other")), path)

    try:
        outputs = client.run(prompt, change_it)
    except host.WorkflowFailed as failure:
        assert file in str(failure) and through_server.names_remedy(str(failure), file)
    else:
        assert CameOut(host.saved_file(outputs)).numbers == truth(clip).numbers


# Videos and frames from other nodes


@pytest.mark.parametrize("container", ["mp4", "mkv"])
@pytest.mark.parametrize("start, first", [(0.4, 0.4), (-1.0, 1.0)])
def test_a_trimmed_video(client, container, start, first):
    clip = Clip(container, **BEEPING | {"flashes": (0.8, 1.2), "sounds": (Sound("flac"),)})
    prompt = graph(client, put(clip, "trimmed"))
    prompt["trim"] = node("Video Slice", video=["video", 0], start_time=start, duration=0.75, strict_duration=False)
    prompt["encode"]["inputs"]["video"] = ["trim", 0]
    out = run(client, prompt)
    assert out.numbers == truth(clip, start=first, max_frames=12).numbers
    assert in_step(out, [beep - first for beep in clip.flashes])


@pytest.mark.parametrize("fps", [24, 30])
def test_a_video_made_of_frames(client, fps):
    clip = Clip(**BEEPING | {"stamps": steady(fps, 36), "flashes": (0.5,)})
    prompt = graph(client, put(clip, f"frames_{fps}"))
    components(prompt, "video")
    prompt["created"] = node("CreateVideo", images=["parts", 0], audio=["parts", 1], fps=float(fps))
    prompt["encode"]["inputs"]["video"] = ["created", 0]
    out = run(client, with_defaults(client, prompt))
    assert out.numbers == truth(clip).numbers and in_step(out, clip.flashes)


@pytest.mark.parametrize("fps", [24, 30])
def test_frames_with_sound(client, fps):
    clip = Clip(**BEEPING | {"stamps": steady(fps, 36), "flashes": (0.5,)})
    prompt = graph(client, put(clip, f"images_{fps}"), {"image_fps": float(fps)})
    components(prompt, "video")
    prompt["encode"]["inputs"] |= {"video": ["parts", 0], "audio": ["parts", 1]}
    out = run(client, prompt)
    assert out.numbers == truth(clip).numbers and in_step(out, clip.flashes)


def test_frames_of_no_rate(client):
    """Asked for, or warned of."""
    prompt = graph(client, put(Clip(stamps=steady(24, 24)), "no_rate"))
    components(prompt, "video")
    prompt["encode"]["inputs"] |= {"video": ["parts", 0], "image_fps": 0.0}
    try:
        said = run(client, with_report(prompt)).report
    except host.WorkflowFailed as failure:
        said = str(failure)
    assert re.search("image.fps", said, re.IGNORECASE), said
