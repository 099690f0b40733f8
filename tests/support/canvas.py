"""What the browser tests do on the canvas."""

import contextlib
import json
import shutil
import time

RENDERERS = {"canvas": False, "nodes 2.0": True}


@contextlib.contextmanager
def opened(browser, server, settings=None):
    """A page of ComfyUI in a browser that was never there before, on settings of its own; it reaches this machine only.

    `settings` are what the user changed: by default, that he has seen the tutorial.
    """
    shutil.rmtree(server.base / "user" / "default", ignore_errors=True)
    for name, value in ({"Comfy.TutorialCompleted": True} if settings is None else settings).items():
        server.client.post(f"api/settings/{name}", value)
    page = browser.new_page(viewport={"width": 1680, "height": 1050})
    address = f"http://{server.client.address}/"
    local = (address, "data:", "blob:")
    page.route("**/*", lambda route: route.continue_() if route.request.url.startswith(local) else route.abort())
    page.client = server.client
    page.goto(address)
    page.wait_for_function("window.app?.extensionManager?.workflow?.activeWorkflow && app.canvas", timeout=60_000)
    page.wait_for_selector(".p-blockui-mask", state="hidden")
    page.wait_for_selector("#graph-canvas")
    try:
        yield page
    finally:
        page.close()


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
        """([type, scale]) => { app.canvas.ds.scale = scale; app.canvas.centerOnNode(app.graph.nodes.find(n =>
            n.type === type)); app.canvas.setDirty(true, true); }""",
        [node_type, scale],
    )
    page.wait_for_timeout(500)


def press_run(page):
    """Press the run button and wait; the history's entry of the prompt."""
    before = set(page.client.get("history"))
    page.get_by_test_id("queue-button").click()
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
