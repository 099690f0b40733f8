"""How edits are scored, on edits made by hand."""

import av
import torch

from liveditor.training import score
from liveditor.training.edits import EDITS, HELD_OUT, PHRASES


def clip():
    generator = torch.Generator().manual_seed(0)
    small = torch.rand(1, 3, 8, 12, generator=generator).repeat(4, 1, 1, 1)
    return torch.nn.functional.interpolate(small, scale_factor=8, mode="bilinear").movedim(1, -1)


def test_an_exact_edit_is_recognised_and_a_noisy_one_measured():
    source = clip()
    for name, edit in EDITS.items():
        exact = edit(source.movedim(-1, 1)).movedim(1, -1)
        found = score.score(exact + 0.01, source, name)
        assert found.recognised and abs(found.decibels - 40) < 0.1, name
        assert found.source_decibels < 25


def test_the_source_itself_is_no_edit():
    found = score.score(clip(), clip(), "sepia")
    assert found.nearest == score.UNEDITED and not found.recognised and found.decibels == found.source_decibels


def test_what_a_prompt_asks_for():
    for phrases in (PHRASES, HELD_OUT):
        for name, group in phrases.items():
            assert all(score.asked_edit(f" {phrase.capitalize()}. ") == name for phrase in group)
    assert score.asked_edit("remove the person on the left") is None


def test_frames_from_a_file_and_back(tmp_path):
    """The frames that an edit was made from are found again, whatever its rate."""
    source = clip() * torch.linspace(0.2, 1, 4).view(-1, 1, 1, 1)
    with av.open(str(tmp_path / "both.mp4"), "w") as container:
        stream = container.add_stream("h264", rate=8, options={"crf": "15"})
        stream.width, stream.height, stream.pix_fmt = 192, 64, "yuv420p"
        for frame in (torch.cat([source, source.flip(-1)], dim=2) * 255).round().byte().numpy():
            container.mux(stream.encode(av.VideoFrame.from_ndarray(frame, format="rgb24")))
        container.mux(stream.encode(None))
    frames, fps = score.read_video(tmp_path / "both.mp4")
    assert frames.shape == (4, 64, 192, 3) and fps == 8
    assert score.psnr(frames[:, :, :96].float() / 255, source) > 30
    half = score.source_frames(tmp_path / "both.mp4", torch.empty(2, 64, 192, 3), 4)
    assert score.psnr(half, frames[[1, 3]].float() / 255) > 60
    later = score.source_frames(tmp_path / "both.mp4", torch.empty(2, 64, 192, 3), 8, start=0.25)
    assert score.psnr(later, frames[2:].float() / 255) > 60
