"""The player of Compare Videos: two clips at the same time code, frame by frame, in both renderers."""

import base64
import functools
import io

import av
import host
import numpy as np
import pytest
from canvas import RENDERERS, bring_into_view, open_workflow, press_run, renderer
from PIL import Image

CANVAS = ".liveditor-compare canvas"
FRAMES = 17


@pytest.fixture(scope="module", params=RENDERERS)
def player(page, base, request):
    """The demo after a run, its player in view; and the frames of both clips as the file has them, [2, F, H, W, 3]."""
    with renderer(page, request.param):
        open_workflow(page, host.PACK / "workflows" / "liveditor_demo.json")
        bring_into_view(page, "LIVEditCompareVideos", 1.2)
        outputs = press_run(page)["outputs"]
        (clip,) = next(output["liveditor_compare"] for output in outputs.values() if "liveditor_compare" in output)
        with av.open(str(base / clip["type"] / clip["subfolder"] / clip["filename"])) as container:
            frames = np.stack([frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)]).astype(int)
        page.wait_for_function("c => document.querySelector(c)?.dataset.frame === '0'", arg=CANVAS, timeout=20_000)
        yield page, np.stack(np.split(frames, 2, axis=2))


def press(page, *keys):
    page.locator(".liveditor-compare").focus()
    for key in keys:
        page.keyboard.press(key)


def at_frame(page, frame):
    page.wait_for_function(
        "([c, f]) => document.querySelector(c).dataset.frame === String(f)", arg=[CANVAS, frame], timeout=10_000
    )
    page.wait_for_timeout(150)


def pixels(page):
    """What the canvas shows, [H, W, 3]. As a PNG: a list of numbers would keep a busy browser busier still."""
    png = page.evaluate("c => document.querySelector(c).toDataURL('image/png').split(',')[1]", CANVAS)
    return np.asarray(Image.open(io.BytesIO(base64.b64decode(png))).convert("RGB")).astype(int)


def apart(a, b):
    """Mean difference."""
    return np.abs(a - b).mean()


def comes_to_show(page, right):
    """Whether the canvas shows in time what is right: a busy browser draws a seek's frame some time after its end."""
    for _ in range(250):
        if right(pixels(page)):
            return True
        page.wait_for_timeout(100)
    return False


def test_both_clips_at_the_same_time_code(player):
    page, (before, after) = player
    assert len(before) == FRAMES and apart(before[0], after[0]) > 20
    press(page, "Home")
    middle = before.shape[2] // 2
    left, right = np.s_[:, : middle - 4], np.s_[:, middle + 4 :]

    def is_frame(shown, frame):
        """Near to it, and to no other nearer: neighbours may differ by little."""
        far = [max(apart(shown[left], before[f][left]), apart(shown[right], after[f][right])) for f in range(FRAMES)]
        return far[frame] < 4 and np.argmin(far) == frame

    for frame in (0, 1, 7, FRAMES - 1):
        press(page, "Home", *["ArrowRight"] * frame) if frame < 10 else press(page, "End")
        at_frame(page, frame)
        assert comes_to_show(page, functools.partial(is_frame, frame=frame))
    assert f"{FRAMES} / {FRAMES}" in page.locator(".liveditor-compare output").text_content()


def test_the_border_is_dragged_and_moved_by_keys(player):
    page, (before, after) = player
    press(page, "Home")
    at_frame(page, 0)
    box = page.locator(CANVAS).bounding_box()
    node = page.evaluate("() => [...app.graph.nodes.find(n => n.type === 'LIVEditCompareVideos').pos]")
    y = box["y"] + box["height"] / 2
    page.mouse.move(box["x"] + box["width"] / 2, y)
    page.mouse.down()
    page.mouse.move(box["x"] + box["width"] - 2, y, steps=5)
    page.mouse.up()
    almost = np.s_[:, :-12]
    assert comes_to_show(page, lambda shown: apart(shown[almost], before[0][almost]) < 4)
    assert page.evaluate("() => [...app.graph.nodes.find(n => n.type === 'LIVEditCompareVideos').pos]") == node, (
        "the node must stay where it is"
    )
    press(page, *["["] * 50)
    rest = np.s_[:, 12:]
    assert comes_to_show(page, lambda shown: apart(shown[rest], after[0][rest]) < 4)
    press(page, *["]"] * 25)


