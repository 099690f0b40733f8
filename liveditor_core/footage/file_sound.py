"""The sound of a file, by its time stamps."""

import logging
from fractions import Fraction

import av

from .pyav import rational
from .sound import Sound, from_frame, held_layout, held_rate
from .streams import Label, decoded, sound_of, sounds_of
from .timeline import Clock

SEEK_FROM = 5  # seconds
RUN_UP = 1  # second that decoders get before what is wanted
LARGEST_DRIFT = 0.03  # seconds that stamps may be off before they are believed


class FileSound(Sound):
    """The sound of a FileClip; samples are never planes, which PyAV reads past where there are eight of them."""

    def __init__(self, clip, stream, frame, origin, note):
        self._clip, self.stream, self._origin = clip, stream.index, origin
        self.label = Label.of(stream)
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
            sound, fault = cls._of(clip, container, stream, origin)
            if sound is None:
                clip.notes.append(fault)
            elif (count := len(container.streams.audio)) > 1:
                default = bool(stream.disposition & stream.disposition.default)
                number = container.streams.audio.index(stream) + 1
                sound.note += f"; track {number} of {count}, the {'default' if default else 'first'} one"
        return sound

    @classmethod
    def others(cls, clip, origin: Fraction, found):
        """Every track that can be decoded, in the order of the file. Args as in `find`; found: the one it gave."""
        with clip.open() as container:
            numbers = [stream.index for stream in sounds_of(container)]
            for stream in container.streams.audio:
                if stream.index not in numbers:
                    logging.info(
                        f"LIVEditor: {clip.name}: stream {stream.index}: no decoder knows this sound: left out."
                    )
        for number in numbers:
            if number == found.stream:
                yield found
                continue
            with clip.open() as container:
                sound, fault = cls._of(clip, container, container.streams[number], origin)
            if sound is not None:
                yield sound
            else:
                logging.info(f"LIVEditor: {clip.name}: stream {number}: {fault}.")

    @classmethod
    def _of(cls, clip, container, stream, origin):
        """A track, or None and why it cannot be had."""
        frame = next(decoded(container, stream, stream.codec_context, []), None)
        if frame is None:
            return None, f"the sound ({stream.codec_context.name}) cannot be decoded"
        try:
            av.AudioResampler("flt", held_layout(frame.layout.nb_channels), held_rate(frame.sample_rate)).resample(
                frame
            )
        except av.error.FFmpegError:
            return None, f"the sound has {frame.layout.nb_channels} channels, which cannot be mixed: left out"
        note = f"sound: {stream.codec_context.name}, {frame.sample_rate} Hz, {frame.layout.name}"
        sound = cls(clip, stream, frame, origin, note)
        if (sound.rate, sound.layout) != (frame.sample_rate, frame.layout.name):
            sound.note += f", as {sound.rate} Hz, {sound.layout}"
        return sound, ""

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
            stream = container.streams[self.stream]
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
