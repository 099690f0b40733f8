"""Frame counts, frame rates and sizes, there and back."""

import itertools
from fractions import Fraction

import pytest
import torch

from liveditor.liveditor_core.footage import geometry, timing
from liveditor.liveditor_core.footage.frames_clip import FramesClip

ANAMORPHIC = Fraction(64, 45)  # 720x576 shown as 1024x576


def smooth(frames, height, width):
    """Frames that survive resizing: gradients."""
    y, x = torch.meshgrid(torch.linspace(0.1, 0.9, height), torch.linspace(0.2, 0.8, width), indexing="ij")
    picture = torch.stack([x, y, (x + y) / 2], dim=-1)
    return torch.stack([picture * (1 - 0.02 * i) for i in range(frames)])


@pytest.mark.parametrize(
    "preset, shown, size",
    [
        ("auto 540p", (1920, 1080), (960, 544)),  # trained sizes, where next to nothing is cut off
        ("auto 540p", (1080, 1920), (544, 960)),
        ("auto 540p", (853, 480), (960, 544)),
        ("auto 540p", (500, 500), (720, 720)),
        ("auto 540p", (1280, 640), (960, 480)),
        ("auto 540p", (300, 600), (480, 960)),
        ("auto 480p", (1280, 720), (832, 480)),
        ("auto 480p", (Fraction(1024), 576), (832, 480)),
        ("auto 540p", (640, 480), (832, 624)),  # the source's own shape
        ("auto 540p", (480, 640), (624, 832)),
        ("auto 540p", (640, 272), (1088, 464)),
        ("auto 480p", (640, 480), (720, 544)),
        ("auto 540p", (3000, 500), (1248, 416)),  # as wide as it gets
        ("auto 540p", (2, 700), (416, 1248)),
        ("auto small model", (640, 272), (256, 112)),
        ("auto small model", (272, 640), (112, 256)),
        ("auto small model", (1920, 1080), (224, 128)),
        ("auto small model", (1080, 1920), (128, 224)),
        ("auto small model", (640, 480), (192, 144)),
        ("auto small model", (700, 700), (192, 192)),
    ],
)
def test_preset(preset, shown, size):
    assert geometry.preset_size(preset, *shown) == size


@pytest.mark.parametrize("preset, most", [("auto 540p", 0.03), ("auto 480p", 0.03), ("auto small model", 0.05)])
def test_presets_lose_next_to_nothing(preset, most):
    trained, tolerance = geometry.PRESETS[preset]
    for width in range(334, 3000, 37):
        size = geometry.preset_size(preset, width, 1000)
        border = geometry.unedited_border(width, 1000, *size, "crop")
        assert border.share <= most and all(side % geometry.SIZE_STEP == 0 for side in size)
        area = trained[0][0] * trained[0][1]
        assert size in trained or abs(size[0] * size[1] - area) <= tolerance * area


def taken(count, fps, new_fps):
    """Which of `count` frames at `fps` show at `new_fps`."""
    clip = FramesClip(torch.arange(count).view(-1, 1, 1, 1).expand(count, 1, 1, 3), Fraction(fps))
    times = (timing.frame_time(i, Fraction(new_fps)) for i in itertools.count())
    return [int(frame[0, 0, 0]) for frame in clip.frames_at(times)]


def test_frame_rates():
    assert taken(7, 24, 24) == list(range(7))
    assert taken(25, 25, 16) == [0, 2, 3, 5, 7, 8, 10, 11, 13, 14, 16, 17, 19, 21, 22, 24]
    assert taken(1, 30, 16) == [0]
    assert taken(3, 12, 24) == [0, 0, 1, 1, 2, 2]


@pytest.mark.parametrize("fps", [Fraction(12), Fraction(25), Fraction(30000, 1001), Fraction(60)])
@pytest.mark.parametrize("count", [1, 2, 81, 250])
def test_length_is_kept_at_16_frames_a_second(fps, count):
    indices = taken(count, fps, 16)
    assert indices == sorted(indices) and indices[0] >= 0 and indices[-1] < count
    assert abs(len(indices) / 16 - count / fps) <= 1 / 16


@pytest.mark.parametrize("count, padded", [(1, 1), (2, 5), (5, 5), (6, 9), (81, 81), (82, 85)])
def test_padding_to_what_the_vae_encodes(count, padded):
    assert padded == timing.padded_frame_count(count)


def restored(edit, original, fit, pixel_aspect=1):
    """An edit at the size of its source, the source where it does not reach."""
    inside, box = geometry.restore_frames(edit, original.shape[2], original.shape[1], fit, pixel_aspect)
    out = original.clone()
    out[:, box.top : box.bottom, box.left : box.right] = inside
    return out


@pytest.mark.parametrize("fit", geometry.FITS)
@pytest.mark.parametrize("original", [(120, 68), (101, 67), (64, 96), (96, 64), (40, 200)])
@pytest.mark.parametrize("pixel_aspect", [1, ANAMORPHIC, Fraction(8, 9)])
def test_fit_and_restore(fit, original, pixel_aspect):
    frames = smooth(3, original[1], original[0])
    fitted = geometry.fit_frames(frames, 96, 64, fit, pixel_aspect)
    assert fitted.shape == (3, 64, 96, 3)
    back = restored(fitted, frames, fit, pixel_aspect)
    assert back.shape == frames.shape
    assert (back - frames).abs().mean() < 0.02


