"""Clips as nobody would think of them: by a seed, over all that `footage` can make; every third one is damaged."""

import random
from fractions import Fraction
from pathlib import Path

from footage import Clip, Sound, rate_of, steady, tick_of, truth, write
from footage_pictures import BT601, BT709

PLAIN = ("yuv420p",)
DEEP = ("yuv420p", "yuv420p10le")
KINDS = (  # container, codec, pixel formats, codecs of sound
    ("mp4", "libx264", ("yuv420p", "yuv444p", "yuv422p10le"), ("aac", "libmp3lame", "flac", "libopus")),
    ("mp4", "libx265", DEEP, ("aac", "ac3")),
    ("mp4", "libsvtav1", DEEP, ("aac",)),
    ("mov", "libx264", PLAIN, ("aac", "pcm_s16le", "pcm_s24le")),
    ("mov", "prores_ks", ("yuv422p10le",), ("pcm_s24le", "pcm_f32le")),
    ("mov", "mjpeg", ("yuvj420p", "yuvj422p"), ("pcm_s16be",)),
    ("mov", "qtrle", ("rgb24",), ("pcm_s16le",)),
    ("mkv", "libx264", ("yuv420p", "yuv422p"), ("aac", "flac", "libopus", "pcm_s16le", "ac3")),
    ("mkv", "libx265", DEEP, ("flac", "libopus")),
    ("mkv", "ffv1", ("yuv420p", "yuv444p", "bgra"), ("pcm_s24le", "flac")),
    ("webm", "libvpx-vp9", ("yuv420p", "yuv444p"), ("libopus",)),
    ("webm", "libvpx", PLAIN, ("libopus",)),
    ("ts", "libx264", PLAIN, ("aac", "mp2", "ac3")),
    ("ts", "mpeg2video", PLAIN, ("mp2",)),
    ("mpg", "mpeg2video", PLAIN, ("mp2", "ac3")),
    ("flv", "libx264", PLAIN, ("aac",)),
    ("flv", "flv", PLAIN, ("libmp3lame",)),
    ("avi", "mpeg4", PLAIN, ("libmp3lame", "pcm_s16le")),
    ("avi", "mjpeg", ("yuvj420p",), ("pcm_s16le",)),
    ("wmv", "wmv2", PLAIN, ("wmav2",)),
    ("gif", "gif", ("rgb8",), ()),
    ("nut", "ffv1", PLAIN, ("pcm_s16le",)),
    ("ogv", "libvpx", PLAIN, ("libopus", "flac")),
)
RATES = (8, 12, 15, 16, Fraction(24000, 1001), 24, 25, Fraction(30000, 1001), 30, 50, Fraction(60000, 1001), 60, 120)
BROADCAST = (Fraction(24000, 1001), 24, 25, Fraction(30000, 1001), 30, 50, Fraction(60000, 1001), 60)
LAYOUTS = ("mono", "stereo", "3.0", "4.0", "5.1", "7.1")
FEWER_LAYOUTS = dict.fromkeys(("libmp3lame", "mp2", "wmav2", "libopus"), LAYOUTS[:2]) | {"ac3": LAYOUTS[:5]}
FREE_RATE = ("flac", "pcm_s16le", "pcm_s24le", "pcm_s16be", "pcm_f32le")
FROM_ZERO = ("avi", "gif", "ogv", "dv")  # the others may begin anywhere
CAN_BE_ODD = ("libvpx-vp9", "ffv1", "qtrle", "gif", "mjpeg", "libvpx")
DAMAGED = 3  # every third


def make(seed, folder):
    """Write the clip of a seed.

    Returns:
        Its path, its description, and what it shows at 16 fps; None in place of that where damage leaves it open.
    """
    clip = describe(seed)
    path = write(clip, Path(folder) / f"random_{seed:03}.{clip.container}")
    return path, clip, None if is_damaged(seed) else truth(clip, 16)


def is_damaged(seed):
    return seed % DAMAGED == DAMAGED - 1


