"""Times, frame rates and frame counts: which frame is shown when, and how many the VAE wants."""

import math
import statistics
from collections import Counter
from fractions import Fraction

FRAMES_PER_LATENT = 4  # but for the first frame, which has a latent frame of its own
USUAL_RATES = tuple(
    Fraction(rate * 1000, divisor)
    for divisor in (1000, 1001)
    for rate in (12, 15, 16, 24, 25, 30, 48, 50, 60, 120, 240)
)


def frame_time(index: int, rate: Fraction) -> Fraction:
    """The time that a frame of a constant rate stands for, in seconds: the middle of how long it is shown."""
    return (index + Fraction(1, 2)) / rate


def frame_at(time: Fraction, rate: Fraction, count: int) -> int:
    """Which of `count` frames of a constant rate is shown at a time."""
    return max(0, min(count - 1, math.floor(time * rate)))


def file_rate(rate: Fraction) -> Fraction:
    """The nearest rate that files can have, which are of small numbers: 30000/1001 and not 29.97; never 0."""
    return rate.limit_denominator(1001) if rate >= 1 else 1 / (1 / rate).limit_denominator(1001)


def nominal_rate(stamps, header: Fraction | None) -> Fraction:
    """The usual rate of a clip: that of its frames which follow each other as most of them do.

    Args:
        stamps: when frames begin to show, in seconds, in any order.
        header: frames a second as the file says, which is often false.
    """
    each = alike(stamps)
    stamps = sorted(set(stamps))
    steps = sorted(after - before for before, after in zip(stamps, stamps[1:], strict=False))
    if not steps:
        return header if header and header <= 1000 else Fraction(25)
    usual = steps[(len(steps) - 1) // 2]
    near = [step for step in steps if abs(step - usual) <= usual / 5]
    step = Fraction(statistics.fmean(near)) / each
    rate, doubt = 1 / step, (near[-1] - near[0]) / len(near) / each
    if header and len(near) == len(steps) and abs(rate / 2 - header) <= header / 50:
        return header  # every field of an interlaced frame has a stamp of its own
    # A header may have divided by a length that is a little off: where the steps say so, they are believed.
    if header and abs(rate - header) <= header / 50 and abs(step - 1 / header) <= doubt + step / 10000:
        return header
    nearest = min(USUAL_RATES, key=lambda other: abs(rate - other))
    return nearest if abs(rate - nearest) <= nearest / 100 else file_rate(rate)


def alike(stamps) -> int:
    """How many frames have the same stamp, as most of them do: 1, but of files that count more coarsely."""
    counts = sorted(Counter(stamps).values())
    return counts[(len(counts) - 1) // 2] if len(counts) > 1 else 1


def left_out(stamps, rate: Fraction) -> int:
    """How many frames no frame of a constant rate stands for: those that come faster.

    Args:
        stamps: when frames begin to show, in seconds, rising.
    """
    shown = [math.ceil(stamp * rate - Fraction(1, 2)) for stamp in stamps]
    return sum(before == after for before, after in zip(shown, shown[1:], strict=False))


def is_variable(stamps, rate: Fraction) -> bool:
    """Whether frames come at other distances than a constant rate has, but for rounding of their stamps."""
    steps = [after - before for before, after in zip(stamps, stamps[1:], strict=False)]
    return any(abs(step - 1 / rate) > Fraction(1, 4) / rate for step in steps)


def padded_frame_count(count: int) -> int:
    """The next 4n + 1, which is what the VAE encodes without losing frames."""
    return -(-(count - 1) // FRAMES_PER_LATENT) * FRAMES_PER_LATENT + 1
