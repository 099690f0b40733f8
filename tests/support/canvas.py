"""What the browser tests do on the canvas."""

import contextlib
import json
import re
import shutil
import time

import playwright.sync_api

OWN_NODES = {
    "LoadLIVEditor",
    "EncodeSourceVideo",
    "SparseAttentionSettings",
    "LIVEditSampler",
    "DecodeVideo",
    "LIVEditCompareVideos",
    "LIVEditRecordAttention",
    "LIVEditInspectAttention",
    "LIVEditLoadLoRA",
    "LIVEditTimeline",
    "LIVEditSplitHeads",
    "LIVEditMetrics",
    "LIVEditLoadTextImageEncoder",
}
OLD_IDS = ("CompareVideos", "RecordAttention", "InspectAttention")  # ours had the prefix LIVEdit from then on
OPTIONAL = {
    "EncodeSourceVideo": {"audio", "positive", "negative"},
    "LIVEditSampler": {"mask", "earlier"},
    "DecodeVideo": {"mask"},
    "LIVEditTimeline": {"source"},
    "LIVEditMetrics": {"mask", "clip", "clip_vision", "optical_flow"},
}
RENDERERS = {"canvas": False, "nodes 2.0": True}


OUR_FILES = "extensions/ComfyUI-LIVEditor"
# What ComfyUI says of itself: files that a new user has not got, a clip that a template names among them, hosts that a
# closed network hides, and a node that is drawn once more while it is being replaced.
OF_THE_HOST = re.compile(
    r"404 \(Not Found\) http://[^/]+/(api/userdata|user\.css|api/view\?type=input)"
    r"|ComfyApp graph accessed before initialization|Content Security Policy|^NullGraphError"
)


@contextlib.contextmanager
def opened(browser, reports, server, settings=None):
    """A page of ComfyUI in a browser that was never there before, on settings of its own.

    What the page reports as wrong is added to `reports`. `settings` are what the user changed: by default, that he has
    seen the tutorial.
    """
    shutil.rmtree(server.base / "user" / "default", ignore_errors=True)
    for name, value in ({"Comfy.TutorialCompleted": True} if settings is None else settings).items():
        server.client.post(f"api/settings/{name}", value)
    page = browser.new_page(viewport={"width": 1680, "height": 1050})
    page.on("console", lambda message: _report(reports, message))
    page.on("pageerror", lambda error: _keep(reports, error.stack or str(error)))
    page.client = server.client
    page.goto(f"http://{server.client.address}/")
    page.wait_for_function("window.app?.extensionManager?.workflow?.activeWorkflow && app.canvas", timeout=60_000)
    page.wait_for_selector(".p-blockui-mask", state="hidden")
    page.wait_for_selector("#graph-canvas")
    try:
        yield page
    finally:
        page.close()


def _report(reports, message):
    """Errors; and warnings by which ComfyUI reports what is wrong with a graph, or that come from the pack's files."""
    text = f"{message.text} {message.location['url']}"
    if message.type == "error" or message.type == "warning" and re.search(f"Reported error|{OUR_FILES}", text):
        _keep(reports, text)


def _keep(reports, text):
    if OUR_FILES in text or not OF_THE_HOST.search(text):
        reports.append(text)


def set_setting(page, name, value):
    page.evaluate("([name, value]) => app.extensionManager.setting.set(name, value)", [name, value])


@contextlib.contextmanager
def renderer(page, name):
    """Draw nodes by one of RENDERERS."""
    set_setting(page, "Comfy.VueNodes.Enabled", RENDERERS[name])
    try:
        yield page
    finally:
        set_setting(page, "Comfy.VueNodes.Enabled", False)


def bring_into_view(page, node_type, scale=1.0):
    """The first node of a type in the middle of the canvas."""
    page.evaluate(
        """async ([type, scale]) => { app.canvas.ds.scale = scale; app.canvas.centerOnNode(app.graph.nodes.find(n =>
            n.type === type)); app.canvas.setDirty(true, true);
        for (let drawn = 0; drawn < 3; drawn++) await new Promise(requestAnimationFrame); }""",
        [node_type, scale],
    )


def press_run(page):
    """Press the run button and wait; the history's entry of the prompt."""
    return wait_for_run(page, start_run(page))


def start_run(page):
    """Press the run button; what `wait_for_run` needs."""
    before = set(page.client.get("history"))
    page.get_by_test_id("queue-button").click()
    return before


def wait_for_run(page, before):
    """Wait for the run that was started; the history's entry of its prompt."""
    deadline = time.monotonic() + 180
    while not (entries := [entry for key, entry in page.client.get("history").items() if key not in before]):
        assert time.monotonic() < deadline, "the prompt did not finish"
        page.wait_for_timeout(200)
    assert entries[0]["status"]["status_str"] == "success", entries[0]["status"]
    return entries[0]


def open_workflow(page, path):
    page.evaluate(
        "([graph, name]) => app.loadGraphData(graph, true, true, name)",
        [json.loads(path.read_text(encoding="utf-8")), path.stem],
    )
    page.wait_for_function(
        "n => app.graph.nodes.length === n", arg=len(json.loads(path.read_text(encoding="utf-8"))["nodes"])
    )


