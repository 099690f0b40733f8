"""The bar of LIVEdit Timeline: it follows the text and the clip, and the text follows it, in both renderers."""

import re
import sys

import host
import pytest
from canvas import (
    BAR,
    RENDERERS,
    TIMELINE,
    drag_border,
    make_timeline,
    renderer,
    set_setting,
    timeline_text,
    wait_for_timeline,
)

sys.path.append(str(host.PACK / "tests" / "unit"))
from test_instructions import WRONG

from liveditor.liveditor_core.sampling.instructions import TimelineError, read_timeline

TEXT = "0:00 make it night\n0:02.5 invert the colours"
SHOTS = [1.2, 3.04, 5.48, 7.48, 9.68]  # of the clip, in seconds
LENGTH = 10


@pytest.fixture(params=RENDERERS)
def timeline(page, request):
    """A page with the node in view, drawn by either renderer."""
    with renderer(page, request.param):
        make_timeline(page, TEXT)
        yield page


def set_text(page, text):
    page.evaluate(
        f"text => {{ const w = {TIMELINE}.widgets.find(w => w.name === 'timeline'); w.value = text; w.callback?.(text);"
        " }",
        text,
    )


def shares(page, kind, length=LENGTH):
    """Where elements begin, in seconds."""
    return page.evaluate(
        """([selector, length]) => [...document.querySelectorAll(selector)].map(e => parseFloat(e.style.left) / 100
            * length)""",
        [f"{BAR} .{kind}", length],
    )


def parts(page):
    return page.locator(f"{BAR} .part").all_text_contents()


def wait_for_parts(page, *expected):
    page.wait_for_function(
        "([selector, expected]) => [...document.querySelectorAll(selector)].map(e => e.textContent).join('|') === "
        "expected",
        arg=[f"{BAR} .part", "|".join(expected)],
        timeout=30_000,
    )


def test_parts_follow_the_text_and_marks_the_clip(timeline):
    page = timeline
    assert parts(page) == ["make it night", "invert the colours"]
    assert shares(page, "part") == pytest.approx([0, 2.5], abs=1e-3)
    assert shares(page, "shot") == pytest.approx(SHOTS, abs=1e-3)
    assert "5 shot changes" in page.locator(f"{BAR} .say").text_content()
    ticks = page.locator(f"{BAR} .ticks span").all_text_contents()
    assert ticks[0] == "0:00" and ticks[-1] == "0:10"
    set_text(page, "0:00 sepia\n4s - mirror it\n0:07 sepia")
    wait_for_parts(page, "sepia", "mirror it", "sepia")
    assert shares(page, "part") == pytest.approx([0, 4, 7], abs=1e-3)
    colours = page.locator(f"{BAR} .part").evaluate_all("parts => parts.map(part => part.style.background)")
    assert colours[0] == colours[2] != colours[1]


def test_the_text_as_it_is_typed(timeline):
    area = timeline.locator("textarea").last
    area.click()
    timeline.keyboard.press("Control+End")
    timeline.keyboard.type("\n0:08 mirror it")
    wait_for_parts(timeline, "make it night", "invert the colours", "mirror it")


def test_a_click_on_a_shot_begins_a_line_there(timeline):
    page = timeline
    page.locator(f"{BAR} .shot").nth(2).click()
    wait_for_timeline(page, f"{TEXT}\n0:05.48 invert the colours")
    wait_for_parts(page, "make it night", "invert the colours", "invert the colours")
    page.locator(f"{BAR} .shot").nth(2).click()
    page.wait_for_timeout(200)
    assert timeline_text(page) == f"{TEXT}\n0:05.48 invert the colours", "there is one already"
    page.locator(f"{BAR} .shot").nth(0).click()
    wait_for_timeline(
        page, "0:00 make it night\n0:01.2 make it night\n0:02.5 invert the colours\n0:05.48 invert the colours"
    )


