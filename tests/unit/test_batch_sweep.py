"""What a sweep reads from reports, and which settings it says are worth taking."""

import pytest

from liveditor.batch import sweep as sweeping
from liveditor.batch.errors import BatchError
from liveditor.batch.last_run import where_it_is
from liveditor.batch.sweep import costs_of, sweep

REPORT = (
    "LIVEditor: 10 steps, {calls} in float32\n  attention: triton on cpu, dense half by x, 0.303 of dense attention, "
    "9 ms each\n  time: 0.71 s per step, the first 1.20 s, 7.6 s in all"
)


@pytest.mark.parametrize(
    "calls, compute",
    [
        ("20 model calls of 1,190 tokens", 6.06),
        ("10 model calls of 85,680 tokens x 2", 6.06),
        ("1,020 model calls of 10 tokens", 309.06),
    ],
)
def test_costs_of_a_report(calls, compute):
    costs = costs_of(REPORT.format(calls=calls))
    assert costs["seconds"] == 7.6 and costs["compute"] == pytest.approx(compute)
    assert costs_of("it was sampled before") == {"seconds": None, "compute": None}


def test_those_worth_taking_are_beaten_by_none(monkeypatch, tmp_path):
    decibels = {"fast": 20.0, "good": 40.0, "worse": 30.0, "same": 40.0}
    seconds = {"fast": 1, "good": 5, "worse": 6, "same": 5}
    monkeypatch.setattr(sweeping, "_decibels", lambda *_: decibels)
    found = [
        ({"a.b": i}, {"name": name, "report": f"time: 1 s, {seconds[name]} s in all", "result": name})
        for i, name in enumerate(decibels)
    ]
    options = type("Options", (), {"against": "seconds", "comfyui": None})
    points = sweeping._points(found, None, tmp_path, options)
    assert {each["result"]: each["worth taking"] for each in points} == {
        "fast": True,
        "good": True,
        "worse": False,
        "same": True,
    }


def test_seeds_are_no_settings(tmp_path):
    (tmp_path / "clip.mp4").touch()
    arguments = [str(tmp_path / "clip.mp4"), "--instruction", "x", "--out", str(tmp_path / "out")]
    with pytest.raises(BatchError, match="all edits of a sweep have one seed"):
        sweep([*arguments, "--grid", "LIVEditSampler.seed=1,2"], None, ".batch")


def test_what_a_retry_finds_in_a_folder_that_was_moved(tmp_path):
    (tmp_path / "sweep.jsonl").touch()
    there = str(tmp_path / "sweep.jsonl")
    last = {"folder": "/work", "out": "/work/sweep"}
    for text, expected in (
        ("/work/sweep/sweep.jsonl", there),
        ("sweep/sweep.jsonl", there),
        ("--workflow=/work/sweep/sweep.jsonl", f"--workflow={there}"),
        ("/work/sweep/gone.jsonl", "/work/sweep/gone.jsonl"),
        ("--set=a.b=/work/sweep", "--set=a.b=/work/sweep"),
        *((same, same) for same in ("clips", "--out", "/work/sweeps/a.csv", "snow")),
    ):
        assert where_it_is(text, last, tmp_path) == expected
    assert where_it_is("a", {"folder": "/work"}, tmp_path) == "a", "of an earlier version"


def test_a_retry_within_the_output_folder(tmp_path):
    """Every argument lies in it then, the words as well."""
    arguments = ["../clips", "--out", ".", "--instruction", "make it snow"]
    for folder, out in ((str(tmp_path), tmp_path), ("/before", tmp_path)):
        last = {"folder": folder, "out": folder}
        assert [where_it_is(text, last, out) for text in arguments[:2] + arguments[3:]] == [
            text for text in arguments if text != "."
        ]


@pytest.mark.parametrize("grid", ["sar=1,2", "LIVEditSampler.cfg_until", "LIVEditSampler.cfg_until="])
def test_a_grid_that_is_none(tmp_path, grid):
    clip = tmp_path / "clip.mp4"
    clip.touch()
    arguments = [str(clip), "--instruction", "x", "--out", str(tmp_path / "out"), "--grid", grid]
    with pytest.raises(BatchError, match=r"must be NODE.INPUT=VALUE,VALUE"):
        sweep(arguments, lambda _: pytest.fail("nothing is to be edited"), ".batch")
    with pytest.raises(BatchError, match="the clip must stand first"):
        sweep(["--base", "x", *arguments], None, ".batch")
    with pytest.raises(BatchError, match="there is no such clip"):
        sweep([str(tmp_path / "none.mp4"), *arguments[1:]], None, ".batch")
