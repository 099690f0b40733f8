"""The sound of a file, by its time stamps."""

from fractions import Fraction

import av

from .pyav import rational
from .sound import Sound, from_frame, held_layout, held_rate
from .streams import decoded, sound_of
from .timeline import Clock

SEEK_FROM = 5  # seconds
RUN_UP = 1  # second that decoders get before what is wanted
LARGEST_DRIFT = 0.03  # seconds that stamps may be off before they are believed


class FileSound(Sound):
    """The sound of a FileClip; samples are never planes, which PyAV reads past where there are eight of them."""

    def __init__(self, clip, stream, frame, origin, note):
        self._clip, self._stream, self._origin = clip, stream, origin
        self.rate, self.layout = held_rate(frame.sample_rate), held_layout(frame.layout.nb_channels)
        self.note = note

    @classmethod
    def find(cls, clip, origin: Fraction):
        """The sound that a player takes, or None.

        Args:
            clip: FileClip.
            origin: second 0, by the clock of the file.
        """
        with clip.open() as container:
            stream = sound_of(container)
            if stream is None:
                return None
            count, errors = len(container.streams.audio), []
            frame = next(decoded(container, stream, stream.codec_context, errors), None)
            if frame is None:
                clip.notes.append(f"the sound ({stream.codec_context.name}) cannot be decoded")
                return None
            try:
                av.AudioResampler("flt", held_layout(frame.layout.nb_channels), held_rate(frame.sample_rate)).resample(
                    frame
                )
            except av.error.FFmpegError:
                clip.notes.append(f"the sound has {frame.layout.nb_channels} channels, which cannot be mixed: left out")
                return None
            note = f"sound: {stream.codec_context.name}, {frame.sample_rate} Hz, {frame.layout.name}"
            if count > 1:
                default = bool(stream.disposition & stream.disposition.default)
                number = container.streams.audio.index(stream) + 1
                note += f"; track {number} of {count}, the {'default' if default else 'first'} one"
            sound = cls(clip, stream.index, frame, origin, note)
        if (sound.rate, sound.layout) != (frame.sample_rate, frame.layout.name):
            sound.note += f", as {sound.rate} Hz, {sound.layout}"
        return sound

    def damage(self, start: Fraction, seconds: Fraction) -> list:
        """What cannot be decoded of the sound of a time."""
        self._errors = []
        for first, _ in self.placed(start):
            if first > seconds * self.rate:
                break
        return self._errors

    def placed(self, start):
        first = self._origin + start
        if start > SEEK_FROM and self._clip.has_index:
            return self._placed(first, first - RUN_UP)
        return self._placed(first, None)

    def _placed(self, first, seek_to):
        self._errors = errors = []
        with self._clip.open() as container:
            stream = container.streams[self._stream]
            time_base = rational(stream.time_base)
            if seek_to is not None:
                container.seek(int(seek_to / time_base), stream=stream)
            resampler, form, position = None, None, None
            clock, length = Clock(container.format.name), Fraction(0)
            for frame in decoded(container, stream, stream.codec_context, errors):
                time = clock.run(frame.pts * time_base, length) if frame.pts is not None else None
                length = Fraction(frame.samples, frame.sample_rate)
                self._clip.check(Fraction(0) if time is None else time - self._origin)
                if seek_to is not None and (time is None or time > first):
                    break
                seek_to = None
                if form != (form := (frame.format.name, frame.layout.name, frame.sample_rate)):
                    resampler = av.AudioResampler("flt", self.layout, self.rate)
                if time is not None:
                    stamped = round((time - first) * self.rate)
                    if position is None or abs(stamped - position) > LARGEST_DRIFT * self.rate:
                        position = stamped
                position = position or 0
                for part in resampler.resample(frame):
                    samples = from_frame(part)
                    yield position, samples
                    position += len(samples)
            else:
                if resampler is not None:
                    for part in resampler.resample(None):
                        yield position, from_frame(part)
                return
        yield from self._placed(first, None)  # seeking did not lead before what is wanted