def test_a_line_near_the_shot_moves_there(timeline):
    set_text(timeline, "0:00 one\n\n 2.6s - two\n5 three")
    wait_for_parts(timeline, "one", "two", "three")
    timeline.locator(f"{BAR} .shot").nth(1).click()
    wait_for_timeline(timeline, "0:00 one\n\n 0:03.04s - two\n5 three")
    timeline.locator(f"{BAR} .shot").nth(2).click()
    wait_for_timeline(timeline, "0:00 one\n\n 0:03.04s - two\n0:05.48 three")


def test_a_click_on_the_bar(timeline):
    track = timeline.locator(f"{BAR} .track")
    track.click(position={"x": track.bounding_box()["width"] * 0.85, "y": 8})
    timeline.wait_for_function(
        f"() => {TIMELINE}.widgets.find(w => w.name === 'timeline').value.split('\\n').length === 3"
    )
    assert read_timeline(timeline_text(timeline))[-1].start == pytest.approx(8.5, abs=0.05)


def test_dragging_a_border_changes_its_time(timeline):
    page = timeline
    drag_border(page, 0, 6.4, LENGTH)
    moved = read_timeline(timeline_text(page))
    assert [each.text for each in moved] == ["make it night", "invert the colours"]
    assert moved[1].start == pytest.approx(6.4, abs=0.06)
    drag_border(page, 0, 5.5, LENGTH)
    assert read_timeline(timeline_text(page))[1].start == 5.48, "it goes to a shot nearby"
    drag_border(page, 0, -3, LENGTH)
    assert read_timeline(timeline_text(page))[1].start == 0.01, "it stays after the line before it"
    assert page.evaluate(f"() => {TIMELINE}.pos[0]") == 800, "the node was not dragged along"


def test_undo(timeline):
    page = timeline
    page.locator(f"{BAR} .shot").nth(2).click()
    wait_for_timeline(page, f"{TEXT}\n0:05.48 invert the colours")
    page.wait_for_timeout(1500)  # the frontend notices a change later, and drops a key while it undoes
    drag_border(page, 1, 8.5, LENGTH)
    page.wait_for_timeout(1500)
    page.keyboard.press("Control+z")
    wait_for_timeline(page, f"{TEXT}\n0:05.48 invert the colours")
    page.wait_for_timeout(1500)
    page.keyboard.press("Control+z")
    wait_for_timeline(page, TEXT)
    wait_for_parts(page, "make it night", "invert the colours")


def test_by_keys(timeline):
    page = timeline
    page.locator(f"{BAR} .grip").first.focus()
    page.keyboard.press("ArrowRight")
    wait_for_timeline(page, "0:00 make it night\n0:02.6 invert the colours")
    page.keyboard.press("Shift+ArrowRight")
    wait_for_timeline(page, "0:00 make it night\n0:03.6 invert the colours")
    page.locator(f"{BAR} .shot").nth(3).focus()
    page.keyboard.press("Enter")
    wait_for_timeline(page, "0:00 make it night\n0:03.6 invert the colours\n0:07.48 invert the colours")


def test_hovering_says_the_time(timeline):
    timeline.locator(f"{BAR} .shot").nth(1).hover()
    assert timeline.locator(f"{BAR} .now").text_content() == "0:03.04"
    timeline.locator(f"{BAR} .say").hover()
    assert not timeline.locator(f"{BAR} .now").is_visible()


def test_wrong_lines_are_named_in_red(timeline):
    set_text(timeline, "0:00 one\nmake it night\n0:11 two")
    say = timeline.locator(f"{BAR} .say.wrong")
    say.wait_for()
    lines = say.locator("div").all_text_contents()
    assert lines == [
        'line 2: must begin with a time, in "make it night"',
        'line 3: must begin before the edit ends, in "0:11 two"',
    ]
    assert parts(timeline) == ["one"]
    red, green, blue = map(int, re.findall(r"\d+", say.evaluate("e => getComputedStyle(e).color"))[:3])
    assert red > 2 * green - 40 and red > blue + 60
    set_text(timeline, TEXT)
    timeline.locator(f"{BAR} .say:not(.wrong)").wait_for()


