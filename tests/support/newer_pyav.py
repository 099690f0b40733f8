"""PyAV 19 as far as it differs from those before, on top of whichever is there: what `av.open` takes and gives."""

from fractions import Fraction
from types import SimpleNamespace

import av

RATIONALS = {
    "time_base",
    "average_rate",
    "base_rate",
    "guessed_rate",
    "framerate",
    "sample_aspect_ratio",
    "display_aspect_ratio",
}
WRAPPED = (
    av.container.Container,
    av.container.streams.StreamContainer,
    av.stream.Stream,
    av.packet.Packet,
    av.CodecContext,
)
KEPT = ("codec_context", "metadata", "language")  # of a stream whose file was closed


class Rational(SimpleNamespace):
    """No Fraction, and never None. It cannot even be reckoned with, which PyAV's can, but rounds."""

    def __bool__(self):
        return bool(self.numerator and self.denominator)


class _Wrapped:
    """Something of PyAV.

    Args:
        closed: a list that is not empty once the file was closed.
    """

    def __init__(self, real, closed):
        self.__dict__.update(_real=real, _closed=closed)

    def __getattr__(self, name):
        if self._closed and isinstance(self._real, av.stream.Stream) and name not in KEPT:
            raise AssertionError("Container is not open")
        value = getattr(self._real, name)
        if name in RATIONALS:
            value = value or Fraction(0)
            return Rational(numerator=value.numerator, denominator=value.denominator)
        return _wrap(value, self._closed)

    def __setattr__(self, name, value):
        setattr(self._real, name, _bare(value))

    def __getitem__(self, key):
        return _wrap(self._real[key], self._closed)

    def __iter__(self):
        return (_wrap(item, self._closed) for item in self._real)

    def __len__(self):
        return len(self._real)

    def __bool__(self):
        return True

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()

    def close(self):
        self._real.close()
        self._closed.append(True)


def _wrap(value, closed):
    if isinstance(value, WRAPPED):
        return _Wrapped(value, closed)
    if isinstance(value, list | tuple):
        return type(value)(_wrap(item, closed) for item in value)
    if hasattr(value, "__next__"):
        return (_wrap(item, closed) for item in value)
    if callable(value):
        return lambda *arguments, **named: _wrap(
            value(*map(_bare, arguments), **{name: _bare(argument) for name, argument in named.items()}), closed
        )
    return value


def _bare(value):
    if isinstance(value, _Wrapped):
        return value._real
    return [_bare(item) for item in value] if isinstance(value, list) else value


def opener():
    """A stand-in for `av.open`, which takes only the arguments of that of PyAV 19."""
    really_open = av.open

    def open(
        file,
        mode=None,
        format=None,
        options=None,
        container_options=None,
        buffer_size=32768,
        timeout=None,
        io_open=None,
        hwaccel=None,
    ):
        options = {"options": options, "container_options": container_options}
        return _Wrapped(really_open(file, mode, format, buffer_size=buffer_size, timeout=timeout, **options), [])

    return open
