"""An edit as the host's VIDEO: at the rate and size that are wanted, the source outside its mask, with its sound."""

import functools
import itertools
import logging
from fractions import Fraction

import torch

from .copied_sound import CopiedSound
from .geometry import restore_frames
from .made_video import MadeVideo
from .regions import keep_outside
from .source_video import OutputForm, SourceVideo, repeat_last
from .timing import frame_at, frame_time, left_out
from .writer import VideoForm, kind_of

SOURCE_FORM = OutputForm(original_rate=True, original_size=True)


class EditedVideo(MadeVideo):
    """The frames of an edit, put together whenever they are read.

    Args:
        source: what was edited.
        spool: the decoded frames of the edit; of a batch of several edits one after the other.
        form: rate and size.
        region: Region of where the edit shows, everywhere if None.
        whole: give the whole clip with the edit in its place, at the clip's own rate and size.
        watch: as in MadeVideo.
    """

    def __init__(self, source: SourceVideo, spool, form: OutputForm, region=None, *, whole=False, watch):
        self.source, self.output, self.whole = source, SOURCE_FORM if whole else form, whole
        self._spool, self._region = spool, region
        clip = source.clip
        self._covers = source.covered == (0, 0, clip.width, clip.height)
        self.clips = len(spool) // source.frames
        rate, (width, height) = source.rate(self.output), source.size(self.output)
        aspect = clip.pixel_aspect if self.output.original_size else Fraction(1)
        sounds = clip.sounds if whole else () if clip.sound is None else (clip.sound.later(source.start),)
        if self.clips > 1:
            sounds = [sound.repeated(self._each / rate, self.clips) for sound in sounds]
        super().__init__(
            VideoForm(width, height, rate, clip.colours, clip.bit_depth > 8, aspect), sounds, spool.folder, watch
        )

    @functools.cached_property
    def _each(self):
        """Frames of one edit of a batch."""
        if self.whole:
            return max(1, round(self.source.clip.length() * self.source.original_fps))
        return self.source.count(self.output)

    def count(self):
        return self.clips * self._each

    def clip_time(self, index: int) -> Fraction:
        """When in the clip of the source the frame with a number shows, in seconds."""
        time = frame_time((self._window[0] + index) % self._each, self.rate)
        return time if self.whole else time + self.source.start

    def made(self, first):
        make = self._whole_clip if self.whole else self._part
        number, first = divmod(first, self._each)
        rest = (make(later, 0) for later in range(number + 1, self.clips))
        return itertools.chain(make(number, first), itertools.chain.from_iterable(rest))

    def _part(self, number, first):
        source, form = self.source, self.output
        reads = self._region is not None or form.original_size and not self._covers
        unedited = source.unedited(form, first) if reads else itertools.repeat(None)
        for index, frame in zip(range(first, self._each), unedited, strict=False):
            yield self._finished(number, index, frame)

    def _whole_clip(self, number, first):
        source, rate = self.source, self.rate
        times, seen = (frame_time(i, rate) for i in range(first, self._each)), []
        shown = source.clip.frames_at(times, seen=seen)
        for i, frame in enumerate(repeat_last(shown, self._each - first), first):
            if first == 0 and i == self._each - 1:  # nobody asks for more after the last one
                self._say_what_is_left_out(seen)
            since = frame_time(i, rate) - source.start
            inside = 0 <= since < source.original_frames / rate
            yield self._finished(number, frame_at(since, rate, source.original_frames), frame) if inside else frame

    def _say_what_is_left_out(self, seen):
        if lost := left_out([picture.time for picture in seen], self.rate):
            logging.info(
                f"LIVEditor: {self.source.clip.name}: {lost} of {len(seen)} frames of the whole video come faster than "
                f"{float(self.rate):.6g} a second, its usual rate, and are left out."
            )

    def _finished(self, number, index, unedited):
        """A frame of the part.

        Args:
            number: of the edit, in a batch.
            index: of the frame, at the output's rate.
            unedited: the frame of the source, or None where it is not needed.
        """
        source, form = self.source, self.output
        edit = self._spool[number * source.frames + source.edited_index(index, form)]
        if form.original_size:
            edit = self._at_the_source_s_size(edit, unedited)
        if self._region is not None:
            edit = keep_outside(edit, unedited, self._region.weights(index))
        return edit

    def _at_the_source_s_size(self, edit, unedited):
        source = self.source
        edit, box = restore_frames(
            edit.unsqueeze(0), source.original_width, source.original_height, source.fit, source.pixel_aspect
        )
        if self._covers:
            return edit[0]
        out = unedited.clone()
        out[box.top : box.bottom, box.left : box.right] = edit[0]
        return out

    def get_components(self):
        parts = super().get_components()
        if self.source.clip.has_alpha and not (self.whole or self.is_trimmed):
            alpha = [frame[..., 3:] for frame in self.source.unedited(self.output, alpha=True)]
            parts.alpha = torch.stack(alpha * self.clips)  # [F, H, W, 1], as the host's own reader gives it
        return parts

    def _tracks(self, path, request):
        clip = self.source.clip
        encoded = super()._tracks(path, request)
        if not self.whole or not encoded:
            return encoded
        container, tracks = kind_of(path, request)[0], dict(enumerate(encoded))
        if self.clips == 1 and not self.is_trimmed and clip.sound_is_whole:
            copied = CopiedSound(clip)
            tracks = {sound.stream: track for sound, track in zip(self.sounds, encoded, strict=True)}
            tracks |= {number: copied.track(number) for number in copied.fitting(container)}
        anew = sum(track in encoded for track in tracks.values())
        if anew:
            logging.info(
                f"LIVEditor: {clip.name}: {anew} of {len(tracks)} sound tracks cannot be copied as they are to "
                f"{container}, and are encoded anew."
            )
        return [tracks[number] for number in sorted(tracks)]