def test_nothing_reaches_out_of_the_node(timeline):
    set_text(timeline, "0:00 " + "a very long instruction " * 9 + "\nwrong " + "and long " * 40)
    timeline.locator(f"{BAR} .say.wrong").wait_for()
    reach = timeline.evaluate(
        """bar => { const root = document.querySelector(bar), box = root.getBoundingClientRect();
        return [...root.querySelectorAll('div, span, button')].filter(e => e.offsetParent !== null).map(e =>
            [e.className, e.getBoundingClientRect()]).filter(([, b]) => b.left < box.left - 1 || b.right > box.right + 1
            || b.bottom > box.bottom + 1).map(([name]) => name); }""",
        BAR,
    )
    assert reach == []


def encode_value(page, name, value):
    page.evaluate(
        "([name, value]) => { app.graph.nodes.find(n => n.type === 'EncodeSourceVideo').widgets.find(w => w.name === "
        "name).value = value; }",
        [name, value],
    )


def test_the_part_that_is_edited_counts(page):
    make_timeline(page, TEXT, max_frames=81)
    last = page.locator(f"{BAR} .ticks span").last
    assert last.text_content() == "0:05.06"
    assert shares(page, "shot", 81 / 16) == pytest.approx(SHOTS[:2], abs=1e-3)
    encode_value(page, "start", 1.25)
    page.locator(f"{BAR} .ticks span.end", has_text="0:05.06").wait_for()
    page.wait_for_function(f"() => document.querySelectorAll('{BAR} .shot').length === 2")
    page.wait_for_function(
        f"() => Math.abs(parseFloat(document.querySelector('{BAR} .shot')?.style.left) - 34.76) < 0.1"
    )
    assert shares(page, "shot", 81 / 16) == pytest.approx([3.04 - 1.28, 5.48 - 1.28], abs=1e-3)
    encode_value(page, "fps", "as the source")
    page.locator(f"{BAR} .ticks span.end", has_text="0:03.24").wait_for()
    encode_value(page, "start", 100)  # past the clip's end: as if it were not known
    page.locator(f"{BAR} .say", has_text="length is not known").wait_for()


def test_through_reroutes(page):
    make_timeline(page, TEXT)
    page.evaluate("""() => {
        const find = type => app.graph.nodes.find(node => node.type === type);
        const through = (from, to, name) => {
            const reroute = LiteGraph.createNode('Reroute'); app.graph.add(reroute);
            from.connect(0, reroute, 0);
            reroute.connect(0, to, to.inputs.findIndex(input => input.name === name)); };
        through(find('LoadVideo'), find('EncodeSourceVideo'), 'video');
        through(find('EncodeSourceVideo'), find('LIVEditTimeline'), 'source'); }""")
    encode_value(page, "start", 1.25)  # so that the server is asked anew
    page.wait_for_function(f"() => document.querySelectorAll('{BAR} .shot').length === 4")


def test_without_a_clip_the_last_time_counts(page):
    make_timeline(page, "0:00 one\n0:08 two")
    page.evaluate("() => app.graph.remove(app.graph.nodes.find(n => n.type === 'LoadVideo'))")
    page.locator(f"{BAR} .say", has_text="length is not known").wait_for()
    assert page.locator(f"{BAR} .shot").count() == 0
    assert page.locator(f"{BAR} .ticks span").last.text_content() == "0:10"


def test_a_file_that_is_not_there_is_not_asked_for(page):
    asked = []
    page.on("request", lambda request: asked.append(request.url) if "liveditor/shots" in request.url else None)
    make_timeline(page, TEXT)
    before = len(asked)
    page.evaluate(
        "() => { app.graph.nodes.find(n => n.type === 'LoadVideo').widgets.find(w => w.name === 'file').value = "
        "'absent.mp4'; }"
    )
    page.locator(f"{BAR} .say", has_text="length is not known").wait_for()
    page.wait_for_timeout(600)
    assert before and len(asked) == before


