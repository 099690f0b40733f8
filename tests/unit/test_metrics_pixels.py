"""What of the pixels was kept, what changed and how steady that is: truths that are computed independently."""

import math

import numpy as np
import pytest
import torch
from measured import measured, still, textured
from skimage.metrics import peak_signal_noise_ratio, structural_similarity

from liveditor.liveditor_core.footage.errors import FootageError
from liveditor.liveditor_core.metrics.gate import ENOUGH_EDITED
from liveditor.liveditor_core.metrics.pair import BLOCK
from liveditor.liveditor_core.metrics.similarity import similarity

RIGHT = torch.zeros(72, 96, dtype=torch.bool)  # outside a mask that covers the left half
RIGHT[:, 48:] = True


def noisy(frames, strength, seed=7):
    noise = torch.randn(frames.shape, generator=torch.Generator().manual_seed(seed))
    return (frames + strength * noise).clamp(0, 1)


def ssim_of(before, after, **options):
    return structural_similarity(
        before.double().numpy(),
        after.double().numpy(),
        gaussian_weights=True,
        sigma=1.5,
        use_sample_covariance=False,
        channel_axis=2,
        data_range=1.0,
        **options,
    )


PICTURES = {
    "noise": lambda: noisy(textured(3), 0.05),
    "darker": lambda: textured(3) * 0.7,
    "another": lambda: textured(3, seed=5),
    "inverted": lambda: 1 - textured(3),
    "black": lambda: torch.zeros(3, 72, 96, 3),
}


@pytest.mark.parametrize("name", PICTURES)
def test_psnr_and_ssim_are_those_of_scikit_image(name):
    before, after = textured(3), PICTURES[name]()
    kept = measured(before, after)[0]["kept"]["whole_frame"]
    error = np.mean([(a - b).double().square().mean() for a, b in zip(before, after, strict=True)])
    assert kept["psnr"] == pytest.approx(-10 * math.log10(error), abs=1e-4)
    one = [measured(before[i : i + 1], after[i : i + 1])[0]["kept"]["whole_frame"]["psnr"] for i in range(3)]
    theirs = [
        peak_signal_noise_ratio(before[i].double().numpy(), after[i].double().numpy(), data_range=1) for i in range(3)
    ]
    assert one == pytest.approx(theirs, abs=1e-4)
    assert kept["ssim"] == pytest.approx(np.mean(list(map(ssim_of, before, after))), abs=1e-4)


@pytest.mark.parametrize("bright", [0.02, 0.5, 0.98])
def test_ssim_of_nearly_flat_pictures_is_as_exact(bright):
    """Where single precision loses most: variances are differences of large squares."""
    before = bright + 0.004 * (textured()[0] - 0.5)
    after = noisy(before, 0.002)
    assert float(similarity(before, after).mean()) == pytest.approx(ssim_of(before, after), abs=1e-4)


def test_ssim_outside_a_mask_is_the_mean_of_its_map_where_windows_lie_outside():
    before, after = textured(), noisy(textured(), 0.1)
    full = ssim_of(before[0], after[0], full=True)[1].mean(-1)[5:-5, 5:-5]
    outside = RIGHT.numpy()[5:-5, 5:-5].copy()
    outside[:, :48] = False  # the first five columns' windows reach over the border at 48
    kept = measured(before, after, outside=RIGHT)[0]["kept"]
    assert kept["ssim"] == pytest.approx(full[outside].mean(), abs=1e-4)
    error = (before - after)[0, RIGHT].double().square().mean()
    assert kept["psnr"] == pytest.approx(-10 * math.log10(error), abs=1e-4)
    assert kept["part"] == "outside the mask" and kept["pixels"] == 72 * 48


@pytest.mark.parametrize("outside", [None, RIGHT])
def test_an_unedited_copy_keeps_all_and_comes_last(outside):
    clip = textured(4)
    summary, _ = measured(clip, clip.clone(), outside=outside)
    kept, copy = summary["kept"], summary["unedited_copy"]
    for part in (kept, kept["whole_frame"]):
        assert part["identical"] and part["psnr"] is None and part["exact"] == 1
        assert part["ssim"] == pytest.approx(1, abs=1e-6)
    assert summary["changed"]["whole_frame"] == copy["changed"] == {"mean": 0, "share": 0, "edited": 0}
    assert summary["steady"]["excess"] == copy["steady"]["excess"] == 0
    assert summary["gate"]["gate"] == summary["gate"]["kept_if_edited"] == copy["gate"]["kept_if_edited"] == 0
    poor = noisy(clip, 0.3)
    assert measured(clip, poor, outside=outside)[0]["gate"]["kept_if_edited"] > 0