def describe(seed):
    """The Clip of a seed."""
    luck = random.Random(seed)
    container, codec, pixels, sounds = luck.choice(KINDS)
    pixels = luck.choice(pixels)
    rates = BROADCAST if codec.startswith("mpeg2") else [rate for rate in RATES if container != "gif" or rate <= 30]
    clip = Clip(container, codec, pixels, _size(luck, codec, pixels))
    clip = clip._replace(stamps=_stamps(luck, clip, luck.choice(rates)))
    changes = {"key_every": luck.choice((0, 0, 5, 12)) if codec != "prores_ks" else 0}
    if container not in FROM_ZERO and luck.random() < 0.5:
        changes["offset"] = round(luck.choice((0.04, 1.5, 30, 3600)) * luck.uniform(0.5, 1.5), 3)
    if codec in ("libx264", "libx265", "mpeg2video"):
        changes["b_frames"] = luck.choice((0, 0, 2, 3))
    if container in ("mp4", "mov"):
        changes["hidden"] = luck.choice((0, 0, 3)) if len(clip.stamps) > 8 and not changes.get("offset") else 0
    if container == "mp4":
        changes["cover"] = luck.choice(("", "", "", "last", "first"))
    if container in ("mp4", "mov", "mkv"):
        changes["rotation"] = luck.choice((0, 0, 0, 90, 180, 270))
        changes["pixel_aspect"] = luck.choice((Fraction(1), Fraction(1), Fraction(4, 3), Fraction(64, 45)))
    if container in ("webm", "mkv") and luck.random() < 0.3:
        changes |= {"seekable": False, "header_rate": luck.choice((0, 1000))}
    if pixels.startswith("yuv") and container in ("mp4", "mkv", "mov", "webm"):
        changes["colours"] = luck.choice((None, BT709, BT601, BT709._replace(full=True)))
    starts = (0, 0.1, -0.3) if changes.get("offset", 0) > 0.3 else (0, 0.1)
    if sounds:
        count = (
            luck.choice((0, 1, 1, 1, 2, 3)) if container not in ("flv", "avi", "ogv", "wmv") else luck.choice((0, 1))
        )
        changes["sounds"] = tuple(_sound(luck, luck.choice(sounds), starts) for _ in range(count))
    if is_damaged(seed):
        changes |= _damage(luck)
    return clip._replace(**changes)


def _size(luck, codec, pixels):
    if codec in CAN_BE_ODD and luck.random() < 0.4:
        return luck.randint(80, 200), luck.randint(64, 160)
    return luck.randint(40, 110) * 2, luck.randint(32, 90) * 2


def _stamps(luck, clip, rate):
    """Up to a second: steady, uneven, or at two rates; the last picture lasts as long as most."""
    stamps = steady(rate, max(2, int(rate * luck.uniform(0.2, 1.0))))
    steady_clip = clip._replace(stamps=stamps)
    if tick_of(steady_clip) == 1 / rate_of(steady_clip):
        return stamps
    kind, step = luck.choice(("steady", "steady", "uneven", "two rates")), 1 / Fraction(rate)
    if kind == "steady":
        return stamps
    least = Fraction(3, 100) if clip.container == "gif" else Fraction(2, 1000)
    times, moment = [Fraction(0)], Fraction(0)
    for i in range(len(stamps) - 1):
        factor = luck.choice((1, 1, luck.uniform(0.2, 3))) if kind == "uneven" else (1 if i > len(stamps) // 3 else 2.5)
        moment += max(least, Fraction(round(step * Fraction(factor) * 1000), 1000))
        times.append(moment)
    return (*times, moment + max(least, Fraction(round(step * 1000), 1000)))


def _sound(luck, codec, starts):
    layout = luck.choice(FEWER_LAYOUTS.get(codec, LAYOUTS))
    rate = luck.choice((8000, 44100, 48000, 96000)) if codec in FREE_RATE else 48000
    plays, is_default = luck.choice((300.0, 700.0, "silence")), luck.random() < 0.3
    return Sound(codec, rate, layout, luck.choice(starts), plays, default=is_default)


def _damage(luck):
    if luck.random() < 0.25:
        return {"cut": luck.uniform(0.2, 0.95)}
    return {"noise": tuple((luck.random(), luck.choice((1, 1, 1, 20))) for _ in range(luck.randint(1, 30)))}
