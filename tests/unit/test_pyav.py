"""What PyAV's versions give in different ways, seen with the one that is there."""

import io
from fractions import Fraction
from types import SimpleNamespace

import av
import numpy as np
import pytest

from liveditor.liveditor_core.footage import pyav
from liveditor.liveditor_core.footage.file_clip import FileClip

TITLE, LATIN = "Koeln am Rhein", "K\N{LATIN SMALL LETTER O WITH DIAERESIS}ln  am Rhein".encode("latin-1")


def write(path, **metadata):
    with av.open(str(path), "w") as out:
        out.metadata.update(metadata)
        video = out.add_stream("libx264", rate=25)
        video.width, video.height, video.pix_fmt = 64, 48, "yuv420p"
        for _ in range(5):
            out.mux(video.encode(av.VideoFrame.from_ndarray(np.zeros((48, 64, 3), np.uint8), format="rgb24")))
        out.mux(video.encode(None))
    return str(path)


def test_files_open_with_the_arguments_that_every_version_knows(tmp_path, monkeypatch):
    path, really_open = write(tmp_path / "clip.mkv"), av.open

    def refusing(file, mode=None, format=None, options=None):
        return really_open(file, mode, format, options)

    monkeypatch.setattr(av, "open", refusing)
    assert FileClip(path).rate == 25


@pytest.mark.parametrize("in_memory", [False, True])
def test_metadata_that_is_not_utf_8(tmp_path, in_memory):
    path = tmp_path / "clip.mkv"
    write(path, title=TITLE)
    content = path.read_bytes()
    assert content.count(TITLE.encode()) == 1 and len(LATIN) == len(TITLE)
    path.write_bytes(content.replace(TITLE.encode(), LATIN))
    clip = FileClip(io.BytesIO(path.read_bytes()) if in_memory else str(path))
    assert len(list(clip.pictures(Fraction(0)))) == 5


@pytest.mark.parametrize(
    "numerator, denominator, expected", [(30000, 1001, Fraction(30000, 1001)), (0, 1, None), (1, 0, None), (0, 0, None)]
)
def test_rationals(numerator, denominator, expected):
    """Those of PyAV 19 are no Fractions, and never None."""

    class Rational(SimpleNamespace):
        def __bool__(self):
            return bool(self.numerator and self.denominator)

    found = pyav.rational(Rational(numerator=numerator, denominator=denominator))
    assert found == expected and type(found) is type(expected)
    assert pyav.rational(expected) == expected
