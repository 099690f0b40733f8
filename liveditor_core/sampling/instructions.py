"""Instructions with times: which one an edit follows when, and how one goes over into the next.

Seconds count from the first edited frame.
"""

import re
from typing import NamedTuple

import torch

from ..model.neighbours import SPAN_KEY as SPAN_KEY  # where the model looks for spans that reached it

# Signs that Chinese and Japanese keyboards write at double width, one for one, so that places in a line stay the same.
HALF_WIDTH = {code + 0xFEE0: code for code in range(0x21, 0x7F)}
TIME = r"[0-9]{1,6}(?::[0-9]{1,2}){0,2}(?:\.[0-9]*)?"
SEPARATOR = r"\s*(?:[-–—|]|:(?![0-9]))\s*|\s+|$"
LINE = re.compile(rf"({TIME})(?:\s*s(?=[-–—:|\s]|$))?(?:{SEPARATOR})", re.IGNORECASE)
SECOND_TIME = re.compile("[0-9]+:[0-9]")
EXAMPLE = "0:12.5 make it night"


class TimelineError(ValueError):
    """A timeline that cannot be followed: says which line, the rule, what was found and what to do."""


class Instruction(NamedTuple):
    """A line of a timeline."""

    start: float  # seconds
    text: str
    line: int  # from 1


class Span(NamedTuple):
    """When an instruction holds; a conditioning carries it under SPAN_KEY."""

    start: float  # seconds
    end: float | None  # None: to the end of the edit
    transition: float  # seconds that it takes to come in, half of them before its start
    text: str = ""
    line: int = 0


def read_timeline(text, seconds=None) -> list[Instruction]:
    """The instructions of a text that has a time and an instruction on every line.

    Times are 12.5, 12.5s, 0:12.5 or 1:02:03; a dash, colon or bar may follow. Empty lines count for nothing.

    Args:
        seconds: of the edit, None if that is not known.

    Raises:
        TimelineError: no line, or one that has no time, no instruction, or a time that is out of order or past the end.
    """
    found = []
    for number, line in enumerate(re.split(r"\r\n|\r|\n", text.replace("\ufeff", "")), 1):
        line = line.strip()
        if not line:
            continue
        start, instruction = _read(line, number)
        if not found and start > 0:
            raise _wrong(
                number,
                line,
                f"the first instruction must begin at 0:00, got {clock(start)}",
                "Begin with a line at 0:00.",
            )
        if found and start <= found[-1].start:
            raise _wrong(
                number,
                line,
                f"must begin after the line before it, at {clock(found[-1].start)}, got {clock(start)}",
                "Sort the lines by time, one instruction for each.",
            )
        found.append(Instruction(start, instruction, number))
    if not found:
        raise TimelineError(
            f'must have at least one line such as "{EXAMPLE}", got none. Write one that begins at 0:00.'
        )
    if seconds is not None:
        _require_before_end(found, seconds)
    return found


def _read(line, number):
    """Seconds and instruction of a line."""
    plain = line.translate(HALF_WIDTH)
    match = LINE.match(plain)
    start = _seconds(match[1]) if match else None
    if start is None:
        raise _wrong(
            number, line, "must begin with a time", f'Write it as in "{EXAMPLE}", or as 12.5, 12.5s or 1:02:03.'
        )
    instruction = line[match.end() :].strip()
    if not instruction:
        raise _wrong(number, line, "must have an instruction after its time", "Say what to change from then on.")
    if SECOND_TIME.match(plain, match.end()):
        raise _wrong(
            number,
            line,
            "must have one time, when its instruction begins",
            "Leave out the second; an instruction holds until the next line's time.",
        )
    return start, instruction


def _seconds(text):
    """Seconds of a time as the clock writes it, None if its minutes or seconds are 60 or more."""
    first, *others = (float(part) for part in text.split(":"))
    if any(part >= 60 for part in others):
        return None
    for part in others:
        first = 60 * first + part
    return first


def _wrong(number, line, rule, remedy):
    return TimelineError(f'line {number}: {rule}, in "{line}". {remedy}')


def clock(seconds):
    """Seconds as 0:12.50."""
    hundredths = round(100 * seconds)
    minutes, rest = divmod(hundredths, 6000)
    hours, minutes = divmod(minutes, 60)
    return (f"{hours}:{minutes:02d}" if hours else f"{minutes}") + f":{rest / 100:05.2f}"


def _require_before_end(instructions, seconds):
    for each in instructions:
        if each.start >= seconds:
            raise TimelineError(
                f'line {each.line}: must begin before the edit ends, at {clock(seconds)}, got {clock(each.start)} for "'
                f'{each.text}". Give it an earlier time, or edit more frames in Encode Source Video.'
            )


def require_within(spans, seconds):
    """Refuse spans that are not one timeline of an edit that lasts so long.

    Raises:
        TimelineError: an instruction begins past the end, or spans of several timelines were joined.
    """
    for before, after in zip(spans, spans[1:], strict=False):
        if after.start <= before.start:
            raise TimelineError(
                f'must be one timeline, got "{after.text}" at {clock(after.start)} after "{before.text}" at '
                f"{clock(before.start)}. Write all lines into one LIVEdit Timeline; do not combine two."
            )
    _require_before_end(spans, seconds)


def frame_weights(spans, times):
    """How much every instruction counts at given times.

    An instruction comes in on a ramp around its start, as wide as its transition, and the one before it goes out on the
    same: what is shown is the mean over a transition's length of what holds. So instructions that are shorter than
    their transition never count fully, and the weights of a time are 1 together whatever the lengths.

    Args:
        spans: of one timeline, in order.
        times: seconds, of any number of frames.

    Returns:
        [len(spans), len(times)] fp32.
    """
    times = torch.as_tensor([float(time) for time in times], dtype=torch.float64)
    come_in = [torch.ones_like(times)]  # the first holds from the beginning, wherever it starts
    for span in spans[1:]:
        if span.transition > 0:
            ramp = ((times - span.start) / span.transition + 0.5).clamp(0, 1)
        else:
            ramp = (times >= span.start).double()
        come_in.append(torch.minimum(ramp, come_in[-1]))  # of unequal transitions, none comes in before the one before
    come_in.append(torch.zeros_like(times))
    return (torch.stack(come_in[:-1]) - torch.stack(come_in[1:])).float()
