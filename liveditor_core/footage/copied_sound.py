"""The sound tracks of a file, taken over into another one as they are."""

import av

from .pyav import rational
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
    """All sound tracks of a FileClip, packet by packet; a track for `write_video`."""

    def __init__(self, clip):
        self._clip, self._source = clip, None

    def fits(self, container: str) -> bool:
        """Whether every track may lie in a container as it is, and its stamps only rise."""
        last = {}
        with self._clip.open() as source:
            tracks = _tracks(source)
            if not all(_codec(stream) in HOLDS[container] for stream in tracks):
                return False
            try:
                for packet in source.demux(*tracks):
                    if packet.dts is None:
                        continue
                    time, index = packet.dts * rational(packet.time_base), packet.stream.index
                    if index in last and not last[index] < time < last[index] + LONGEST_GAP:
                        return False
                    last[index] = time
            except av.error.FFmpegError:
                pass  # the file is cut off here
        return True

    def begin(self, out, _container):
        self._out, self._source = out, self._clip.open()
        tracks, self._streams = _tracks(self._source), {}
        for stream in tracks:
            copied = self._streams[stream.index] = out.add_stream_from_template(stream)
            if stream.language:
                copied.metadata["language"] = stream.language
        self._packets, self._waiting = self._shifted(tracks), None

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

    def finish(self):
        self.write_up_to(None)

    def close(self):
        if self._source is not None:
            self._source.close()


def _codec(stream):
    """The name of a codec, not of the decoder that was chosen for it."""
    codec = stream.codec_context.codec
    return getattr(codec, "canonical_name", codec.name.removesuffix("float"))


def _tracks(container):
    return [stream for stream in container.streams.audio if stream.codec_context is not None]
