"""The sound tracks of a file, taken over into another one as they are."""

import av

from .pyav import rational
from .streams import Label, sounds_of
from .timeline import LONGEST_GAP

# By what is written: the codecs that may lie in it.
HOLDS = {
    "mp4": {"aac", "mp3", "ac3", "eac3", "opus", "flac", "alac"},
    "mov": {"aac", "mp3", "ac3", "eac3", "alac", "pcm_s16le", "pcm_s24le"},
    "mkv": {"aac", "mp3", "ac3", "eac3", "opus", "flac", "alac", "vorbis", "dts", "pcm_s16le", "pcm_s24le"},
    "webm": {"opus", "vorbis"},
}


RUN_UP = 0.1  # seconds before the first picture that are taken along: decoders begin with them


class CopiedSound:
    """Sound tracks of a FileClip, packet by packet, in one reading; each is a track for `write_video`."""

    def __init__(self, clip):
        self._clip, self._source, self._out = clip, None, None
        self._wanted, self._streams, self._waiting = [], {}, None

    def fitting(self, container: str) -> set[int]:
        """The numbers of those streams that may lie in a container as they are, and whose stamps only rise."""
        last = {}
        with self._clip.open() as source:
            tracks = [stream for stream in sounds_of(source) if _codec(stream) in HOLDS[container]]
            fitting = {stream.index for stream in tracks}
            try:
                for packet in source.demux(*tracks) if tracks else ():
                    if packet.dts is None:
                        continue
                    time, index = packet.dts * rational(packet.time_base), packet.stream.index
                    if index in last and not last[index] < time < last[index] + LONGEST_GAP:
                        fitting.discard(index)
                    last[index] = time
            except av.error.FFmpegError:
                pass  # the file is cut off here
        return fitting

    def track(self, number: int) -> "_Track":
        """Of the stream with a number."""
        return _Track(self, number)

    def add(self, out, number):
        """Give a stream its place in a file that is being written."""
        if self._source is None:
            self._out, self._source = out, self._clip.open()
        stream = self._source.streams[number]
        self._streams[number] = copied = out.add_stream_from_template(stream)
        Label.of(stream).put_on(copied)
        self._wanted.append(stream)
        self._packets = self._shifted(self._wanted)

    def _shifted(self, tracks):
        try:
            for packet in self._source.demux(*tracks):
                if packet.dts is None or packet.pts is None:
                    continue
                time_base = rational(packet.time_base)
                shift = round(self._clip.sound_origin / time_base)
                if (packet.pts - shift + packet.duration) * time_base <= -RUN_UP:
                    continue
                packet.pts, packet.dts = packet.pts - shift, packet.dts - shift
                yield packet
        except av.error.FFmpegError:
            return  # the file is cut off here

    def write_up_to(self, seconds):
        """Write what begins before a time, everything for None."""
        while True:
            packet = self._waiting or next(self._packets, None)
            self._waiting = packet
            if packet is None or seconds is not None and packet.pts * rational(packet.time_base) >= seconds:
                return
            packet.stream = self._streams[packet.stream.index]
            self._out.mux(packet)
            self._waiting = None

    def close(self):
        if self._source is not None:
            self._source.close()


class _Track:
    """One of them. What one writes, all have written."""

    def __init__(self, sound, number):
        self._sound, self._number = sound, number

    def begin(self, out, _container):
        self._sound.add(out, self._number)

    def write_up_to(self, seconds):
        self._sound.write_up_to(seconds)

    def finish(self):
        self._sound.write_up_to(None)

    def close(self):
        self._sound.close()


def _codec(stream):
    """The name of a codec, not of the decoder that was chosen for it."""
    codec = stream.codec_context.codec
    return getattr(codec, "canonical_name", codec.name.removesuffix("float"))
