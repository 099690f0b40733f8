"""Kinds of footage that people have, each in several containers and codecs, and what must come out of them.

A case goes through the server by `through_server.send_case`; its checks raise AssertionError. The tests and the
benchmark's table run the same ones.
"""

import re
from collections.abc import Callable
from fractions import Fraction
from typing import NamedTuple

import numpy as np
from footage import Clip, Sound, exact, rate_of, steady, then, truth
from footage_pictures import (
    BT601,
    BT709,
    HALF,
    HIDDEN,
    HLG,
    PQ,
    UNTAGGED_601,
    UNTAGGED_709,
    disc,
    flat,
    ramp,
    read_number,
    rgb_of,
    with_holes,
)

EDIT_RATE = 16
RED = (220, 40, 40)
NTSC = Fraction(30000, 1001)
AT_ITS_RATE = {"fps": "as the source"}


class Case(NamedTuple):
    """A clip and what must become of it."""

    kind: str
    clip: Clip
    checks: tuple[Callable, ...]
    encode: dict = {}
    decode: dict = {}
    says: str = ""  # what the report must match
    may_refuse: bool = False  # with a remedy

    @property
    def name(self):
        sounds = "".join(f"-{sound.codec}-{sound.layout}-{sound.rate}" for sound in self.clip.sounds[:1])
        return f"{self.kind}: {self.clip.container} {self.clip.codec} {self.clip.pixels}{sounds}"


def judge(case, out):
    """All that is wrong with what came out, as sentences."""
    faults = []
    for check in case.checks:
        try:
            check(case, out)
        except AssertionError as error:
            faults.append(f"{check.__name__}: {str(error).splitlines()[0] if str(error) else 'wrong'}")
    if case.says and not re.search(case.says, out.report, re.IGNORECASE):
        faults.append(f"the report must say {case.says!r}, got {out.report!r}")
    return faults


def expected(case):
    """What a case is to show, and at which rate."""
    rate = rate_of(case.clip) if case.decode.get("fps") == "as the source" else Fraction(EDIT_RATE)
    return truth(case.clip, rate, case.encode.get("start", 0), case.encode.get("max_frames", 0)), rate


# What must hold of everything that comes out


def frames(case, out):
    """What was visible at each time, at the right rate."""
    should, rate = expected(case)
    turns = case.clip.rotation // 90
    numbers = [read_number(np.rot90(picture, -turns)) for picture in out.pictures]
    assert abs(out.rate / rate - 1) < 0.002, f"{float(out.rate):g} fps for {float(rate):g}"
    assert numbers == should.numbers, f"{_ends(numbers)} for {_ends(should.numbers)}"


def _ends(numbers):
    return f"{len(numbers)} frames {str(numbers[:8])[:-1]} ... {str(numbers[-3:])[1:]}"


def size(case, out):
    """The size as displayed, at most a pixel more."""
    width, height = case.clip.size[:: -1 if case.clip.rotation % 180 else 1]
    assert 0 <= out.size[0] - width <= 1 and 0 <= out.size[1] - height <= 1, f"{out.size} for {(width, height)}"


def sound(case, out):
    """Beeps where the flashes are, within a frame; as long as the picture, within a sample."""
    assert out.sound, "no sound"
    start = case.encode.get("start", 0)
    length = len(out.frames) / out.rate
    beeps = [moment - start for moment in case.clip.flashes if 0 <= moment - start < length - Fraction(1, 5)]
    heard, seen = out.sound.beeps(), out.flashes()
    assert len(heard) == len(beeps), f"beeps at {_rounded(heard)} for {_rounded(beeps)}"
    step = 1 / float(out.rate)
    assert len(seen) >= len(beeps), f"flashes at {_rounded(seen)} for {_rounded(beeps)}"
    for should, beep, flash in zip(beeps, heard, seen, strict=False):
        assert abs(beep - should) < step, f"beep at {beep:.3f} for {float(should):.3f}"
        assert abs(beep - flash) <= step, f"beep at {beep:.3f}, its flash at {flash:.3f}"
    samples = float(length * out.sound.rate)
    assert abs(out.sound.length - samples) <= 1, f"{float(out.sound.length):g} samples for {samples:g}"


def _rounded(moments):
    return [round(float(moment), 3) for moment in moments]