ORDINARY = [
    # width, height, pixel aspect, size of the edit
    (1280, 720, 1, (960, 544)),
    (1280, 720, 1, (832, 480)),
    (720, 1280, 1, (544, 960)),
    (853, 480, 1, (832, 480)),
    (640, 480, 1, "auto 540p"),
    (640, 480, 1, "auto 480p"),
    (480, 640, 1, "auto 540p"),
    (640, 272, 1, "auto 540p"),  # bikes.mp4
    (640, 272, 1, "auto small model"),
    (1280, 720, 1, "auto small model"),
    (720, 1280, 1, "auto small model"),
    (640, 480, 1, "auto small model"),
    (720, 576, ANAMORPHIC, "auto 540p"),
    (720, 576, Fraction(16, 15), "auto 480p"),
]


@pytest.mark.parametrize("width, height, pixel_aspect, size", ORDINARY)
def test_no_strip_of_an_ordinary_clip_stays_unedited(width, height, pixel_aspect, size):
    if isinstance(size, str):
        size = geometry.preset_size(size, width * pixel_aspect, height)
    source = smooth(1, height, width)
    edit = 1 - geometry.fit_frames(source, *size, "crop", pixel_aspect)
    back = restored(edit, source, "crop", pixel_aspect)
    assert (back - (1 - source)).abs().max() < 0.02, "every pixel is edited, and those inside have not moved"
    assert geometry.unedited_border(width, height, *size, "crop", pixel_aspect) == (0, 0, 0, 0, 0)


def test_narrow_borders_mirror_the_edit():
    edit = torch.zeros(1, 480, 832, 3)
    edit[:, :, 12:20] = 1  # cut off: 10 columns left of it, 11 right
    back = restored(edit, torch.full((1, 480, 853, 3), 0.5), "crop")[0, 0, :, 0]
    assert back.nonzero().squeeze(-1).tolist() == list(range(22, 30))
    edit = edit.zero_()
    edit[:, :, 3:6] = 1
    back = restored(edit, torch.full((1, 480, 853, 3), 0.5), "crop")[0, 0, :, 0]
    assert back.nonzero().squeeze(-1).tolist() == [5, 6, 7, 13, 14, 15]


@pytest.mark.parametrize("fit", geometry.FITS)
def test_the_smallest_pictures(fit):
    for width, height in ((1, 1), (2, 3), (16, 16), (17, 16), (33, 32), (2, 40)):
        frames = smooth(1, height, width)
        fitted = geometry.fit_frames(frames, 16, 16, fit)
        assert fitted.shape == (1, 16, 16, 3) and restored(fitted, frames, fit).shape == frames.shape


def test_pad_adds_black_and_crop_does_not():
    frames = torch.full((1, 100, 100, 3), 0.5)
    padded = geometry.fit_frames(frames, 96, 64, "pad")
    assert padded[0, 32, 0].eq(0).all() and padded[0, 32, 48].allclose(torch.tensor(0.5))
    assert geometry.fit_frames(frames, 96, 64, "crop").allclose(torch.tensor(0.5))


def test_wide_borders_are_the_sources_own():
    frames = smooth(3, 100, 100)
    back = restored(torch.zeros(3, 64, 96, 3), frames, "crop")
    border = geometry.unedited_border(100, 100, 96, 64, "crop")
    assert border.left == border.right == 0 and 15 < border.top <= 17 and 15 < border.bottom <= 17
    assert border.share == pytest.approx((border.top + border.bottom) / 100)
    rows = slice(border.top, 100 - border.bottom)
    assert back[:, rows].eq(0).all()
    assert torch.equal(back[:, : rows.start], frames[:, : rows.start])
    assert torch.equal(back[:, rows.stop :], frames[:, rows.stop :])


@pytest.mark.parametrize("fit", ["pad", "stretch"])
def test_fits_that_keep_everything_leave_nothing_unedited(fit):
    assert geometry.unedited_border(100, 300, 96, 64, fit) == (0, 0, 0, 0, 0)


def disc(width, height, pixel_aspect):
    """A clip of a disc that is round where it is shown.  # [1, H, W, 3]"""
    y, x = torch.meshgrid(torch.arange(height) + 0.5, (torch.arange(width) + 0.5) * float(pixel_aspect), indexing="ij")
    inside = (x - width * float(pixel_aspect) / 2) ** 2 + (y - height / 2) ** 2 < (height / 4) ** 2
    return inside.float()[None, ..., None].expand(-1, -1, -1, 3)


def spread(picture):
    """Standard deviation of where a picture is bright, across and down, in pixels."""
    weight = picture[0, ..., 0]
    return [
        float(((positions - (positions * sums).sum()) ** 2 * sums).sum().sqrt())
        for sums in (weight.sum(0) / weight.sum(), weight.sum(1) / weight.sum())
        for positions in [torch.arange(len(sums))]
    ]


@pytest.mark.parametrize("fit", ["crop", "pad"])
@pytest.mark.parametrize("size", [(96, 64), (112, 64), (64, 96), (64, 64)])
@pytest.mark.parametrize("pixel_aspect", [ANAMORPHIC, Fraction(16, 15), Fraction(8, 9), Fraction(3, 4)])
def test_circles_stay_round(pixel_aspect, size, fit):
    original = disc(180, 144, pixel_aspect)
    fitted = geometry.fit_frames(original, *size, fit, pixel_aspect)
    across, down = spread(fitted)
    assert across == pytest.approx(down, rel=0.02) and down > 4
    back = restored(fitted, original, fit, pixel_aspect)
    assert spread(back) == pytest.approx(spread(original), rel=0.02)
    assert (back - original).abs().mean() < 0.03
