"""The shipped workflow on the canvas of a real browser: opens whole, runs, and gives a video."""

import json
import time

import host
import pytest
from canvas import open_workflow

WORKFLOWS = sorted((host.PACK / "workflows").glob("*.json"))
OWN_NODES = {"LoadLIVEditor", "EncodeSourceVideo", "SparseAttentionSettings", "LIVEditSampler", "DecodeVideo"}


@pytest.mark.parametrize("path", WORKFLOWS, ids=lambda path: path.stem)
def test_every_node_is_known_and_drawn(page, path):
    open_workflow(page, path)
    nodes = page.evaluate("""() => app.graph.nodes.map(n => ({type: n.type, known: n.type in LiteGraph.registered_node_types,
        errors: n.has_errors === true, width: n.size[0], inputs: (n.inputs ?? []).map(i => [i.name, i.link, !!i.widget])}))""")
    assert {n["type"] for n in nodes} & OWN_NODES
    for node in nodes:
        assert node["known"] and not node["errors"] and node["width"] > 0, node
        if node["type"] in OWN_NODES - {"EncodeSourceVideo"}:
            assert all(link is not None for _, link, widget in node["inputs"] if not widget), node
    saved = {n["type"] for n in json.loads(path.read_text(encoding="utf-8"))["nodes"]}
    assert saved == {n["type"] for n in nodes}


def run(page, base):
    """Press the run button; the video that comes out."""
    before = set(page.client.get("history"))
    page.get_by_test_id("queue-button").click()
    deadline = time.monotonic() + 180
    while not (entries := [entry for key, entry in page.client.get("history").items() if key not in before]):
        assert time.monotonic() < deadline, "the prompt did not finish"
        page.wait_for_timeout(200)
    assert entries[0]["status"]["status_str"] == "success", entries[0]["status"]
    assert host.saved_file(entries[0]["outputs"], base).stat().st_size > 0
    page.wait_for_selector("video", state="attached")


def test_run_button_gives_a_video(page, base):
    open_workflow(page, host.PACK / "workflows" / "liveditor_edit.json")
    page.evaluate("""values => { for (const node of app.graph.nodes) for (const widget of node.widgets ?? [])
        if (values[node.type]?.[widget.name] !== undefined) widget.value = values[node.type][widget.name]; }""", {
        "EncodeSourceVideo": {"size": "custom", "width": 64, "height": 32, "max_frames": 9}, "LIVEditSampler": {"steps": 2}})
    run(page, base)


def test_the_demo_runs_as_it_is(page, base):
    """A new user needs no file but a clip."""
    open_workflow(page, host.PACK / "workflows" / "liveditor_demo.json")
    run(page, base)


def test_templates_dialog_offers_the_workflows(page):
    templates = page.client.get("workflow_templates")
    assert {path.stem for path in WORKFLOWS} <= set(templates["ComfyUI-LIVEditor"])
    for path in WORKFLOWS:
        assert path.with_suffix(".jpg").stat().st_size < 200_000
        answer = page.request.get(f"http://{page.client.address}/api/workflow_templates/ComfyUI-LIVEditor/{path.stem}.jpg")
        assert answer.ok and answer.headers["content-type"] == "image/jpeg"
