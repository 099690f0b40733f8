"""Sound tracks for test clips: beeps at given moments, tones and silence."""

import random
from fractions import Fraction
from typing import NamedTuple

import av
import numpy as np
from av.stream import Disposition

BEEP_LASTS, BEEP_PITCH = 0.08, 1000  # seconds, Hz


class Sound(NamedTuple):
    """A sound track."""

    codec: str = "aac"
    rate: int = 48000
    layout: str = "stereo"
    start: float = 0  # seconds after the first picture
    plays: str | float = "beeps"  # with the flashes; or "silence"; or a pitch in Hz
    channel: int | None = None  # the only one that plays
    default: bool = False
    broken: tuple[float, float] | None = None  # from when to when its packets are noise
    seconds: float | None = None  # as long as the picture


def wave(sound, seconds, beeps):
    """What a track plays.  # [channels, samples] in -1..1"""
    layout = av.AudioLayout(sound.layout)
    count = round((seconds if sound.seconds is None else sound.seconds) * sound.rate)
    time = np.arange(count) / sound.rate
    if sound.plays == "silence":
        mono = np.zeros(count)
    elif sound.plays == "beeps":
        mono = np.sin(2 * np.pi * BEEP_PITCH * time) * sum(
            ((time >= beep - sound.start) & (time < beep - sound.start + BEEP_LASTS)) * 1.0 for beep in beeps
        )
    else:
        mono = np.sin(2 * np.pi * sound.plays * time)
    channels = np.repeat(0.5 * mono[None], layout.nb_channels, axis=0).astype(np.float32)
    if sound.channel is not None:
        channels[[i for i in range(len(channels)) if i != sound.channel]] = 0
    return channels


def sound_packets(container, sound, seconds, offset, beeps):
    """Add a track to a container being written; its packets.

    Args:
        seconds: from the first picture to the end of the last.
        offset: seconds on all stamps.
        beeps: when beeps begin, seconds after the first picture.
    """
    stream = container.add_stream(sound.codec, rate=sound.rate, layout=sound.layout)
    stream.bit_rate = 128000
    if sound.default:
        stream.disposition = Disposition.default
    data = wave(sound, float(seconds) - sound.start, beeps)
    frame = av.AudioFrame.from_ndarray(np.ascontiguousarray(data.T).reshape(1, -1), format="flt", layout=sound.layout)
    frame.sample_rate, frame.time_base = sound.rate, Fraction(1, sound.rate)
    frame.pts = round((offset + Fraction(sound.start)) * sound.rate)
    packets = [*stream.encode(frame), *stream.encode(None)]
    if sound.broken:
        moments = [packet.pts * packet.time_base - offset for packet in packets]
        packets = [
            _noise_like(packet) if sound.broken[0] <= moment < sound.broken[1] else packet
            for packet, moment in zip(packets, moments, strict=True)
        ]
    return packets


def _noise_like(packet):
    noise = av.Packet(random.Random(0).randbytes(packet.size))
    noise.pts, noise.dts, noise.duration, noise.time_base = packet.pts, packet.dts, packet.duration, packet.time_base
    noise.stream, noise.is_keyframe = packet.stream, packet.is_keyframe
    return noise
