"""The conditioning of a timeline: every instruction encoded, with its time."""

from ..model.neighbours import SPAN_KEY
from .instructions import Span, clock, read_timeline


def timeline_conditioning(clip, text, transition, seconds=None):
    """The conditioning of a timeline.

    Args:
        clip: the host's CLIP.
        text: as for read_timeline.
        transition: seconds from one instruction to the next.
        seconds: of the edit, None if that is not known.

    Returns:
        The host's CONDITIONING, whose entries carry their Spans; and a line for every span.

    Raises:
        TimelineError: as read_timeline.
    """
    instructions = read_timeline(text, seconds)
    ends = [each.start for each in instructions[1:]] + [None]
    encoded, conditioning, lines = {}, [], []
    for each, end in zip(instructions, ends, strict=True):
        if each.text not in encoded:  # as the host's CLIP Text Encode does it
            encoded[each.text] = clip.encode_from_tokens_scheduled(clip.tokenize(each.text))
        span = Span(each.start, end, transition, each.text, each.line)
        conditioning += [[tensor, values | {SPAN_KEY: span}] for tensor, values in encoded[each.text]]
        shown_end = seconds if end is None else end
        until = "the end" if shown_end is None else clock(shown_end)
        lines.append(f"{clock(each.start)} to {until} {each.text}")
    return conditioning, "\n".join(lines)
