"""Many edits: where their clips lie, numbers that are made once, means and intervals, the table and what pages read."""

import csv
import json
import os
from fractions import Fraction

import av
import host
import numpy as np
import pytest
import torch
from PIL import Image

from liveditor.batch.jobs import Job
from liveditor.batch.journal import Journal
from liveditor.liveditor_core.footage.errors import FootageError
from liveditor.liveditor_core.footage.frame_folder import FrameFolder
from liveditor.liveditor_core.metrics import over_folders
from liveditor.liveditor_core.metrics.__main__ import main
from liveditor.liveditor_core.metrics.folders import PairFiles, find_pairs
from liveditor.liveditor_core.metrics.over_folders import by_group, means_of, row_of
from liveditor.training.edits import EDITS, HELD_OUT

FRAMES = 4


def run(pairs, *more):
    return main([str(pairs), "--comfyui", str(host.COMFYUI), *more])


def pictures(seed=0, brighter=0, count=FRAMES):
    still = np.random.default_rng(seed).integers(40, 180, (6, 8, 3)).repeat(8, 0).repeat(8, 1)
    return [(np.roll(still, 2 * i, 1) + brighter).astype(np.uint8) for i in range(count)]


def clip(path, shown=None, workflow=None, **options):
    shown = pictures(**options) if shown is None else shown
    path.parent.mkdir(parents=True, exist_ok=True)
    with av.open(str(path), "w") as container:
        if workflow is not None:
            container.metadata["prompt"] = json.dumps(workflow)
        stream = container.add_stream("ffv1" if path.suffix == ".mkv" else "h264", rate=24)
        stream.height, stream.width = shown[0].shape[:2]
        stream.pix_fmt = "bgr0" if path.suffix == ".mkv" else "yuv420p"
        for picture in shown:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(np.ascontiguousarray(picture), format="rgb24")))
        container.mux(stream.encode(None))
    return path


def frames(folder, **options):
    folder.mkdir(parents=True)
    for i, picture in enumerate(pictures(**options)):
        Image.fromarray(picture).save(folder / f"{i:05}.png")
    return folder


def masks(folder):
    folder.mkdir(parents=True)
    left = np.zeros((48, 64), np.uint8)
    left[:, :32] = 1  # as annotations have it: numbers of objects, hardly seen
    for i in range(FRAMES):
        picture = Image.fromarray(left, "P")
        picture.putpalette([0, 0, 0, 128, 0, 0])
        picture.save(folder / f"{i:05}.png")


def names(found):
    return [pair.name for pair in found.pairs]


def test_a_folder_of_pictures_is_a_clip(tmp_path):
    folder = frames(tmp_path / "clip")
    (folder / "00002.png").rename(folder / "10.png")  # comes after 3
    read = FrameFolder(folder, Fraction(24))
    assert len(read) == FRAMES and (read.width, read.height) == (64, 48) and read.length() == Fraction(FRAMES, 24)
    got = [read.rgb(picture) for picture in read.pictures(Fraction(0))]
    wanted = [pictures()[i] for i in (0, 1, 3, 2)]
    assert all(torch.equal((g * 255).round().byte(), torch.from_numpy(w)) for g, w in zip(got, wanted, strict=True))
    Image.new("RGB", (8, 8)).save(folder / "11.png")
    with pytest.raises(FootageError, match=r"11.png: must be of the size of the first picture, 64x48, got 8x8"):
        list(map(FrameFolder(folder, 24).rgb, FrameFolder(folder, 24).pictures(Fraction(0))))
    with pytest.raises(FootageError, match="must hold pictures, got none"):
        FrameFolder(tmp_path, 24)


def test_folders_of_two_clips_each(tmp_path):
    clip(tmp_path / "a" / "Before.mp4"), clip(tmp_path / "a" / "edited.mp4")
    (tmp_path / "a" / "target.txt").write_text("a street at night\n")
    frames(tmp_path / "b" / "source"), clip(tmp_path / "b" / "after.mkv")
    masks(tmp_path / "b" / "mask")
    clip(tmp_path / "c" / "before.mp4")
    found = find_pairs(tmp_path)
    assert names(found) == ["a", "b"] and found.pairs[0].target == "a street at night"
    assert found.pairs[1].mask == tmp_path / "b" / "mask" and "c" in found.notes[0]


