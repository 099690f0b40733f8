"""Compare Videos: which frames stand beside which, and the videos it gives."""

from fractions import Fraction

import av
import numpy as np
import pytest
import torch

import folder_paths
from comfy_api.latest import InputImpl, Types
from liveditor.liveditor_core.footage.source_video import SourceVideo
from liveditor.nodes.compare_videos import CompareVideos


def numbered(count, height=64, width=96):
    """Frames that say which they are: brightness 10, 20, ..."""
    return (torch.arange(1, count + 1) * 10 / 255).view(-1, 1, 1, 1).expand(count, height, width, 3)


def clip(frames, fps, audio=None):
    return InputImpl.VideoFromComponents(Types.VideoComponents(images=frames, audio=audio, frame_rate=Fraction(fps)))


def source(original=16, frames=8, fps=15, original_fps=30, original_size=(48, 32)):
    return SourceVideo(
        latent=None,
        width=96,
        height=64,
        frames=frames,
        fps=Fraction(fps),
        original_width=original_size[0],
        original_height=original_size[1],
        original_frames=original,
        original_fps=Fraction(original_fps),
        first_frame=0,
        fit="crop",
        audio=None,
        read_original=lambda: numbered(original, *original_size[::-1]),
    )


def numbers(frames):
    return (frames[:, frames.shape[1] // 2, :10].mean(dim=(1, 2)) * 25.5).round().int().tolist()


@pytest.fixture(autouse=True)
def temp(tmp_path, monkeypatch, library):
    monkeypatch.setattr(folder_paths, "temp_directory", str(tmp_path))
    return tmp_path


@pytest.mark.parametrize(
    "before, after, expected",
    [
        (source(), clip(numbered(8), 15), [2, 4, 6, 8, 10, 12, 14, 16]),  # the frames that were edited
        (source(), clip(numbered(16, 32, 48), 30), list(range(1, 17))),  # at the source's own rate and size
        (source(), clip(numbered(16), 15), [2, 4, 6, 8, 10, 12, 14, 16] * 2),  # a batch of edits, one after the other
        (
            source(original_size=(96, 64)),
            clip(numbered(8, 128, 192), 15),
            [2, 4, 6, 8, 10, 12, 14, 16],
        ),  # an upscaled edit
        (
            clip(numbered(16), 30),
            clip(numbered(8), 15),
            [2, 4, 6, 8, 10, 12, 14, 16],
        ),  # any other video, at the same times
        (clip(numbered(4), 15), clip(numbered(8), 15), [1, 2, 3, 4, 4, 4, 4, 4]),  # one that ends earlier
        (clip(numbered(5, 128, 192), 10), clip(numbered(5), 10), [1, 2, 3, 4, 5]),  # one of another size
    ],
)
def test_frames_of_the_same_time_stand_side_by_side(before, after, expected, temp):
    result = CompareVideos.execute(before, after, "side by side")
    both, edit = result[0].get_components(), after.get_components()
    height, width = edit.images.shape[1:3]
    assert both.images.shape == (len(edit.images), height, 2 * width, 3) and both.frame_rate == edit.frame_rate
    assert torch.equal(both.images[:, :, width:], edit.images)
    assert numbers(both.images[:, :, :width]) == expected
    (player,) = result.ui["liveditor_compare"]
    with av.open(str(temp / player["subfolder"] / player["filename"])) as container:
        shown = np.stack([frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)])
    assert shown.shape == (player["frames"], player["height"], 2 * player["width"], 3) and player["frames"] == len(
        edit.images
    )
    assert abs(shown.astype(float) - both.images.numpy() * 255).mean() < 3


def test_sound_layouts_and_odd_sizes(temp):
    audio = {"waveform": torch.zeros(1, 1, 8000), "sample_rate": 8000}
    before, after = clip(torch.zeros(4, 35, 51, 3), 4), clip(torch.full((4, 35, 51, 3), 0.5), 4, audio)
    above = CompareVideos.execute(before, after, "above each other")[0].get_components()
    assert above.images.shape == (4, 70, 51, 3) and above.audio is audio
    assert above.images[:, :35].eq(0).all() and above.images[:, 35:].eq(0.5).all()
    wipe = CompareVideos.execute(before, after, "wipe")[0].get_components().images
    assert wipe[0].eq(0).all() and wipe[3].eq(0.5).all()
    assert [(wipe[i, 0] == 0.5).all(-1).sum().item() for i in (1, 2)] == [16, 33], "the border runs from left to right"
    assert wipe[1, :, 17 + 1 :].eq(0).all() and wipe[1, :, 16:18].eq(1).all()
    assert (
        CompareVideos.execute(clip(torch.zeros(1, 2, 2, 3), 4), clip(torch.ones(1, 2, 2, 3), 4), "wipe")[0]
        .get_components()
        .images.eq(0)
        .all()
    ), "one frame shows the source"


def test_previews_are_no_larger_than_browsers_play():
    result = CompareVideos.execute(
        clip(torch.zeros(1, 1200, 2400, 3), 4), clip(torch.zeros(1, 1200, 2400, 3), 4), "wipe"
    )
    (player,) = result.ui["liveditor_compare"]
    assert (player["width"], player["height"]) == (1920, 960)
    assert result[0].get_dimensions() == (2400, 1200)
