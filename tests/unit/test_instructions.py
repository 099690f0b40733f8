"""Timelines: what their lines may look like, what is refused in which words, and how much which instruction counts."""

import itertools
import random

import pytest
import torch

from liveditor.liveditor_core.sampling.instructions import (
    SPAN_KEY,
    Instruction,
    Span,
    TimelineError,
    clock,
    frame_weights,
    read_timeline,
    require_within,
)
from liveditor.liveditor_core.sampling.timeline_conditioning import timeline_conditioning


@pytest.mark.parametrize(
    "time, seconds",
    [
        ("0:12.5", 12.5),
        ("00:12.5", 12.5),
        ("1:02:03", 3723),
        ("1:02:03.25", 3723.25),
        ("12.5", 12.5),
        ("12.", 12),
        ("90", 90),
        ("12.5s", 12.5),
        ("12.5 s", 12.5),
        ("0:12.5S", 12.5),
        ("0\uff1a12\uff0e5", 12.5),
        ("\uff11\uff12", 12),
    ],
)
@pytest.mark.parametrize("separator", [" ", "\t", " - ", "-", " \u2013 ", ":", ": ", " | ", "|", "\uff1a", "\u3000"])
def test_times_and_separators(time, seconds, separator):
    text = f"0 as it is\n{time}{separator}make it night"
    assert read_timeline(text) == [Instruction(0, "as it is", 1), Instruction(seconds, "make it night", 2)]


@pytest.mark.parametrize(
    "text, instruction",
    [
        ("0 3 red balloons rise", "3 red balloons rise"),
        ("0:00 swap left and right", "swap left and right"),
        ("0 sepia, s-shaped: vintage | old", "sepia, s-shaped: vintage | old"),
        ("0:00 black-and-white", "black-and-white"),
        ("0s \u53d8\u6210\u591c\u665a\uff01", "\u53d8\u6210\u591c\u665a\uff01"),
    ],
)
def test_instructions_stay_as_they_are(text, instruction):
    assert [each.text for each in read_timeline(text)] == [instruction]


def test_lines_of_all_systems():
    expected = [Instruction(0, "one", 2), Instruction(1.5, "two", 4)]
    for end in ("\n", "\r\n", "\r"):
        assert read_timeline(end.join(["\ufeff", "  0:00 one ", "", "\t0:01.5 two", ""])) == expected


WRONG = [
    ("make it night", 'line 1: must begin with a time, in "make it night". Write it as in "0:12.5 make it night"'),
    ("0:00 one\n\n1:75 two", 'line 3: must begin with a time, in "1:75 two"'),
    ("0:00 one\n1:60:00 two", "line 2: must begin with a time"),
    ("0:00 one\n-1 two", "line 2: must begin with a time"),
    ("0:00 one\n3D look", "line 2: must begin with a time"),
    ("0:00 one\n1.5.2 look", "line 2: must begin with a time"),
    ("0:00 one\n1:02:03:04 look", "line 2: must begin with a time"),
    ("0:00 one\n1,5 two", "line 2: must begin with a time"),
    ("0:00 one\n\u0663 two", "line 2: must begin with a time"),
    ("0:00", 'line 1: must have an instruction after its time, in "0:00". Say what to change'),
    ("0:00 one\n12.5s -", "line 2: must have an instruction"),
    ("0:00 - 0:12 one", "line 1: must have one time, when its instruction begins"),
    ("0:01 one", "line 1: the first instruction must begin at 0:00, got 0:01.00"),
    ("0:00 one\n0:00 two", "line 2: must begin after the line before it, at 0:00.00, got 0:00.00"),
    ("0:00 a\n0:02 b\n1.5s c", 'line 3: must begin after the line before it, at 0:02.00, got 0:01.50, in "1.5s c"'),
    ("", 'must have at least one line such as "0:12.5 make it night", got none'),
    (" \r\n\ufeff\n", "must have at least one line"),
]


@pytest.mark.parametrize("text, message", WRONG)
def test_what_is_refused_is_named_by_its_line(text, message):
    with pytest.raises(TimelineError, match=f"^({message})"):
        read_timeline(text)


def test_past_the_end_where_the_length_is_known():
    text = "0:00 one\n0:05 two"
    assert len(read_timeline(text)) == len(read_timeline(text, 5.01)) == 2
    message = 'line 2: must begin before the edit ends, at 0:05.00, got 0:05.00 for "two". Give it an earlier time'
    with pytest.raises(TimelineError, match=message):
        read_timeline(text, 5.0)
    spans = [Span(0, 5, 0.5, "one", 1), Span(5, None, 0.5, "two", 2)]
    require_within(spans, 5.01)
    with pytest.raises(TimelineError, match=message):
        require_within(spans, 5.0)
    with pytest.raises(TimelineError, match='must be one timeline, got "one" at 0:00.00 after "two" at 0:05.00'):
        require_within(spans + spans, 10)


