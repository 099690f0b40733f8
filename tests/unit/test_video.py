"""Frame counts, frame rates and sizes, there and back."""

from fractions import Fraction

import pytest
import torch

from liveditor.liveditor_core.footage import geometry, sound, source_video, timing
from liveditor.liveditor_core.footage.source_video import SourceVideo


def smooth(frames, height, width):
    """Frames that survive resizing: gradients."""
    y, x = torch.meshgrid(torch.linspace(0.1, 0.9, height), torch.linspace(0.2, 0.8, width), indexing="ij")
    picture = torch.stack([x, y, (x + y) / 2], dim=-1)
    return torch.stack([picture * (1 - 0.02 * i) for i in range(frames)])


def source(width, height, original_width, original_height, fit):
    return SourceVideo(
        latent=None,
        width=width,
        height=height,
        frames=3,
        fps=Fraction(16),
        original_width=original_width,
        original_height=original_height,
        original_frames=3,
        original_fps=Fraction(16),
        first_frame=0,
        fit=fit,
        audio=None,
        read_original=None,
    )


@pytest.mark.parametrize(
    "width, height, size",
    [
        (1920, 1080, (960, 544)),
        (1080, 1920, (544, 960)),
        (500, 500, (720, 720)),
        (1280, 640, (960, 480)),
        (300, 600, (480, 960)),
        (640, 480, (720, 720)),
    ],
)
def test_preset_of_nearest_shape(width, height, size):
    assert geometry.preset_size("auto 540p", width, height) == size


@pytest.mark.parametrize("preset", geometry.PRESETS)
def test_presets_are_multiples_of_16(preset):
    assert all(side % geometry.SIZE_STEP == 0 for size in geometry.PRESETS[preset] for side in size)


def test_frame_rates():
    assert timing.frame_indices(7, Fraction(24), Fraction(24)) == list(range(7))
    assert timing.frame_indices(25, Fraction(25), Fraction(16)) == [
        0,
        2,
        3,
        5,
        7,
        8,
        10,
        11,
        13,
        14,
        16,
        17,
        19,
        21,
        22,
        24,
    ]
    assert timing.frame_indices(1, Fraction(30), Fraction(16)) == [0]
    assert timing.frame_indices(3, Fraction(12), Fraction(24)) == [0, 0, 1, 1, 2, 2]


@pytest.mark.parametrize("fps", [Fraction(12), Fraction(25), Fraction(30000, 1001), Fraction(60)])
@pytest.mark.parametrize("count", [1, 2, 81, 250])
def test_length_is_kept_at_16_frames_a_second(fps, count):
    indices = timing.frame_indices(count, fps, Fraction(16))
    assert indices == sorted(indices) and indices[0] >= 0 and indices[-1] < count
    assert abs(len(indices) / 16 - count / fps) <= 1 / 16


@pytest.mark.parametrize("count, padded", [(1, 1), (2, 5), (5, 5), (6, 9), (81, 81), (82, 85)])
def test_padding_to_what_the_vae_encodes(count, padded):
    frames = smooth(count, 4, 4)
    out = timing.pad_frames(frames)
    assert len(out) == padded == timing.padded_frame_count(count)
    assert torch.equal(out[:count], frames) and all(torch.equal(f, frames[-1]) for f in out[count:])


@pytest.mark.parametrize("fit", geometry.FITS)
@pytest.mark.parametrize("original", [(120, 68), (101, 67), (64, 96), (96, 64), (40, 200)])
def test_fit_and_restore(fit, original):
    frames = smooth(3, original[1], original[0])
    fitted = geometry.fit_frames(frames, 96, 64, fit)
    assert fitted.shape == (3, 64, 96, 3)
    restored = source_video.restore_size(fitted, source(96, 64, *original, fit), lambda: frames)
    assert restored.shape == frames.shape
    assert (restored - frames).abs().mean() < 0.02


def test_pad_adds_black_and_crop_does_not():
    frames = torch.full((1, 100, 100, 3), 0.5)
    padded = geometry.fit_frames(frames, 96, 64, "pad")
    assert padded[0, 32, 0].eq(0).all() and padded[0, 32, 48].allclose(torch.tensor(0.5))
    assert geometry.fit_frames(frames, 96, 64, "crop").allclose(torch.tensor(0.5))


def test_cropped_border_is_the_sources_own():
    frames = smooth(3, 100, 100)
    edited = torch.zeros(3, 64, 96, 3)
    restored = source_video.restore_size(edited, source(96, 64, 100, 100, "crop"), lambda: frames)
    inside = restored.eq(0).all(-1)[0]
    rows, columns = inside.any(1).nonzero().squeeze(-1), inside.any(0).nonzero().squeeze(-1)
    assert len(columns) == 100 and 60 < len(rows) < 70
    assert torch.equal(restored[:, : rows[0]], frames[:, : rows[0]]) and torch.equal(
        restored[:, rows[-1] + 1 :], frames[:, rows[-1] + 1 :]
    )


def test_audio_of_the_part():
    audio = {"waveform": torch.arange(1000.0).view(1, 1, -1), "sample_rate": 100}
    part = sound.audio_window(audio, 2.0, 3.0)
    assert part["sample_rate"] == 100 and torch.equal(part["waveform"][0, 0], torch.arange(200.0, 500.0))
    assert sound.audio_window(None, 2.0, 3.0) is None
