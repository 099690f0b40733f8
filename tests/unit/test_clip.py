"""Footage read by time: stamps, rates, sides, sound; from frames in memory and from small files."""

import enum
import os
import re
import struct
import threading
from fractions import Fraction
from pathlib import Path
from types import SimpleNamespace

import av
import numpy as np
import pytest
import torch
from footage import Clip, Sound
from footage import write as write_clip
from PIL import Image

from liveditor.liveditor_core.footage import hdr, orientation, timing
from liveditor.liveditor_core.footage.colour import BT709
from liveditor.liveditor_core.footage.errors import FootageError
from liveditor.liveditor_core.footage.file_clip import FileClip, Window
from liveditor.liveditor_core.footage.frames_clip import FramesClip
from liveditor.liveditor_core.footage.sound import SamplesSound
from liveditor.liveditor_core.footage.source_report import describe
from liveditor.liveditor_core.footage.source_video import SourceVideo
from liveditor.liveditor_core.footage.streams import Label
from liveditor.liveditor_core.footage.timeline import Timeline
from liveditor.liveditor_core.footage.writer import VideoForm, write_video


def numbered(count, height=2, width=2):
    return torch.arange(count).view(-1, 1, 1, 1).expand(count, height, width, 3) / 100


def numbers(frames):
    return [round(frame[0, 0, 0].item() * 100) for frame in frames]


def at(*times):
    return [Fraction(time).limit_denominator(1000) for time in times]


def test_what_shows_at_a_time():
    clip, seen = FramesClip(numbered(10), Fraction(10)), []
    assert numbers(clip.frames_at(at(0.0, 0.05, 0.099, 0.1, 0.55, 0.999), seen=seen)) == [0, 0, 0, 1, 5, 9]
    assert [float(picture.time) for picture in seen] == [i / 10 for i in range(10)]
    assert numbers(clip.frames_at(at(0.95, 1.0, 1.1))) == [9], "the clip ends"
    assert numbers(clip.frames_at(at(5))) == [9], "at least one"
    assert numbers(clip.frames_at(at(0.42, 0.43))) == [4, 4]
    assert list(clip.frames_at([])) == []


def test_reading_on_for_what_showed():
    clip, seen = FramesClip(numbered(10), Fraction(10)), []
    assert numbers(clip.frames_at(at(0.25), seen=seen, until=Fraction(6, 10))) == [2]
    assert [float(picture.time) for picture in seen] == [0.2, 0.3, 0.4, 0.5]