def test_side_by_side_playing_scrubbing_and_full_screen(player):
    page, clips = player
    press(page, "Home", "b")
    at_frame(page, 0)
    both = np.concatenate([clips[0][0], clips[1][0]], axis=1)
    assert comes_to_show(page, lambda shown: apart(shown, both) < 4)
    page.evaluate(
        """c => { window.framesSeen = new Set(); window.keysLeaked = []; window.addEventListener('keydown',
            event => event.key !== 'Shift' && window.keysLeaked.push(event.key));
        new MutationObserver(() =>
            window.framesSeen.add(Number(document.querySelector(c).dataset.frame)))
            .observe(document.querySelector(c), {attributes: true}); }""",
        CANVAS,
    )
    press(page, "b", "End")
    at_frame(page, FRAMES - 1)
    press(page, " ")
    page.wait_for_function(
        "n => window.framesSeen.size >= n - 4", arg=FRAMES, timeout=20_000
    )  # all around, not from where it was stopped; a slow browser drops some
    assert min(page.evaluate("() => [...window.framesSeen]")) < 4
    press(page, "m", "m", " ")
    page.locator(".liveditor-compare input[type=range]").evaluate(
        "e => { e.value = 11; e.dispatchEvent(new Event('input')); }"
    )
    at_frame(page, 11)
    press(page, "Shift+ArrowLeft")
    at_frame(page, 1)
    assert page.evaluate("() => window.keysLeaked") == [], (
        "keys must not reach the canvas, where they mean other things"
    )
    press(page, "f")
    page.wait_for_function("() => document.fullscreenElement?.classList.contains('liveditor-compare')", timeout=10_000)
    press(page, "f")
    page.wait_for_function("() => !document.fullscreenElement", timeout=10_000)


