"""A clip in a file, read by the time stamps of its frames, a frame at a time."""

import functools
import hashlib
import heapq
import io
import itertools
import os
import re
from fractions import Fraction
from typing import NamedTuple

import av

from . import colour, hdr
from .clip import Clip, Picture
from .errors import SourceChanged
from .file_sound import FileSound
from .geometry import fit_frames
from .orientation import turned, upright
from .pyav import open_input, rational
from .streams import decoded, decoder_of, picture_of, refusal
from .timeline import CLOCK_MAY_JUMP, NO_STAMPS, WITHOUT_SHOWING_TIMES, Clock, Timeline
from .timing import alike, nominal_rate

PROBED_PACKETS = 600  # from which the frame rate is read
CHECKED_PACKETS = 256  # from one look at whether to stop to the next
COMPARED = 1 << 16  # bytes of each end of a file
REORDERED = 1  # second by which frames may come in another order than they show
SEEK_FROM = 5  # seconds; decoding on is as fast before
SURE_WITHIN = 60  # seconds from the beginning, in which damage is told from what only looks like it
# Where an index says at which bytes a time lies. Elsewhere the bytes are guessed, and frames can be missed.
INDEXED = ("mov,mp4,m4a,3gp,3g2,mj2", "matroska,webm")
THREADS = min(8, os.cpu_count() or 1)  # each holds frames of its own


class Window(NamedTuple):
    """What *Trim Video* has left of a clip, in seconds of the file's picture."""

    start: Fraction = Fraction(0)
    end: Fraction | None = None