def test_the_folders_before_and_after(tmp_path):
    for name in ("x", "y[1]", "alone"):
        clip(tmp_path / "before" / f"{name}.mp4")
    clip(tmp_path / "after" / "x.mkv"), frames(tmp_path / "after" / "y[1]")
    (tmp_path / "prompts.csv").write_text("name,target,source_text\nx,night,day\n")
    found = find_pairs(tmp_path)
    assert names(found) == ["x", "y[1]"] and found.pairs[0].target == "night" and found.pairs[0].source_text == "day"
    assert found.notes == ["1 clips in before have none of their name in after"]


@pytest.mark.parametrize("kind", ["csv", "jsonl"])
def test_a_list(tmp_path, kind):
    clip(tmp_path / "s.mp4"), clip(tmp_path / "e.mp4")
    row = {"before": "s.mp4", "after": "e.mp4", "target": "snow", "group": "weather"}
    if kind == "csv":
        (tmp_path / "pairs.csv").write_text("before,after,target,group\ns.mp4,e.mp4,snow,weather\ns.mp4,e.mp4,,\n")
    else:
        (tmp_path / "pairs.jsonl").write_text(json.dumps(row) + "\n\n" + json.dumps({**row, "target": ""}))
    found = find_pairs(tmp_path / f"pairs.{kind}")
    assert names(found) == ["e", "e-2"] and found.pairs[0].target == "snow" and found.pairs[0].group == "weather"
    (tmp_path / "wrong.csv").write_text("before,after\ns.mp4,\n")
    with pytest.raises(FootageError, match=r"wrong.csv, row 1: must name after"):
        find_pairs(tmp_path / "wrong.csv")
    (tmp_path / "gone.csv").write_text("before,after\ns.mp4,nowhere.mp4\n")
    with pytest.raises(FootageError, match=r"gone.csv, row 1: there is no"):
        find_pairs(tmp_path / "gone.csv")


@pytest.mark.parametrize(
    "text",
    [
        "\ufeffBefore;After;Target;mask\r\ns.mp4; e.mp4;snow, please; \r\n",
        'before,AFTER,target\ns.mp4,e.mp4,"snow, please"\n',
        "before\tafter\ttarget\ns.mp4\te.mp4\tsnow, please\n",
        "before;after;target\ns.mp4;e.mp4;snow, please\n;;\n;;\n",
    ],
)
def test_a_list_as_other_programs_write_it(tmp_path, text):
    clip(tmp_path / "s.mp4"), clip(tmp_path / "e.mp4")
    (tmp_path / "pairs.csv").write_text(text, encoding="utf-8", newline="")
    (pair,) = find_pairs(tmp_path / "pairs.csv").pairs
    assert pair.after == tmp_path / "e.mp4" and pair.target == "snow, please" and pair.mask is None


@pytest.mark.parametrize(
    "name, text, said",
    [
        ("pairs.csv", "before,after\ns.mp4,e.mp4,more\n", "row 1: must have a cell for each column"),
        ("pairs.csv", 'before,after,target\ns.mp4,e.mp4,"snow\ns.mp4,e.mp4,rain\n', "cannot be read as a list"),
        ("pairs.jsonl", "[1]\n", "row 1: must have a cell for each column, or be an object"),
    ],
)
def test_lists_that_cannot_be_read(tmp_path, name, text, said):
    clip(tmp_path / "s.mp4"), clip(tmp_path / "e.mp4")
    (tmp_path / name).write_text(text)
    with pytest.raises(FootageError, match=said):
        find_pairs(tmp_path / name)


@pytest.mark.parametrize(
    "option, said",
    [
        ("--every=0", "must be a whole number from 1 on, got 0"),
        ("--every=-1", "must be a whole number from 1 on, got -1"),
        ("--fps=0", "must be frames a second, as 24 or 30000/1001, got 0"),
        ("--fps=-5", "must be frames a second"),
        ("--fps=1/0", "must be frames a second"),
        ("--device=nowhere", "--device nowhere: PyTorch cannot compute there"),
    ],
)
def test_options_that_cannot_be(tmp_path, capsys, option, said):
    code = None
    try:
        code = main([str(tmp_path), option, "--comfyui", str(host.COMFYUI)])
    except SystemExit as ended:
        code = ended.code
    assert code == 2 and said in capsys.readouterr().err


