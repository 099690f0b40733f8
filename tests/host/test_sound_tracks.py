"""Every sound track of a clip in the whole video, copied where the file can hold it, else encoded anew."""

import re
from fractions import Fraction

import av
import numpy as np
import pytest
import torch
from av.stream import Disposition
from edited_clips import part_of
from footage import Clip, Sound, steady, then, write

from liveditor.liveditor_core.footage.edited_video import EditedVideo
from liveditor.liveditor_core.footage.file_clip import FileClip
from liveditor.liveditor_core.footage.reader import open_clip
from liveditor.liveditor_core.footage.source_video import AS_EDITED
from liveditor.liveditor_core.footage.spool import Spool

TITLES = "Dialogue", "Commentary", "Music"
PITCHES = 500, 1500, 1000


def recorded(folder, container, codecs, default):
    """A clip of two seconds with a tone and a title for each track."""
    sounds = tuple(Sound(codec, plays=pitch) for codec, pitch in zip(codecs, PITCHES, strict=False))
    shot = Clip(container, stamps=steady(25, 50), sounds=sounds)
    plain, path = write(shot, folder / f"plain.{container}"), folder / f"clip.{container}"
    with av.open(str(plain)) as source, av.open(str(path), "w") as out:
        streams = [out.add_stream_from_template(stream) for stream in source.streams]
        for number, stream in enumerate(streams[1:]):
            title = "handler_name" if container == "mov" else "title"
            stream.metadata.update({title: TITLES[number], "language": "deu"})
            stream.disposition = Disposition.default if number == default else Disposition(0)
        for packet in source.demux():
            if packet.dts is not None:
                packet.stream = streams[packet.stream.index]
                out.mux(packet)
    return path


def edited(clip, folder, **how):
    """The clip with half a second of it edited, from 0.4 s on."""
    source = part_of(clip, (96, 64), 8, Fraction(2, 5), 12)
    spool = Spool(str(folder), 64, 96)
    spool.append(torch.zeros(8, 64, 96, 3))
    return EditedVideo(source, spool, AS_EDITED, watch=lambda: lambda done, total: None, **how)


def tracks_of(path):
    """Of every track: its codec, title, language, whether it is the default one, its pitch, and seconds."""
    found = []
    with av.open(str(path)) as container:
        count = len(container.streams.audio)
    for number in range(count):
        with av.open(str(path)) as container:
            stream, resampler = container.streams.audio[number], av.AudioResampler("flt", "mono", 48000)
            parts = [part for frame in container.decode(stream) for part in resampler.resample(frame)]
            samples = np.concatenate([part.to_ndarray()[0] for part in parts])
            pitch = np.abs(np.fft.rfft(samples[4800:52800])).argmax() * 48000 / len(samples[4800:52800])
            tags = {key.lower(): value for key, value in stream.metadata.items()}
            title = tags.get("title") or tags.get("name") or tags.get("handler_name")
            is_default = bool(stream.disposition & Disposition.default)
            seconds = round(len(samples) / 48000, 1)
            found.append((stream.codec_context.name, title, stream.language, is_default, round(pitch, -1), seconds))
    return found


def test_the_clips_of_these_tests(tmp_path):
    for container, language in (("mkv", "deu"), ("mov", None)):
        assert labels(tracks_of(recorded(tmp_path, container, ("aac", "aac"), 1))) == [
            ("Dialogue", language, False, 500, 2),
            ("Commentary", language, True, 1500, 2),
        ]


@pytest.mark.parametrize("default", [0, 1])
@pytest.mark.parametrize(
    "container, codecs, ending, written",
    [
        ("mkv", ("aac", "flac"), "mkv", ("aac", "flac")),
        ("mkv", ("pcm_s16le", "aac", "pcm_s16le"), "mp4", ("aac", "aac", "aac")),
        ("mov", ("pcm_s16le", "pcm_s16le", "pcm_s16le"), "mov", ("pcm_s16le",) * 3),
        ("mov", ("pcm_s16le", "aac"), "mp4", ("aac", "aac")),
    ],
)
def test_every_track_with_its_title(tmp_path, container, codecs, ending, written, default):
    path = recorded(tmp_path, container, codecs, default)
    edited(FileClip(str(path)), tmp_path, whole=True).save_to(str(tmp_path / f"out.{ending}"))
    found = tracks_of(tmp_path / f"out.{ending}")
    assert [codec for codec, *_ in found] == list(written)
    assert labels(found) == labels(tracks_of(path))
    assert FileClip(str(tmp_path / f"out.{ending}")).sound.label.is_default


