"""When decoded frames show, from the stamps that their file gives them."""

from fractions import Fraction

# These know only the order of decoding.
WITHOUT_SHOWING_TIMES = ("avi",)
# Recordings of transmissions, whose clock may start anew.
CLOCK_MAY_JUMP = ("mpegts", "mpeg")
LONGEST_GAP = 10  # seconds; of a clock that jumps, more is no gap


class Timeline:
    """The times of the frames of one reading, which only rise.

    Args:
        time_base: of the stream's stamps.
        container: FFmpeg's name of the format.
        step: seconds between frames where stamps are missing.
    """

    def __init__(self, time_base: Fraction, container: str, step: Fraction):
        self._time_base, self._step = Fraction(time_base), step
        self._by_decoding = container in WITHOUT_SHOWING_TIMES
        self._jumps = container in CLOCK_MAY_JUMP
        self._last, self._shift = None, Fraction(0)

    def place(self, frame) -> Fraction:
        """Seconds by the file's own clock."""
        stamp = frame.dts if self._by_decoding else frame.pts
        last = self._last
        if stamp is None:
            time = Fraction(0) if last is None else last + self._step
        else:
            time = stamp * self._time_base + self._shift
        if last is not None and (time < last - 1 or self._jumps and time > last + LONGEST_GAP):
            self._shift += last + self._step - time
            time = last + self._step
        elif last is not None and time <= last:
            time = last + self._step / 2
        self._last = time
        return time
