"""Masks: on which frames and pixels they lie, and that nothing outside them is touched."""

import logging
from fractions import Fraction

import numpy
import psutil
import pytest
import scipy.ndimage
import torch
from pictures import pictures_source

from liveditor.liveditor_core.footage import feather, geometry, regions
from liveditor.liveditor_core.footage.geometry import FITS
from liveditor.liveditor_core.footage.regions import Region
from liveditor.liveditor_core.footage.source_video import AS_EDITED, OutputForm

SOURCE_SIZE = OutputForm(original_rate=False, original_size=True)
SOURCE_RATE = OutputForm(original_rate=True, original_size=False)


def source(fit="crop", size=(96, 64), original_size=(120, 68), count=9, **options):
    pictures = torch.rand(count, original_size[1], original_size[0], 3, generator=torch.Generator().manual_seed(1))
    return pictures_source(pictures, size, fit, **options)


def rectangle(height, width, top, bottom, left, right):
    out = torch.zeros(height, width)
    out[top:bottom, left:right] = 1
    return out


def blobs(height, width, scale, seed=1):
    noise = numpy.random.default_rng(seed).standard_normal((height, width))
    return torch.from_numpy(scipy.ndimage.gaussian_filter(noise, scale) > 0).float()


def put_in_place(clip, form, region, edit):
    """Frames of an output whose edit is of one colour, and NaN wherever no mask lies; and the unedited frames."""
    for i, unedited in enumerate(clip.unedited(form)):
        weights = region.weights(i)
        edited = torch.full_like(unedited, edit)
        edited[weights == 0] = float("nan")  # what the edit is there must not matter
        yield regions.keep_outside(edited, unedited, weights), unedited, weights


