"""A minute of film for tests: the packaged clips, cropped in different ways, one after the other, with a tone."""

import functools
import itertools
from fractions import Fraction

import av
import numpy as np
from host import CLIPS

WIDTH, HEIGHT, RATE, SOUND_RATE = 256, 112, 25, 44100
SHOTS = (  # clip, how far it is zoomed in, and where the crop lies from left and top
    ("bikes.mp4", 1, 0.5, 0.5),
    ("bigbuckbunny.mp4", 1, 0.5, 0.5),
    ("carphone_pristine.mp4", 1, 0.5, 0.4),
    ("bikes.mp4", 1.5, 0.2, 0.6),
    ("bigbuckbunny.mp4", 1.6, 0.7, 0.5),
    ("carphone_pristine.mp4", 1.3, 0.3, 0.3),
    ("bikes.mp4", 2, 0.8, 0.8),
    ("bigbuckbunny.mp4", 2.2, 0.2, 0.7),
)


def write_minute(path, seconds=60):
    """Write it, of any other length too."""
    count = round(seconds * RATE)
    with av.open(str(path), "w") as out:
        video = out.add_stream("libx264", rate=RATE, options={"crf": "12", "preset": "fast"})
        video.width, video.height, video.pix_fmt = WIDTH, HEIGHT, "yuv420p"
        sound = out.add_stream("aac", rate=SOUND_RATE, layout="mono")
        packets = [*_tone(sound, seconds), *sound.encode(None)]
        for number, frame in enumerate(itertools.islice(_film(), count)):
            frame.pts, frame.time_base, frame.pict_type = number, Fraction(1, RATE), 0
            packets += video.encode(frame)
        for packet in [*packets, *video.encode(None)]:
            out.mux(packet)
    return path


def _film():
    return itertools.chain.from_iterable(_shot(*each) for each in itertools.cycle(SHOTS))


def _shot(name, zoom, left, top):
    with av.open(str(CLIPS / name)) as container:
        for frame in container.decode(video=0):
            width = min(frame.width, frame.height * WIDTH / HEIGHT) / zoom
            height = width * HEIGHT / WIDTH
            x, y = int((frame.width - width) * left) // 2 * 2, int((frame.height - height) * top) // 2 * 2
            pixels = frame.to_ndarray(format="rgb24")[y : y + int(height) // 2 * 2, x : x + int(width) // 2 * 2]
            cropped = av.VideoFrame.from_ndarray(np.ascontiguousarray(pixels), format="rgb24")
            yield cropped.reformat(
                WIDTH, HEIGHT, format="yuv420p", interpolation="AREA" if width > WIDTH else "BICUBIC"
            )


def _tone(stream, seconds):
    """A rising tone."""
    time = np.arange(round(SOUND_RATE * seconds)) / SOUND_RATE
    wave = (0.3 * np.sin(2 * np.pi * (200 + 10 * time) * time)).astype(np.float32)
    for start in range(0, len(wave), 1024):
        frame = av.AudioFrame.from_ndarray(wave[None, start : start + 1024].copy(), format="fltp", layout="mono")
        frame.sample_rate, frame.pts, frame.time_base = SOUND_RATE, start, Fraction(1, SOUND_RATE)
        yield from stream.encode(frame)


@functools.cache
def source_frames(path):
    """[F, H, W, 3] uint8"""
    with av.open(str(path)) as container:
        return np.stack([frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)])
