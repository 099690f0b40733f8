"""Sound in time, in the layouts and rates that files of video can hold."""

from abc import ABC, abstractmethod
from fractions import Fraction

import av
import numpy as np
import torch

from .streams import Label

LAYOUTS = {1: "mono", 2: "stereo", 6: "5.1"}  # others are mixed down to stereo
CHANNELS = {layout: count for count, layout in LAYOUTS.items()}
# What AAC knows; others are resampled to the rate of video.
RATES = (96000, 88200, 64000, 48000, 44100, 32000, 24000, 22050, 16000, 12000, 11025, 8000, 7350)
USUAL_RATE = 48000
LARGEST_SILENCE = 48000  # samples at once
LOUDEST = 8.0  # where 1 is full scale


def held_layout(channels: int) -> str:
    return LAYOUTS.get(channels, "stereo")


def held_rate(rate: int) -> int:
    return rate if rate in RATES else USUAL_RATE


class Sound(ABC):
    """Sound that goes with a clip, from the clip's second 0 on.

    Attributes:
        rate: samples a second.
        layout: of LAYOUTS.
        note: what was found, for people.
        label: what tells it from other tracks.
    """

    label = Label()

    def damage(self, _start: Fraction, _seconds: Fraction) -> list:
        """What cannot be decoded of the sound of a time."""
        return []

    @abstractmethod
    def placed(self, start: Fraction):
        """Samples [n, channels] fp32, each piece with the number of its first one counted from `start`, rising."""

    def pieces(self, start: Fraction, seconds: Fraction):
        """The sound of a time, silence where there is none.

        Yields:
            [n, channels] fp32, `seconds` in all to the sample.
        """
        total, done = round(seconds * self.rate), 0
        channels = CHANNELS[self.layout]
        for first, samples in self.placed(start):
            if done >= total:
                break
            samples = samples[max(0, done - first) :]
            first = max(first, done)
            if not len(samples):
                continue
            yield from _silence(min(first, total) - done, channels)
            if first < total:
                # Damaged floats would stop an encoder.
                yield np.nan_to_num(samples[: total - first]).clip(-LOUDEST, LOUDEST)
            done = min(total, first + len(samples))
        yield from _silence(total - done, channels)

    def read(self, start: Fraction, seconds: Fraction) -> dict:
        """The sound of a time as the host's AUDIO."""
        parts = list(self.pieces(start, seconds)) or [np.zeros((0, CHANNELS[self.layout]), np.float32)]
        return {"waveform": torch.from_numpy(np.concatenate(parts).T.copy()).unsqueeze(0), "sample_rate": self.rate}

    def later(self, seconds: Fraction):
        """The same sound with another second 0."""
        return _Later(self, seconds)

    def repeated(self, seconds: Fraction, times: int):
        """The first seconds over and over."""
        return _Repeated(self, seconds, times)


class _Later(Sound):
    def __init__(self, sound, seconds):
        self._sound, self._seconds = sound, seconds
        self.rate, self.layout, self.note, self.label = sound.rate, sound.layout, sound.note, sound.label

    def placed(self, start):
        return self._sound.placed(start + self._seconds)


class _Repeated(Sound):
    def __init__(self, sound, seconds, times):
        self._sound, self._seconds, self._times = sound, seconds, times
        self.rate, self.layout, self.note, self.label = sound.rate, sound.layout, sound.note, sound.label

    def placed(self, start):
        for number in range(self._times):
            position = round((number * self._seconds - start) * self.rate)
            for piece in self._sound.pieces(Fraction(0), self._seconds):
                yield position, piece
                position += len(piece)


class SamplesSound(Sound):
    """The host's AUDIO; mixed and resampled where video could not hold it."""

    note = "sound from samples"

    def __init__(self, audio: dict):
        waveform, rate = audio["waveform"][0].float().cpu(), int(audio["sample_rate"])
        self.rate, self.layout = held_rate(rate), held_layout(len(waveform))
        samples = np.ascontiguousarray(waveform.numpy().T)
        channels = CHANNELS[self.layout]
        if (self.rate, channels) != (rate, samples.shape[1]):
            resampler = av.AudioResampler("flt", self.layout, self.rate)
            parts = [*resampler.resample(to_frame(samples, rate)), *resampler.resample(None)] if len(samples) else []
            samples = np.concatenate([np.zeros((0, channels), np.float32), *map(from_frame, parts)])
        self._samples = samples

    def placed(self, start):
        yield -round(start * self.rate), self._samples


def to_frame(samples, rate, layout=None) -> av.AudioFrame:
    """[n, channels] fp32 as a frame."""
    channels = samples.shape[1]
    layout = layout or LAYOUTS.get(channels, f"{channels}c")
    frame = av.AudioFrame.from_ndarray(np.ascontiguousarray(samples).reshape(1, -1), format="flt", layout=layout)
    frame.sample_rate = rate
    return frame


def from_frame(frame) -> np.ndarray:
    """A frame of packed fp32 as [n, channels]."""
    return frame.to_ndarray().reshape(-1, frame.layout.nb_channels)


def _silence(count, channels):
    while count > 0:
        yield np.zeros((min(count, LARGEST_SILENCE), channels), np.float32)
        count -= LARGEST_SILENCE
