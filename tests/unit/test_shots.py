"""Shot changes: every hard cut at the time of its first picture, in any footage, and none where something moves."""

import functools
import os
from bisect import bisect_right
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
import scipy.ndimage
from footage import Clip, steady, write

from liveditor.liveditor_core.footage.file_clip import FileClip
from liveditor.liveditor_core.footage.shots import shot_changes

CLIPS = Path(os.environ["LIVEDITOR_CLIPS"])
WIDE = 13  # how many pictures wide a scene is


@functools.lru_cache(maxsize=64)
def scene(seed, width, height, grain=0.1):
    """Soft blobs in the colours and the light of a place, for a camera to move over.  # [H, WIDE * W, 3] in 0..1"""
    luck = np.random.default_rng(seed)
    size = grain * height
    blobs = scipy.ndimage.gaussian_filter(luck.standard_normal((height, WIDE * width, 3)), (size, size, 0))
    return np.clip(luck.uniform(0.2, 0.8, 3) + 0.18 * blobs / blobs.std(), 0, 1)


def film(cuts=(), speed=1.0, repeat=1, grain=0.1):
    """A film that cuts at some pictures, with a camera that moves by so many pixels a picture.

    Args:
        repeat: how often each picture is shown, as in films that were brought to a higher rate.
    """

    def picture(number, width, height):
        shown = number // repeat * repeat
        place = int(shown * speed)
        return scene(bisect_right(cuts, number), width, height, grain)[:, place : place + width]

    return picture


def jittered(count, seed):
    """Stamps of a variable rate, 10 to 50 pictures a second."""
    steps = np.random.default_rng(seed).integers(20, 100, count)
    return tuple(Fraction(int(ms), 1000) for ms in np.concatenate([[0], np.cumsum(steps)[:-1]]))


CUTS = (12, 30, 47, 60)
SLIDES = tuple(map(Fraction, (0, 2, 5, 6, 10, 14)))
MOVING = Clip(stamps=steady(25, 75), size=(128, 80), film=film(CUTS))
CASES = {
    "constant rate": MOVING,
    "variable rate": MOVING._replace(container="mkv", stamps=jittered(75, 1)),
    "variable rate in mp4": MOVING._replace(stamps=jittered(75, 2)),
    "edit list": MOVING._replace(hidden=5, b_frames=2),
    "recording that begins late": MOVING._replace(container="ts", offset=50),
    "10 bits": MOVING._replace(container="mkv", codec="libx265", pixels="yuv420p10le"),
    "RGB": MOVING._replace(container="mkv", codec="ffv1", pixels="bgr0"),
    "upright": MOVING._replace(rotation=90),
    "60 a second": MOVING._replace(stamps=steady(60, 75)),
    "5 a second": MOVING._replace(stamps=steady(5, 75)),
    "still between": MOVING._replace(film=film(CUTS, speed=0)),
    "repeated pictures": MOVING._replace(film=film(CUTS, speed=3, repeat=2)),
}


def found(clip, tmp_path, *part):
    """Seconds of the shot changes of a clip."""
    path = write(clip, tmp_path / f"clip.{clip.container}")
    return shot_changes(FileClip(str(path)), *part)


def times(clip, numbers):
    return [clip.stamps[number] - clip.stamps[clip.hidden] for number in numbers]


@pytest.mark.parametrize("name", CASES)
def test_every_cut_is_found_and_nothing_else(name, tmp_path):
    clip = CASES[name]
    assert found(clip, tmp_path) == pytest.approx(times(clip, CUTS), abs=0.0011)


@pytest.mark.parametrize("seed", range(4))
def test_cuts_at_random(seed, tmp_path):
    luck = np.random.default_rng(seed)
    cuts = tuple(int(cut) for cut in np.cumsum(luck.integers(3, 30, 6)))
    clip = MOVING._replace(stamps=jittered(cuts[-1] + 5, seed), container="mkv", film=film(cuts, luck.uniform(0, 3)))
    assert found(clip, tmp_path) == pytest.approx(times(clip, cuts), abs=0.0011)


def test_slides_each_of_which_is_one_picture(tmp_path):
    clip = MOVING._replace(container="mkv", stamps=SLIDES, film=film(range(1, 6), speed=0))
    assert found(clip, tmp_path) == list(SLIDES[1:])


@pytest.mark.parametrize("repeat", [1, 2, 3])
@pytest.mark.parametrize("speed", [0.3, 2, 8, 20])
@pytest.mark.parametrize("grain", [0.02, 0.1])
def test_a_moving_camera_is_no_cut(speed, repeat, grain, tmp_path):
    assert found(MOVING._replace(film=film((), speed, repeat, grain)), tmp_path) == []


def test_a_fade_is_no_cut(tmp_path):
    def fading(number, width, height):
        share = min(1, max(0, (number - 20) / 30))
        return (1 - share) * scene(1, width, height)[:, :width] + share * scene(2, width, height)[:, :width]

    assert found(MOVING._replace(film=fading), tmp_path) == []


def test_clips_of_cameras():
    """Five cuts in one, seen by eye; one shot in each of the others."""
    expected = {"bikes": (30, 76, 137, 187, 242), "bigbuckbunny": (), "carphone_pristine": (), "carphone_distorted": ()}
    for name, cuts in expected.items():
        clip = FileClip(str(CLIPS / f"{name}.mp4"))
        assert shot_changes(clip) == [cut / clip.rate for cut in cuts]


def test_a_part(tmp_path):
    """Its start is no cut, its end lies outside, and times are those of the clip."""
    clip = MOVING._replace(stamps=steady(5, 75))
    assert found(clip, tmp_path, Fraction(6)) == times(clip, CUTS[2:])
    assert found(clip, tmp_path, Fraction(6), Fraction(34, 10)) == []
    assert found(clip, tmp_path, Fraction(6), Fraction(35, 10)) == times(clip, CUTS[2:3])
    assert found(clip, tmp_path, Fraction(1000)) == []


@pytest.mark.parametrize("container, codec", [("mp4", "libx264"), ("mkv", "libx264"), ("ts", "libx264")])
def test_damage_hides_no_cut_elsewhere(container, codec, tmp_path):
    """Bytes are overwritten in the shot between the second cut and the third."""
    clip = MOVING._replace(container=container, codec=codec, key_every=6, noise=((0.55, 40),))
    cuts = found(clip, tmp_path)
    expected = times(clip, CUTS)
    assert {round(float(time), 2) for time in cuts} >= {round(float(time), 2) for time in expected}
    assert all(time in expected or expected[1] < time < expected[3] for time in cuts)


def test_a_file_that_was_cut_off(tmp_path):
    clip = MOVING._replace(container="mkv", key_every=6, cut=0.7)
    cuts = found(clip, tmp_path)
    assert len(cuts) >= 2 and cuts == pytest.approx(times(clip, CUTS[: len(cuts)]), abs=0.0011)


def test_another_size_halfway_is_no_reason_to_stop(tmp_path):
    clip = MOVING._replace(container="ts", later_size=(160, 96), film=film((20, 50)))
    assert found(clip, tmp_path)[-1] == pytest.approx(2, abs=0.0011)


def test_it_stops_when_told(tmp_path):
    class Stopped(Exception):
        pass

    def check(time):
        if time > 1:
            raise Stopped

    path = write(MOVING, tmp_path / "clip.mp4")
    clip = FileClip(str(path))
    clip.check = check
    with pytest.raises(Stopped):
        shot_changes(clip)
