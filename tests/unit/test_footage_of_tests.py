"""The clips that other tests are made of: what they are said to show is what FFmpeg reads in them."""

from fractions import Fraction

import av
import numpy as np
import pytest
import random_footage
from av.stream import Disposition
from footage import Clip, Sound, kept_stamps, steady, then, truth, write
from footage_cases import all_cases
from footage_pictures import Painter, flat, read_number, rgb_of


def read(path):
    """Numbers and stamps of the picture that is no cover, from its first."""
    with av.open(str(path)) as container:
        stream = next(s for s in container.streams.video if not s.disposition & Disposition.attached_pic)
        frames = list(container.decode(stream))
        stamps = [(frame.pts - frames[0].pts) * stream.time_base for frame in frames]
        return [read_number(frame.to_ndarray(format="rgb24")) for frame in frames], stamps


def says_the_truth(clip, path):
    numbers, stamps = read(path)
    kept = kept_stamps(clip)[0][clip.hidden :]
    return numbers == list(range(clip.hidden, clip.hidden + len(kept))) and all(
        abs(a - b) < 1e-4 for a, b in zip(stamps, kept, strict=True)
    )


@pytest.mark.parametrize("number", [0, 1, 1234, 4095])
@pytest.mark.parametrize("size", [(96, 64), (853, 480), (101, 67)])
def test_a_number_is_read_at_any_size(number, size):
    frame = Painter(size, "rgb24").frame(number, flash=True)
    for width, height in (size, (128, 64), (64, 48), (832, 480)):
        assert read_number(frame.reformat(width=width, height=height).to_ndarray()) == number


def test_an_unclear_number_is_none():
    one, other = (Painter((96, 64), "rgb24").frame(number).to_ndarray().astype(float) for number in (5, 6))
    assert read_number((one + other) / 510) is None and read_number(np.zeros((64, 96, 3))) is None


def test_colours_are_exact():
    for pixels, off in (("yuv420p", 1.5), ("yuv420p10le", 0.4), ("yuvj444p", 1.0)):
        frame = Painter((32, 32), pixels, background=flat(220, 40, 40), numbered=False).frame(0)
        assert np.abs(rgb_of(frame, "BT.601") * 255 - (220, 40, 40)).max() < off, pixels


def test_the_truth_of_steady_and_uneven_clips():
    assert truth(Clip(stamps=steady(25, 10))).numbers == [0, 2, 3, 5, 7, 8]
    assert truth(Clip(stamps=steady(16, 10)), start=0.25, max_frames=3).numbers == [4, 5, 6]
    slow_then_fast = Clip(stamps=then(steady(2, 2), 30, 6))
    assert truth(slow_then_fast).numbers == [0] * 8 + [1, 3, 5, 7] and truth(slow_then_fast).length == Fraction(11, 15)


@pytest.mark.parametrize("case", [case for case in all_cases() if case.clip.numbered], ids=lambda case: case.name)
def test_cases_show_what_they_are_said_to_show(case, tmp_path):
    assert says_the_truth(case.clip, write(case.clip, tmp_path / f"clip.{case.clip.container}"))


def test_random_clips_show_what_they_are_said_to_show(tmp_path):
    for seed in range(25):
        path, clip, shown = random_footage.make(seed, tmp_path)
        assert shown is None or says_the_truth(clip, path), (seed, clip)


def test_sound_begins_where_it_is_said_to_begin(tmp_path):
    clip = Clip("mkv", sounds=(Sound("flac", start=-0.5),), offset=30, flashes=(0.4,))
    with av.open(str(write(clip, tmp_path / "clip.mkv"))) as container:
        frames = list(container.decode(audio=0))
        wave = np.concatenate([frame.to_ndarray().reshape(-1, 2) for frame in frames])
        assert frames[0].pts * frames[0].time_base == 29.5
        assert abs(np.argmax(np.abs(wave[:, 0]) > 10000) / 48000 - 0.9) < 0.01
