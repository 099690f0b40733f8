"""A video file, written frame by frame with its sound beside."""

import contextlib
import json
import os
from fractions import Fraction
from typing import NamedTuple

import av
import torch.nn.functional as F

from .colour import Colours, tag, to_frame
from .errors import FootageError
from .sound import to_frame as sound_frame

ENCODERS = {"auto": "h264", "h264": "h264", "hevc": "hevc", "av1": "libsvtav1"}
FORMATS = {"mp4": "mp4", "mov": "mov", "mkv": "matroska", "webm": "webm"}
SOUND_ENCODERS = {"webm": "libopus"}
OPUS_RATE = 48000
LARGE, LOOKAHEAD = 2048 * 1152, "16"  # pixels, and frames: of larger ones the usual 40 take 0.5 GB
THREADS = min(8, os.cpu_count() or 1)  # each holds frames of its own
QUALITY = 18  # constant rate factor: losses that are not seen
SOUND_BITS = 128_000  # a second and two channels


class VideoForm(NamedTuple):
    """What a file holds."""

    width: int
    height: int
    rate: Fraction
    colours: Colours
    deep: bool  # 10 bits, else 8
    pixel_aspect: Fraction


class Request(NamedTuple):
    """What Save Video asks for, in the host's words."""

    container: str = "auto"
    codec: str = "auto"
    crf: float | None = None
    metadata: dict | None = None


def write_video(file, form: VideoForm, frames, sounds, request=Request()):  # noqa: B008
    """Write a video.

    Args:
        file: path, or a file object that can seek. A path is removed again if writing fails.
        frames: iterator of [height, width, 3] in 0..1. Odd sides get one more pixel, as 4:2:0 needs it.
        sounds: tracks, each an EncodedSound or one of a CopiedSound.

    Raises:
        FootageError: a container or codec that is not known, or what the disk says.
    """
    container, codec = kind_of(file, request)
    options = {"movflags": "use_metadata_tags" + ("+faststart" if isinstance(file, str) else "")}
    try:
        with av.open(
            file, "w", format=FORMATS[container], options=options if container in ("mp4", "mov") else {}
        ) as out:
            for key, value in (request.metadata or {}).items():
                out.metadata[key] = value if isinstance(value, str) else json.dumps(value)
            _write(out, _picture_stream(out, form, codec, request.crf), form, frames, sounds, container)
    except BaseException as error:
        if isinstance(file, str):
            with contextlib.suppress(OSError):
                os.remove(file)
        if isinstance(error, OSError) and not isinstance(error, FootageError):
            raise FootageError(
                f"{file}: the video cannot be written ({error}). Make room there, or save it under another name or in "
                "another folder: the edit itself is kept."
            ) from error
        raise
    finally:
        for sound in sounds:
            sound.close()


def kind_of(file, request: Request) -> tuple[str, str]:
    """Container and codec of a file."""
    container = getattr(request.container, "value", request.container)
    codec = getattr(request.codec, "value", request.codec) or "auto"
    if container == "auto":
        ending = os.path.splitext(file)[1][1:].lower() if isinstance(file, str) else ""
        container = ending if ending in FORMATS else "mp4"
    if codec == "auto" and container == "webm":
        codec = "av1"
    if container not in FORMATS or codec not in ENCODERS:
        raise FootageError(
            f"a video must be one of {', '.join(FORMATS)} with {', '.join(ENCODERS)}, got {container} with {codec}. "
            "Choose another format in Save Video."
        )
    return container, codec


def _picture_stream(out, form, codec, crf):
    stream = out.add_stream(ENCODERS[codec], rate=form.rate)
    stream.width, stream.height = form.width + form.width % 2, form.height + form.height % 2
    stream.pix_fmt = "yuv420p10le" if form.deep else "yuv420p"
    stream.options = {"crf": str(QUALITY if crf is None else crf)}
    if ENCODERS[codec] == "h264" and form.width * form.height > LARGE:
        stream.options |= {"rc-lookahead": LOOKAHEAD}
    stream.codec_context.thread_count = THREADS
    stream.codec_context.sample_aspect_ratio = form.pixel_aspect
    tag(stream.codec_context, form.colours)
    return stream


def _write(out, stream, form, frames, sounds, container):
    for sound in sounds:
        sound.begin(out, container)
    for i, frame in enumerate(frames):
        if form.width % 2 or form.height % 2:
            planes = frame.movedim(-1, 0).unsqueeze(0)
            frame = F.pad(planes, (0, form.width % 2, 0, form.height % 2), mode="replicate")[0].movedim(0, -1)
        picture = to_frame(frame, form.colours, form.deep)
        picture.pts = i
        picture.time_base = 1 / form.rate
        out.mux(stream.encode(picture))
        for sound in sounds:
            sound.write_up_to((i + 1) / form.rate)
    out.mux(stream.encode(None))
    for sound in sounds:
        sound.finish()


class EncodedSound:
    """Sound that is encoded anew; a track for `write_video`.

    Args:
        sound: Sound.
        start, seconds: what of it.
    """

    def __init__(self, sound, start: Fraction, seconds: Fraction):
        self._rate, self._layout, self._label = sound.rate, sound.layout, sound.label
        self._pieces = sound.pieces(start, seconds)

    def begin(self, out, container):
        """Add the track to a file that is being written."""
        encoder = SOUND_ENCODERS.get(container, "aac")
        self._out = out
        self._stream = out.add_stream(
            encoder, rate=OPUS_RATE if encoder == "libopus" else self._rate, layout=self._layout
        )
        self._stream.bit_rate = SOUND_BITS * -(-self._stream.layout.nb_channels // 2)
        self._label.put_on(self._stream)
        self._written, self._rest = 0, None

    def write_up_to(self, seconds):
        """Write the sound of the frames so far."""
        end = round(seconds * self._rate)
        while self._written < end:
            piece = self._rest if self._rest is not None else next(self._pieces, None)
            if piece is None:
                return
            self._rest = piece[end - self._written :] if self._written + len(piece) > end else None
            piece = piece[: end - self._written]
            frame = sound_frame(piece, self._rate, self._layout)
            frame.pts, frame.time_base = self._written, Fraction(1, self._rate)
            self._out.mux(self._stream.encode(frame))
            self._written += len(piece)

    def finish(self):
        self._out.mux(self._stream.encode(None))

    def close(self):
        pass