def test_what_is_wrong_with_a_file_is_said(page, base, reports):
    (base / "input" / "text.mp4").write_text("this is no video")
    make_timeline(page, TEXT)
    page.evaluate("""() => { const w = app.graph.nodes.find(n => n.type === 'LoadVideo').widgets.find(w => w.name ===
        'file'); w.options.values.push('text.mp4'); w.value = 'text.mp4'; }""")
    page.locator(f"{BAR} .say", has_text="text.mp4: must be a video that FFmpeg can read").wait_for()
    assert page.locator(f"{BAR} .shot").count() == 0
    assert reports and all("422" in report for report in reports), "the browser's own words"
    reports.clear()


def test_nothing_runs_once_the_node_is_gone(page):
    page.evaluate("""() => { window.running = new Set();
        const [start, stop] = [window.setInterval, window.clearInterval];
        window.restore = () => { window.setInterval = start; window.clearInterval = stop; };
        window.setInterval = (f, ms) => { const id = start(f, ms); if (ms === 100) running.add(id); return id; };
        window.clearInterval = id => { running.delete(id); stop(id); }; }""")
    try:
        make_timeline(page, TEXT)
        assert page.evaluate("() => running.size") == 1
        page.evaluate(f"() => app.graph.remove({TIMELINE})")
        assert page.evaluate("() => running.size") == 0
    finally:
        page.evaluate("() => restore()")


def test_nothing_of_it_is_saved_or_sent(page):
    make_timeline(page, TEXT)
    saved, sent = page.evaluate(
        f"async () => [{TIMELINE}.serialize().widgets_values, Object.values((await app.graphToPrompt()).output).find("
        "n => n.class_type === 'LIVEditTimeline').inputs]"
    )
    assert saved == [TEXT, 0.5]
    assert sent.keys() == {"timeline", "transition", "source"}


def test_in_chinese(page):
    make_timeline(page, "1 one")
    set_setting(page, "Comfy.Locale", "zh")
    try:
        # "line 1: the first instruction must begin at 0:00"; spelt out, as not every system reads Chinese in Python
        page.locator(f"{BAR} .say", has_text="\u7b2c 1 \u884c\uff1a\u7b2c\u4e00\u6761\u6307\u4ee4").wait_for()
    finally:
        set_setting(page, "Comfy.Locale", "en")


RIGHT = [
    "0 a\n12.5s - b\n0:13.25 | c\n1:02:03: d",
    "\ufeff0:00 a\r\n\r\n\t1\u3000b\r2.s c",
    "\uff10 \u53d8\u6210\u591c\u665a\uff01\n0\uff1a12\uff0e5\uff1a \u590d\u53e4",
    "0 3 balloons rise\n4-5 more",
    "00:00 a\n00:01s b",
]


def test_the_canvas_reads_as_the_node_does(page):
    cases = [*RIGHT, *(text for text, _ in WRONG), *(text.replace("\n", "\r\n") for text, _ in WRONG)]
    read = page.evaluate(
        """async cases => {
            const { readTimeline } = await import('/extensions/ComfyUI-LIVEditor/timeline_text.js');
            return cases.map(text => readTimeline(text)); }""",
        cases,
    )
    rules = {
        "time": "must begin with a time",
        "instruction": "must have an instruction",
        "second": "must have one time",
        "first": "the first instruction must begin at 0:00",
        "order": "must begin after the line before it",
        "empty": "must have at least one line",
    }
    for text, seen in zip(cases, read, strict=True):
        try:
            expected = read_timeline(text)
        except TimelineError as error:
            first = seen["wrong"][0]
            where = f"line {first['line']}: " if first["line"] else ""
            assert str(error).startswith(where + rules[first["wrong"]]), text
        else:
            assert not seen["wrong"], text
            assert [(each["start"], each["instruction"], each["line"]) for each in seen["good"]] == expected
