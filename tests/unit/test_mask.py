"""Masks: on which frames and pixels they lie, and that nothing outside them is touched."""

from fractions import Fraction

import pytest
import torch

from liveditor.liveditor_core.footage import regions
from liveditor.liveditor_core.footage.geometry import FITS
from liveditor.liveditor_core.footage.source_video import AS_EDITED, OutputForm, SourceVideo


def source(
    fit="crop",
    frames=9,
    fps=16,
    original_frames=9,
    original_fps=16,
    first_frame=0,
    size=(96, 64),
    original_size=(120, 68),
):
    pictures = torch.rand(
        original_frames, original_size[1], original_size[0], 3, generator=torch.Generator().manual_seed(1)
    )
    return SourceVideo(
        latent=None,
        width=size[0],
        height=size[1],
        frames=frames,
        fps=Fraction(fps),
        original_width=original_size[0],
        original_height=original_size[1],
        original_frames=original_frames,
        original_fps=Fraction(original_fps),
        first_frame=first_frame,
        fit=fit,
        audio=None,
        read_original=lambda: pictures,
    )


def rectangle(frames, height, width, top, bottom, left, right):
    out = torch.zeros(frames, height, width)
    out[:, top:bottom, left:right] = 1
    return out


@pytest.mark.parametrize("feather", [0, 5])
@pytest.mark.parametrize("original_size", [False, True])
@pytest.mark.parametrize("fit", FITS)
def test_outside_is_the_source_bit_for_bit(fit, original_size, feather):
    clip = source(fit)
    form = OutputForm(False, original_size)
    mask = regions.fit_mask(rectangle(1, 68, 120, 20, 50, 30, 90), clip, form)
    unedited = clip.read_frames(form)
    edit, inside = torch.full_like(unedited, 0.25), (mask > 0).expand(len(unedited), -1, -1)
    edit[~inside] = float("nan")  # what the edit is there must not matter
    out = regions.keep_outside(edit, unedited, regions.weights(mask, feather))
    assert out is edit
    assert 0 < inside.float().mean() < 0.5
    assert torch.equal(out[~inside], unedited[~inside])
    changed = (out != unedited).any(-1)
    assert changed[inside].float().mean() > 0.99
    if feather == 0:
        assert out[mask.expand_as(inside) == 1].eq(0.25).all()


def test_feather_rises_inwards_and_thin_parts_remain():
    mask = rectangle(1, 40, 40, 10, 30, 0, 20)[0]
    mask[5, :] = 1  # one pixel high
    soft = regions.weights(mask[None], 4)[0]
    assert torch.equal(soft > 0, mask > 0)
    assert soft[20, 14:20].tolist() == pytest.approx([1, 1, 0.8, 0.6, 0.4, 0.2])
    assert soft[20, 0] == 1, "the picture's own border is no edge"
    assert soft[5, 35] == pytest.approx(0.2)
    for flat in (torch.ones(1, 4, 4), torch.zeros(1, 4, 4)):
        assert torch.equal(regions.weights(flat, 4), flat)


def moving(count):
    """One mask per frame that says which frame it is."""
    return torch.arange(1, count + 1).view(-1, 1, 1).expand(-1, 64, 96) / 1000


@pytest.mark.parametrize(
    "count, original_rate, expected",
    [
        (8, False, list(range(8))),  # of the edit's frames
        (8, True, [0, 0, 1, 1, 2, 2, 3, 3, 4, 4, 5, 5, 6, 6, 7, 7]),
        (16, False, [1, 3, 5, 7, 9, 11, 13, 15]),  # of the part's frames
        (16, True, list(range(16))),
        (100, False, [11, 13, 15, 17, 19, 21, 23, 25]),  # of the whole video
        (100, True, list(range(10, 26))),
    ],
)
def test_masks_of_frames(count, original_rate, expected):
    clip = source(frames=8, fps=15, original_frames=16, original_fps=30, first_frame=10)
    fitted = regions.fit_mask(moving(count), clip, OutputForm(original_rate, False))
    assert (fitted[:, 0, 0] * 1000 - 1).round().int().tolist() == expected


@pytest.mark.parametrize("count", [2, 7, 9, 17, 25])
def test_a_number_of_masks_that_fits_nothing_is_refused(count):
    clip = source(frames=8, fps=15, original_frames=16, original_fps=30, first_frame=10)
    with pytest.raises(
        ValueError, match=f"one for each of the 8 edited frames or of the source's 16, got {count} masks"
    ):
        regions.fit_mask(moving(count), clip, AS_EDITED)


def test_a_mask_of_the_edits_size_lies_on_the_edit():
    clip = source("pad", size=(96, 64), original_size=(48, 64))  # bars left and right, 24 pixels each
    mask = rectangle(1, 64, 96, 0, 64, 24, 48)
    assert torch.equal(regions.fit_mask(mask, clip, AS_EDITED), mask)
    back = regions.fit_mask(mask, clip, OutputForm(False, True))
    assert back.shape == (1, 64, 48) and torch.equal(back, rectangle(1, 64, 48, 0, 64, 0, 24))


def test_where_the_sampler_may_work():
    clip = source(frames=7, size=(96, 64), original_size=(96, 64))
    mask = torch.zeros(7, 64, 96)
    mask[0, 0, 0] = 0.1  # any pixel, however faint
    mask[3, 20, 40] = 1
    mask[6, 63, 95] = 1  # the last frame stands for the padding as well
    cells = regions.latent_mask(mask, clip)
    assert cells.shape == (1, 1, 3, 8, 12)
    assert cells.nonzero()[:, 2:].tolist() == [[0, 0, 0], [1, 2, 5], [2, 7, 11]]
    assert set(cells.unique().tolist()) == {0.0, 1.0}


@pytest.mark.parametrize("shape", [(68, 120), (1, 1, 68, 120)])
def test_single_masks_of_other_dimensions(shape):
    mask = rectangle(1, 68, 120, 20, 50, 30, 90)
    fitted = regions.fit_mask(mask, source(), AS_EDITED)
    assert torch.equal(regions.fit_mask(mask.view(shape), source(), AS_EDITED), fitted)


def test_an_empty_mask_is_refused():
    """Load Image gives one for a picture in which nothing was painted."""
    with pytest.raises(ValueError, match="Mask: must cover some of the picture"):
        regions.fit_mask(torch.zeros(1, 64, 64), source(), AS_EDITED)