@pytest.fixture
def batch(tmp_path):
    """One job that is done, one that failed."""
    clip(tmp_path / "clips" / "a.mp4"), clip(tmp_path / "out" / "a--snow.mp4")
    (tmp_path / "out" / ".batch").mkdir()
    source = tmp_path / "clips" / "a.mp4"
    journal = Journal(tmp_path / "out" / ".batch")
    digest = journal.digest(source)
    journal.add([(f"key{i}", f"a--snow{i}", Job(source, "snow", {}), digest) for i in range(2)])
    journal.done("key0", "a--snow.mp4", 1, 1.0, "")
    journal.failed("key1", "no picture")
    yield journal
    journal.close()


def test_a_batch(batch, tmp_path):
    found = find_pairs(tmp_path / "out")
    assert names(found) == ["a--snow0"] and found.pairs[0].target == "snow"
    assert found.notes == ["1 of 2 jobs are not done, or their clips are gone"]


def test_a_batch_that_was_moved_with_its_clips(batch, tmp_path, monkeypatch):
    batch.close()
    home = tmp_path / "out"
    (home / ".batch" / "run.json").write_text(json.dumps({"out": str(home)}))
    (tmp_path / "moved").mkdir()
    for name in ("out", "clips"):
        (tmp_path / name).rename(tmp_path / "moved" / name)
    (pair,) = find_pairs(tmp_path / "moved" / "out").pairs
    assert pair.before.samefile(tmp_path / "moved" / "clips" / "a.mp4")

    def on_another_drive(*_):
        raise ValueError("path is on mount 'E:', start on mount 'C:'")

    monkeypatch.setattr(os.path, "relpath", on_another_drive)
    with pytest.raises(FootageError, match="2 of 2 jobs are not done, or their clips are gone"):
        find_pairs(tmp_path / "moved" / "out")


def test_clips_of_a_batch_that_others_took_the_place_of(batch, tmp_path):
    source = tmp_path / "clips" / "a.mp4"
    os.utime(source, (0, 0))  # copied back from somewhere
    assert names(find_pairs(tmp_path / "out")) == ["a--snow0"]
    clip(source, seed=1)
    for _ in range(2):
        with pytest.raises(FootageError, match="1 of 2 clips are no longer those that were edited"):
            find_pairs(tmp_path / "out")
        batch.digest(source)  # as a batch of later does


def test_a_batch_whose_journal_is_damaged(tmp_path):
    (tmp_path / "out" / ".batch").mkdir(parents=True)
    (tmp_path / "out" / ".batch" / "journal.sqlite").write_bytes(b"no database at all")
    with pytest.raises(FootageError, match="the journal of the batch cannot be read"):
        find_pairs(tmp_path / "out")


def test_editverse(tmp_path):
    clip(tmp_path / "bench" / "videos" / "1.mp4"), clip(tmp_path / "edits" / "0" / "generate.mp4")
    entry = {
        "<video1>": "videos/1.mp4",
        "<text>": "<video1> add",
        "target_prompt": "t",
        "source_prompt": "s",
        "type": "add",
    }
    (tmp_path / "bench" / "test.json").write_text(json.dumps({"0": entry, "1": entry}))
    found = find_pairs(tmp_path / "bench", tmp_path / "edits")
    (pair,) = found.pairs
    assert (pair.name, pair.target, pair.source_text, pair.group) == ("0", "t", "s", "add")
    assert "not EditVerse's scores" in found.layout and found.notes == ["1 of 2 have no source or no edit here"]
    with pytest.raises(FootageError, match="needs that of the edits, got None. Give --edits"):
        find_pairs(tmp_path / "bench")


def test_davis_and_vipseg(tmp_path):
    davis, edits = tmp_path / "DAVIS", tmp_path / "edits"
    frames(davis / "JPEGImages" / "480p" / "bear"), masks(davis / "Annotations" / "480p" / "bear")
    frames(davis / "JPEGImages" / "480p" / "boat")
    clip(edits / "bear.mkv")
    (edits / "prompts.csv").write_text("name,target\nbear,a white bear\n")
    found = find_pairs(davis, edits)
    assert names(found) == ["bear"] and found.pairs[0].mask == davis / "Annotations" / "480p" / "bear"
    assert found.pairs[0].target == "a white bear" and found.notes == ["1 of 2 clips have no edit here"]
    frames(tmp_path / "VIPSeg" / "images" / "bear"), masks(tmp_path / "VIPSeg" / "panomasks" / "bear")
    found = find_pairs(tmp_path / "VIPSeg", edits)
    assert names(found) == ["bear"] and found.pairs[0].mask is None and "none was used" in found.notes[0]