@pytest.mark.parametrize("feather", [0, 5])
@pytest.mark.parametrize("original_size", [False, True])
@pytest.mark.parametrize("original_rate", [False, True])
@pytest.mark.parametrize("pixel_aspect", [Fraction(1), Fraction(64, 45)])
@pytest.mark.parametrize("fit", FITS)
@pytest.mark.parametrize("mask_size", [(68, 120), (64, 96), (17, 30), (272, 480)])
def test_outside_is_the_source_bit_for_bit(mask_size, fit, pixel_aspect, original_rate, original_size, feather):
    clip = source(fit, frames=5, rate=30, pixel_aspect=pixel_aspect)
    form = OutputForm(original_rate, original_size)
    height, width = mask_size
    mask = rectangle(height, width, height // 3, height * 3 // 4, width // 4, width * 3 // 4)
    region = Region(mask, clip, form, feather)
    assert len(region) == (9 if original_rate else 5)
    for out, unedited, weights in put_in_place(clip, form, region, 0.25):
        inside = weights > 0
        assert 0.1 < inside.float().mean() < 0.5
        assert torch.equal(out[~inside], unedited[~inside])
        assert (out != unedited).any(-1)[inside].float().mean() > 0.99
        assert out[weights == 1].eq(0.25).all()
        if feather == 0:
            assert weights[inside].eq(1).all()


def test_keep_outside():
    unedited, edit = torch.rand(2, 4, 4, 3), torch.rand(2, 4, 4, 3)
    weights = torch.tensor([0, 0.25, 0.75, 1]).expand(2, 4, 4)
    edit[:, :, 0] = float("nan")
    for kept in (
        regions.keep_outside(edit, unedited, weights),
        torch.stack([regions.keep_outside(*frames) for frames in zip(edit, unedited, weights, strict=True)]),
    ):
        assert torch.equal(kept[:, :, 0], unedited[:, :, 0]) and torch.equal(kept[:, :, 3], edit[:, :, 3])
        assert kept[:, :, 1].allclose(unedited[:, :, 1] * 0.75 + edit[:, :, 1] * 0.25)
    half = regions.keep_outside(edit.half(), unedited, weights)
    assert torch.equal(half[:, :, 0], unedited[:, :, 0]), "an edit in half precision does not coarsen the source"


# Levels


@pytest.mark.parametrize(
    "black, white",
    [(0, 1), (0.01, 1), (0.01, 0.99), (16 / 255, 235 / 255), ("noise", 1)],
)
@pytest.mark.parametrize("mask_size", [(68, 120), (64, 96), (34, 60), (136, 240)])
@pytest.mark.parametrize("original_size", [False, True])
def test_black_that_is_not_quite_0_is_outside(original_size, mask_size, black, white):
    """As it comes out of video files, segmenters and painting."""
    drawn = rectangle(*mask_size, mask_size[0] // 4, mask_size[0] // 2, mask_size[1] // 4, mask_size[1] // 2)
    clip, form = source("stretch"), OutputForm(False, original_size)
    hard = Region(drawn, clip, form, 4).weights(0)
    if black == "noise":
        black = torch.rand(mask_size, generator=torch.Generator().manual_seed(2)) * 0.05
    near = drawn * white + (1 - drawn) * black
    assert torch.equal(Region(near, clip, form, 4).weights(0), hard)
    assert hard.eq(0).float().mean() > 0.9
    assert torch.equal(regions.latent_mask(near, clip), regions.latent_mask(drawn, clip))


def test_soft_mattes_rise_evenly():
    ramp = torch.linspace(0, 1, 96).expand(64, -1)
    weights = Region(ramp, source(), AS_EDITED).weights(0)[0]
    steps = weights.diff()
    assert weights[0] == 0 and weights[-1] == 1
    assert (steps >= 0).all() and steps.max() < 0.02
    assert weights[48] == pytest.approx(0.5, abs=0.01)


@pytest.fixture
def said(caplog):
    caplog.set_level(logging.WARNING)
    return lambda: [record.getMessage() for record in caplog.records]


@pytest.mark.parametrize("background", [0.2, 0.85])
def test_nearly_all_inside_is_said(background, said):
    mask = rectangle(68, 120, 20, 50, 30, 90).clamp(min=background)
    Region(mask, source(), AS_EDITED)
    assert "100 % of the picture inside" in said()[0] and "invert the mask or raise its contrast" in said()[0]


@pytest.mark.parametrize("mask", [torch.ones(68, 120), rectangle(68, 120, 20, 50, 30, 90)])
def test_all_white_and_ordinary_masks_are_nothing_to_talk_about(mask, said):
    Region(mask, source(), AS_EDITED)
    assert said() == []


@pytest.mark.parametrize("mask", [torch.zeros(1, 64, 64), torch.full((9, 68, 120), 0.06)])
def test_an_empty_mask_is_refused(mask):
    """Load Image gives one for a picture in which nothing was painted."""
    with pytest.raises(ValueError, match="Mask: must cover some of the picture"):
        Region(mask, source(), AS_EDITED)


# Sizes


def test_edges_of_a_small_mask_stay_where_they_were_drawn():
    small = blobs(8, 12, 0.8)
    small[3, :] = 0  # a gap of one pixel
    for clip, form in (
        (source(size=(96, 64), original_size=(192, 128)), AS_EDITED),
        (source(size=(48, 32), original_size=(96, 64)), SOURCE_SIZE),
    ):
        drawn = small.repeat_interleave(8, 0).repeat_interleave(8, 1)
        assert torch.equal(Region(small, clip, form).weights(0), drawn)


@pytest.mark.parametrize("fit", FITS)
@pytest.mark.parametrize("pixel_aspect", [Fraction(1), Fraction(64, 45)])
@pytest.mark.parametrize("mask_size", [(68, 120), (72, 96), (17, 33), (300, 500), (17, 500)])
def test_masks_of_any_size_lie_where_the_picture_lies(mask_size, pixel_aspect, fit):
    """A rectangle, painted into the picture as well, comes to the same place on edit and source."""
    height, width = mask_size
    top, bottom, left, right = height // 4, height * 3 // 4, width // 5, width // 2
    mask = rectangle(height, width, top, bottom, left, right)
    clip = source(fit, count=1, pixel_aspect=pixel_aspect)
    y, x = (torch.arange(68) + 0.5) * height / 68, (torch.arange(120) + 0.5) * width / 120
    painted = ((y >= top) & (y < bottom))[:, None] & ((x >= left) & (x < right))
    clip.clip._pictures[0] = painted[..., None].float()
    for form, most in ((AS_EDITED, 0.02), (SOURCE_SIZE, 0.02)):
        border = geometry.unedited_border(120, 68, 96, 64, fit, pixel_aspect)
        picture = next(clip.unedited(form))[..., 0] > 0.5
        if form.original_size:
            picture[:, : border.left] = picture[:, 120 - border.right :] = False
            picture[: border.top] = picture[68 - border.bottom :] = False
        differs = (Region(mask, clip, form).weights(0) > 0) != picture
        assert differs.float().mean() < most


def test_a_hard_mask_made_smaller_keeps_what_it_covers_by_half():
    mask = blobs(170, 250, 3)
    clip = source("stretch", size=(96, 64), original_size=(250, 170))
    fine = mask.repeat_interleave(64, 0).repeat_interleave(96, 1)  # 170 * 64 = 64 * 170 rows
    share = fine.view(64, 170, 96, 250).mean((1, 3))
    weights = Region(mask, clip, AS_EDITED).weights(0)
    sure = (share - 0.5).abs() > 1e-5
    assert torch.equal(weights[sure], (share >= 0.5).float()[sure])
    assert Region(rectangle(170, 250, 0, 170, 0, 1), clip, SOURCE_SIZE).weights(0).sum() == 170


def test_half_covered_pixels_are_inside():
    clip = source("stretch", size=(96, 64), original_size=(192, 128))
    weights = Region(rectangle(128, 192, 31, 64, 49, 100), clip, AS_EDITED).weights(0)
    assert torch.equal(weights, rectangle(64, 96, 16, 32, 24, 50) + rectangle(64, 96, 15, 16, 25, 50))


@pytest.mark.parametrize("scale", [2, 8])
def test_a_soft_mask_made_larger_shows_nothing_beyond_what_was_drawn(scale):
    soft = (blobs(16, 24, 2) * torch.rand(16, 24, generator=torch.Generator().manual_seed(3))).clamp(max=0.8)
    soft[9] = 0  # a gap
    clip = source("stretch", size=(96, 64), original_size=(24 * scale, 16 * scale))
    levels = ((soft - 0.1) / 0.8).clamp(0, 1)
    weights = Region(soft, clip, SOURCE_SIZE).weights(0)
    drawn = levels.repeat_interleave(scale, 0).repeat_interleave(scale, 1) > 0
    assert torch.equal(weights > 0, drawn)
    even = torch.nn.functional.interpolate(levels[None, None], scale_factor=scale, mode="bilinear")[0, 0]
    assert weights[drawn].allclose(even[drawn], atol=1e-5)


def test_a_soft_mask_made_smaller_is_averaged():
    soft = torch.rand(128, 192, generator=torch.Generator().manual_seed(3))
    soft[:40] = 1
    soft[60:90] = 0
    clip = source("stretch", size=(96, 64), original_size=(192, 128))
    weights = Region(soft, clip, AS_EDITED).weights(0)
    levels = ((soft - 0.1) / 0.8).clamp(0, 1)
    assert weights.allclose(torch.nn.functional.avg_pool2d(levels[None], 2)[0], atol=1e-5)
    assert weights[:20].eq(1).all() and weights[30:45].eq(0).all()


def test_a_mask_of_the_edits_size_lies_on_the_edit():
    clip = source("pad", size=(96, 64), original_size=(48, 64))  # bars left and right, 24 pixels each
    mask = rectangle(64, 96, 0, 64, 24, 48)
    assert torch.equal(Region(mask, clip, AS_EDITED).weights(0), mask)
    assert torch.equal(Region(mask, clip, SOURCE_SIZE).weights(0), rectangle(64, 48, 0, 64, 0, 24))


def test_a_mask_to_the_edge_covers_the_narrow_strip_that_is_filled_from_the_edit():
    clip = source(size=(112, 64), original_size=(128, 72))  # a column is cut off on either side
    weights = Region(rectangle(64, 112, 0, 64, 0, 56), clip, SOURCE_SIZE).weights(0)
    assert torch.equal(weights, rectangle(72, 128, 0, 72, 0, 64))
    weights = Region(rectangle(64, 112, 0, 64, 1, 111), clip, SOURCE_SIZE).weights(0)
    assert torch.equal(weights, rectangle(72, 128, 0, 72, 2, 126))


@pytest.mark.parametrize("mask", [torch.ones(68, 120), torch.ones(64, 96)])
def test_what_crop_cut_off_is_outside(mask):
    clip = source(size=(96, 64), original_size=(120, 68))
    border = geometry.unedited_border(120, 68, 96, 64, "crop")
    assert border.left > 0
    weights = Region(mask, clip, SOURCE_SIZE).weights(0)
    assert torch.equal(weights, rectangle(68, 120, 0, 68, border.left, 120 - border.right))


@pytest.mark.parametrize("shape", [(68, 120), (1, 1, 68, 120)])
def test_single_masks_of_other_dimensions(shape):
    mask = rectangle(68, 120, 20, 50, 30, 90)
    weights = Region(mask[None], source(), AS_EDITED).weights(0)
    assert torch.equal(Region(mask.view(shape), source(), AS_EDITED).weights(0), weights)


# Frames


def moving(count):
    """One mask per frame that says which frame it is."""
    number = torch.arange(1, count + 1).view(-1, 1, 1)
    return (number / 1250 + 0.1) * rectangle(64, 96, 10, 40, 30, 60)


def order(count, clip, form):
    region = Region(moving(count), clip, form)
    return [round(float(region.weights(i)[20, 48]) * 1000) - 1 for i in range(len(region))]


SHORT = {"count": 16, "frames": 8, "fps": 15, "rate": 30, "frames_before": 10}


@pytest.mark.parametrize(
    "count, form, expected",
    [
        (8, AS_EDITED, list(range(8))),  # of the edit's frames
        (8, SOURCE_RATE, [0, 0, 1, 1, 2, 2, 3, 3, 4, 4, 5, 5, 6, 6, 7, 7]),
        (16, AS_EDITED, [1, 3, 5, 7, 9, 11, 13, 15]),  # of the part's frames
        (16, SOURCE_RATE, list(range(16))),
        (26, SOURCE_RATE, list(range(10, 26))),  # of the whole video
        (36, AS_EDITED, [11, 13, 15, 17, 19, 21, 23, 25]),
        (36, SOURCE_RATE, list(range(10, 26))),
    ],
)
def test_masks_of_frames(count, form, expected, said):
    assert order(count, source(**SHORT), form) == expected
    assert said() == []


@pytest.mark.parametrize(
    "count, form, expected, taken_for",
    [
        (9, AS_EDITED, list(range(8)), "9 masks, taken for those of the 8 edited frames."),
        (7, AS_EDITED, [*range(7), 6], "of the 8 edited frames, the last one again for what is missing."),
        (6, AS_EDITED, [*range(6), 5, 5], "of the 8 edited frames, the last one again"),
        (10, SOURCE_RATE, [0, 0, 1, 1, 2, 2, 3, 3, 4, 4, 5, 5, 6, 6, 7, 7], "of the 8 edited frames."),
        (15, SOURCE_RATE, [*range(15), 14], "of the 16 frames of the source, the last one again"),
        (18, AS_EDITED, [1, 3, 5, 7, 9, 11, 13, 15], "of the 16 frames of the source."),
        (25, SOURCE_RATE, [*range(10, 25), 24], "of the 26 frames of the video up to the part's end, the last"),
        (24, AS_EDITED, [11, 13, 15, 17, 19, 21, 23, 23], "of the 26 frames of the video up to the part's end"),
    ],
)
def test_counts_off_by_one_or_two_are_taken_with_a_word(count, form, expected, taken_for, said):
    assert order(count, source(**SHORT), form) == expected
    assert len(said()) == 1 and taken_for in said()[0]


@pytest.mark.parametrize("count", [2, 5, 11, 13, 19, 23, 39, 200])
def test_a_number_of_masks_that_fits_nothing_is_refused(count):
    with pytest.raises(
        ValueError, match=f"one for each of the 8 edited frames or of the source's 16, got {count} masks"
    ):
        Region(moving(count), source(**SHORT), AS_EDITED)


def stamps_of(*parts):
    """Stamps of frames at one rate after another: (frames, rate) each."""
    stamps, time = [], Fraction(0)
    for frames, rate in parts:
        stamps += [time + Fraction(i, rate) for i in range(frames)]
        time += Fraction(frames, rate)
    return tuple(stamps)


@pytest.mark.parametrize("parts", [((6, 2), (210, 30)), ((180, 60), (35, 5)), ((90, 30), (45, 15))])
@pytest.mark.parametrize("frames_before", [0, 37])
def test_masks_of_a_variable_rate_go_by_time(parts, frames_before):
    stamps = stamps_of(*parts)
    clip = source(
        count=len(stamps), rate=30, frames=81, stamps=stamps, frames_before=frames_before, original_size=(96, 64)
    )
    clip.clip._pictures[:] = torch.arange(len(stamps)).view(-1, 1, 1, 1)  # every frame says its number
    for form in (AS_EDITED, SOURCE_RATE):
        visible = [int(frame[0, 0, 0]) for frame in clip.clip.frames_at(clip.times(form))]
        assert order(len(stamps), clip, form) == visible
        if frames_before:
            assert order(frames_before + len(stamps), clip, form) == [frames_before + i for i in visible]
    even = order(clip.original_frames, clip, AS_EDITED)
    assert even == [int((i + 0.5) / 16 * 30) for i in range(81)], "at the nominal rate"


def test_a_part_that_begins_within_a_frame():
    stamps = (Fraction(-1, 4), Fraction(1, 8), Fraction(3, 8))
    clip = source(count=3, frames=8, stamps=stamps, original_size=(96, 64))
    assert order(3, clip, AS_EDITED) == [0, 0, 1, 1, 1, 1, 2, 2]


@pytest.mark.parametrize("count", [1, 8, 16, 7])
def test_frames_before_the_part_are_counted_only_for_masks_of_the_whole_video(count):
    clip = source(**SHORT)
    object.__setattr__(clip.clip, "count_before", lambda time: pytest.fail("counted"))
    Region(moving(count), clip, AS_EDITED)


def test_memory_is_that_of_one_frame():
    """At the source's size and rate; the masks themselves take no memory here."""
    masks = rectangle(360, 640, 100, 300, 100, 500).expand(60, -1, -1)
    clip = source(size=(96, 64), original_size=(1280, 720), count=1, frames=60)
    Region(masks[:1], clip, SOURCE_SIZE, 8).weights(0)
    before = psutil.Process().memory_info().rss
    region = Region(masks, clip, SOURCE_SIZE, 8)
    for i in range(60):
        region.weights(i)
    assert psutil.Process().memory_info().rss - before < 50e6, "60 frames are 221 MB"


def test_one_mask_for_all_is_made_once():
    region = Region(rectangle(68, 120, 20, 50, 30, 90), source(), AS_EDITED)
    assert region.weights(0) is region.weights(8)


# Feather


def test_feather_rises_inwards_and_thin_parts_remain():
    mask = rectangle(40, 40, 10, 30, 0, 20)
    mask[5, :] = 1  # one pixel high
    soft = mask.clone()
    feather.fade_in(soft, 4)
    assert torch.equal(soft > 0, mask > 0)
    assert soft[20, 14:20].tolist() == pytest.approx([1, 1, 0.8, 0.6, 0.4, 0.2])
    assert soft[20, 0] == 1, "the picture's own border is no edge"
    assert soft[5, 35] == pytest.approx(0.2)
    for flat in (torch.ones(4, 4), torch.zeros(4, 4)):
        unchanged = flat.clone()
        feather.fade_in(unchanged, 4)
        assert torch.equal(unchanged, flat)


@pytest.mark.parametrize("width", [1, 3, 8, 31, 32, 64, 200, 512])
@pytest.mark.parametrize(
    "mask",
    [
        blobs(300, 437, 2),
        blobs(300, 437, 30),
        rectangle(300, 437, 90, 200, 64, 129),
        1 - rectangle(300, 437, 128, 129, 200, 201),  # one pixel outside
        rectangle(300, 437, 0, 1, 0, 1),
        rectangle(300, 437, 0, 300, 0, 436),
        blobs(300, 437, 10) * torch.rand(300, 437, generator=torch.Generator().manual_seed(4)),
    ],
)
def test_feather_is_the_exact_distance(mask, width):
    depth = torch.from_numpy(scipy.ndimage.distance_transform_edt(mask > 0)).float()
    expected = mask * (depth / (width + 1)).clamp(max=1)
    soft = mask.clone()
    feather.fade_in(soft, width)
    assert torch.equal(soft, expected)


def test_bars_are_no_edge_and_what_crop_cut_off_is_one():
    everything = torch.ones(64, 64)
    everything[:10] = 0
    padded = Region(everything, source("pad", size=(96, 64), original_size=(64, 64)), AS_EDITED, 4).weights(0)
    assert padded[40].tolist() == [0] * 16 + [1] * 64 + [0] * 16
    cropped = Region(everything, source("crop", size=(64, 64), original_size=(96, 64)), SOURCE_SIZE, 4).weights(0)
    assert cropped[40, 16:22].tolist() == pytest.approx([0.2, 0.4, 0.6, 0.8, 1, 1]) and cropped[40, :16].eq(0).all()


# The latent


def test_where_the_sampler_may_work():
    clip = source(count=7, size=(96, 64), original_size=(96, 64))
    mask = torch.zeros(7, 64, 96)
    mask[0, 0, 0] = 0.2  # any pixel, however faint
    mask[3, 20, 40] = 1
    mask[6, 63, 95] = 1  # the last frame stands for the padding as well
    cells = regions.latent_mask(mask, clip)
    assert cells.shape == (1, 1, 3, 8, 12)
    assert cells.nonzero()[:, 2:].tolist() == [[0, 0, 0], [1, 2, 5], [2, 7, 11]]
    assert set(cells.unique().tolist()) == {0.0, 1.0}


@pytest.mark.parametrize("count, latents", [(1, 1), (2, 2), (5, 2), (6, 3), (81, 21)])
def test_one_mask_opens_the_same_cells_in_all_frames(count, latents):
    cells = regions.latent_mask(rectangle(64, 96, 8, 16, 16, 33), source(count=count))
    assert cells.shape == (1, 1, latents, 8, 12)
    assert cells[0, 0].eq(rectangle(8, 12, 1, 2, 2, 5)).all()


@pytest.mark.parametrize(
    "mask", [rectangle(68, 120, 0, 68, 0, 5), rectangle(680, 1200, 300, 301, 0, 1200)], ids=["cut off", "too thin"]
)
def test_a_mask_of_which_the_edit_sees_nothing_is_refused(mask):
    with pytest.raises(ValueError, match="Mask: must cover some of what is edited"):
        regions.latent_mask(mask, source())
