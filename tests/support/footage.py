"""Small clips of every kind for tests: described, written with PyAV, and what each shows when.

clip = Clip("mkv", "libx265", stamps=steady(30, 60), offset=30, sounds=(Sound("aac", start=-0.5),))
truth(clip, rate=16).numbers    # of the frames to be seen in a file made of `write(clip, path)` at 16 fps
"""

import os
import random
from collections import Counter
from collections.abc import Callable
from fractions import Fraction
from math import ceil, lcm
from pathlib import Path
from typing import NamedTuple

import av
from av.codec.context import Flags
from av.stream import Disposition
from footage_pictures import Colours, Painter, gradient
from footage_sound import Sound, sound_packets

FORMATS = {"mkv": "matroska", "ts": "mpegts", "mpg": "vob", "wmv": "asf", "ogv": "ogg"}  # others have the ending's name
MILLISECOND = Fraction(1, 1000)
TICKS = {"mkv": MILLISECOND, "webm": MILLISECOND, "flv": MILLISECOND, "wmv": MILLISECOND, "gif": Fraction(1, 100)}
OF_THE_RATE = ("avi", "ogv", "dv", "mpeg2video", "mpeg1video", "dvvideo")  # containers and codecs that count frames
FAST = {
    "libx264": {"preset": "ultrafast", "crf": "8", "threads": "1"},
    "libx265": {"preset": "ultrafast", "x265-params": "crf=10:pools=none:frame-threads=1:log-level=none"},
    "libvpx-vp9": {"deadline": "realtime", "cpu-used": "8", "crf": "10", "b": "0", "lag-in-frames": "0"},
    "libvpx": {"deadline": "realtime", "cpu-used": "8", "crf": "8", "b": "2000000"},
    "libsvtav1": {"preset": "6", "crf": "5", "svtav1-params": "lp=1"},  # faster ones repeat blocks of other frames,
    "ffv1": {"threads": "1"},
}
QUANTISED = ("mpeg4", "mjpeg", "flv", "wmv2", "mpeg2video", "mpeg1video", "msmpeg4v3")
FLASH_LASTS = Fraction(13, 100)  # so that 8 frames a second show it


os.environ.setdefault("SVT_LOG", "1")  # errors only


class Clip(NamedTuple):
    """A clip. `stamps` are when each picture begins to show, in seconds from the first that shows."""

    container: str = "mp4"
    codec: str = "libx264"
    pixels: str = "yuv420p"
    size: tuple[int, int] = (96, 64)
    stamps: tuple[Fraction, ...] = tuple(Fraction(i, 25) for i in range(25))
    offset: float = 0  # seconds on all stamps, of the sound as well
    sounds: tuple[Sound, ...] = ()
    flashes: tuple[float, ...] = ()  # seconds after the first picture
    rotation: int = 0  # degrees
    pixel_aspect: Fraction = Fraction(1)
    colours: Colours | None = None
    background: Callable = gradient
    numbered: bool = True
    film: Callable | None = None  # in place of all that: of number, width and height, [H, W, 3] in 0..1
    interlaced: bool = False
    b_frames: int = 0
    key_every: int = 0  # pictures from one that stands alone to the next, 0: as the encoder does
    hidden: int = 0  # pictures before the first that shows, which an edit list hides
    cover: str = ""  # a cover picture in the file, which is its "first" or "last" stream
    later_size: tuple[int, int] | None = None  # of the second half
    seekable: bool = True  # the sink that it is written to
    fragmented: bool = False
    header_rate: int | None = None  # frames a second that a Matroska header says instead of the true one, 0: nothing
    cut: float = 1.0  # how much of the file's bytes are kept
    noise: tuple[tuple[float, int], ...] = ()  # place as a share of the file, and bytes that are overwritten there


class Truth(NamedTuple):
    """What a clip shows at a constant rate."""

    numbers: list[int]
    length: Fraction  # seconds of the clip from its start


def steady(rate, count, first=0):
    """Stamps of a constant rate."""
    return tuple(Fraction(first) + i / Fraction(rate) for i in range(count))


def then(stamps, rate, count):
    """Stamps with `count` more at another rate after the last, which lasts as long as those."""
    return stamps + steady(rate, count, stamps[-1] + 1 / Fraction(rate))


def exact(seconds):
    """0.4 is 2/5."""
    return Fraction(seconds).limit_denominator(10**6)


def rate_of(clip):
    """The nominal rate: of the most usual distance."""
    distances = Counter(later - former for former, later in zip(clip.stamps, clip.stamps[1:], strict=False))
    return 1 / distances.most_common(1)[0][0] if distances else Fraction(25)


