"""Compare Videos: which frames stand beside which, and the videos it gives."""

from fractions import Fraction

import av
import numpy as np
import pytest
import torch
from edited_clips import part_of
from footage import Clip, write
from footage_pictures import disc

import folder_paths
from comfy_api.latest import InputImpl, Types
from liveditor.liveditor_core.footage.edited_video import EditedVideo
from liveditor.liveditor_core.footage.file_clip import FileClip
from liveditor.liveditor_core.footage.frames_clip import FramesClip
from liveditor.liveditor_core.footage.source_video import AS_EDITED, SourceVideo
from liveditor.liveditor_core.footage.spool import Spool
from liveditor.liveditor_core.metrics.pairs import TimedPairs
from liveditor.nodes.compare_videos import CompareVideos


def numbered(count, height=64, width=96):
    """Frames that say which they are: brightness 10, 20, ..."""
    return (torch.arange(1, count + 1) * 10 / 255).view(-1, 1, 1, 1).expand(count, height, width, 3)


def clip(frames, fps, audio=None):
    return InputImpl.VideoFromComponents(Types.VideoComponents(images=frames, audio=audio, frame_rate=Fraction(fps)))


def source(original=16, frames=8, fps=15, original_fps=30, original_size=(48, 32), start=0, whole=16):
    """A source of 16 frames at 30 a second, of which 8 were edited at 15."""
    return SourceVideo(
        latent=None,
        width=96,
        height=64,
        frames=frames,
        fps=Fraction(fps),
        clip=FramesClip(numbered(whole, *original_size[::-1]), Fraction(original_fps)),
        start=Fraction(start),
        stamps=tuple(Fraction(i, original_fps) for i in range(original)),
        original_frames=original,
        fit="crop",
    )


def edited(source, tmp_path, batch=1, **how):
    """An edit as Decode Video gives it: brightness 5, 15, ..."""
    spool = Spool(str(tmp_path), 64, 96)
    for _ in range(batch):
        spool.append(numbered(source.frames) - 5 / 255)
    return EditedVideo(source, spool, AS_EDITED, watch=lambda: lambda done, total: None, **how)


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
        (source(), clip(numbered(16), 30), list(range(1, 17))),  # interpolated
        (source(), clip(numbered(16), 15), [2, 4, 6, 8, 10, 12, 14, 16] + [16] * 8),  # in slow motion
        (source(), clip(numbered(4), Fraction(15, 2)), [3, 7, 11, 15]),  # at half the rate
        (source(4, 2, start=Fraction(4, 30)), clip(numbered(2), 15), [6, 8]),  # a part
        (source(4, 2, start=Fraction(4, 30)), clip(numbered(16), 30), list(range(1, 17))),  # the whole, loaded again
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
    assert result[0].get_frame_count() == len(edit.images) and result[0].get_dimensions() == both.images.shape[2:0:-1]
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


def before_of(result):
    """Which frames of the source stand on the left."""
    images = result[0].get_components().images
    return numbers(images[:, :, : images.shape[2] // 2])


def test_a_batch_of_edits_and_a_whole_video(temp):
    """What comes straight from Decode Video says where in the source it lies."""
    of_all, part = source(), source(4, 2, start=Fraction(4, 30))
    assert before_of(CompareVideos.execute(of_all, edited(of_all, temp, batch=2), "side by side")) == [
        2, 4, 6, 8, 10, 12, 14, 16
    ] * 2  # fmt: skip
    whole = edited(part, temp, whole=True)
    assert before_of(CompareVideos.execute(part, whole, "side by side")) == list(range(1, 17))
    trimmed = edited(of_all, temp).as_trimmed(2 / 15, 3 / 15)
    assert before_of(CompareVideos.execute(of_all, trimmed, "side by side")) == [6, 8, 10]


def test_sound_layouts_and_odd_sizes(temp):
    audio = {"waveform": torch.zeros(1, 1, 8000), "sample_rate": 8000}
    before, after = clip(torch.zeros(4, 35, 51, 3), 4), clip(torch.full((4, 35, 51, 3), 0.5), 4, audio)
    above = CompareVideos.execute(before, after, "above each other")[0].get_components()
    assert above.images.shape == (4, 70, 51, 3)
    assert torch.equal(above.audio["waveform"], audio["waveform"]) and above.audio["sample_rate"] == 8000
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


def test_pixels_that_are_not_square(temp):
    """A clip beside itself, beside its edit back at its size, and beside its edit in square pixels: all discs round."""
    shape = Fraction(2)
    shot = Clip("mkv", size=(72, 96), pixel_aspect=shape, background=disc(shape), numbered=False)
    path = str(write(shot, temp / "wide.mkv"))
    stored = FileClip(path)
    source = part_of(stored, (144, 96), 16, 0, 25)
    square = torch.stack([source.fitted(stored.rgb(picture)) for picture in stored.pictures(Fraction(0))])
    itself, edit = InputImpl.VideoFromFile(path), clip(square, 25)
    for before, after, aspect in ((itself, itself, 2), (source, itself, 2), (source, edit, 1), (itself, edit, 1)):
        result = CompareVideos.execute(before, after, "side by side")
        halves = result[0].get_components().images[0].chunk(2, dim=1)
        assert (halves[0] - halves[1]).abs().mean() < 0.02, "they are the same"
        assert result[0].form.pixel_aspect == aspect
        for half in halves:
            inside = half.mean(dim=-1) > 0.5
            width, height = inside.any(dim=0).sum().item() * aspect, inside.any(dim=1).sum().item()
            assert width / height == pytest.approx(1, abs=0.06)
        (player,) = result.ui["liveditor_compare"]
        assert (player["width"], player["height"]) == (144, 96)
        pairs = TimedPairs(before, after)
        assert not any("shapes" in note for note in pairs.notes) and pairs.pixel_aspect * pairs.width == 144


def test_previews_are_no_larger_than_browsers_play():
    result = CompareVideos.execute(
        clip(torch.zeros(1, 1200, 2400, 3), 4), clip(torch.zeros(1, 1200, 2400, 3), 4), "wipe"
    )
    (player,) = result.ui["liveditor_compare"]
    assert (player["width"], player["height"]) == (1920, 960)
    assert result[0].get_dimensions() == (2400, 1200)
