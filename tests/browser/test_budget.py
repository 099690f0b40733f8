"""Sparse Attention Settings on the canvas.

Presets and the readout while values are dragged, in both renderers and languages.
"""

import json
from fractions import Fraction

import footage
import host
import pytest
from canvas import RENDERERS, bring_into_view, open_workflow, renderer, set_setting

from liveditor.liveditor_core.attention.config import SparseAttentionConfig
from liveditor.liveditor_core.attention.token_layout import TokenLayout
from liveditor.liveditor_core.footage.timing import padded_frame_count
from liveditor.liveditor_core.sampling.windows import WindowSize, plan_windows

WORKFLOW = host.PACK / "workflows" / "liveditor_edit.json"
NODE = "app.graph.nodes.find(n => n.type === 'SparseAttentionSettings')"
READOUT = ".liveditor-budget"


def values(page):
    return page.evaluate(f"() => Object.fromEntries({NODE}.widgets.map(w => [w.name, w.value]))")


def set_value(page, name, value):
    page.evaluate(f"([name, value]) => {{ {NODE}.widgets.find(w => w.name === name).value = value }}", [name, value])


def set_widgets_of(page, node_type, **widgets):
    page.evaluate(
        """([type, widgets]) => { for (const node of app.graph.nodes.filter(n => n.type === type))
            for (const widget of node.widgets) if (widget.name in widgets) widget.value = widgets[widget.name]; }""",
        [node_type, widgets],
    )


@pytest.fixture(params=RENDERERS)
def settings_node(page, request):
    """The node in view, by either renderer, beside a clip that the server does not know."""
    with renderer(page, request.param):
        open_workflow(page, WORKFLOW)
        set_widgets_of(page, "LoadVideo", file="nowhere.mp4")
        bring_into_view(page, "SparseAttentionSettings", 1.6)
        page.wait_for_selector(READOUT, timeout=10_000)
        yield page


def readout(page, contains=""):
    """What it says once it contains a text: another one may stand there before and after."""
    found = page.wait_for_function(
        """([selector, text]) => { const said = document.querySelector(selector)?.textContent;
            return said?.includes(text) && { said }; }""",
        arg=[READOUT, contains],
        timeout=30_000,
    )
    return found.json_value()["said"]


def test_the_readout_and_the_presets(settings_node):
    page = settings_node
    assert readout(page, "85,680 tokens").startswith("30.3 % of dense attention\n"), "no speed was measured on a CPU"
    for preset, expected in (
        ("Faster", {"flat_ratio": 0.25}),
        ("Small model", {"sar": 0.25, "srr": 1}),
        ("Finest", {"sar": 0.125, "srr": 0.25, "flat_ratio": 0.75}),
        ("Dense", {"backend": "dense"}),
        ("Released", {"sar": 0.0625, "srr": 0.125, "flat_ratio": 0.5, "backend": "auto"}),
    ):
        page.evaluate(
            f"preset => {{ const w = {NODE}.widgets.find(w => w.name === 'preset'); "
            f"w.value = preset; w.callback(preset); }}",
            preset,
        )
        assert expected.items() <= values(page).items()
        page.wait_for_timeout(250)
        assert values(page)["preset"] == preset
        assert ("dense: nothing is left out" in readout(page)) == (preset == "Dense")
    set_value(page, "flat_ratio", 0.4)
    page.wait_for_timeout(250)
    assert values(page)["preset"] == "custom"


def test_the_size_of_the_connected_source_counts(settings_node):
    page = settings_node
    page.evaluate(
        "() => { const w = app.graph.nodes.find(n => n.type === 'EncodeSourceVideo').widgets.find(w => w.name "
        "=== 'max_frames'); w.value = 33; }"
    )
    assert "960x544, 33 frames: 36,720 tokens" in readout(page, "36,720")


def test_one_window_of_a_long_clip_counts(settings_node):
    page = settings_node
    set_widgets_of(page, "EncodeSourceVideo", max_frames=321)
    line = "at 960x544, 5 windows of 81 frames: 85,680 tokens each"
    assert readout(page, line).startswith("30.3 % of dense attention\n")
    set_widgets_of(page, "LIVEditSampler", window=33, overlap=8)
    assert "13 windows of 33 frames: 36,720 tokens each" in readout(page, "13 windows")