def tick_of(clip):
    """The unit that the container counts stamps in, seconds."""
    if clip.container in OF_THE_RATE or clip.codec in OF_THE_RATE:
        return 1 / rate_of(clip)
    if clip.container in TICKS:
        return TICKS[clip.container]
    finest = lcm(exact(clip.offset).denominator, *(stamp.denominator for stamp in clip.stamps))
    return Fraction(1, finest if finest <= 60000 and clip.container not in ("ts", "mpg") else 90000)


def kept_stamps(clip):
    """The stamps of all pictures as the container keeps them, and the end; from the first that shows.

    The last picture lasts as long as the one before it.
    """
    tick, first = tick_of(clip), clip.stamps[clip.hidden]
    kept = [round((stamp - first) / tick) * tick for stamp in clip.stamps]
    last = clip.stamps[-1] - clip.stamps[-2] if len(kept) > 1 else 1 / rate_of(clip)
    return kept, kept[-1] + max(1, round(last / tick)) * tick


def truth(clip, rate=16, start=0, max_frames=0):
    """What is to be seen of a clip at a constant rate: at (i + 1/2) / rate what was visible then.

    A part that is asked for from between two pictures on begins with the second, where that is about to come.

    Args:
        rate: frames a second of the output.
        start: seconds from the first picture that shows.
        max_frames: 0 for all.
    """
    stamps, end = kept_stamps(clip)
    rate, start = Fraction(rate), exact(start)
    following = min((stamp for stamp in stamps if stamp >= start), default=start)
    start = following if following - start < 1 / rate_of(clip) else start
    length = end - start
    count = max(1, ceil(length * rate - Fraction(1, 2)))
    if max_frames:
        count = min(count, max_frames)
    times = [start + (i + Fraction(1, 2)) / rate for i in range(count)]
    return Truth([max(n for n, stamp in enumerate(stamps) if stamp <= time) for time in times], length)


def write(clip, path):
    """Write a clip to a file; its path."""
    path = Path(path)
    sink = str(path) if clip.seekable else _Pipe()
    form = FORMATS.get(clip.container, clip.container)
    with av.open(sink, "w", format=form, options=_options(clip)) as container:
        packets = [*_video_packets(container, clip), *_cover_packets(container, clip)]
        for sound in clip.sounds:
            packets += sound_packets(container, sound, kept_stamps(clip)[1], exact(clip.offset), clip.flashes)
        for packet in sorted(packets, key=lambda packet: packet.dts * packet.time_base):
            container.mux(packet)
    data = path.read_bytes() if clip.seekable else bytes(sink.data)
    data = _with_header_rate(data, clip.header_rate)
    path.write_bytes(_damaged(_with_tags_first(data) if clip.cover == "first" else data, clip))
    return path


def write_long(clip, path, count):
    """Write a clip whose last picture is repeated up to `count` in all, quickly, as one run after a single key frame.

    To read something from its end takes a reader as long as to decode it all.
    """
    with av.open(str(path), "w", format=FORMATS.get(clip.container, clip.container)) as container:
        packets = _video_packets(container, clip._replace(key_every=10**6))
        for i in range(count):
            former = packets[min(i, len(packets) - 1)]
            packet = av.Packet(bytes(former))
            packet.pts = packet.dts = i * former.duration
            packet.duration, packet.time_base, packet.stream = former.duration, former.time_base, former.stream
            packet.is_keyframe = i == 0
            container.mux(packet)
    return path


def _options(clip):
    if clip.container in ("mp4", "mov"):
        return {"movflags": "frag_keyframe+delay_moov" if clip.fragmented else "faststart"}
    if clip.container == "avi":  # or the priming of MP3 would move the picture by half a frame
        return {"avoid_negative_ts": "disabled"}
    return {"max_delay": "700000"} if clip.container in ("ts", "mpg") else {}  # as the ffmpeg program does


class _Pipe:
    """A sink that cannot seek, as that of a browser's recorder."""

    def __init__(self):
        self.data = bytearray()

    def write(self, data):
        self.data += data
        return len(data)


def _video_packets(container, clip):
    stream = container.add_stream(clip.codec, rate=rate_of(clip))
    _set_up(stream.codec_context, clip)
    stream.time_base = tick_of(clip)
    if clip.rotation:
        stream.set_display_rotation(clip.rotation)
    if clip.pixels.startswith("yuva") and clip.codec == "libvpx-vp9":
        stream.metadata["alpha_mode"] = "1"
    tick, (stamps, end) = tick_of(clip), kept_stamps(clip)
    units = [round((stamp + exact(clip.offset)) / tick) for stamp in (*stamps, end)]
    half = len(stamps) // 2 if clip.later_size else len(stamps)
    packets = _encoded(stream.codec_context, clip, range(half), units)
    if clip.later_size:
        later = clip._replace(size=clip.later_size)
        encoder = av.CodecContext.create(clip.codec, "w")
        encoder.framerate = rate_of(clip)
        _set_up(encoder, later)
        packets += _encoded(encoder, later, range(half, len(stamps)), units)
    for packet in packets:
        packet.stream = stream
    return packets


