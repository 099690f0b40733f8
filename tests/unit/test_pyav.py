"""What PyAV's versions give in different ways, seen with the one that is there."""

import io
from fractions import Fraction

import av
import newer_pyav
import pytest
import torch
from av.video.reformatter import Colorspace
from footage import Clip, Sound, steady, write
from footage_pictures import BT601, BT709, HLG, UNTAGGED_709, flat, read_number

from liveditor.liveditor_core.footage import pyav
from liveditor.liveditor_core.footage.colour import FULL_RANGE, UNSPECIFIED
from liveditor.liveditor_core.footage.copied_sound import CopiedSound
from liveditor.liveditor_core.footage.file_clip import FileClip
from liveditor.liveditor_core.footage.shots import shots_of_file
from liveditor.liveditor_core.footage.writer import VideoForm, write_video

FAR = Fraction(11, 2)  # seconds; reached by seeking


def found_in(path, copy):
    """Everything that is read of a file, once directly and once after its sound was copied into another one."""
    clip = FileClip(str(path))
    times = [Fraction(0), FAR]
    numbers = [read_number(frame.numpy()) for frame in clip.frames_at(times)]
    sound = clip.sound.read(FAR, Fraction(1, 2))["waveform"]
    form = VideoForm(clip.width, clip.height, clip.rate, clip.colours, False, clip.pixel_aspect)
    assert CopiedSound(clip).fitting(copy.suffix[1:]) == {1}
    write_video(str(copy), form, clip.frames_at([Fraction(i, 25) for i in range(5)]), [CopiedSound(clip).track(1)])
    again = FileClip(str(copy))
    return (
        [*clip.notes, clip.rate, clip.pixel_aspect, clip.length(), clip.header_length, numbers, sound.tolist()],
        [*again.notes, again.rate, again.length(), again.sound.read(FAR, Fraction(1, 2))["waveform"].tolist()],
        shots_of_file(str(path), FAR, 1, clip.check),
    )


@pytest.mark.parametrize(
    "clip",
    [
        Clip(stamps=steady(25, 160), sounds=(Sound("aac"),), key_every=25, b_frames=2, pixel_aspect=Fraction(4, 3)),
        Clip("mkv", stamps=steady(25, 160), sounds=(Sound("aac", start=-0.2),), offset=3, key_every=25),
    ],
    ids=lambda clip: clip.container,
)
def test_all_is_the_same_with_pyav_19(tmp_path, monkeypatch, clip):
    path = write(clip, tmp_path / f"clip.{clip.container}")
    expected = found_in(path, tmp_path / f"before.{clip.container}")
    monkeypatch.setattr(av, "open", newer_pyav.opener())
    assert found_in(path, tmp_path / f"after.{clip.container}") == expected


class Untagged:
    """A frame as PyAV 16 converts it: by what it is told where that differs from the target, never by its tags."""

    def __init__(self, frame):
        self._frame = frame

    def __getattr__(self, name):
        return getattr(self._frame, name)

    def reformat(self, src_colorspace=None, dst_colorspace=None, src_color_range=None, **options):
        target = Colorspace[dst_colorspace].value if dst_colorspace else src_colorspace
        if (src_colorspace, src_color_range == FULL_RANGE) != (target, False):
            told = {"src_colorspace": src_colorspace, "src_color_range": src_color_range}
            return self._frame.reformat(**told, dst_colorspace=dst_colorspace, **options)
        tags = self._frame.colorspace, self._frame.color_range
        self._frame.colorspace, self._frame.color_range = UNSPECIFIED, 0
        try:
            return self._frame.reformat(**options)
        finally:
            self._frame.colorspace, self._frame.color_range = tags


@pytest.mark.parametrize("colours", [BT601, BT709, BT709._replace(full=True), HLG, UNTAGGED_709])
def test_colours_whatever_a_conversion_reads(tmp_path, colours):
    size = (128, 720) if colours is UNTAGGED_709 else (96, 64)
    shot = Clip("mkv", size=size, stamps=steady(25, 2), colours=colours, background=flat(220, 40, 40), numbered=False)
    clip = FileClip(str(write(shot, tmp_path / "clip.mkv")))
    picture = next(clip.pictures(Fraction(0)))
    expected = clip.rgb(picture)
    assert torch.equal(clip.rgb(picture._replace(frame=Untagged(picture.frame))), expected)
    if colours is not HLG:
        assert (expected.mean((0, 1)) * 255 - torch.tensor([220, 40, 40])).abs().max() < 2.5


TITLE, NOT_UTF_8 = b"Koeln am Rhein", b"K\xf6ln  am Rhein"


@pytest.mark.parametrize("in_memory", [False, True])
def test_metadata_that_is_not_utf_8(tmp_path, in_memory):
    """Of the file, and of the sound that is copied."""
    path = write(Clip("mkv", sounds=(Sound("aac"),)), tmp_path / "clip.mkv")
    with av.open(str(path)) as source, av.open(str(tmp_path / "titled.mkv"), "w") as out:
        out.metadata["title"] = TITLE.decode()
        streams = [out.add_stream_from_template(stream) for stream in source.streams]
        streams[1].metadata["language"] = "deu"
        for packet in source.demux():
            if packet.dts is not None:
                packet.stream = streams[packet.stream.index]
                out.mux(packet)
    content = (tmp_path / "titled.mkv").read_bytes()
    assert content.count(TITLE) == content.count(b"deu") == 1
    path.write_bytes(content.replace(TITLE, NOT_UTF_8).replace(b"deu", b"d\xf6u"))
    clip = FileClip(io.BytesIO(path.read_bytes()) if in_memory else str(path))
    assert len(list(clip.pictures(Fraction(0)))) == 25
    form = VideoForm(clip.width, clip.height, clip.rate, clip.colours, False, clip.pixel_aspect)
    for container in ("mkv", "mp4"):
        written = tmp_path / f"written.{container}"
        frames = clip.frames_at([Fraction(i, 25) for i in range(25)])
        write_video(str(written), form, frames, [CopiedSound(clip).track(1)])
        assert FileClip(str(written)).sound.rate == 48000


@pytest.mark.parametrize(
    "numerator, denominator, expected", [(30000, 1001, Fraction(30000, 1001)), (0, 1, None), (1, 0, None), (0, 0, None)]
)
def test_rationals(numerator, denominator, expected):
    found = pyav.rational(newer_pyav.Rational(numerator=numerator, denominator=denominator))
    assert found == expected and type(found) is type(expected)
    assert pyav.rational(expected) == expected
