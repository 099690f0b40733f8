"""Which of a file's streams are its picture and its sound."""

from typing import NamedTuple

import av
from av.stream import Disposition

from .errors import FootageError

# FFmpeg's own decoders leave the transparency of these out.
WITH_ALPHA = {"vp8": "libvpx", "vp9": "libvpx-vp9"}
LABELS = ("language", "title", "handler_name")


def refusal(name, reason):
    """The error for what cannot be read."""
    return FootageError(
        f"{name}: must be a video that FFmpeg can read, with a picture ({reason}). Choose another file or convert it "
        "to mp4; copy it here once more if the copy was cut off."
    )


def choose(streams):
    """The stream that a player takes: the one marked as the default, else the first."""
    return next((s for s in streams if s.disposition & s.disposition.default), streams[0] if streams else None)


def picture_of(container, name):
    """The stream of the picture; covers are none."""
    decodable = [s for s in container.streams.video if s.codec_context is not None]
    moving = [s for s in decodable if not s.disposition & s.disposition.attached_pic]
    moving = [s for s in moving if s.frames != 1] or moving  # a cover that is not marked as one
    if not moving:
        reason = "there is only a cover picture" if decodable else "there is no picture in it"
        raise refusal(name, reason)
    return choose(moving)


def sounds_of(container):
    """The streams of all sound tracks."""
    return [s for s in container.streams.audio if s.codec_context is not None]


def sound_of(container):
    """The stream of the sound that a player takes, or None."""
    return choose(sounds_of(container))


class Label(NamedTuple):
    """What tells a track from others of a file."""

    tags: tuple[tuple[str, str], ...] = ()
    disposition: int = 0  # FFmpeg's flags: the default one, a commentary

    @property
    def is_default(self):
        return bool(self.disposition & Disposition.default.value)

    @classmethod
    def of(cls, stream):
        tags = {**stream.metadata, "language": stream.language or stream.metadata.get("language")}
        flags = getattr(stream.disposition, "value", stream.disposition)  # before PyAV 17.1 no number
        return cls(tuple((name, tags[name]) for name in LABELS if tags.get(name)), flags)

    def put_on(self, stream):
        stream.metadata.update(self.tags)
        stream.disposition = self.disposition


def decoder_of(stream, *, threads=0, strict=False):
    """The decoder of a stream.

    Args:
        threads: that decode frames side by side, 0 for none.
        strict: refuse what is damaged, else conceal it.
    """
    tags = {key.lower(): value for key, value in stream.metadata.items()}
    alpha = tags.get("alpha_mode") == "1" and WITH_ALPHA.get(stream.codec_context.name)
    if alpha and alpha in av.codecs_available:
        return av.CodecContext.create(alpha, "r")
    decoder = stream.codec_context
    if threads:
        decoder.thread_type, decoder.thread_count = "AUTO", threads
    if strict:
        decoder.options = {"err_detect": "explode"}
    return decoder


def decoded(container, stream, decoder, errors, *, strict=False):
    """Every frame of a stream that can be decoded.

    Args:
        errors: a list to which what is damaged is added.
        strict: raise what the decoder refuses.

    Raises:
        av.error.FFmpegError: a part of the stream is damaged.
    """
    flushed = False
    try:
        for packet in container.demux(stream):
            flushed = packet.size == 0
            if packet.is_corrupt:
                errors.append("a packet that was damaged on its way")
            try:
                yield from decoder.decode(None if flushed else packet)
            except av.error.FFmpegError as error:
                if strict:
                    raise
                errors.append(str(error))
    except av.error.FFmpegError as error:
        if strict:
            raise
        errors.append(str(error))  # the file ends here
    if not flushed:
        try:
            yield from decoder.decode(None)
        except av.error.FFmpegError as error:
            errors.append(str(error))