def test_the_clock():
    assert [clock(t) for t in (0, 12.5, 59.999, 3723.25)] == ["0:00.00", "0:12.50", "1:00.00", "1:02:03.25"]


def spans_of(starts, transition):
    return [Span(a, b, transition) for a, b in zip(starts, [*starts[1:], None], strict=True)]


def test_hard_borders_belong_to_the_later_one():
    weights = frame_weights(spans_of([0, 1, 2], 0), [0, 0.99, 1, 1.5, 2, 100])
    assert weights.dtype == torch.float32
    assert weights.tolist() == [[1, 1, 0, 0, 0, 0], [0, 0, 1, 1, 0, 0], [0, 0, 0, 0, 1, 1]]


def test_ramps_lie_around_the_border():
    weights = frame_weights(spans_of([0, 2], 1.0), [0, 1.5, 1.75, 2, 2.25, 2.5, 9])
    assert weights[1].tolist() == [0, 0, 0.25, 0.5, 0.75, 1, 1]
    assert torch.equal(weights.sum(0), torch.ones(7))


def test_instructions_shorter_than_their_transition():
    """The mean over two seconds around 5 of one that lasts half a second between two others."""
    weights = frame_weights(spans_of([0, 5, 5.5], 2.0), [5.25])
    assert weights[:, 0].tolist() == [0.375, 0.25, 0.375]


def test_one_instruction_holds_everywhere_and_no_time_needs_no_weights():
    assert frame_weights(spans_of([0], 0.5), [0, 3.0]).tolist() == [[1, 1]]
    assert frame_weights(spans_of([0, 1], 0.5), []).shape == (2, 0)


@pytest.mark.parametrize("seed", range(60))
def test_weights_are_those_of_a_moving_mean(seed):
    """Against the overlap of a window around each time with each span, on random spans, among them very short ones."""
    draw = random.Random(seed)
    starts = list(itertools.accumulate([0.0] + [draw.choice([1e-6, 0.01, 0.3, 2]) * draw.random() + 1e-9 for _ in
                                                range(draw.randrange(12))]))  # fmt: skip
    transition = draw.choice([0, 1e-6, 0.05, 0.5, 2])
    times = [draw.uniform(-1, starts[-1] + 2) for _ in range(40)] + starts
    weights = frame_weights(spans_of(starts, transition), times)
    assert torch.isfinite(weights).all() and (weights >= 0).all()
    assert torch.allclose(weights.sum(0), torch.ones(len(times)), atol=1e-6)
    begins, ends = [-float("inf"), *starts[1:]], [*starts[1:], float("inf")]
    for column, time in enumerate(times):
        for row, (begin, end) in enumerate(zip(begins, ends, strict=True)):
            if transition:
                overlap = min(end, time + transition / 2) - max(begin, time - transition / 2)
                expected = max(0, overlap) / transition
            else:
                expected = float(begin <= time < end)
            assert weights[row, column].item() == pytest.approx(expected, abs=1e-6)


@pytest.mark.parametrize("seed", range(20))
def test_unequal_transitions_sum_to_one(seed):
    draw = random.Random(seed)
    starts = list(itertools.accumulate([0.0] + [draw.random() for _ in range(6)]))
    spans = [span._replace(transition=draw.choice([0, 0.1, 2])) for span in spans_of(starts, 0)]
    weights = frame_weights(spans, [i / 16 for i in range(100)])
    assert (weights >= 0).all() and torch.allclose(weights.sum(0), torch.ones(100), atol=1e-6)


class CountingClip:
    """Counts what is encoded; under hooks, the host gives several entries for a text."""

    def __init__(self, entries=1):
        self.encoded, self.entries = [], entries

    def tokenize(self, text):
        return [text]

    def encode_from_tokens_scheduled(self, tokens):
        self.encoded += tokens
        return [[torch.zeros(1, 2, 3), {"pooled_output": number}] for number in range(self.entries)]


def test_every_text_is_encoded_once_and_every_entry_has_its_span():
    clip = CountingClip(entries=2)
    conditioning, report = timeline_conditioning(clip, "0 one\n2 two\n0:03.5 one", 0.25, 5.0625)
    assert clip.encoded == ["one", "two"]
    one, two = Span(0, 2, 0.25, "one", 1), Span(2, 3.5, 0.25, "two", 2)
    three = Span(3.5, None, 0.25, "one", 3)
    assert [values[SPAN_KEY] for _, values in conditioning] == [one, one, two, two, three, three]
    assert [values["pooled_output"] for _, values in conditioning] == [0, 1] * 3
    assert report == "0:00.00 to 0:02.00 one\n0:02.00 to 0:03.50 two\n0:03.50 to 0:05.06 one"
    assert timeline_conditioning(CountingClip(), "0 one", 0.5)[1] == "0:00.00 to the end one"
