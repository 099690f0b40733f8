"""When decoded frames show, from the stamps that their file gives them."""

from fractions import Fraction

# These know only the order of decoding.
WITHOUT_SHOWING_TIMES = ("avi",)
# Recordings of transmissions, whose clock may start anew.
CLOCK_MAY_JUMP = ("mpegts", "mpeg")
NO_STAMPS = 0x80  # FFmpeg's flag of formats that are a bare stream; what it makes up for some of them is wrong
LONGEST_GAP = 10  # seconds; of a clock that jumps, more is no gap
MOST_ALIKE = 64  # frames of one stamp; of more, it says nothing


class Clock:
    """The clock of a file, run on where it was set to another time.

    Args:
        container: FFmpeg's name of the format.
    """

    def __init__(self, container: str):
        self._jumps = container in CLOCK_MAY_JUMP
        self._last, self._shift = None, Fraction(0)

    def run(self, stamp: Fraction, step: Fraction) -> Fraction:
        """The time that a stamp means.

        Args:
            stamp: seconds; it may come a little before the one before it.
            step: seconds from the last stamp to this one, if the clock was set in between.
        """
        time, last = stamp + self._shift, self._last
        if last is not None and (time < last - 1 or self._jumps and time > last + LONGEST_GAP):
            self._shift += last + step - time
            time = last + step
        self._last = time if last is None else max(last, time)
        return time


class Timeline:
    """The times of the frames of one reading, which only rise.

    Args:
        time_base: of the stream's stamps.
        container: FFmpeg's name of the format.
        step: seconds between frames where stamps are missing.
        alike: how many frames usually have the same stamp.
        counted: there are no stamps: a frame comes a step after the one before it.
    """

    def __init__(self, time_base: Fraction, container: str, step: Fraction, *, alike=1, counted=False):
        self._time_base, self._step, self._alike = time_base, step, alike
        self._by_decoding, self._counted = container in WITHOUT_SHOWING_TIMES, counted
        self._clock, self._last = Clock(container), None
        self._stamp, self._after = None, 0  # the last one that was new, and how many frames had it since

    def place(self, frame) -> Fraction:
        """Seconds by the file's own clock."""
        stamp = None if self._counted else frame.dts if self._by_decoding else frame.pts
        last = self._last
        if stamp is None:
            time = Fraction(0) if last is None else last + self._step
        else:
            time = self._clock.run(stamp * self._time_base, self._step)
        if last is not None and time <= last:
            time = self._squeezed(last)
        elif stamp is not None:
            self._stamp, self._after = time, 0
        self._last = time
        return time

    def _squeezed(self, last):
        """A time after the last one's, before the next stamp that may be expected: the film becomes no longer."""
        self._after += 1
        if self._stamp is None or self._after >= MOST_ALIKE:  # the stamps stand still
            return last + self._step
        rest = self._stamp + self._step * self._alike - last
        return last + (min(self._step, rest / 2) if rest > 0 else self._step / MOST_ALIKE)