class FileClip(Clip):
    """A video file, or bytes of one.

    Args:
        file: path, or io.BytesIO.
        window: what of the file the clip consists of.
        check: as in Clip.

    Raises:
        FootageError: nothing that FFmpeg can read, no picture, or none that can be decoded.
    """

    def __init__(self, file, window=Window(), check=Clip.check):  # noqa: B008
        self._file, self._window, self.check = file, window, check
        self._identity, self._length = self._identify(), None
        if isinstance(file, str):
            self.name = os.path.basename(file)
        self.errors = []  # of the reading that is going on, or of the last one
        with self.open() as container:
            stream = picture_of(container, self.name)
            self._format, self._stream = container.format.name, stream.index
            self._time_base = rational(stream.time_base)
            self.has_index = self._format in INDEXED
            told = stream.codec_context.color_primaries, stream.codec_context.color_trc
            self.header_length, self.has_header = _header_length(container, stream), self._format not in CLOCK_MAY_JUMP
            header, aspect = rational(stream.average_rate), rational(stream.sample_aspect_ratio) or Fraction(1)
            self.notes = [f"{stream.codec_context.name} in {self._format}"]
            if len(container.streams.video) > 1:
                self.notes.append(f"{len(container.streams.video)} pictures: took stream {stream.index}")
            probed = [stamp for stamp, _ in itertools.islice(_packet_stamps(container, stream), PROBED_PACKETS)]
            self.rate, self._alike = nominal_rate(probed, header), alike(probed)
        self.origin = Fraction(0)  # second 0, by the file's own clock
        frame, self.origin = next(self._frames(), (None, None))
        if frame is None:
            raise refusal(self.name, "no frame of it can be decoded")
        colour.require_readable(frame, self.name)
        self._coded = colour.colours_of(frame, told)
        self.colours = colour.shown_colours(self._coded)
        self.bit_depth, self.has_alpha = colour.bit_depth(frame), colour.has_alpha(frame)
        self._size, self._turn = (frame.width, frame.height), turned(frame)
        self.width, self.height = self._size[:: -1 if self._turn.swaps else 1]
        aspect = aspect if Fraction(1, 10) <= aspect <= 10 else Fraction(1)
        self.pixel_aspect = 1 / aspect if self._turn.swaps else aspect
        begin = window.start + self.begin_at(Fraction(0)) if window.start > 0 else window.start
        if window.end is None or begin < window.end:
            self._window = window._replace(start=begin)
        if self.header_length:
            end = min(self.header_length, window.end or self.header_length)
            self.header_length = max(Fraction(0), end - self._window.start)
        # Where frames have the times of decoding, the first one comes out with that of a later packet.
        self.sound_origin = probed[0] if self._format in WITHOUT_SHOWING_TIMES and probed else self.origin
        self.sound = FileSound.find(self, self.sound_origin + self._window.start)
        self._describe(frame)

    @functools.cached_property
    def _tracks(self):
        return tuple(FileSound.others(self, self.sound_origin + self._window.start, self.sound))

    @property
    def sounds(self):
        return self._tracks if isinstance(self.sound, FileSound) else super().sounds

    @property
    def sound_is_whole(self):
        return isinstance(self.sound, FileSound) and self._window == Window()

    def open(self):
        """Open the file.  # av.InputContainer"""
        self.require_unchanged()
        try:
            file = self._file if isinstance(self._file, str) else io.BytesIO(self._file.getvalue())
            return open_input(file)
        except (av.error.FFmpegError, ValueError) as error:
            raise refusal(self.name, error) from error

    def _identify(self):
        """Size, time and both ends of the file, or None where there is none."""
        if not isinstance(self._file, str):
            return None
        try:
            stat = os.stat(self._file)
            with open(self._file, "rb") as file:
                ends = [file.read(COMPARED)]
                file.seek(max(0, stat.st_size - COMPARED))
                ends.append(file.read(COMPARED))
        except OSError:
            return ()
        return stat.st_size, stat.st_mtime_ns, hashlib.sha256(b"".join(ends)).digest()

    def require_unchanged(self):
        now, before = self._identify(), self._identity
        if now == before or now and before and now[0] == before[0] and now[2] == before[2]:
            return  # a copy that was put back has another time
        raise SourceChanged(
            f"{self.name}: must stay as it is while it is edited, but was changed, moved or deleted since Encode "
            "Source Video read it. Put the file back and run again."
        )

    def pictures(self, start):
        seek = start + self._window.start > SEEK_FROM and self.has_index
        end = None if self._window.end is None else self._window.end - self._window.start
        begin, pending = self.origin + self._window.start, None
        for frame, raw in self._frames(begin + start if seek else None):
            time = raw - begin
            if end is not None and time >= end:
                break
            if pending is not None and time > start:
                yield pending._replace(duration=time - pending.time)
            told = (getattr(frame, "duration", 0) or 0) * self._time_base  # PyAV 16 does not know it
            length = self._last_duration(told, pending and time - pending.time)
            pending = Picture(time, length if end is None else min(length, end - time), frame)
        if pending is not None:
            yield pending

    def rgb(self, picture):
        frame = picture.frame
        pixels = colour.to_rgb(frame, self._coded)
        if (frame.width, frame.height) != self._size:
            pixels = fit_frames(pixels.unsqueeze(0), *self._size, "pad")[0]
        return upright(pixels, self._turn)

    def length(self):
        if self._length is None:
            last = heapq.nlargest(self._alike + 1, self._stamps()) or [(Fraction(0), 0)]
            time, told = last[0]
            before = next((stamp for stamp, _ in last if stamp < time), time)
            alike = sum(stamp == time for stamp, _ in last)
            end = time + (alike / self.rate if self._alike > 1 else self._last_duration(told, time - before))
            self._length = max(
                Fraction(0), end if self._window.end is None else min(end, self._window.end - self._window.start)
            )
        return self._length

    def _last_duration(self, told, gap):
        """How long the last picture shows.

        Args:
            told: seconds by the file, 0 if it does not say; a false rate in the header makes it too short.
            gap: seconds that the picture before it showed, None or 0 where there is none.
        """
        return max(told, 1 / self.rate) if told or not gap else min(gap, 1 / self.rate)

    def count_before(self, time):
        return sum(0 <= stamp < time for stamp, _ in self._stamps())

    def next_after(self, time):
        return min((stamp for stamp, _ in self._stamps(time) if stamp >= time), default=None)

    def _stamps(self, around=None):
        """When frames begin to show, and for how long by the file's word; not decoded, in the order of decoding.

        Args:
            around: a time; what lies far from it may be left out.
        """
        begin = self.origin + self._window.start
        with self.open() as container:
            stream = container.streams[self._stream]
            if around is not None and self.has_index and around + self._window.start > SEEK_FROM:
                container.seek(int((begin + around) / self._time_base), stream=stream)
            clock = Clock(self._format)
            for number, (stamp, duration) in enumerate(_packet_stamps(container, stream)):
                if number == 0 and self._format in WITHOUT_SHOWING_TIMES:
                    begin = stamp + self._window.start  # there the first frame has the time of a later packet
                time = clock.run(stamp, duration or 1 / self.rate) - begin
                if number % CHECKED_PACKETS == 0:
                    self.check(time)
                yield time, duration
                if around is not None and time > around + REORDERED:
                    return

    def _frames(self, seek_to=None):
        """Decoded frames with the times of the file's own clock, from a key frame before `seek_to` on.

        A strict decoder tells where a file is damaged; from there on one goes on that conceals it.
        """
        self.errors, given = [], 0
        try:
            for found in self._read(seek_to, strict=True):
                given += 1
                yield found
            return
        except av.error.FFmpegError as error:
            self.errors = [str(error)]  # the error itself holds on to decoder and file
        if seek_to is not None and not given:
            # The key frame is damaged; or a strict decoder cannot begin with it, since pictures of open groups and of
            # gradual refresh lack what was before. From the clip's beginning on that is told apart; far from there it
            # would take too long, and the other decoder has them whole soon after.
            if seek_to - self.origin <= SURE_WITHIN:
                yield from self._frames()
                return
            self.errors = []
        yield from itertools.islice(self._read(seek_to), given, None)

    def _read(self, seek_to, *, strict=False):
        with self.open() as container:
            stream = container.streams[self._stream]
            if seek_to is not None:
                container.seek(int(seek_to / self._time_base), stream=stream)
            counted = _is_counted(container)
            timeline = Timeline(self._time_base, self._format, 1 / self.rate, alike=self._alike, counted=counted)
            decoder = decoder_of(stream, threads=THREADS, strict=strict)
            for frame in decoded(container, stream, decoder, self.errors, strict=strict):
                time = timeline.place(frame)
                self.check(time - self.origin - self._window.start)
                if seek_to is not None and not (frame.key_frame and time <= seek_to):
                    break
                seek_to = None
                yield frame, time
            else:
                return
        yield from self._read(None, strict=strict)  # seeking did not lead to a frame that can be begun with

    def _describe(self, frame):
        """Notes on what is special about the file."""
        notes, tagged = self.notes, colour.is_tagged(frame)
        notes.append(
            f"{self.width}x{self.height}, {self.bit_depth} bits, {colour.NAMES[self._coded.matrix]}"
            + ("" if tagged else " (assumed: not tagged)")
            + (", full range" if frame.color_range == colour.FULL_RANGE else "")
        )
        if self._coded.transfer in hdr.TRANSFERS:
            notes.append(f"HDR ({hdr.TRANSFERS[self._coded.transfer]}), mapped to SDR")
        if self._turn.words:
            notes.append(self._turn.words)
        if self.pixel_aspect != 1:
            shown = round(self.width * self.pixel_aspect)
            notes.append(f"pixels of {self.pixel_aspect}, shown as {shown}x{self.height}")
        if frame.interlaced_frame:
            notes.append("interlaced: where lines comb, deinterlace it first")
        if self.has_alpha and not colour.is_opaque(frame, self._coded):  # GIF and many others could be, and are not
            notes.append("transparent: edited on black")
        notes.append(self.sound.note if self.sound else "no sound")


