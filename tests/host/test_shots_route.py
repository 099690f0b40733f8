"""Where shots begin, as the canvas asks the server: what it reads, what it refuses, and how often."""

import asyncio
import json
import os
import threading
import time
import urllib.error
import urllib.parse

import host
import pytest

from liveditor.nodes import shots_route

BIKES = [1.2, 3.04, 5.48, 7.48, 9.68]
THREAD = "liveditor shots"


def ask(client, **query):
    return client.get("api/liveditor/shots?" + urllib.parse.urlencode(query))


def refused(client, **query):
    """Status and message of an answer that is an error."""
    with pytest.raises(urllib.error.HTTPError) as error:
        ask(client, **query)
    return error.value.code, json.loads(error.value.read())["error"]


def test_shots_of_a_file_and_of_a_part(client):
    whole = ask(client, file="bikes.mp4")
    sizes = {"auto 540p": [960, 544], "auto 480p": [832, 480], "auto small model": [256, 112]}
    assert whole | {"sizes": None} == {"length": 10.0, "start": 0.0, "fps": 25.0, "shots": BIKES, "sizes": None}
    assert whole["sizes"].keys() == sizes.keys()
    assert ask(client, file="bikes.mp4 [input]", start=1.25, seconds=5) == whole | {"start": 1.28, "shots": BIKES[1:3]}
    assert ask(client, file="bikes.mp4", seconds=0) == whole | {"shots": []}
    assert ask(client, file="bikes.mp4", start=100, seconds=1)["shots"] == []


def test_files_in_the_other_folders_and_in_folders_of_theirs(client):
    for folder in ("output", "temp"):
        place = host.RUN / folder / "shots"
        place.mkdir(parents=True, exist_ok=True)
        (place / "bikes copy.mp4").write_bytes((host.CLIPS / "bikes.mp4").read_bytes())
        assert ask(client, file=f"shots/bikes copy.mp4 [{folder}]")["shots"] == BIKES
    assert refused(client, file="shots/bikes copy.mp4")[0] == 404, "it is not among the input"


@pytest.mark.parametrize(
    "name",
    [
        "",
        ".",
        "none.mp4",
        "../custom_nodes/ComfyUI-LIVEditor/pyproject.toml",
        "../models/../input/../main.py",
        "../input_of_others/bikes.mp4",
        str(host.CLIPS / "bikes.mp4"),
        "../../bikes.mp4 [output]",
        "bikes.mp4\0",
        "..\\..\\bikes.mp4",
        "//server/share/bikes.mp4",
    ],
)
def test_nothing_outside_is_looked_at(client, name):
    (host.RUN / "input_of_others").mkdir(exist_ok=True)
    (host.RUN / "input_of_others" / "bikes.mp4").write_bytes(b"")
    assert refused(client, file=name) == (404, "file must be one in ComfyUI's input, output or temp folder")


def test_what_cannot_be_read_is_said(client):
    (host.RUN / "input" / "text.mp4").write_text("this is no video")
    status, message = refused(client, file="text.mp4")
    assert status == 422 and message.startswith("text.mp4: must be a video") and str(host.RUN) not in message
    for name, value in (("start", "-1"), ("start", "nan"), ("seconds", "soon"), ("seconds", "inf")):
        assert refused(client, file="bikes.mp4", **{name: value}) == (
            400,
            f"{name} must be seconds from 0 on, got {value}",
        )


@pytest.fixture
def file(tmp_path):
    path = tmp_path / "clip.mp4"
    path.write_bytes(b"one")
    return path


class Look:
    """Stands for shots_of_file: counts, and takes as long as it is let."""

    def __init__(self, gate=True):
        self.parts, self.go, self.ended = [], threading.Event(), []
        if gate:
            self.go.set()

    def __call__(self, path, start, seconds, check):
        self.parts.append((start, seconds))
        try:
            while not self.go.wait(0.01):
                check(0)
            if os.path.getsize(path) == 0:
                raise OSError("empty")
            return len(self.parts)
        finally:
            self.ended.append(start)


def test_the_same_is_read_once(file):
    async def run():
        look = Look(gate=False)
        readings = shots_route.Readings(look)
        asked = [asyncio.ensure_future(readings.answer(str(file), 0, None)) for _ in range(5)]
        await asyncio.sleep(0.05)
        look.go.set()
        assert await asyncio.gather(*asked) == [1] * 5
        assert await readings.answer(str(file), 0, None) == 1
        assert await readings.answer(str(file), 0, 2) == 2, "another part"
        file.write_bytes(b"another")
        assert await readings.answer(str(file), 0, None) == 3, "the file has changed"
        assert len(look.parts) == 3

    asyncio.run(run())


def test_answers_are_kept_up_to_a_number_and_failures_not_at_all(file):
    async def run():
        look = Look()
        readings = shots_route.Readings(look)
        for start in range(shots_route.KEPT + 10):
            await readings.answer(str(file), start, None)
        assert len(readings._kept) == shots_route.KEPT
        await readings.answer(str(file), shots_route.KEPT + 9, None)
        assert len(look.parts) == shots_route.KEPT + 10, "the last is still there"
        await readings.answer(str(file), 0, None)
        assert len(look.parts) == shots_route.KEPT + 11, "the first is not"
        file.write_bytes(b"")
        for _ in range(2):
            with pytest.raises(OSError, match="empty"):
                await readings.answer(str(file), 0, None)
        assert len(look.parts) == shots_route.KEPT + 13

    asyncio.run(run())


def test_a_reading_ends_when_nobody_waits_for_it(file, monkeypatch):
    monkeypatch.setattr(shots_route, "LOOK_UP", 0.02)

    async def run():
        look = Look(gate=False)
        readings = shots_route.Readings(look)
        wanted = [True, True]
        asked = [asyncio.ensure_future(readings.answer(str(file), 0, None, lambda i=i: wanted[i])) for i in (0, 1)]
        await asyncio.sleep(0.05)
        wanted[0] = False
        with pytest.raises(shots_route.Unwanted):
            await asked[0]
        await asyncio.sleep(0.1)
        assert not look.ended, "the other one still waits"
        wanted[1] = False
        with pytest.raises(shots_route.Unwanted):
            await asked[1]
        deadline = time.monotonic() + 5
        while any(thread.name == THREAD for thread in threading.enumerate()):
            assert time.monotonic() < deadline
            await asyncio.sleep(0.01)
        assert look.ended and not readings._kept
        look.go.set()
        assert await readings.answer(str(file), 0, None) == 2, "asked again, it is read again"

    asyncio.run(run())


def test_no_more_than_some_are_read_at_once(file):
    async def run():
        look = Look(gate=False)
        readings = shots_route.Readings(look)
        asked = [asyncio.ensure_future(readings.answer(str(file), start, None)) for start in range(6)]
        await asyncio.sleep(0.1)
        assert len(look.parts) == shots_route.AT_ONCE
        look.go.set()
        await asyncio.gather(*asked)
        assert sorted(look.parts) == [(start, None) for start in range(6)]

    asyncio.run(run())


def test_the_length_of_a_clip_does_not_wait_for_scans(file):
    async def run():
        look = Look(gate=False)
        readings = shots_route.Readings(look)
        scans = [asyncio.ensure_future(readings.answer(str(file), start, None)) for start in range(4)]
        await asyncio.sleep(0.1)
        length = asyncio.ensure_future(readings.answer(str(file), 0, 0.0))
        await asyncio.sleep(0.1)
        assert (0, 0.0) in look.parts
        look.go.set()
        await asyncio.gather(*scans, length)

    asyncio.run(run())