def test_all_of_a_clip_is_as_long_as_the_server_says(settings_node):
    page = settings_node
    set_widgets_of(page, "LoadVideo", file="bikes.mp4")  # ten seconds
    set_widgets_of(page, "EncodeSourceVideo", max_frames=0)
    assert "3 windows of 65 frames" in readout(page, "3 windows")
    set_widgets_of(page, "EncodeSourceVideo", start=6.0)
    assert "at 1088x464, 64 frames:" in readout(page, "64 frames")
    set_widgets_of(page, "EncodeSourceVideo", fps="as the source")  # 25
    assert "2 windows of 61 frames" in readout(page, "2 windows")
    set_widgets_of(page, "LoadVideo", file="nowhere.mp4")
    assert "at 960x544, 81 frames:" in readout(page, "81 frames")


@pytest.fixture
def small_clips(base):
    """Clips beside bikes.mp4: of 9:16, and of pixels twice as high as wide; both of two seconds."""
    clips = {
        "portrait.mp4": footage.Clip(size=(90, 160), stamps=footage.steady(25, 50)),
        "tall_pixels.mkv": footage.Clip(
            "mkv", size=(160, 80), stamps=footage.steady(25, 50), pixel_aspect=Fraction(1, 2)
        ),
    }
    for name, clip in clips.items():
        footage.write(clip, base / "input" / name)
    yield
    for name in clips:
        (base / "input" / name).unlink()


def choose_clip(page, name):
    """As one that the server has listed."""
    page.evaluate(
        """name => { const widget = app.graph.nodes.find(n => n.type === 'LoadVideo').widgets.find(w => w.name ===
            'file'); if (!widget.options.values.includes(name)) widget.options.values.push(name);
            widget.value = name; }""",
        name,
    )


def test_the_shape_and_the_length_of_the_clip_count(settings_node, small_clips):
    page = settings_node
    choose_clip(page, "portrait.mp4")
    assert readout(page, "at 544x960, 32 frames"), "max_frames is 81, and the clip shorter"
    set_widgets_of(page, "EncodeSourceVideo", size="auto small model")
    assert readout(page, "at 128x224, 32 frames")
    choose_clip(page, "tall_pixels.mkv")
    assert readout(page, "at 192x192, 32 frames")
    set_widgets_of(page, "EncodeSourceVideo", max_frames=17, start=0.5, size="auto 480p")
    assert readout(page, "at 624x624, 17 frames")
    set_widgets_of(page, "EncodeSourceVideo", start=1.5)
    assert readout(page, "at 624x624, 8 frames")
    set_widgets_of(page, "EncodeSourceVideo", size="custom", width=320, height=176)
    assert readout(page, "at 320x176, 8 frames")


def connect_to(page, name, make):
    """Connect what `make`, JavaScript, gives to a widget of Encode Source Video, through a reroute."""
    page.evaluate(f"""() => {{ const encode = app.graph.nodes.find(n => n.type === 'EncodeSourceVideo');
        const add = type => {{ const node = LiteGraph.createNode(type); app.graph.add(node); return node; }};
        const set = (node, value) => {{ node.widgets.find(w => w.name === 'value').value = value; return node; }};
        const reroute = add('Reroute');
        ({make}).connect(0, reroute, 0);
        reroute.connect(0, encode, encode.inputs.findIndex(i => i.name === '{name}')); }}""")


def test_what_is_connected_to_a_widget_counts(settings_node):
    page = settings_node
    connect_to(page, "max_frames", "set(add('PrimitiveInt'), 33)")
    assert readout(page, "33 frames").endswith("at 960x544, 33 frames: 36,720 tokens")
    connect_to(page, "max_frames", "add('GetImageSize')")
    assert readout(page, "may be").endswith(
        "at 960x544, 81 frames: 85,680 tokens; max_frames may be another when it runs"
    )


def test_the_sampler_that_the_model_leads_to_counts(page):
    open_workflow(page, WORKFLOW)
    set_widgets_of(page, "LoadVideo", file="nowhere.mp4")
    set_widgets_of(page, "EncodeSourceVideo", max_frames=321)
    page.evaluate(f"""() => {{ const find = type => app.graph.nodes.find(n => n.type === type);
        const add = type => {{ const node = LiteGraph.createNode(type); app.graph.add(node); return node; }};
        const lora = add('LIVEditLoadLoRA'), reroute = add('Reroute'), other = add('LIVEditSampler');
        {NODE}.connect(0, lora, 0); lora.connect(0, reroute, 0); reroute.connect(0, find('LIVEditSampler'), 0);
        find('LIVEditSampler').widgets.find(w => w.name === 'window').value = 49;
        other.widgets.find(w => w.name === 'window').value = 33; }}""")
    assert "of 49 frames" in readout(page, "of 49 frames")
    page.evaluate("() => app.graph.nodes.find(n => n.type === 'Reroute').disconnectOutput(0)")
    assert "5 windows of 81 frames" in readout(page, "5 windows"), "which of two would be a guess"
    page.evaluate("() => app.graph.remove(app.graph.nodes.filter(n => n.type === 'LIVEditSampler')[0])")
    assert "of 33 frames" in readout(page, "of 33 frames")


