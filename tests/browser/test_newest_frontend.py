"""ComfyUI's newest frontend: the templates from its own dialog, the demo run, the readout and the player at work."""

import host
import pytest
from canvas import (
    RENDERERS,
    assert_whole,
    bring_into_view,
    choose_template,
    drag_border,
    make_timeline,
    open_workflow,
    place_by_search,
    press_run,
    renderer,
    replace_old_nodes,
    timeline_text,
    wait_for_timeline,
)

WORKFLOWS = sorted((host.PACK / "workflows").glob("*.json"))
DEMO = host.PACK / "workflows" / "liveditor_demo.json"
PLAYER = ".liveditor-compare canvas"
SMALL = "Edit video, small model (LIVEditor)"


@pytest.fixture(scope="module")
def page(open_page, newest_server):
    with open_page(newest_server) as page:
        yield page


@pytest.mark.parametrize("path", WORKFLOWS, ids=lambda path: path.stem)
def test_template_opens(page, path):
    page.get_by_role("button", name="Templates").first.click()
    choose_template(page, path.stem)
    for drawn_by in RENDERERS:
        with renderer(page, drawn_by):
            assert_whole(page, path, drawn_by)


@pytest.mark.parametrize("drawn_by", RENDERERS)
def test_the_demo_runs(page, drawn_by):
    with renderer(page, drawn_by):
        open_workflow(page, DEMO)
        bring_into_view(page, "SparseAttentionSettings")
        page.locator(".liveditor-budget", has_text="64.5 % of dense attention").wait_for()
        bring_into_view(page, "LIVEditCompareVideos")
        press_run(page)
        page.wait_for_function("c => document.querySelector(c)?.dataset.frame === '0'", arg=PLAYER)
        page.locator(".liveditor-compare").focus()
        page.keyboard.press("ArrowRight")
        page.wait_for_function("c => document.querySelector(c)?.dataset.frame === '1'", arg=PLAYER)
        assert not page.evaluate("() => app.graph.nodes.some(n => n.has_errors)")


@pytest.mark.parametrize(
    "name, query", [("Edit video (LIVEditor)", "edit video liveditor"), (SMALL, "edit video, small model")]
)
def test_a_blueprint_sends_what_its_node_shows(page, name, query):
    """Placed by search: every value reaches the input of its own name."""
    place_by_search(page, query, name)
    values = {"start": 1.5, "max_frames": 9, "size": "custom", "width": 128, "height": 64, "fit": "pad"}
    values |= {"fps": "as the source", "seed": 7, "steps": 2, "cfg": 1.5, "shift": 4}
    sent = page.evaluate(
        """async values => { const edit = app.graph.nodes[0];
        const load = LiteGraph.createNode('LoadVideo'), save = LiteGraph.createNode('SaveVideo');
        app.graph.add(load); app.graph.add(save);
        load.widgets.find(w => w.name === 'file').value = 'bikes.mp4';
        load.connect(0, edit, 'video');
        edit.connect(edit.outputs.findIndex(o => (o.label ?? o.name) === 'edited video'), save, 'video');
        for (const [name, value] of Object.entries(values))
            edit.widgets.find(w => w.name === name || w.label === name).value = value;
        return Object.values((await app.graphToPrompt()).output); }""",
        values,
    )
    sent = [node["inputs"] for node in sent if node["class_type"] in ("EncodeSourceVideo", "LIVEditSampler")]
    inputs = {name: value for each in sent for name, value in each.items() if name in values}
    assert inputs == values


@pytest.mark.parametrize("drawn_by", RENDERERS)
def test_the_timeline(page, drawn_by):
    text = "0:00 make it night\n0:02.5 invert the colours"
    with renderer(page, drawn_by):
        make_timeline(page, text)
        page.locator(".liveditor-timeline .shot").nth(2).click()
        wait_for_timeline(page, f"{text}\n0:05.48 invert the colours")
        page.wait_for_timeout(1500)  # the frontend notices a change later, then in the middle of the next one
        drag_border(page, 0, 4, 10)
        assert "0:02.5" not in timeline_text(page)
        for expected in (f"{text}\n0:05.48 invert the colours", text):
            page.wait_for_timeout(1500)  # and it drops a key while it undoes
            page.keyboard.press("Control+z")
            wait_for_timeline(page, expected)
        page.wait_for_function("() => document.querySelectorAll('.liveditor-timeline .part').length === 2")


def test_a_graph_with_the_ids_of_before(page):
    replace_old_nodes(page, DEMO)
    assert_whole(page, DEMO, "canvas")