def labels(tracks):
    """All but the codec; one that says nothing of its language may say so in two ways."""
    return [(title, None if tongue == "und" else tongue, *rest) for _, title, tongue, *rest in tracks]


def test_what_can_be_copied_is(tmp_path):
    clip = FileClip(str(recorded(tmp_path, "mkv", ("pcm_s16le", "aac"), 1)))
    edited(clip, tmp_path, whole=True).save_to(str(tmp_path / "out.mp4"))
    assert packets(tmp_path / "out.mp4", 1) == packets(tmp_path / "clip.mkv", 1)


def packets(path, number):
    with av.open(str(path)) as container:
        return [bytes(packet) for packet in container.demux(container.streams.audio[number]) if packet.size]


def test_an_edit_of_an_edit_keeps_them(tmp_path):
    clip = FileClip(str(recorded(tmp_path, "mkv", ("aac", "aac"), 1)))
    first = edited(clip, tmp_path, whole=True)
    edited(open_clip(first), tmp_path, whole=True).save_to(str(tmp_path / "out.mkv"))
    assert tracks_of(tmp_path / "out.mkv") == tracks_of(tmp_path / "clip.mkv")


def test_a_trimmed_one_keeps_them(tmp_path):
    clip = FileClip(str(recorded(tmp_path, "mkv", ("aac", "aac"), 1)))
    edited(clip, tmp_path, whole=True).as_trimmed(0.4, 1.2).save_to(str(tmp_path / "out.mkv"))
    tracks = tracks_of(tmp_path / "out.mkv")
    assert [track[:5] for track in tracks] == [track[:5] for track in tracks_of(tmp_path / "clip.mkv")]
    assert [track[5] for track in tracks] == [1.2, 1.2]


def test_sound_that_was_given_takes_the_place_of_all(tmp_path):
    from comfy_api.latest import InputImpl

    video = InputImpl.VideoFromFile(str(recorded(tmp_path, "mkv", ("aac", "aac"), 1)))
    audio = {"waveform": torch.zeros(1, 1, 16000), "sample_rate": 8000}
    edited(open_clip(video, audio=audio), tmp_path, whole=True).save_to(str(tmp_path / "out.mkv"))
    assert len(tracks_of(tmp_path / "out.mkv")) == 1


def test_frames_that_have_no_place_in_the_whole_video_are_counted(tmp_path, caplog):
    caplog.set_level("INFO")
    for stamps, lost in ((then(steady(10, 60), 30, 30), 19), (steady(25, 50), 0)):
        clip = FileClip(str(write(Clip("mkv", stamps=stamps), tmp_path / f"{lost}.mkv")))
        caplog.clear()
        edited(clip, tmp_path, whole=True).save_to(str(tmp_path / f"{lost}.mp4"))
        said = [line for line in caplog.messages if "are left out" in line]
        assert len(said) == bool(lost)
        if lost:
            count = int(re.search(r"(\d+) of 9\d frames of the whole video come faster than 10 ", said[0])[1])
            assert abs(count - lost) <= 1


def test_a_track_that_can_be_neither_decoded_nor_copied_is_said(tmp_path, caplog):
    caplog.set_level("INFO")
    path = recorded(tmp_path, "mkv", ("aac", "pcm_s16le"), 0)
    path.write_bytes(path.read_bytes().replace(b"A_PCM/INT/LIT", b"A_PCM/XXX/XXX"))
    edited(FileClip(str(path)), tmp_path, whole=True).save_to(str(tmp_path / "out.mp4"))
    assert len(tracks_of(tmp_path / "out.mp4")) == 1
    assert any("stream 2" in line for line in caplog.messages), caplog.messages
