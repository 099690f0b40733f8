"""Source videos whose pictures lie in memory."""

from fractions import Fraction

from liveditor.liveditor_core.footage.clip import Clip, Picture
from liveditor.liveditor_core.footage.source_video import SourceVideo


class PicturesClip(Clip):
    """A clip of given pictures, each visible from its stamp on.

    Args:
        pictures: [F, H, W, C].
        stamps: seconds.
        before: how many pictures there are before them, and as many after.
    """

    def __init__(self, pictures, stamps, rate, pixel_aspect=Fraction(1), before=0):
        self._pictures, self._stamps, self._before = pictures, stamps, before
        self.rate, self.pixel_aspect = rate, pixel_aspect
        self.height, self.width = pictures.shape[1:3]

    def pictures(self, start):
        ends = *self._stamps[1:], self.length()
        for i, (time, end) in enumerate(zip(self._stamps, ends, strict=True)):
            if end > start or i + 1 == len(ends):
                yield Picture(time, end - time, i)

    def rgb(self, picture):
        return self._pictures[picture.frame]

    def length(self):
        return self._stamps[-1] + 1 / self.rate

    def count_before(self, time):
        inside = sum(stamp < time for stamp in self._stamps)
        return self._before + inside + (self._before if time > self.length() else 0)

    def next_after(self, time):
        return min((stamp for stamp in self._stamps if stamp >= time), default=None)


def pictures_source(
    pictures, size, fit="crop", *, frames=None, fps=16, rate=16, stamps=None, frames_before=0, pixel_aspect=Fraction(1)
):
    """A source of all of `pictures`, at a constant rate if there are no stamps.

    Args:
        size: width and height of the edit.
        frames, fps: of the edit; as many frames as there are pictures if None.
        rate: nominal, of the source.
    """
    rate, fps = Fraction(rate), Fraction(fps)
    stamps = stamps or tuple(i / rate for i in range(len(pictures)))
    seconds = max(len(pictures) / rate, stamps[-1] + 1 / rate)
    return SourceVideo(
        latent=None,
        width=size[0],
        height=size[1],
        frames=frames or len(pictures),
        fps=fps,
        clip=PicturesClip(pictures, stamps, rate, pixel_aspect, frames_before),
        start=Fraction(0),
        stamps=stamps,
        original_frames=round(seconds * rate),
        fit=fit,
    )