def place_by_search(page, query, name):
    """The first that is found, alone on a new canvas."""
    page.evaluate("() => app.extensionManager.command.execute('Comfy.NewBlankWorkflow')")
    page.wait_for_function("() => app.graph.nodes.length === 0")
    search = page.get_by_role("combobox")
    for _ in range(3):  # a busy page may take the two clicks for single ones
        page.mouse.dblclick(900, 500)
        with contextlib.suppress(playwright.sync_api.TimeoutError):
            search.wait_for(timeout=10_000)
            break
    search.fill(query)
    page.get_by_role("option").first.filter(has_text=name).wait_for()
    page.keyboard.press("Enter")
    page.wait_for_function("() => app.graph.nodes.length === 1")
    page.mouse.click(900, 500)  # the new node follows the pointer until then


def choose_template(page, name, category="All Templates", search="liveditor"):
    """In the dialog of templates, the one of a name."""
    dialog = page.get_by_role("dialog")
    dialog.get_by_role("button", name=category, exact=True).click()
    dialog.get_by_placeholder("Search").fill(search)
    dialog.get_by_test_id(f"template-workflow-{name}").click()
    page.wait_for_function("name => app.extensionManager.workflow.activeWorkflow.filename === name", arg=name)
    dialog.wait_for(state="hidden")


def assert_whole(page, path, drawn_by):
    """The workflow of a file is on the canvas: all of its nodes known and sound, those of the pack with all links."""
    expected = sorted(node["type"] for node in json.loads(path.read_text(encoding="utf-8"))["nodes"])
    page.wait_for_function("n => app.graph.nodes.length === n", arg=len(expected))
    nodes = page.evaluate("""() => app.graph.nodes.map(n => ({type: n.type,
        known: n.type in LiteGraph.registered_node_types,
        errors: n.has_errors === true, width: n.size[0], inputs: (n.inputs ?? []).map((i, slot) => [i.name,
            n.isInputConnected(slot), !!i.widget])}))""")
    assert sorted(node["type"] for node in nodes) == expected
    assert set(expected) & OWN_NODES
    for node in nodes:
        assert node["known"] and not node["errors"] and node["width"] > 0, node
        if node["type"] in OWN_NODES:
            optional = OPTIONAL.get(node["type"], ())
            assert all(linked or widget or name in optional for name, linked, widget in node["inputs"]), node
    if RENDERERS[drawn_by]:
        page.wait_for_function("n => document.querySelectorAll('[data-node-id]').length >= n", arg=len(nodes) // 2)


def replace_old_nodes(page, path):
    """Open a graph as it was saved when three nodes had other ids, and let ComfyUI replace those that it misses."""
    graph = json.loads(re.sub(f'"LIVEdit({"|".join(OLD_IDS)})"', r'"\1"', path.read_text(encoding="utf-8")))
    page.evaluate("graph => app.loadGraphData(graph, true, true, 'of before')", graph)
    page.get_by_role("button", name="View details").click()
    page.get_by_role("button", name="Replace All").click()
    page.wait_for_function("() => !app.graph.nodes.some(n => n.has_errors)")


TIMELINE = "app.graph.nodes.find(n => n.type === 'LIVEditTimeline')"
BAR = ".liveditor-timeline"


def make_timeline(page, text, max_frames=0):
    """A graph with a timeline of that text for the clip bikes.mp4, in the middle of the canvas, and its shots found."""
    page.evaluate(
        """async ([text, frames]) => {
            app.graph.clear();
            const add = (type, x) => {
                const node = LiteGraph.createNode(type); node.pos = [x, 0]; app.graph.add(node); return node; };
            const set = (node, name, value) => { node.widgets.find(w => w.name === name).value = value; };
            const load = add('LoadVideo', 0), encode = add('EncodeSourceVideo', 350), timeline = add('LIVEditTimeline',
                800);
            load.connect(0, encode, 0);
            encode.connect(0, timeline, timeline.inputs.findIndex(input => input.name === 'source'));
            set(load, 'file', 'bikes.mp4'); set(encode, 'max_frames', frames); set(timeline, 'timeline', text);
            await app.loadGraphData(app.graph.serialize(), true, true, 'timeline');
        }""",
        [text, max_frames],
    )
    bring_into_view(page, "LIVEditTimeline", 1.5)
    page.locator(f"{BAR} .shot").first.wait_for(timeout=15_000)


def timeline_text(page):
    return page.evaluate(f"() => {TIMELINE}.widgets.find(w => w.name === 'timeline').value")


def wait_for_timeline(page, text):
    page.wait_for_function(
        f"text => {TIMELINE}.widgets.find(w => w.name === 'timeline').value === text", arg=text, timeout=30_000
    )


def drag_border(page, number, seconds, length):
    """Drag the start of an instruction to a time with the mouse."""
    grip = page.locator(f"{BAR} .grip").nth(number).bounding_box()
    track = page.locator(f"{BAR} .track").bounding_box()
    page.mouse.move(grip["x"] + grip["width"] / 2, grip["y"] + grip["height"] / 2)
    page.mouse.down()
    for share in (0.3, 0.7, 1):
        start = grip["x"] + grip["width"] / 2
        x = start + share * (track["x"] + track["width"] * seconds / length - start)
        page.mouse.move(x, grip["y"] + 5)
        page.wait_for_timeout(60)
    page.mouse.up()
