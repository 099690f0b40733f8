"""Where windows lie over a clip, and how much each counts."""

import random

import pytest
import torch

from liveditor.liveditor_core.footage.errors import FootageError
from liveditor.liveditor_core.sampling.windows import WindowSize, plan_windows

SIZE = WindowSize(81, 16)  # 21 latent frames, of which neighbours share at least 4


def spans(start, stop, size=SIZE):
    return [(window.start, window.stop) for window in plan_windows(start, stop, size)]


def test_one_window_holds_what_fits():
    (window,) = plan_windows(0, 21, SIZE)
    assert (window.start, window.stop, window.own_first) == (0, 21, None)
    assert window.indices.tolist() == list(range(21)) and torch.equal(window.shares, torch.ones(21))


def test_windows_of_a_long_clip():
    windows = plan_windows(0, 81, SIZE)  # 321 frames
    assert [(window.start, window.stop) for window in windows] == [(0, 21), (17, 37), (32, 52), (46, 66), (61, 81)]
    assert [window.own_first for window in windows] == [None, 81, 82, 83, 84]
    assert windows[1].indices.tolist() == [81, *range(17, 37)]


def test_a_clip_that_is_little_longer_takes_two_short_windows():
    assert spans(0, 22) == [(0, 14), (9, 22)]


def test_a_range_within_a_clip_has_a_first_frame_of_its_own():
    (window,) = plan_windows(30, 40, SIZE)
    assert (window.start, window.stop, window.own_first) == (30, 40, 10)
    assert window.indices.tolist() == [10, *range(10)]


def test_an_edit_goes_over_from_one_window_to_the_next_evenly():
    first, second = plan_windows(0, 22, SIZE)
    assert first.shares[-5:].tolist() == pytest.approx([0.9, 0.7, 0.5, 0.3, 0.1])
    assert second.shares[1:6].tolist() == pytest.approx([0.1, 0.3, 0.5, 0.7, 0.9])  # after its own first frame


def test_any_plan_covers_its_range_in_windows_that_are_not_too_long():
    luck = random.Random(3)
    for _ in range(2000):
        length, start, frames = luck.randint(3, 40), luck.choice((0, 0, luck.randint(1, 50))), luck.randint(1, 300)
        size = WindowSize(4 * length - 3, 4 * luck.randint(0, length - 2))
        windows = plan_windows(start, start + frames, size)
        total, taken = torch.zeros(frames), []
        for before, window in zip([None, *windows], windows, strict=False):
            assert len(window.indices) == len(window.shares) <= size.length
            own = window.own_first is not None
            assert own == (window.start > 0)
            assert window.indices[own:].tolist() == list(range(window.start - start, window.stop - start))
            if own:
                assert window.indices[0] == window.own_first and window.shares[0] == 1
                taken.append(window.own_first)
            if before is not None:
                assert before.start < window.start and before.stop < window.stop
                assert before.stop - window.start >= size.least_overlap
            total[window.start - start : window.stop - start] += window.shares[own:]
        assert torch.allclose(total, torch.ones(frames), atol=1e-5)
        assert taken == list(range(frames, frames + len(taken)))
        shortest = size.length - 1 - size.least_overlap  # new frames of a window
        assert len(windows) <= max(1, -(-(frames - size.length + (start > 0)) // shortest) + 1)


@pytest.mark.parametrize("overlap", [77, 80, 1000])
def test_an_overlap_that_leaves_nothing_of_a_window_is_refused(overlap):
    with pytest.raises(FootageError, match=f"overlap must be .* smaller than window, got {overlap} of 81. Use 76 or"):
        plan_windows(0, 100, WindowSize(81, overlap))
    assert len(plan_windows(0, 21, WindowSize(81, overlap))) == 1
    with pytest.raises(FootageError, match="overlap must be"):
        plan_windows(5, 26, WindowSize(81, overlap))  # with a first frame of its own it is one too long