def tone(pitch):
    """The track with this pitch was taken."""

    def right_track(case, out):
        assert out.sound, "no sound"
        heard = out.sound.pitch()
        assert heard and abs(heard - pitch) < 0.02 * pitch, f"{heard} Hz for {pitch}"

    return right_track


# What is particular


def matrix_of(case):
    """The matrix that a clip is coded by, and what comes of it too: its own, and BT.709 for RGB."""
    clip = case.clip
    return "BT.601" if clip.colours in (BT601, UNTAGGED_601, BT601._replace(full=True)) else "BT.709"


def colour(case, out):
    """(220, 40, 40) within 2, for a player that goes by the matrix of the source."""
    frame = out.frames[len(out.frames) // 2]
    seen = rgb_of(frame, matrix_of(case))[: out.size[1] // 2].mean(axis=(0, 1)) * 255
    assert np.abs(seen - RED).max() <= 2, f"{seen.round(1).tolist()} for {RED}"


def tags(case, out):
    """The file says by which matrix it is coded, and that it is of limited range."""
    frame = out.frames[0]
    said = (frame.colorspace, frame.color_primaries, frame.color_trc, frame.color_range)
    assert said[1:] == ((1, 1, 1) if matrix_of(case) == "BT.709" else (6, 6, 1)), f"{said}"
    assert said[0] in ((1,) if matrix_of(case) == "BT.709" else (5, 6)), f"{said}"


def ten_bits(case, out):
    """More levels than 8 bits hold, each where it was."""
    frame = out.frames[0]
    assert frame.format.components[0].bits > 8, f"{frame.format.name}"
    row = rgb_of(frame, "BT.709")[out.size[1] // 4, :, 1]
    assert len(np.unique(row.round(5))) > 300, f"{len(np.unique(row.round(5)))} levels"
    off = 1023 * np.abs(row - np.linspace(0, 1, out.size[0])).mean()
    assert off < 2, f"off by {off:.1f} of 1023"


def on_black(case, out):
    """What is transparent is black, what is so by half is grey."""
    picture = out.pictures[0].astype(float)
    for box, level in ((HIDDEN, 0), (HALF, 127.5)):
        left, top, right, bottom = (round(share * length) for share, length in zip(box, out.size * 2, strict=True))
        seen = picture[top + 3 : bottom - 3, left + 3 : right - 3].mean(axis=(0, 1))
        assert np.abs(seen - level).max() < 12, f"{seen.round().tolist()} for {level}"


def holes_are_black(case, out):
    """As above for formats that know no half."""
    left, top, right, bottom = (round(share * length) for share, length in zip(HIDDEN, out.size * 2, strict=True))
    seen = out.pictures[0][top + 3 : bottom - 3, left + 3 : right - 3].mean(axis=(0, 1))
    assert seen.max() < 12, f"{seen.round().tolist()} for black"


def round_disc(case, out):
    """The disc is as wide as it is high where the file is played."""
    inside = out.pictures[0].mean(axis=-1) > 127
    frame_aspect = out.pixel_aspect
    width, height = inside.any(axis=0).sum() * float(frame_aspect), inside.any(axis=1).sum()
    assert abs(width / height - 1) < 0.06, f"{width:g} wide, {height} high"


def length(case, out):
    """The right number of frames, whatever is on them."""
    should, _ = expected(case)
    assert len(out.frames) == len(should.numbers), f"{len(out.frames)} frames for {len(should.numbers)}"


def _a(codec, **more):
    return (Sound(codec, **more),)


BEEPING = {"stamps": steady(25, 30), "flashes": (0.4, 0.8)}
SLOW_THEN_FAST = then(steady(2, 3), 30, 20)
FAST_THEN_SLOW = then(steady(60, 40), 5, 8)
HALVED = then(steady(30, 20), 15, 10)
MOMENTS = (0, 0.034, 0.051, 0.117, 0.25, 0.283, 0.4, 0.433, 0.45, 0.6, 0.616, 0.7, 0.75, 0.8, 0.833, 0.866, 0.9)
BROWSER = tuple(map(exact, MOMENTS))
LATE = {**BEEPING, "offset": 30}


def all_cases():
    """Every kind of faults in reading and writing that one clip shows."""
    plain = (frames, size, sound)
    silent = (frames, size)
    yield from (
        Case("first frame not at 0", clip, plain)
        for clip in (
            Clip("ts", sounds=_a("aac", start=-0.5), **LATE),
            Clip("mkv", "libx265", sounds=_a("libopus", start=-0.5), **LATE),
            Clip("flv", "flv", sounds=_a("libmp3lame", start=-0.5), **LATE),
            Clip("mp4", sounds=_a("aac", start=-0.5), **LATE),
            Clip("wmv", "wmv2", sounds=_a("wmav2", start=-0.5), **LATE),
            Clip("mkv", sounds=_a("flac", start=0.2), **BEEPING),  # the sound begins later
        )
    )
    yield Case("first frame not at 0, from the middle", Clip("ts", sounds=_a("aac"), **LATE), plain, {"start": 0.3})
    for clip in (
        Clip("mp4", sounds=_a("aac"), b_frames=2),
        Clip("mov", "prores_ks", "yuv422p10le", sounds=_a("pcm_s16le")),
    ):
        yield Case("cut without loss (edit list)", clip._replace(hidden=5, flashes=(0.2, 0.52)), plain)

    as_long = Clip("mp4", stamps=then(steady(2, 6), 30, 210), flashes=(1.5, 3.6), sounds=_a("aac"))
    yield Case("variable frame rate", as_long, plain, {"max_frames": 81})
    for clip in (
        Clip("mkv", stamps=SLOW_THEN_FAST, flashes=(0.5, 1.3), sounds=_a("flac")),
        Clip("webm", "libvpx-vp9", stamps=HALVED, flashes=(0.2, 5 / 6), sounds=_a("libopus")),
        Clip("mp4", "libx265", stamps=FAST_THEN_SLOW, flashes=(0.25, 1.25), sounds=_a("aac"), b_frames=2),
    ):
        yield Case("variable frame rate", clip, plain)
        yield Case("variable frame rate, at its own", clip, (frames,), decode=AT_ITS_RATE)
    yield Case("variable frame rate", Clip("gif", "gif", "rgb8", stamps=SLOW_THEN_FAST), silent)
    yield Case("variable frame rate", Clip("mov", "mjpeg", "yuvj420p", stamps=HALVED), silent)

    recorded = {"stamps": BROWSER, "flashes": (0.4,), "seekable": False}
    for clip in (
        Clip("webm", "libvpx-vp9", sounds=_a("libopus"), header_rate=0, **recorded),
        Clip("webm", "libvpx", sounds=_a("libopus"), header_rate=1000, **recorded),
        Clip("mkv", sounds=_a("libopus"), header_rate=0, **recorded),
        Clip("mp4", sounds=_a("aac"), fragmented=True, seekable=False, **BEEPING),
    ):
        yield Case("from a browser's recorder", clip, plain)

    for codec, container in (("pcm_s16le", "mkv"), ("pcm_s24le", "mov"), ("flac", "mkv"), ("aac", "mp4")):
        clip = Clip(container, sounds=_a(codec, layout="7.1"), **BEEPING)
        yield Case("sound in 7.1", clip, plain)
    clip = Clip("mkv", sounds=_a("pcm_s16le", layout="7.1", channel=6), **BEEPING)
    yield Case("sound in 7.1, on one side only", clip, plain)
    for codec, container, layout in (("aac", "mp4", "3.0"), ("aac", "mkv", "4.0"), ("flac", "mkv", "5.1")):
        yield Case("many channels", Clip(container, sounds=_a(codec, layout=layout), **BEEPING), plain)
    for codec, container, rate in (("pcm_s16le", "mov", 192000), ("flac", "mkv", 192000), ("pcm_s16le", "avi", 6000)):
        clip = Clip(container, "mjpeg", "yuvj420p", sounds=_a(codec, rate=rate, layout="mono"), **BEEPING)
        yield Case("rates that AAC lacks", clip, plain)

    silence, one, two = (Sound("aac", plays=plays) for plays in ("silence", 500, 1500))
    for container in ("mp4", "mkv", "mov"):
        yield Case("several tracks", Clip(container, sounds=(one, silence)), (tone(500),), says="track")
    both = (silence, two._replace(default=True), one)
    yield Case("several tracks, the second marked", Clip("mkv", sounds=both), (tone(1500),), says="track")
    yield Case("several tracks, the second marked", Clip("ts", sounds=(one, two)), (tone(500),), says="track")

    for container, codec in (("mp4", "libx264"), ("mkv", "libx264"), ("mov", "mjpeg")):
        pixels = "yuvj420p" if codec == "mjpeg" else "yuv420p"
        for rotation in (90, 180, 270) if container == "mp4" else (90,):
            yield Case("turned", Clip(container, codec, pixels, rotation=rotation), silent)
    for container in ("mp4", "mkv"):
        yield Case("cover picture", Clip(container, sounds=_a("aac"), cover="last", **BEEPING), plain)
    yield Case("cover picture first", Clip("mp4", cover="first"), silent)
    for clip in (Clip(interlaced=True), Clip("mpg", "mpeg2video", interlaced=True, b_frames=2)):
        yield Case("interlaced", clip, silent)
    for clip in (Clip("mkv"), Clip("webm", "libvpx-vp9"), Clip("ts")):
        yield Case("size changes", clip._replace(later_size=(128, 80)), silent)
    for clip in (
        Clip("dv", "dvvideo", size=(720, 576), stamps=steady(25, 8)),
        Clip("ogv", "libvpx", sounds=_a("libopus"), **BEEPING),
        Clip("mpg", "mpeg2video", sounds=_a("mp2"), **BEEPING),
        Clip("avi", "mpeg4", sounds=_a("libmp3lame"), **BEEPING),
        Clip("mp4", "libsvtav1", sounds=_a("aac"), **BEEPING),
        Clip("mkv", "ffv1", stamps=steady(NTSC, 30), flashes=(0.4,), sounds=_a("pcm_s16le")),
    ):
        yield Case("other containers", clip, plain if clip.sounds else (frames,), decode=AT_ITS_RATE)

    for clip in (
        Clip("mpg", "mpeg2video", size=(96, 72), pixel_aspect=Fraction(3, 2)),
        Clip("mkv", size=(72, 96), pixel_aspect=Fraction(2)),
    ):
        clip = clip._replace(background=disc(clip.pixel_aspect), numbered=False)
        yield Case("pixels that are not square", clip, (length, round_disc))
    for clip in (
        Clip("mov", "qtrle", "argb"),
        Clip("mkv", "ffv1", "bgra"),
        Clip("mov", "prores_ks", "yuva444p10le"),
        Clip("mov", "png", "rgba"),
        Clip("webm", "libvpx-vp9", "yuva420p"),
        Clip("gif", "gif", "pal8"),
    ):
        check = holes_are_black if clip.container == "gif" else on_black
        says = "" if clip.container == "gif" else "black"  # FFmpeg writes its holes as black
        yield Case("transparency", clip._replace(background=with_holes), (frames, size, check), says=says)

    wide = {"size": (960, 32), "stamps": steady(25, 6), "background": ramp, "numbered": False}
    for clip in (
        Clip("mp4", "libx265", "yuv420p10le", colours=BT709, **wide),
        Clip("mov", "prores_ks", "yuv422p10le", colours=BT709, **wide),
    ):
        yield Case("10 bits", clip, (length, ten_bits))
    for colours in (HLG, PQ):
        clip = Clip("mp4", "libx265", "yuv420p10le", colours=colours)
        yield Case("HDR", clip, (frames,), says="HLG|PQ|HDR", may_refuse=True)
    red = {"background": flat(*RED), "numbered": False, "stamps": steady(25, 8)}
    for clip in (
        Clip(colours=BT709, **red),
        Clip("webm", "libvpx-vp9", colours=BT709, **red),
        Clip("mkv", "libx265", "yuv420p10le", colours=BT709, **red),
        Clip(colours=BT601, **red),
        Clip(colours=BT709._replace(full=True), **red),
        Clip("mov", "mjpeg", "yuvj420p", colours=BT601._replace(full=True), **red),
        Clip("mov", "qtrle", "rgb24", **red),
        Clip(colours=UNTAGGED_601, **red),
        Clip("mkv", "ffv1", colours=UNTAGGED_601, **red),
        Clip(colours=UNTAGGED_709, size=(128, 720), **red),
        Clip("avi", "mpeg4", colours=UNTAGGED_709, size=(128, 720), **red),
    ):
        yield Case("colours", clip, (length, colour, tags))
    for clip in (
        Clip(size=(853, 480), pixels="yuv444p", stamps=steady(25, 6)),
        Clip("gif", "gif", "rgb8", (101, 67)),
        Clip("webm", "libvpx-vp9", "yuv420p", (101, 67)),
    ):
        yield Case("odd sizes", clip, silent)
