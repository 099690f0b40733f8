"""Where a clip cuts from one shot to the next, by FFmpeg's scdet."""

from fractions import Fraction
from typing import NamedTuple

import av
import numpy as np

from .file_clip import FileClip
from .geometry import PRESETS, preset_size
from .streams import refusal

# Pictures are compared at this size: what changes with a shot is seen in it, and grain and small motion are not.
WIDTH, HEIGHT = 64, 40
TICK = Fraction(1, 10**6)
# By scdet's measure, a change in percent beyond that of the picture before. In the clips that the tests fetch, cuts are
# at 10 to 27, all else below 2.8.
CUT = 5
SAME = 0.5  # levels of 255 that repeated pictures differ by on average at most, from coding
# Seconds for which a picture at least stays where it stands still; less is a film with fewer pictures than its file,
# which stays for up to so many pictures; more is a slide, however few pictures a second there are.
STILL, STILL_PICTURES, SLIDE = Fraction(13, 100), Fraction(5, 2), Fraction(1, 2)
BEFORE = Fraction(1, 2)  # seconds before a part that say how much moves where it begins


def shot_changes(clip: FileClip, start=Fraction(0), seconds=None) -> list[Fraction]:
    """When shots begin, by hard cuts; fades are none.

    scdet compares how much a picture changes with how much the one before did, by number and not by time. So pictures
    that are repeated for the sake of the frame rate are left out, else all motion would come in jumps; and one that
    stands still is given twice, else slides that change all the time would be motion.

    Args:
        clip: its `check` is called for every picture.
        start, seconds: the part to look at; None for all that follows.

    Returns:
        Seconds of the clip, rising, each within the part and after its start.
    """
    still = min(max(STILL, STILL_PICTURES / clip.rate), SLIDE)
    detector, found, shown, since = _Detector(), [], None, None
    for picture in clip.pictures(max(Fraction(0), start - BEFORE)):
        if seconds is not None and picture.time >= start + seconds:
            break
        small = picture.frame.reformat(width=WIDTH, height=HEIGHT, format="yuv420p", interpolation="AREA")
        if shown is not None:
            if picture.time - since > still:
                detector.is_cut(shown)
            elif _same(small, shown):
                continue
        if detector.is_cut(small) and picture.time > start:
            found.append(picture.time)
        shown, since = small, picture.time
    return found


def _same(one, other):
    one, other = (frame.to_ndarray().astype(np.int16) for frame in (one, other))
    return np.abs(one - other).mean() < SAME


class Shots(NamedTuple):
    """What the canvas is told of a part of a clip."""

    length: float  # seconds of the whole clip
    start: float  # where the part really begins: with the next picture, if that is about to come
    fps: float
    shots: list[float]  # when shots begin, in seconds of the clip
    sizes: dict[str, tuple[int, int]]  # width and height of an edit of it, by automatic size


def shots_of_file(path, start, seconds, check) -> Shots:
    """Look for the shots of a part of a file.

    Args:
        start: seconds of the clip.
        seconds: of the part; None for all that follows, 0 to have all but the shots, which is quick.
        check: as in Clip.

    Raises:
        FootageError: the file cannot be read.
    """
    clip = FileClip(path, check=check)
    begin = clip.begin_at(Fraction(start).limit_denominator(10**6))
    try:
        shots = [] if seconds == 0 else shot_changes(clip, begin, seconds)
        sizes = {preset: preset_size(preset, clip.width, clip.height, clip.pixel_aspect) for preset in PRESETS}
        return Shots(float(clip.length()), float(begin), float(clip.rate), [float(time) for time in shots], sizes)
    except av.error.FFmpegError as error:
        raise refusal(clip.name, error) from error


class _Detector:
    """scdet, a picture at a time."""

    def __init__(self):
        graph, self._count = av.filter.Graph(), 0
        pixels = av.VideoFormat("yuv420p", WIDTH, HEIGHT)
        graph.link_nodes(
            graph.add_buffer(width=WIDTH, height=HEIGHT, format=pixels, time_base=TICK),
            graph.add("scdet", f"threshold={CUT}"),
            graph.add("metadata", "mode=select:key=lavfi.scd.time"),
            graph.add("buffersink"),
        ).configure()
        self._graph = graph

    def is_cut(self, frame):
        """Whether a shot begins with a picture, after those of the calls before; after two at the earliest.

        One change has none before it to be compared with: it may be motion.
        """
        frame.pts, frame.time_base = self._count, TICK
        self._count += 1
        self._graph.vpush(frame)
        try:
            self._graph.vpull()
        except BlockingIOError:
            return False
        return self._count > 2