@pytest.mark.parametrize("name", ["nowhere", "empty", "list.txt"])
def test_what_cannot_be_compared(tmp_path, name):
    (tmp_path / "empty").mkdir()
    (tmp_path / "list.txt").touch()
    with pytest.raises(FootageError, match=name):
        find_pairs(tmp_path / name)


def test_means_and_their_intervals():
    empty = dict.fromkeys(over_folders.COLUMNS)
    values = np.random.default_rng(3).normal(0.8, 0.1, 50)
    rows = [{**empty, "group": "ab"[i % 2], "ssim": value, "identical": i < 10} for i, value in enumerate(values)]
    means = by_group(rows)
    found = means["all"]["ssim"]
    half = 1.96 * values.std(ddof=1) / 50**0.5  # what theory says of so many
    assert found["mean"] == pytest.approx(values.mean()) and found["of"] == 50
    assert found["low"] == pytest.approx(values.mean() - half, abs=0.15 * half)
    assert found["high"] == pytest.approx(values.mean() + half, abs=0.15 * half)
    assert means["all"]["identical"]["mean"] == pytest.approx(0.2) and "psnr" not in means["all"]
    assert means["a"]["ssim"]["mean"] == pytest.approx(values[::2].mean())
    assert means_of(rows[:1])["ssim"] == {"mean": values[0], "low": None, "high": None, "of": 1}


@pytest.fixture
def pairs(tmp_path):
    """The source itself, one that is brighter by 20 levels, and one in a folder of frames with a mask."""
    for name, brighter in (("same", 0), ("brighter", 20)):
        clip(tmp_path / name / "before.mkv"), clip(tmp_path / name / "after.mkv", brighter=brighter)
    frames(tmp_path / "masked" / "before"), clip(tmp_path / "masked" / "after.mkv", brighter=20)
    masks(tmp_path / "masked" / "mask")
    return tmp_path


def test_from_a_folder_to_a_table(pairs, capsys):
    assert run(pairs) == 0
    with open(pairs / "metrics" / "metrics.csv", newline="") as file:
        rows = {row["name"]: row for row in csv.DictReader(file)}
    assert (
        rows["same"]["identical"] == "True" and rows["same"]["psnr"] == "" and rows["same"]["kept_if_edited"] == "0.0"
    )
    wanted = -20 * np.log10(20 / 255)
    assert float(rows["brighter"]["change"]) == pytest.approx(20, abs=0.01)
    assert rows["masked"]["masked"] == "True" and float(rows["masked"]["psnr"]) == pytest.approx(wanted, abs=0.05)
    summary = json.loads((pairs / "metrics" / "summary.json").read_text())
    assert summary["measured"] == 3 and summary["means"]["all"]["identical"]["mean"] == pytest.approx(1 / 3)
    script = (pairs / "metrics" / "metrics.js").read_text().removeprefix("window.liveditorMetrics = ").rstrip(";\n")
    assert json.loads(script)["brighter"]["change"] == pytest.approx(20, abs=0.01)
    with Image.open(pairs / "metrics" / "metrics.png") as picture:
        assert picture.width == 900 and picture.height > 200
    assert "kept_if_edited" in capsys.readouterr().out


def test_what_was_measured_is_not_measured_again(pairs, monkeypatch):
    calls, measure_pair = [], over_folders.measure_pair

    def counted(pair, *args):
        calls.append(pair.name)
        return measure_pair(pair, *args)

    monkeypatch.setattr(over_folders, "measure_pair", counted)
    run(pairs)
    run(pairs)
    assert sorted(calls) == ["brighter", "masked", "same"]
    os.utime(pairs / "same" / "after.mkv", (0, 0))
    run(pairs)
    assert calls[3:] == ["same"]
    run(pairs, "--every", "2")
    assert len(calls) == 7


def test_a_clip_that_cannot_be_read_costs_its_row_alone(pairs, capsys):
    (pairs / "same" / "after.mkv").write_bytes(b"no video")
    assert run(pairs) == 1
    summary = json.loads((pairs / "metrics" / "summary.json").read_text())
    assert summary["measured"] == 2 and summary["failed"][0]["name"] == "same" and summary["failed"][0]["message"]
    assert run(pairs / "nothing here") == 2


