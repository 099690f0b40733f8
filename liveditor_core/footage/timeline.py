"""When decoded frames show, from the stamps that their file gives them."""

from fractions import Fraction

# These know only the order of decoding.
WITHOUT_SHOWING_TIMES = ("avi",)
# Recordings of transmissions, whose clock may start anew.
CLOCK_MAY_JUMP = ("mpegts", "mpeg")
LONGEST_GAP = 10  # seconds; of a clock that jumps, more is no gap


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
    """

    def __init__(self, time_base: Fraction, container: str, step: Fraction):
        self._time_base, self._step = time_base, step
        self._by_decoding = container in WITHOUT_SHOWING_TIMES
        self._clock, self._last = Clock(container), None

    def place(self, frame) -> Fraction:
        """Seconds by the file's own clock."""
        stamp = frame.dts if self._by_decoding else frame.pts
        last = self._last
        if stamp is None:
            time = Fraction(0) if last is None else last + self._step
        else:
            time = self._clock.run(stamp * self._time_base, self._step)
        if last is not None and time <= last:
            time = last + self._step / 2
        self._last = time
        return time