def test_looking_closer(player):
    """Around the middle, to and fro, dragged with shift, and by the wheel at a place that stays."""
    page, (before, after) = player
    press(page, "Home", *["+"] * 7)
    at_frame(page, 0)
    height, width = before.shape[1:3]
    zoom, edge = 1.25**7, 0.5 - 0.5 / 1.25**7
    rows, columns = (np.arange(size) for size in (height, width))
    seen_rows, seen_columns = (
        (edge * size + (x + 0.5) / zoom).astype(int) for x, size in ((rows, height), (columns, width))
    )
    expected = np.where(
        (columns < width // 2)[None, :, None],
        before[0][seen_rows][:, seen_columns],
        after[0][seen_rows][:, seen_columns],
    )
    sides = np.abs(columns - width // 2) > 4
    assert comes_to_show(page, lambda shown: apart(shown[:, sides], expected[:, sides]) < 6)
    box = page.locator(CANVAS).bounding_box()
    x, y = box["x"] + box["width"] / 2, box["y"] + box["height"] / 2
    page.keyboard.down("Shift")
    page.mouse.move(x, y)
    page.mouse.down()
    page.mouse.move(x - box["width"] * 2, y - box["height"] * 2, steps=4)
    page.mouse.up()
    page.keyboard.up("Shift")
    corner = after[0][-int(height / zoom / 2) :, -int(width / zoom / 4) :].mean(axis=(0, 1))  # as far as it goes
    seen = np.s_[height // 2 :, -width // 4 :]
    assert comes_to_show(page, lambda shown: np.abs(shown[seen].mean(axis=(0, 1)) - corner).max() < 6)
    press(page, "0")
    left = np.s_[:, : width // 2 - 4]
    assert comes_to_show(page, lambda shown: apart(shown[left], before[0][left]) < 4)
    page.mouse.move(box["x"] + 0.25 * box["width"], y)
    page.mouse.wheel(0, -100)
    place = np.s_[height // 2 - 3 : height // 2 + 3, width // 4 - 3 : width // 4 + 3]
    there = before[0][place].mean(axis=(0, 1))
    assert comes_to_show(
        page,
        lambda shown: (
            apart(shown[left], before[0][left]) > 4 and np.abs(shown[place].mean(axis=(0, 1)) - there).max() < 8
        ),
    )
    press(page, "0")


def test_dragging_past_the_middle_side_by_side(player):
    """The picture follows the pointer, whichever half that is over."""
    page, _ = player
    box = page.locator(CANVAS).bounding_box()
    press(page, "Home", "b", *["+"] * 4)
    at_frame(page, 0)
    y, step = box["y"] + box["height"] / 2, box["width"] / 20
    middle = box["x"] + box["width"] / 2

    def dragged(start):
        press(page, "0", *["+"] * 4)
        page.mouse.move(start, y)
        page.mouse.down()
        page.mouse.move(start - step, y, steps=4)
        page.mouse.up()
        page.wait_for_timeout(100)
        return pixels(page)

    within, across = dragged(middle - 2 * step), dragged(middle + step / 2)
    press(page, "0", "b")
    assert apart(within, across) < 3


def test_names(player):
    page, _ = player
    names = page.locator(".liveditor-compare .name")
    assert names.all_text_contents() == ["before", "after"]
    box = page.locator(CANVAS).bounding_box()
    assert all(each.bounding_box()["height"] > 12 for each in names.all()), "of the page's own size"
    left, right = (each.bounding_box() for each in names.all())
    assert box["x"] <= left["x"] < right["x"] and right["x"] + right["width"] <= box["x"] + box["width"] + 1
    page.evaluate("""() => { const node = app.graph.nodes.find(n => n.type === 'LIVEditCompareVideos');
        const [output] = Object.values(app.nodeOutputs).filter(each => each.liveditor_compare);
        const [clip] = output.liveditor_compare;
        node.onExecuted({liveditor_compare: [{...clip, names: ['A: sparse', '']}]}); }""")
    assert names.all_text_contents() == ["A: sparse", "after"]
    page.wait_for_function("c => document.querySelector(c)?.dataset.frame === '0'", arg=CANVAS, timeout=20_000)


def test_a_frame_that_stays_away_is_sought_again(player):
    """A busy browser may go on showing the frame of an earlier seek."""
    page, _ = player
    press(page, "Home")
    at_frame(page, 0)
    page.evaluate(
        """() => { const video = HTMLVideoElement.prototype, ask = video.requestVideoFrameCallback;
        window.sought = []; window.late = true;
        const seek = Object.getOwnPropertyDescriptor(HTMLMediaElement.prototype, 'currentTime');
        Object.defineProperty(video, 'currentTime', {configurable: true, get: seek.get,
            set(time) { window.sought.push(time); seek.set.call(this, time); }});
        video.requestVideoFrameCallback = function (tell) { return ask.call(this, (now, frame) =>
            tell(now, window.late ? {...frame, mediaTime: 0} : frame)); };
        window.restore = () => { video.requestVideoFrameCallback = ask; delete video.currentTime; }; }"""
    )
    try:
        press(page, "ArrowRight")  # the callback that waits is still the browser's own
        at_frame(page, 1)
        press(page, "ArrowRight")
        at_frame(page, 2)
        page.wait_for_function("() => window.sought.length === 5", timeout=10_000)  # three tries
        page.wait_for_timeout(1500)
        assert page.evaluate("() => window.sought.length") == 5, "and no more"
        page.evaluate("() => window.late = false")
        press(page, "ArrowRight")
        at_frame(page, 3)
        page.wait_for_timeout(1500)
        assert page.evaluate("() => window.sought.length") == 6
    finally:
        page.evaluate("() => window.restore()")


def test_it_shows_again_after_another_workflow(player):
    page, _ = player
    open_workflow(page, host.PACK / "workflows" / "liveditor_edit.json")
    assert page.locator(".liveditor-compare .hint").is_visible()
    page.locator("[role=tab], .workflow-tab", has_text="liveditor_demo").last.click()
    page.wait_for_function("() => app.graph.nodes.some(n => n.title === 'The small model')")
    page.wait_for_function("c => document.querySelector(c)?.dataset.frame === '0'", arg=CANVAS, timeout=20_000)