def test_an_exact_edit_inside_the_mask_is_told_exactly():
    before = textured(5)
    after = before.clone()
    after[:, ~RIGHT] = before[:, ~RIGHT] + 20 / 255
    summary, frames = measured(before, after, outside=RIGHT)
    assert summary["kept"]["identical"] and summary["kept"]["exact_pixels"] == 5 * RIGHT.sum()
    changed = summary["changed"]
    assert changed["inside"]["mean"] == pytest.approx(20, abs=1e-4) and changed["inside"]["share"] == 1
    assert changed["outside"] == {"mean": 0, "share": 0, "edited": 0} and changed["inside"]["edited"] == 1
    assert changed["whole_frame"]["mean"] == pytest.approx(10, abs=1e-4) and changed["whole_frame"]["share"] == 0.5
    assert summary["steady"]["excess"] == pytest.approx(0, abs=1e-4)
    assert summary["gate"]["kept_if_edited"] == pytest.approx(1, abs=1e-6)
    assert frames["change_inside"] == pytest.approx([20] * 5, abs=1e-4)


def test_an_edit_outside_the_mask_costs_what_it_is():
    before = textured(3)
    after = before.clone()
    after[:, ~RIGHT] += 20 / 255
    after[:, :8, 88:] += 10 / 255  # 64 of 3,456 pixels outside
    summary, _ = measured(before, after, outside=RIGHT)
    kept, pixels = summary["kept"], int(RIGHT.sum())
    assert kept["exact_pixels"] == 3 * (pixels - 64) and kept["exact"] == pytest.approx(1 - 64 / pixels)
    assert kept["psnr"] == pytest.approx(-10 * math.log10((10 / 255) ** 2 * 64 / pixels), abs=1e-3)
    assert summary["changed"]["outside"]["mean"] == pytest.approx(10 * 64 / pixels, abs=1e-4)
    assert summary["changed"]["outside"]["share"] == 0, "ten levels are not visible"
    assert kept["ssim"] < 1 - 1e-4 and 0.9 < summary["gate"]["kept_if_edited"] < 1


def test_without_a_mask_the_least_changed_half_is_asked():
    before = textured(3, height=64, width=96)
    after = before.clone()
    after[:, :, :48] = 1 - after[:, :, :48]  # three of six columns of blocks
    kept = measured(before, after)[0]["kept"]
    assert kept["part"].startswith("the least-changed half") and kept["pixels"] == 3 * 64 * 48
    assert kept["identical"] and kept["exact"] == 1 and kept["whole_frame"]["exact"] < 0.51
    after[:, :, 48 : 48 + BLOCK] += 8 / 255  # now less than half is untouched
    kept = measured(before, after)[0]["kept"]
    assert kept["exact"] == pytest.approx(2 / 3)
    assert kept["psnr"] == pytest.approx(-10 * math.log10((8 / 255) ** 2 / 3), abs=1e-3)


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_frames_that_are_not_finite_are_refused(value):
    after = textured(2)
    after[1, 3, 4, 1] = value
    with pytest.raises(FootageError, match="must be of finite values, got NaN or infinity"):
        measured(textured(2), after)


def test_a_pixel_is_the_source_s_if_all_of_its_values_are():
    before = textured()
    after = before.clone()
    after[0, :9, :8, 1] += 1 / 255
    whole = measured(before, after)[0]["kept"]["whole_frame"]
    assert whole["exact_pixels"] == 72 * 96 - 72 and not whole["identical"]


def test_blocks_that_the_border_cuts_off_count_for_what_they_are():
    """Of two blocks the narrow one changed more, and would pass for the other if it were filled up with nothing."""
    before = torch.full((1, 16, 20, 3), 0.5)
    after = before.clone()
    after[:, :, :16] += 4 / 255
    after[:, :, 16:] += 8 / 255
    kept = measured(before, after)[0]["kept"]
    assert kept["pixels"] == 16 * 16 and kept["psnr"] == pytest.approx(-20 * math.log10(4 / 255), abs=1e-3)


def test_the_gate_opens_with_what_was_edited():
    before = textured(2, height=320, width=320)
    barely = before.clone()
    barely[:, 32:48, 64:96] = 1 - barely[:, 32:48, 64:96].round()  # two of 400 squares
    summary = measured(before, barely)[0]
    assert summary["changed"]["whole_frame"]["edited"] == pytest.approx(2 / 400)
    assert summary["gate"]["gate"] == pytest.approx(2 / 400 / ENOUGH_EDITED)
    assert measured(before, 1 - before.round())[0]["gate"]["gate"] == 1
    narrow = torch.ones(320, 320, dtype=torch.bool)
    narrow[32:40, 64:70] = False  # a mask of a part of a square: what lies outside does not count
    summary = measured(before, barely, outside=narrow)[0]
    assert summary["changed"]["inside"]["edited"] == summary["gate"]["changed"] == 1


