"""The sound tracks of a file, taken over into another one as they are."""

import av

# By what is written: the codecs that may lie in it.
HOLDS = {
    "mp4": {"aac", "mp3", "ac3", "eac3", "opus", "flac", "alac"},
    "mov": {"aac", "mp3", "ac3", "eac3", "alac", "pcm_s16le", "pcm_s24le"},
    "mkv": {"aac", "mp3", "ac3", "eac3", "opus", "flac", "alac", "vorbis", "dts", "pcm_s16le", "pcm_s24le"},
    "webm": {"opus", "vorbis"},
}


class CopiedSound:
    """All sound tracks of a FileClip, packet by packet; a track for `write_video`."""

    def __init__(self, clip):
        self._clip = clip

    def fits(self, container: str) -> bool:
        """Whether every track may lie in a container as it is."""
        with self._clip.open() as source:
            return all(stream.codec_context.name in HOLDS[container] for stream in _tracks(source))

    def begin(self, out, _container):
        self._out, self._source = out, self._clip.open()
        tracks = _tracks(self._source)
        self._streams = {stream.index: out.add_stream_from_template(stream) for stream in tracks}
        self._packets, self._waiting = self._shifted(tracks), None

    def _shifted(self, tracks):
        try:
            for packet in self._source.demux(*tracks):
                if packet.dts is None or packet.pts is None:
                    continue
                shift = round(self._clip.origin / packet.time_base)
                if packet.pts - shift + packet.duration <= 0:
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
            if packet is None or seconds is not None and packet.pts * packet.time_base >= seconds:
                return
            packet.stream = self._streams[packet.stream.index]
            self._out.mux(packet)
            self._waiting = None

    def finish(self):
        self.write_up_to(None)

    def close(self):
        self._source.close()


def _tracks(container):
    return [stream for stream in container.streams.audio if stream.codec_context is not None]