def _set_up(context, clip):
    context.options = FAST.get(clip.codec, {}).copy()
    context.width, context.height = clip.size
    context.pix_fmt, context.time_base = clip.pixels, tick_of(clip)
    context.max_b_frames = clip.b_frames
    if clip.key_every:
        context.gop_size = clip.key_every
    context.sample_aspect_ratio = clip.pixel_aspect
    if clip.codec in QUANTISED:
        context.qmin, context.qmax, context.bit_rate = 1, 2, 8_000_000
    if clip.interlaced and clip.codec == "libx264":
        context.options |= {"x264-params": "tff=1"}
    elif clip.interlaced:
        context.flags |= Flags.interlaced_dct | Flags.interlaced_me
    if clip.colours:
        _tag(context, clip.colours)


def _tag(context_or_frame, colours):
    context_or_frame.colorspace, primaries, transfer = colours.tags
    if hasattr(context_or_frame, "color_primaries"):  # frames of PyAV 16 have none
        context_or_frame.color_primaries, context_or_frame.color_trc = primaries, transfer
    if colours.says_range:
        context_or_frame.color_range = 2 if colours.full else 1


def _encoded(encoder, clip, numbers, units):
    """The packets of some of a clip's pictures.

    Args:
        units: when each picture of the clip begins, and the end, in ticks.
    """
    painter = Painter(clip.size, clip.pixels, clip.colours, clip.background, clip.numbered)
    tick, first = tick_of(clip), units[clip.hidden]
    packets = []
    for number in numbers:
        time = (units[number] - first) * tick
        flash = any(moment <= time < moment + FLASH_LASTS for moment in map(exact, clip.flashes))
        frame = painter.frame(number, flash) if clip.film is None else painter.painted(clip.film(number, *clip.size))
        frame.pts, frame.time_base = units[number], tick
        if clip.colours:
            _tag(frame, clip.colours)
        packets += encoder.encode(frame)
    packets += encoder.encode(None)
    lasts = {unit: after - unit for unit, after in zip(units, units[1:], strict=False)}
    for packet in packets:
        packet.duration, packet.time_base = lasts.get(packet.pts, 0), tick
    return packets


def _cover_packets(container, clip):
    if not clip.cover:
        return []
    picture = Painter((96, 96), "yuvj420p", background=lambda w, h: gradient(w, h)[::-1]).frame(4095)
    picture.pts, picture.time_base = 0, Fraction(1, 25)
    if clip.container in ("mkv", "webm"):
        encoder = av.CodecContext.create("mjpeg", "w")
        encoder.width, encoder.height, encoder.pix_fmt, encoder.time_base = 96, 96, "yuvj420p", Fraction(1, 25)
        data = b"".join(map(bytes, (*encoder.encode(picture), *encoder.encode(None))))
        container.add_attachment("cover.jpg", "image/jpeg", data)
        return []
    stream = container.add_stream("mjpeg", rate=25)
    stream.width, stream.height, stream.pix_fmt = 96, 96, "yuvj420p"
    stream.disposition = Disposition.attached_pic
    return [*stream.encode(picture), *stream.encode(None)]


def _with_header_rate(data, rate):
    """Change the length of a frame in a Matroska header, or blank it out."""
    if rate is None:
        return data
    place = data.index(bytes.fromhex("23e383"))
    count = data[place + 3] & 0x7F
    if rate:
        changed = data[place : place + 4] + (10**9 // rate).to_bytes(count, "big")
    else:
        changed = bytes((0xEC, 0x80 | count + 2)) + bytes(count + 2)  # an element that means nothing
    return data[:place] + changed + data[place + 4 + count :]


def _with_tags_first(data):
    """Put what an mp4 says of itself, with its cover, before its tracks, as some programs do."""
    place = data.index(b"moov") - 4
    end = place + int.from_bytes(data[place : place + 4], "big")
    boxes, at = [], place + 8
    while at < end:
        length = int.from_bytes(data[at : at + 4], "big")
        boxes.append(data[at : at + length])
        at += length
    boxes.sort(key=lambda box: (b"mvhd", b"udta").index(box[4:8]) if box[4:8] in (b"mvhd", b"udta") else 2)
    return data[: place + 8] + b"".join(boxes) + data[end:]


def _damaged(data, clip):
    data, generator = bytearray(data), random.Random(0)
    for share, count in clip.noise:
        place = min(len(data) - 1, int(share * len(data)))
        data[place : place + count] = generator.randbytes(len(data[place : place + count]))
    return bytes(data[: int(len(data) * clip.cut)])
