"""What PyAV's versions give in different ways: opened files, and rational numbers."""

from fractions import Fraction

import av


def open_input(file) -> av.container.InputContainer:
    """Open a file to be read; metadata that is not text does not matter.

    Args:
        file: path, or a file object that can seek.

    Raises:
        av.error.FFmpegError, ValueError: it cannot be.
    """
    try:
        return av.open(file)
    except UnicodeDecodeError:  # before PyAV 19, which keeps such bytes as surrogates
        if not isinstance(file, str):
            file.seek(0)
        return av.open(file, metadata_errors="replace")


def rational(value) -> Fraction | None:
    """A rational of PyAV, None where it is not set.

    Before PyAV 19 these are Fraction or None. Since then they are AVRational, of which arithmetic is rounded, and
    false where it is not set or its denominator is 0.
    """
    return Fraction(value.numerator, value.denominator) if value else None