def test_the_canvas_counts_windows_as_the_sampler_does(page):
    cases = [
        (frames, window, overlap)
        for frames in (1, 2, 9, 17, 33, 80, 81, 82, 85, 86, 161, 250, 321, 1000, 4801)
        for window in (9, 12, 17, 33, 81, 83, 121)
        for overlap in (0, 3, 4, 8, 16, 40, 64)
        if overlap <= 4 * ((window - 1) // 4 - 1)
    ]
    ours = page.evaluate(
        """async cases => { const budget = await import('/extensions/ComfyUI-LIVEditor/budget.js');
        return cases.map(([frames, window, overlap]) => budget.windowsOf(frames, {window, overlap})); }""",
        cases,
    )
    assert len(cases) > 400
    for (frames, *size), found in zip(cases, ours, strict=True):
        windows = plan_windows(0, (padded_frame_count(frames) - 1) // 4 + 1, WindowSize(*size))
        longest = 4 * (max(len(window.indices) for window in windows) - 1) + 1
        expected = {"count": len(windows), "frames": frames if len(windows) == 1 else longest}
        assert found == expected, (frames, *size)


def test_dragging_changes_the_readout(settings_node):
    """With a real mouse, on the number itself."""
    page = settings_node
    before = readout(page, "30.3 %")
    x, y = page.evaluate(f"""() => {{ const node = {NODE}, place = node.widgets.findIndex(w => w.name === 'flat_ratio');
        const drawn = document.querySelectorAll(`[data-node-id='${{node.id}}'] input`)[place];
            // Nodes 2.0 draws it, the canvas does not
        if (drawn) {{ const box = drawn.getBoundingClientRect(); return [box.x + box.width / 2,
            box.y + box.height / 2]; }}
        const [x, y] = app.canvas.ds.convertOffsetToCanvas([node.pos[0] + node.size[0] / 2,
            node.pos[1] + node.widgets[place].last_y + 10]);
        const box = app.canvas.canvas.getBoundingClientRect(); return [box.x + x, box.y + y]; }}""")
    page.mouse.move(x, y)
    page.mouse.down()
    seen = set()
    for step in range(1, 9):
        page.mouse.move(x + 6 * step, y)
        page.wait_for_timeout(150)
        seen.add(page.locator(READOUT).text_content())
    page.mouse.up()
    assert values(page)["flat_ratio"] != 0.5
    assert len(seen - {before}) > 1, "the readout must follow while the mouse is down"


def answered(page, **answer):
    """Open the workflow on a page whose server says this of its machine."""
    page.route("**/liveditor/attention?backend=auto", lambda route: route.fulfill(json=answer))
    open_workflow(page, WORKFLOW)


@pytest.fixture
def other_machines(page):
    """A page for `answered`."""
    yield page
    page.unroute("**/liveditor/attention?backend=auto")
    set_setting(page, "Comfy.Locale", "en")


TRITON = {"computes": "triton", "faster_from": 10_000, "measured": True}
ON_MACHINES = [
    (TRITON, "30.3 % of dense attention, a step about 2.0x as fast\n"),
    (TRITON | {"measured": False}, "30.3 % of dense attention, a step 2.0x as fast (H200)\n"),
    (TRITON | {"faster_from": 100_000}, "30.3 % of dense attention, no faster at this size\n"),
    ({"computes": "dense", "faster_from": None, "measured": True}, "dense here: no Triton (with it 30.3 %)\n"),
]


@pytest.mark.parametrize("answer, line", ON_MACHINES)
def test_the_readout_promises_what_the_machine_has(other_machines, answer, line):
    answered(other_machines, **answer)
    assert readout(other_machines, line).startswith(line)


def test_a_backend_that_cannot_run_promises_nothing(page):
    open_workflow(page, WORKFLOW)
    set_value(page, "backend", "triton")
    assert readout(page, "cannot").startswith("30.3 % of dense attention, but triton cannot run here\n")


def test_a_server_that_does_not_answer_promises_nothing(other_machines, reports):
    other_machines.route("**/liveditor/attention?backend=auto", lambda route: route.fulfill(status=500))
    with other_machines.expect_response("**/liveditor/attention?backend=auto"):
        open_workflow(other_machines, WORKFLOW)
    other_machines.wait_for_timeout(250)
    assert readout(other_machines, "82,824 tokens").startswith("30.3 % of dense attention\n")
    assert reports and all("500 (Internal Server Error)" in report for report in reports), "the browser's own words"
    reports.clear()


def test_in_chinese_without_triton(other_machines):
    set_setting(other_machines, "Comfy.Locale", "zh")
    answered(other_machines, computes="dense", faster_from=None, measured=True)
    # "computed densely here"; spelt out as below
    assert "Triton" in readout(other_machines, "\u6b64\u5904\u4e3a\u7a20\u5bc6\u8ba1\u7b97")


def test_in_chinese(page):
    open_workflow(page, WORKFLOW)
    set_setting(page, "Comfy.Locale", "zh")
    try:
        # "compute left: 30.3 % of dense attention"; spelt out, since not every system reads Chinese in Python files
        readout(page, "\u5269\u4f59\u8ba1\u7b97\u91cf\u4e3a\u7a20\u5bc6\u6ce8\u610f\u529b\u7684 30.3 %")
    finally:
        set_setting(page, "Comfy.Locale", "en")


def test_nothing_of_it_is_saved_or_sent(page):
    open_workflow(page, WORKFLOW)
    saved, sent = page.evaluate(
        f"async () => [{NODE}.serialize().widgets_values, Object.values((await "
        "app.graphToPrompt()).output).find(n => n.class_type === 'SparseAttentionSettings').inputs]"
    )
    assert saved == [0.0625, 0.125, 0.5, "auto", "sharpest (as released)", "16 bit"]
    assert not {"preset", "budget"} & sent.keys()


@pytest.mark.parametrize("drawn_by", RENDERERS)
@pytest.mark.parametrize("values_saved", [5, 6], ids=["before there was a precision", "now"])
def test_saved_settings_come_back(page, drawn_by, values_saved):
    """Settings keep their places: what a workflow was saved without is as released."""
    graph = json.loads(WORKFLOW.read_text(encoding="utf-8"))
    (node,) = [each for each in graph["nodes"] if each["type"] == "SparseAttentionSettings"]
    node["widgets_values"] = [0.3, 0.4, 0.6, "pytorch", "flattest (as in the paper's figure)", "8 bit"][:values_saved]
    if values_saved == 5:
        node["inputs"] = [each for each in node["inputs"] if each["name"] != "precision_of_attention"]
    with renderer(page, drawn_by):
        page.evaluate("graph => app.loadGraphData(graph, true, true, 'saved')", graph)
        page.wait_for_selector(READOUT, state="attached")
        expected = {
            "sar": 0.3,
            "srr": 0.4,
            "flat_ratio": 0.6,
            "backend": "pytorch",
            "dense_half": "flattest (as in the paper's figure)",
            "precision_of_attention": "16 bit" if values_saved == 5 else "8 bit",
        }
        shown = values(page)
        assert {name: shown[name] for name in expected} == expected and shown["preset"] == "custom"
        sent = page.evaluate(
            "async () => Object.values((await app.graphToPrompt()).output).find(n => n.class_type === "
            "'SparseAttentionSettings').inputs"
        )
        assert {name: sent[name] for name in expected} == expected and {"model", "source"} <= sent.keys()


def test_the_canvas_counts_as_the_model_does(page):
    cases = [
        {"sar": sar, "srr": srr, "flat_ratio": flat, "backend": backend, "target": target}
        for sar in (0.0, 0.0625, 0.3, 1.0)
        for srr in (0.0, 0.125, 1.0)
        for flat in (0.0, 0.37, 1.0)
        for target in (30, 64, 1000, 42_840, 14_040)
        for backend in ("auto", "dense")
    ]
    ours = page.evaluate(
        """async cases => { const budget = await import('/extensions/ComfyUI-LIVEditor/budget.js');
        return cases.map(c => budget.denseFraction(c, c.target)); }""",
        cases,
    )
    for case, fraction in zip(cases, ours, strict=True):
        config = SparseAttentionConfig.from_settings(
            **{k: v for k, v in case.items() if k != "target"}, dense_half="sharpest"
        )
        assert fraction == pytest.approx(
            config.dense_fraction(TokenLayout(case["target"], case["target"])), abs=1e-9
        ), case