def test_a_copy_with_the_noise_of_coding_is_no_edit():
    """Many of its pixels change visibly, no square of them does."""
    before = textured(2, height=320, width=320)
    summary = measured(before, noisy(before, 12 / 255))[0]
    assert summary["changed"]["whole_frame"]["share"] > 0.05
    assert summary["changed"]["whole_frame"]["edited"] == summary["gate"]["kept_if_edited"] == 0


def test_flicker_is_what_was_added():
    before = still(7)
    after = before.clone()
    after[1::2] += 12 / 255
    summary, frames = measured(before, after)
    steady = summary["steady"]
    assert steady["flicker_source"] == 0 and steady["flicker_edit"] == pytest.approx(12, abs=1e-4)
    assert steady["excess"] == pytest.approx(12, abs=1e-4)
    assert frames["flicker_edit"][0] is None and frames["flicker_edit"][1:] == pytest.approx([12] * 6, abs=1e-4)


def test_the_worst_pair_is_named_by_its_numbers():
    before = textured(8)  # every frame another picture, so the source flickers itself
    after = before.clone()
    after[4:] = 1 - after[4:]
    steady = measured(before, after)[0]["steady"]
    step = [
        255 * float((after[i] - after[i - 1]).abs().mean() - (before[i] - before[i - 1]).abs().mean()) for i in (4,)
    ]
    assert steady["worst_pair"] in ([4, 5], [5, 4]) and steady["worst_excess"] == pytest.approx(step[0], abs=1e-3)
    after = before.clone()
    after[5] += 30 / 255  # one frame: the pairs before and after it, of which one is the worst
    assert measured(still(8), still(8) + (after - before))[0]["steady"]["worst_pair"] in ([5, 6], [6, 7])


def slow(frames=12):
    """A picture that goes over into another."""
    first, last = textured(seed=1), textured(seed=2)
    return torch.cat([torch.lerp(first, last, i / (frames - 1)) for i in range(frames)])


def test_shuffled_frames_flicker_and_keep_less():
    clip = slow()
    order = torch.tensor([0, 7, 2, 9, 4, 11, 6, 1, 8, 3, 10, 5])
    summary = measured(clip, clip[order])[0]
    steps = sum(abs(a - b) for a, b in zip(order[1:].tolist(), order.tolist(), strict=False)) / 11
    steady = summary["steady"]
    assert steady["flicker_edit"] / steady["flicker_source"] == pytest.approx(steps, rel=1e-3)
    assert summary["kept"]["whole_frame"]["ssim"] < 0.99 and not summary["kept"]["identical"]


def test_a_shifted_clip_keeps_little_and_is_as_steady():
    before = textured(4)
    after = before.roll(5, dims=2)
    summary = measured(before, after)[0]
    assert summary["kept"]["whole_frame"]["ssim"] == pytest.approx(np.mean(list(map(ssim_of, before, after))), abs=1e-4)
    assert summary["kept"]["whole_frame"]["psnr"] < 25 and summary["steady"]["excess"] == pytest.approx(0, abs=1e-4)


@pytest.mark.parametrize("height, width", [(1, 1), (3, 200), (11, 11), (17, 33), (35, 51)])
@pytest.mark.parametrize("frames", [1, 2])
@pytest.mark.parametrize("fill", [0.0, 1.0, None])
def test_no_number_is_lost_on_odd_clips(height, width, frames, fill):
    """Single frames, black ones, sides shorter than a window: `measured` refuses NaN and infinity."""
    before = torch.full((frames, height, width, 3), fill) if fill is not None else textured(frames, height, width)
    for after in (before.clone(), 1 - before):
        for outside in (
            None,
            torch.ones(height, width, dtype=torch.bool),
            torch.zeros(height, width, dtype=torch.bool),
        ):
            summary, _ = measured(before, after, outside=outside)
            assert (summary["steady"]["excess"] is None) == (frames == 1)
            assert (summary["kept"]["whole_frame"]["ssim"] is None) == (min(height, width) < 11)
            nothing = outside is not None and not outside.any()
            assert (summary["kept"]["exact"] is None) == nothing and (summary["kept"]["pixels"] == 0) == nothing