@pytest.mark.parametrize(
    "stamps, header, rate",
    [
        ([i / 30 for i in range(20)], 30, 30),
        ([round(i / 30, 3) for i in range(200)], None, 30),  # milliseconds
        ([round(i * 1001 / 30000, 3) for i in range(200)], Fraction(30000, 1001), Fraction(30000, 1001)),
        ([i / 2 for i in range(6)] + [3 + i / 30 for i in range(210)], 24, 30),  # a screen that stood still first
        ([i / 60 for i in range(180)] + [3 + i / 5 for i in range(35)], 21, 60),
        ([i / 25 for i in range(50)], 1000, 25),  # a false header
        ([i / 50 for i in range(50)], 25, 25),  # fields
        ([0], None, 25),
        ([0], 12, 12),
        ([i * 0.7 for i in range(9)], None, Fraction(10, 7)),
        ([i * 2820 for i in range(6)], None, Fraction(1, 2820)),  # a picture every 47 minutes
        ([i * 1500.5 for i in range(6)], Fraction(1, 1500), Fraction(2, 3001)),
        ([0] + [0.0016 + i / 25 for i in range(1, 500)], Fraction(3200000, 128149), 25),  # a header of a false length
        ([i / 30 for i in range(300) if i % 50], Fraction("29.4"), 30),  # a few frames were dropped
        ([round(i * 0.034567, 3) for i in range(300)], Fraction("28.93"), Fraction("28.93")),
        ([i // 3 * 0.12 for i in range(90)], 25, 25),  # three of a stamp
        ([i // 4 / 1000 for i in range(400)], 4000, 4000),  # too fast for milliseconds
    ],
)
def test_the_usual_rate(stamps, header, rate):
    stamps = [Fraction(stamp).limit_denominator(10**6) for stamp in stamps]
    assert timing.nominal_rate(stamps, header and Fraction(header)) == rate


def frames(*stamps, key="pts"):
    return [SimpleNamespace(**{"pts": None, "dts": None, key: stamp}) for stamp in stamps]


@pytest.mark.parametrize(
    "container, stamps, expected",
    [
        ("matroska,webm", [0, 40, 80], [0, 40, 80]),
        ("matroska,webm", [0, 40, 60000], [0, 40, 60000]),  # a screen that stood still for a minute
        ("mpegts", [0, 40, 60000, 60040], [0, 40, 80, 120]),  # a clock that was set
        ("mpegts", [90000, 90040, 0, 40], [90000, 90040, 90080, 90120]),
        ("mov,mp4,m4a,3gp,3g2,mj2", [0, None, None, 120], [0, 40, 80, 120]),
        ("mov,mp4,m4a,3gp,3g2,mj2", [0, 40, 40, 80], [0, 40, 60, 80]),  # twice the same
        ("mov,mp4,m4a,3gp,3g2,mj2", [0, 40, 40, 40, 80, 120], [0, 40, 60, 70, 80, 120]),
    ],
)
def test_times_only_rise(container, stamps, expected):
    timeline = Timeline(Fraction(1, 1000), container, Fraction(40, 1000))
    assert [timeline.place(frame) * 1000 for frame in frames(*stamps)] == expected


@pytest.mark.parametrize("each", [2, 3, 5])
def test_frames_of_one_stamp_share_its_time(each):
    timeline = Timeline(Fraction(1, 1000), "matroska,webm", Fraction(40, 1000), alike=each)
    stamps = [i // each * each * 40 for i in range(20 * each)]
    assert [timeline.place(frame) * 1000 for frame in frames(*stamps)] == [i * 40 for i in range(20 * each)]


def test_stamps_that_stand_still_say_nothing():
    timeline = Timeline(Fraction(1, 1000), "matroska,webm", Fraction(40, 1000))
    times = [timeline.place(frame) for frame in frames(*[0] * 500)]
    assert all(before < after for before, after in zip(times, times[1:], strict=False))
    assert times[-1] > 17


def test_avi_has_the_times_of_decoding():
    timeline = Timeline(Fraction(1, 25), "avi", Fraction(1, 25))
    assert [timeline.place(frame) * 25 for frame in frames(2, 3, 4, None, None, key="dts")] == [2, 3, 4, 5, 6]


def matrix(a, b, c, d):
    return {orientation.Type.DISPLAYMATRIX: struct.pack("<9i", a << 16, b << 16, 0, c << 16, d << 16, 0, 0, 0, 1 << 30)}


@pytest.mark.parametrize(
    "side_data, expected",
    [
        ({}, [[0, 1, 2], [3, 4, 5]]),
        (matrix(0, 1, -1, 0), [[3, 0], [4, 1], [5, 2]]),  # a telephone held upright
        (matrix(0, -1, 1, 0), [[2, 5], [1, 4], [0, 3]]),
        (matrix(-1, 0, 0, -1), [[5, 4, 3], [2, 1, 0]]),
        (matrix(-1, 0, 0, 1), [[2, 1, 0], [5, 4, 3]]),  # a mirror
    ],
)
def test_right_way_up(side_data, expected):
    turn = orientation.turned(SimpleNamespace(side_data=side_data))
    picture = torch.arange(6).view(2, 3, 1)
    assert orientation.upright(picture, turn).squeeze(-1).tolist() == expected
    assert (turn.words == "") == (not side_data)


def write(path, stamps, *, sound=None, size=(64, 48), codec="libx264", **options):
    """A file whose frames are grey: 2 levels brighter from one to the next."""
    with av.open(str(path), "w", **options) as out:
        video = out.add_stream(codec, rate=1000)
        video.width, video.height, video.pix_fmt = *size, "yuv420p"
        video.codec_context.time_base = Fraction(1, 1000)
        if sound is not None:
            track = out.add_stream("pcm_s16le", rate=8000, layout="mono")
        for i, stamp in enumerate(stamps):
            frame = av.VideoFrame.from_ndarray(np.full((*size[::-1], 3), 20 + 2 * i, np.uint8), format="rgb24")
            frame.pts, frame.time_base = stamp, Fraction(1, 1000)
            out.mux(video.encode(frame))
        out.mux(video.encode(None))
        if sound is not None:
            first, samples = sound
            frame = av.AudioFrame.from_ndarray(samples[None], format="s16", layout="mono")
            frame.sample_rate, frame.pts, frame.time_base = 8000, first, Fraction(1, 8000)
            out.mux(track.encode(frame))
    return str(path)


def shown(clip, times):
    return [round((frame.mean().item() / clip.colours.white * 255 - 20) / 2) for frame in clip.frames_at(times)]


@pytest.mark.parametrize("ending", ["mkv", "mp4", "ts"])
def test_time_begins_with_the_first_picture(tmp_path, ending):
    stamps = [30000 + step for step in (0, 100, 150, 400, 450, 800)]
    clip = FileClip(write(tmp_path / f"late.{ending}", stamps))
    assert shown(clip, at(0.0, 0.05, 0.12, 0.3, 0.42, 0.5, 0.79, 0.81)) == [0, 0, 1, 2, 3, 4, 4, 5]
    assert clip.count_before(Fraction(1, 5)) == 3


@pytest.mark.parametrize("codec, form", [("libx264", "h264"), ("libx265", "hevc"), ("mpeg1video", "mpeg1video")])
def test_a_bare_stream_has_all_of_its_frames(tmp_path, codec, form):
    path = tmp_path / f"bare.{form}"
    with av.open(str(path), "w", format=form) as out:
        video = out.add_stream(codec, rate=25)
        video.width, video.height, video.pix_fmt = 64, 48, "yuv420p"
        video.options = {"x265-params": "log-level=none"} if codec == "libx265" else {}
        for i in range(50):
            out.mux(
                video.encode(av.VideoFrame.from_ndarray(np.full((48, 64, 3), 20 + 2 * i, np.uint8), format="rgb24"))
            )
        out.mux(video.encode(None))
    clip = FileClip(str(path))
    assert clip.rate == 25 and clip.length() == 2 and clip.count_before(Fraction(1)) == 25
    times = [(i + Fraction(1, 2)) / 25 for i in range(50)]
    assert shown(clip, times) == pytest.approx(list(range(50)), abs=1)  # MPEG-1 rounds
    assert shown(clip, times[30:35]) == pytest.approx(list(range(30, 35)), abs=1)
    assert [picture.time * 25 for picture in clip.pictures(Fraction(0))] == list(range(50))


def test_a_film_behind_a_picture(tmp_path):
    """A cover that is not marked as one."""
    with av.open(str(tmp_path / "clip.mov"), "w") as out:
        streams = out.add_stream("mjpeg", rate=25), out.add_stream("libx264", rate=25)
        for video, pixels in zip(streams, ("yuvj420p", "yuv420p"), strict=True):
            video.width, video.height, video.pix_fmt = 64, 48, pixels
        for video, count in zip(streams, (1, 50), strict=True):
            for i in range(count):
                picture = np.full((48, 64, 3), 20 + 2 * i, np.uint8)
                out.mux(video.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
            out.mux(video.encode(None))
    assert FileClip(str(tmp_path / "clip.mov")).length() == 2


def report_of(clip, frames, read):
    source = SourceVideo(
        torch.zeros(1), 64, 48, frames, Fraction(25), clip, Fraction(0), (Fraction(0),) * frames, frames, "crop"
    )
    return "\n".join(describe(source, clip.length() if read else None))


@pytest.mark.parametrize("container", ["mkv", "mp4", "mov"])
def test_sound_that_is_longer_than_the_picture(tmp_path, container):
    shot = Clip(container, sounds=(Sound("aac", plays=500, seconds=4.0),))
    clip = FileClip(str(write_clip(shot, tmp_path / f"clip.{container}")))
    assert clip.header_length == 1
    assert "cut off" not in report_of(clip, 25, True) and "left out" not in report_of(clip, 25, False)


def test_palettes_without_anything_transparent(tmp_path):
    for transparent in (False, True):
        picture = Image.new("P", (64, 48), 1)
        picture.putpalette([0, 0, 0, 220, 40, 40])
        picture.paste(0, (0, 0, 32, 48))
        picture.save(tmp_path / "clip.gif", **({"transparency": 0} if transparent else {}))
        assert ("transparent: edited on black" in FileClip(str(tmp_path / "clip.gif")).notes) == transparent


def test_hdr_stored_as_rgb(tmp_path):
    with av.open(str(tmp_path / "clip.mkv"), "w") as out:
        video = out.add_stream("ffv1", rate=25)
        video.width, video.height, video.pix_fmt = 64, 48, "gbrp10le"
        video.codec_context.color_primaries, video.codec_context.color_trc = 9, 16
        picture = np.full((48, 64, 3), round(0.58 * 65535), np.uint16)  # PQ's code for about 203 cd/m2
        frame = av.VideoFrame.from_ndarray(picture, format="rgb48le").reformat(format="gbrp10le")
        out.mux(video.encode(frame))
        out.mux(video.encode(None))
    clip = FileClip(str(tmp_path / "clip.mkv"))
    assert any("HDR (PQ), mapped to SDR" in note for note in clip.notes) and clip.colours == BT709
    (shown,) = clip.frames_at(at(0))
    level = hdr.to_sdr(torch.full((1, 1, 3), 0.58), hdr.PQ)[0, 0, 0]
    assert shown.mean().item() == pytest.approx(level.item(), abs=0.01) and level > 0.7


def test_frames_that_a_constant_rate_has_no_place_for():
    stamps = [Fraction(i, 10) for i in range(10)] + [1 + Fraction(i, 30) for i in range(29)]
    assert timing.left_out(stamps, Fraction(30)) == 0
    assert timing.left_out(stamps, Fraction(10)) == 19
    assert timing.left_out([Fraction(i, 25) for i in range(100)], Fraction(25)) == 0


def test_a_place_that_cannot_be_written_to(tmp_path):
    form = VideoForm(64, 48, Fraction(25), BT709, False, Fraction(1))
    place = tmp_path / "nowhere" / "clip.mp4"
    with pytest.raises(FootageError, match=f"{place}: the video cannot be written .* another folder: the edit itself"):
        write_video(str(place), form, iter([torch.zeros(48, 64, 3)]), [])


def test_a_part_far_inside(tmp_path):
    clip = FileClip(write(tmp_path / "long.mkv", range(0, 10000, 100)))
    assert shown(clip, at(8.05, 8.51)) == [80, 85], "by way of a key frame before"
    trimmed = FileClip(str(tmp_path / "long.mkv"), Window(Fraction(7), Fraction(8)))
    assert shown(trimmed, at(0.05, 0.55, 0.95, 1.05)) == [70, 75, 79]
    assert trimmed.length() == 1 and trimmed.count_before(Fraction(1, 2)) == 5


@pytest.mark.parametrize("how", ["open-gop=1:bframes=4", "intra-refresh=1"])
def test_a_part_far_inside_of_groups_that_need_others(tmp_path, how):
    """Nothing is damaged, and every picture is the right one."""
    path = str(tmp_path / "clip.mkv")
    with av.open(path, "w") as out:
        video = out.add_stream("libx264", rate=25)
        video.width, video.height, video.pix_fmt = 96, 64, "yuv420p"
        video.options = {"x264-params": f"{how}:keyint=50:scenecut=0", "crf": "8"}
        for i in range(250):
            picture = np.roll(np.linspace(0, 255, 96).astype(np.uint8), i)[None, :, None].repeat(64, 0).repeat(3, 2)
            out.mux(video.encode(av.VideoFrame.from_ndarray(np.ascontiguousarray(picture), format="rgb24")))
        out.mux(video.encode(None))
    clip, times = FileClip(path), [Fraction(173 + i, 25) + Fraction(1, 50) for i in range(10)]
    far = list(clip.frames_at(times))
    assert clip.errors == []
    whole = list(clip.frames_at([Fraction(1, 50), *times]))[1:]
    assert clip.errors == []
    assert max((a - b).abs().max().item() for a, b in zip(far, whole, strict=True)) < 0.06


def test_a_damaged_picture_with_which_a_part_begins(tmp_path):
    path = str(tmp_path / "clip.mkv")
    with av.open(path, "w") as out:
        video = out.add_stream("libx264", rate=25)
        video.width, video.height, video.pix_fmt = 96, 64, "yuv420p"
        video.options = {"x264-params": "keyint=50:min-keyint=50:scenecut=0", "crf": "8"}
        noise = np.random.default_rng(0).integers(0, 255, (250, 64, 96, 3), np.uint8)
        packets = [p for picture in noise for p in video.encode(av.VideoFrame.from_ndarray(picture, format="rgb24"))]
        packets += video.encode(None)
        for packet in packets:
            if packet.is_keyframe and packet.pts * packet.time_base == 8:
                content = bytearray(bytes(packet))
                content[len(content) // 3 : len(content) // 3 + 60] = bytes(60)
                damaged = av.Packet(bytes(content))
                damaged.pts, damaged.dts, damaged.time_base = packet.pts, packet.dts, packet.time_base
                damaged.stream, damaged.is_keyframe, packet = packet.stream, True, damaged
            out.mux(packet)
    clip = FileClip(path)
    assert len(list(clip.frames_at([Fraction(201, 25), Fraction(205, 25)]))) == 2 and len(clip.errors) == 1
    assert len(list(clip.frames_at([Fraction(251, 50)]))) == 1 and clip.errors == []


@pytest.mark.parametrize("count, seconds", [(60, 2.4), (61, 2.44), (62, 2.48)])
def test_the_length_of_coarse_stamps(tmp_path, count, seconds):
    path = write(tmp_path / "clip.mkv", [i * 1000 for i in range(count)], codec="mpeg4")
    with av.open(path) as source, av.open(str(tmp_path / "coarse.mkv"), "w") as out:
        stream = out.add_stream_from_template(source.streams.video[0])
        for number, packet in enumerate(each for each in source.demux() if each.size):
            packet.pts = packet.dts = number // 3 * 120
            packet.duration, packet.stream = 120, stream
            out.mux(packet)
    clip = FileClip(str(tmp_path / "coarse.mkv"))
    assert clip.rate == 25 and clip.length() == Fraction(seconds).limit_denominator(100)


class OldDisposition(enum.Flag):
    """As before PyAV 17.1."""

    none, default, comment = 0, 1, 8


def test_labels_with_an_earlier_pyav():
    stream = SimpleNamespace(metadata={"title": "Commentary"}, language=None, disposition=OldDisposition.default)
    label, written = Label.of(stream), SimpleNamespace(metadata={})
    assert label.is_default and label.tags == (("title", "Commentary"),)
    label.put_on(written)
    assert written.metadata == {"title": "Commentary"} and written.disposition == 1
    assert not Label.of(SimpleNamespace(metadata={}, language="deu", disposition=8)).is_default


def test_sound_stays_in_step(tmp_path):
    tone = np.full(8000, 8000, np.int16)
    path = write(tmp_path / "clip.mkv", range(500, 3000, 40), sound=(8000, tone))  # from 1 s to 2 s; picture from 0.5 s
    sound = FileClip(path).sound
    loud = sound.read(Fraction(0), Fraction(2))["waveform"][0, 0] > 0.1
    assert loud.sum() == 8000 and loud[4000:12000].all()
    later = sound.read(Fraction(1), Fraction(1))["waveform"]
    assert later.shape == (1, 1, 8000) and (later[0, 0] > 0.1).sum() == 4000
    assert sound.read(Fraction(9), Fraction(1, 2))["waveform"].eq(0).all()


@pytest.mark.parametrize("channels, layout", [(1, 1), (2, 2), (3, 2), (4, 2), (6, 6), (8, 2)])
@pytest.mark.parametrize("rate, held", [(48000, 48000), (6000, 48000), (192000, 48000), (44100, 44100)])
def test_sound_as_files_can_hold_it(channels, layout, rate, held):
    audio = {"waveform": torch.full((1, channels, rate), 0.25), "sample_rate": rate}
    read = SamplesSound(audio).read(Fraction(0), Fraction(1, 2))
    assert read["waveform"].shape == (1, layout, held // 2) and read["sample_rate"] == held
    assert read["waveform"][..., 1000:].abs().max() > 0.1


@pytest.mark.parametrize(
    "content, reason", [(b"", "FFmpeg can read"), (b"not a video" * 100, "FFmpeg can read")], ids=["empty", "text"]
)
def test_what_is_no_video(tmp_path, content, reason):
    path = tmp_path / "some.mp4"
    path.write_bytes(content)
    with pytest.raises(FootageError, match=f"some.mp4: .*{reason}.*Choose another file"):
        FileClip(str(path))


def test_a_file_that_changes(tmp_path):
    clip = FileClip(write(tmp_path / "clip.mkv", range(0, 400, 40)))
    write(tmp_path / "clip.mkv", range(0, 800, 40))
    with pytest.raises(FootageError, match="clip.mkv: must stay as it is"):
        list(clip.frames_at(at(0)))


def test_a_trimming_that_ends_before_the_next_picture(tmp_path):
    path = write(tmp_path / "clip.mkv", range(0, 2000, 40))
    assert len(shown(FileClip(path, Window(Fraction(1), Fraction(3, 2))), at(0.7))) == 1, "the last picture"
    assert shown(FileClip(path, Window(Fraction(1, 100), Fraction(2, 100))), at(0.001)) == [0]
    assert FileClip(path, Window(Fraction(5), Fraction(6))).length() == 0


def test_a_clock_that_is_set_anew(tmp_path):
    """Two recordings in one file: of the second the times go on from the first."""
    parts = [write(tmp_path / f"{first}.ts", range(first, first + 1000, 40)) for first in (0, 900000)]
    joined = tmp_path / "joined.ts"
    for paths in (parts, parts[::-1]):
        joined.write_bytes(b"".join(Path(path).read_bytes() for path in paths))
        clip = FileClip(str(joined))
        assert float(clip.length()) == pytest.approx(2, abs=0.1)
        assert float([*clip.pictures(Fraction(0))][-1].time) == pytest.approx(1.96, abs=0.1)


def test_a_copy_that_is_put_back_is_the_same_file(tmp_path):
    path = write(tmp_path / "clip.mkv", range(0, 400, 40))
    clip, content = FileClip(path), Path(path).read_bytes()
    os.remove(path)
    with pytest.raises(FootageError, match="clip.mkv: must stay as it is"):
        clip.sound or list(clip.frames_at(at(0)))
    Path(path).write_bytes(content)
    assert shown(clip, at(0)) == [0]


def test_nothing_is_held_open_after_damage(tmp_path):
    path = write(tmp_path / "clip.mkv", range(0, 2000, 40))
    content = bytearray(Path(path).read_bytes())
    half = len(content) // 2
    content[half : half + 200] = bytes(range(200))
    Path(path).write_bytes(content)
    clip, before = FileClip(path), threading.active_count()
    for _ in range(3):
        list(clip.frames_at(at(0, 1)))
    assert all(isinstance(error, str) for error in clip.errors) and threading.active_count() == before


def test_damaged_samples_are_silence():
    audio = {"waveform": torch.tensor([[[0.5, float("nan"), float("inf"), 1e30, -0.5]]]), "sample_rate": 8000}
    samples = SamplesSound(audio).read(Fraction(0), Fraction(5, 8000))["waveform"]
    assert samples.isfinite().all() and samples.abs().max() <= 8 and samples[0, 0, 1] == 0


def test_sound_of_avi_is_in_step_with_frames_that_are_reordered(tmp_path):
    tone = np.full(8000, 8000, np.int16)
    with av.open(str(tmp_path / "clip.avi"), "w") as out:
        video = out.add_stream("libx264", rate=25)
        video.width, video.height, video.pix_fmt = 64, 48, "yuv420p"
        video.codec_context.max_b_frames = 2
        track = out.add_stream("pcm_s16le", rate=8000, layout="mono")
        for i in range(50):
            out.mux(
                video.encode(av.VideoFrame.from_ndarray(np.full((48, 64, 3), 20 + 2 * i, np.uint8), format="rgb24"))
            )
        out.mux(video.encode(None))
        for first, samples in ((0, np.zeros(8000, np.int16)), (8000, tone)):
            frame = av.AudioFrame.from_ndarray(samples[None], format="s16", layout="mono")
            frame.sample_rate, frame.pts, frame.time_base = 8000, first, Fraction(1, 8000)
            out.mux(track.encode(frame))
    loud = FileClip(str(tmp_path / "clip.avi")).sound.read(Fraction(0), Fraction(2))["waveform"][0, 0] > 0.1
    assert abs(int(loud.nonzero()[0]) - 8000) < 80, "within 10 ms"


@pytest.mark.parametrize(
    "window, start, frames, left_out",
    [
        (Window(), 0, 17, (10, 9.32)),
        (Window(), 9, 25, (10, 9.00)),
        (Window(Fraction(1), Fraction(3)), 0, 17, (2, 1.32)),
        (Window(Fraction(1), Fraction(3)), 0, 50, None),  # of what Trim Video left nothing is left out or cut off
        (Window(), 0, 250, None),
    ],
)
@pytest.mark.parametrize("read", [False, True], ids=["", "read to its end"])
@pytest.mark.parametrize("file", [True, False], ids=["file", "frames"])
def test_the_report_says_what_is_left_out(tmp_path, window, start, frames, left_out, read, file):
    if file:
        write(tmp_path / "clip.mp4", range(0, 10000, 100))
        clip = FileClip(str(tmp_path / "clip.mp4"), window)
    else:
        first, end = window.start, window.end or 10
        clip = FramesClip(torch.zeros(int(25 * (end - first)), 48, 64, 3), Fraction(25))
    source = SourceVideo(
        torch.zeros(1), 64, 48, frames, Fraction(25), clip, Fraction(start), (Fraction(0),) * frames, frames, "crop"
    )
    report = "\n".join(describe(source, clip.length() if read else None))
    assert f"edit: {frames} frames at 25 a second, 64x48, from {start} s" in report and "cut off" not in report
    found = re.search(r"the clip lasts (\S+) s: (\S+) s of it are left out", report)
    assert (found and tuple(map(float, found.groups()))) == (left_out and pytest.approx(left_out, abs=0.11))
