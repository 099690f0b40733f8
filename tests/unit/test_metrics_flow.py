"""Motion: pictures that move as a whole, whose flow a stand-in finds without being told, within 2 %."""

import pytest
import torch
from measured import measured, panned, still, textured, whole_motion

from liveditor.liveditor_core.footage.errors import FootageError
from liveditor.liveditor_core.metrics.flow import flow_size, seen_in_both, warped
from liveditor.liveditor_core.metrics.measure import Models

FLOW = Models(flow=whole_motion)


def flow_of(before, after, **how):
    return measured(before, after, models=FLOW, **how)[0]["flow"]


def test_the_stand_in_finds_motion():
    clip = panned(2, 7, -3)
    assert whole_motion(clip[:1], clip[1:])[0, :, 0, 0].tolist() == [7, -3]


@pytest.mark.parametrize(
    "width, height, size", [(960, 544, (640, 360)), (1080, 1920, (360, 640)), (64, 48, (128, 128))]
)
def test_sizes_that_flow_is_estimated_at(width, height, size):
    assert flow_size(width, height) == size


def test_warping_leads_back_and_says_what_lies_within():
    clip = panned(2, 6, 4)
    flow = torch.tensor([6.0, 4.0]).view(2, 1, 1).expand(2, 160, 224)
    back, within = warped(clip[1], flow)
    assert torch.allclose(back[within], clip[0][within], atol=1e-4)
    assert within.sum() == (160 - 4) * (224 - 6)
    half, _ = warped(torch.arange(224.0).view(1, 224, 1).expand(160, 224, 1), torch.full((2, 160, 224), 0.5))
    assert half[10, :-1, 0].tolist() == pytest.approx([x + 0.5 for x in range(223)], abs=1e-3)


def test_what_is_hidden_in_the_second_frame_is_not_asked():
    there = torch.zeros(2, 20, 20)
    back = torch.zeros(2, 20, 20)
    back[0, :, 10:] = 5  # what shows there came from elsewhere
    seen = seen_in_both(there, back)
    assert seen[:, :10].all() and not seen[:, 10:].any()


def test_motion_is_measured_within_two_percent():
    before = panned(5, 5, 2)
    found = flow_of(before, before.clone())
    length = (25 + 4) ** 0.5
    assert found["motion_source"] == pytest.approx(length, rel=0.02)
    assert found["motion_edit"] == found["motion_source"] and found["motion_apart"] == 0 and found["similarity"] == 1
    assert found["warp_error_edit"] == found["warp_error_source"] < 1e-6


def test_motion_is_told_in_pixels_of_the_pictures():
    """Though it is estimated at another size: 1280 wide is looked at 640 wide."""
    before = panned(3, 12, 0, height=288, width=1280)
    found = flow_of(before, before)
    assert found["motion_source"] == pytest.approx(12, rel=0.02)


@pytest.mark.parametrize("across, similarity", [(3, 1), (6, 1 - 3 / 9), (0, 0), (-3, 0), (1, 1 - 2 / 4)])
def test_similarity_of_other_motion(across, similarity):
    found = flow_of(panned(5, 3), panned(5, across))
    assert found["similarity"] == pytest.approx(similarity, abs=0.02)
    assert found["motion_apart"] == pytest.approx(abs(3 - across), abs=0.06)


def test_warp_error_of_added_flicker_is_its_square():
    before = panned(6, 4)
    after = before * 0.8
    after[1::2] += 0.1
    found = flow_of(before, after)
    assert found["warp_error_edit"] == pytest.approx(0.01, rel=0.02) and found["warp_error_source"] < 1e-6


def test_shuffled_frames_raise_the_warp_error():
    before = panned(6, 4)
    found = flow_of(before, before[[0, 3, 1, 4, 2, 5]])
    assert found["warp_error_edit"] > 100 * found["warp_error_source"] and found["similarity"] < 0.5


def test_a_shifted_clip_moves_as_before():
    before = panned(5, 4)
    found = flow_of(before, before.roll(9, dims=2))
    assert found["similarity"] == pytest.approx(1, abs=0.02) and found["warp_error_edit"] < 1e-4


def test_every_second_pair():
    before = panned(7, 4)
    looked = []

    def counting(first, second):
        looked.append(len(first))
        return whole_motion(first, second)

    summary, frames = measured(before, before, models=Models(flow=counting), every=2)
    assert looked == [3, 3, 3] and summary["flow"]["motion_source"] == pytest.approx(4, rel=0.02)
    assert [value is not None for value in frames["flow_similarity"]] == [False, True] * 3 + [False]


@pytest.mark.parametrize("clip", [still(3, height=160, width=224), torch.zeros(3, 160, 224, 3)])
def test_where_nothing_moves_no_similarity_is_claimed(clip):
    found = flow_of(clip, clip.clone())
    assert found["similarity"] is None and found["motion_edit"] == 0 and found["warp_error_edit"] < 1e-9


def test_one_frame_and_flow_that_leads_out_of_the_picture():
    assert flow_of(textured(), textured())["motion_edit"] is None
    away = Models(flow=lambda first, second: torch.full((len(first), 2, *first.shape[1:3]), 1e4))
    found = measured(textured(2), textured(2), models=away)[0]["flow"]
    assert found["warp_error_edit"] is None and found["seen_in_both"] == 0


def test_flow_that_is_not_finite_is_refused():
    broken = Models(flow=lambda first, second: torch.full((len(first), 2, *first.shape[1:3]), float("nan")))
    with pytest.raises(FootageError, match="OPTICAL_FLOW must give finite flow"):
        measured(textured(2), textured(2), models=broken)