def test_frames_are_paired_by_number_where_there_are_as_many(pairs):
    """Though a folder of frames does not say how fast they play."""
    run(pairs, "--fps", "7")
    with open(pairs / "metrics" / "metrics.csv", newline="") as file:
        rows = {row["name"]: row for row in csv.DictReader(file)}
    assert int(rows["masked"]["frames"]) == FRAMES
    assert float(rows["masked"]["change"]) == pytest.approx(20, abs=0.01)


@pytest.mark.parametrize("whole", [False, True])
def test_an_edit_of_a_part_is_compared_with_that_part(tmp_path, whole):
    """As the workflow in its file says: three frames from the start, in the middle of the picture."""
    shown = pictures(count=12)
    before = clip(tmp_path / "before.mkv", shown)
    graph = {"1": {"class_type": "EncodeSourceVideo", "inputs": {"start": 3 / 24, "fit": "crop", "fps": "as source"}}}
    graph |= {"2": {"class_type": "DecodeVideo", "inputs": {"whole_video": whole, "samples": ["3", 0]}}}
    part = shown if whole else [each[8:40] for each in shown[3:9]]
    for workflow, identical in ((graph, True), (None, whole), ({**graph, "4": graph["1"]}, whole)):
        after = clip(tmp_path / "after.mkv", part, workflow)
        pair = PairFiles("a", before, after, of_part=True)
        kept = over_folders.measure_pair(pair, Fraction(24), over_folders.Models(), 1)["kept"]["whole_frame"]
        assert (kept["psnr"] is None) == identical


def test_columns_are_those_of_the_numbers(pairs):
    (pair, *_) = find_pairs(pairs).pairs
    numbers = over_folders.measure_pair(pair, Fraction(24), over_folders.Models(), 1)
    row = row_of(pair, numbers)
    for column, path in over_folders.COLUMNS.items():
        value = numbers
        for name in path:
            assert value is None or name in value, column
            value = value and value[name]
        assert row[column] == value


def test_models_need_comfyui_and_their_files(pairs, tmp_path, capsys):
    assert main([str(pairs), "--comfyui", str(tmp_path)]) == 2
    assert "there is no ComfyUI" in capsys.readouterr().err
    assert run(pairs, "--clip-vision", "none.safetensors") == 2
    assert "clip_vision: there is no file none.safetensors" in capsys.readouterr().err


@pytest.fixture
def night(tmp_path):
    """A list: an exact edit with its words, with another edit's, and a copy of the source with the edit's words."""
    with av.open(str(host.CLIPS / "bikes.mp4")) as container:
        shown = [
            frame.to_ndarray(format="rgb24") for _, frame in zip(range(5), container.decode(video=0), strict=False)
        ]
    source = torch.from_numpy(np.stack(shown)).movedim(-1, 1).float() / 255
    for name, edited in (("before", source), ("after", EDITS["night"](source))):
        with av.open(str(tmp_path / f"{name}.mkv"), "w") as container:
            stream = container.add_stream("ffv1", rate=25)
            stream.height, stream.width, stream.pix_fmt = *shown[0].shape[:2], "bgr0"
            for frame in (edited.clamp(0, 1) * 255).round().byte().movedim(1, -1).numpy():
                container.mux(stream.encode(av.VideoFrame.from_ndarray(frame, format="rgb24")))
            container.mux(stream.encode(None))
    rows = [("right", "after", "night"), ("wrong", "after", "sepia"), ("copy", "before", "night")]
    with open(tmp_path / "pairs.csv", "w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(("name", "before", "after", "target", "source_text"))
        writer.writerows(
            (name, "before.mkv", f"{after}.mkv", HELD_OUT[words][0], "the original video")
            for name, after, words in rows
        )
    return tmp_path / "pairs.csv"


def test_words_by_the_small_encoder(night):
    assert run(night, "--small") == 0
    with open(night.parent / "metrics" / "metrics.csv", newline="") as file:
        rows = {row["name"]: {key: row[key] for key in row} for row in csv.DictReader(file)}
    gain = {name: float(row["text_gain"]) for name, row in rows.items()}
    direction = {name: float(row["direction"]) for name, row in rows.items()}
    assert gain["right"] > 0.3 > gain["wrong"] and gain["copy"] == 0
    assert direction["right"] > 0.3 > direction["wrong"] and direction["copy"] == 0
    assert float(rows["copy"]["kept_if_edited"]) == 0 < float(rows["right"]["kept_if_edited"])
    summary = json.loads((night.parent / "metrics" / "summary.json").read_text())
    assert [each["used_as"] for each in summary["models"]] == ["clip", "clip_vision"]