def _header_length(container, stream):
    """Seconds of picture that a file claims, or None: that of a whole file may be its sound's."""
    if stream.duration:
        return stream.duration * rational(stream.time_base)
    told = {key.lower(): value for key, value in stream.metadata.items()}.get("duration", "")  # of Matroska
    if found := re.fullmatch(r"(\d+):(\d\d):(\d\d(?:\.\d+)?)", told):
        return 3600 * int(found[1]) + 60 * int(found[2]) + Fraction(found[3])
    return Fraction(container.duration, av.time_base) if container.duration and len(container.streams) == 1 else None


def _is_counted(container):
    """Whether frames have no stamps, and are only counted: a bare stream of H.264, of HEVC."""
    return bool(container.format.flags & NO_STAMPS)


def _packet_stamps(container, stream):
    """When frames begin to show by the file's own clock, and how long, in the order of decoding."""
    time_base, counted = rational(stream.time_base), _is_counted(container)
    step = 1 / (rational(stream.average_rate) or Fraction(25))
    try:
        for number, packet in enumerate(container.demux(stream)):
            if counted:
                if packet.size:
                    yield number * step, step
                continue
            by_decoding = packet.pts is None or container.format.name in WITHOUT_SHOWING_TIMES
            stamp = packet.dts if by_decoding else packet.pts
            if stamp is not None and not packet.is_discard:
                yield stamp * time_base, (packet.duration or 0) * time_base
    except av.error.FFmpegError:
        return  # the file is cut off; reading says so
