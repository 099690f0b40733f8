"""The shipped templates on the canvas of a real browser, drawn by either renderer.

They open whole and run on the small model.
"""

import re

import av
import host
import numpy as np
import pytest
from canvas import (
    RENDERERS,
    assert_whole,
    bring_into_view,
    open_workflow,
    press_run,
    renderer,
    replace_old_nodes,
    start_run,
    wait_for_run,
)

WORKFLOWS = sorted((host.PACK / "workflows").glob("*.json"))
DEMO = host.PACK / "workflows" / "liveditor_demo.json"
# Two steps show that a graph runs; the demo runs as it is. The templates for the 14B get a size for a CPU as well.
FEWER_STEPS = {"LIVEditSampler": {"steps": 2}, "KSampler": {"steps": 2}}
SMALL = FEWER_STEPS | {"EncodeSourceVideo": {"size": "custom", "width": 128, "height": 64, "max_frames": 9}}
TWO_WINDOWS = FEWER_STEPS | {
    "EncodeSourceVideo": {"max_frames": 49},
    "LIVEditTimeline": {"timeline": "0:00 make it night\n0:01 invert the colours"},
}
SHORTENED = {
    "liveditor_edit": SMALL,
    "liveditor_edit_stock_nodes": SMALL,
    "liveditor_gpus": SMALL,
    "liveditor_rewrite": SMALL,
    "liveditor_long": TWO_WINDOWS,
    "liveditor_timeline": TWO_WINDOWS,
}


def set_widgets(page, values):
    """Set widgets of all nodes of a type."""
    page.evaluate(
        """values => { for (const node of app.graph.nodes) for (const widget of node.widgets ?? [])
        if (values[node.type]?.[widget.name] !== undefined) widget.value = values[node.type][widget.name]; }""",
        values,
    )


@pytest.mark.parametrize("drawn_by", RENDERERS)
@pytest.mark.parametrize("path", WORKFLOWS, ids=lambda path: path.stem)
def test_template_opens_without_red_nodes_and_runs(page, base, path, drawn_by):
    with renderer(page, drawn_by):
        open_workflow(page, path)
        assert_whole(page, path, drawn_by)
        if path != DEMO:
            set_widgets(page, SHORTENED.get(path.stem, FEWER_STEPS))
        if path.stem == "liveditor_edit_stock_nodes":  # the stock loader knows the text encoder of the 14B only
            page.evaluate("""() => { const find = type => app.graph.nodes.find(n => n.type === type);
                const load = LiteGraph.createNode('LoadLIVEditor'); app.graph.add(load);
                load.widgets.find(w => w.name === 'text_encoder').value = find('CLIPLoader').widgets[0].value;
                for (const text of app.graph.nodes.filter(n => n.type === 'CLIPTextEncode')) load.connect(1, text, 0);
                app.graph.remove(find('CLIPLoader')); }""")
        if path.stem == "liveditor_rewrite":  # no text model is small enough for a test: the wish itself is edited with
            page.evaluate("""() => { const find = title => app.graph.nodes.find(n => (n.title ?? n.type) === title);
                const text = find('Instruction (written by Generate Text)');
                find('Your wish').connect(0, text, text.inputs.findIndex(i => i.name === 'text'));
                for (const node of app.graph.nodes.filter(n => ['TextGenerate', 'PreviewAny'].includes(n.type)))
                    app.graph.remove(node); }""")
        outputs = press_run(page)["outputs"]
        assert host.saved_file(outputs, base).stat().st_size > 0
        page.wait_for_selector("video", state="attached")
        assert not page.evaluate("() => app.graph.nodes.some(n => n.has_errors)")


def test_a_graph_with_the_ids_of_before(page):
    replace_old_nodes(page, DEMO)
    assert_whole(page, DEMO, "canvas")
    assert any("liveditor_compare" in output for output in press_run(page)["outputs"].values())


@pytest.mark.parametrize("drawn_by", RENDERERS)
def test_the_sampler_says_how_far_it_is_until_it_is_done(page, drawn_by):
    sampler = "app.graph.nodes.find(n => n.type === 'LIVEditSampler')"
    seed = 100 + list(RENDERERS).index(drawn_by)  # nothing that was computed before
    with renderer(page, drawn_by):
        open_workflow(page, host.PACK / "workflows" / "liveditor_long.json")
        set_widgets(page, TWO_WINDOWS | {"LIVEditSampler": {"steps": 4, "seed": seed}})
        bring_into_view(page, "LIVEditSampler")
        size, widgets = page.evaluate(f"() => [[...{sampler}.size], {sampler}.widgets.length]")
        run = start_run(page)
        page.get_by_text(re.compile(r"step \d of 4, window [12] of 2, about \d+ s left")).first.wait_for(
            timeout=120_000
        )
        page.wait_for_function(f"n => {sampler}.widgets.length === n", arg=widgets, timeout=120_000)
        wait_for_run(page, run)
        page.wait_for_timeout(250)  # drawn again
        assert page.evaluate(f"() => [...{sampler}.size]") == size


@pytest.mark.parametrize("drawn_by", RENDERERS)
def test_the_sampler_says_what_is_to_be_known_when_it_is_done(page, drawn_by):
    """Words that the small model does not know, until it runs without them; where an interrupted edit goes on."""
    seed = 200 + list(RENDERERS).index(drawn_by)
    with renderer(page, drawn_by):
        open_workflow(page, host.PACK / "workflows" / "liveditor_long.json")
        set_widgets(
            page, TWO_WINDOWS | {"LIVEditSampler": {"steps": 4, "seed": seed}, "CLIPTextEncode": {"text": "xyzzy"}}
        )
        bring_into_view(page, "LIVEditSampler")
        press_run(page)
        page.get_by_text("the small model does not know: xyzzy").first.wait_for()
        set_widgets(page, {"LIVEditSampler": {"steps": 200}, "CLIPTextEncode": {"text": "make it night"}})
        start_run(page)
        page.get_by_text(re.compile(r"step [3-9] of 200")).first.wait_for(timeout=120_000)
        page.client.post("interrupt", {})
        page.get_by_text(re.compile(r"stopped in step \d+ of 200; run the same again")).first.wait_for(timeout=60_000)


@pytest.mark.parametrize("drawn_by", RENDERERS)
def test_muted_nodes_of_the_long_template_redo_a_part(page, drawn_by):
    with renderer(page, drawn_by):
        open_workflow(page, host.PACK / "workflows" / "liveditor_long.json")
        set_widgets(page, TWO_WINDOWS)
        page.evaluate("""() => { for (const node of app.graph.nodes.filter(n => n.mode === 2)) {
            node.mode = 0;
            const set = (name, value) => { const w = node.widgets.find(w => w.name === name); if (w) w.value = value; };
            set('redo_from', 0.5); set('redo_to', 1); } }""")
        outputs = press_run(page)["outputs"]
        saved = [image["filename"] for output in outputs.values() for image in output.get("images", [])]
        assert {name.rsplit("_", 2)[0] for name in saved} == {"LIVEditor_long", "LIVEditor_redone"}


@pytest.mark.parametrize("drawn_by", RENDERERS)
def test_a_masked_edit_differs_nowhere_outside_the_mask(page, base, drawn_by):
    """The mask template at the clip's own size and rate, its frames saved without loss beside those that the host
    reads.
    """
    with renderer(page, drawn_by):
        open_workflow(page, host.PACK / "workflows" / "liveditor_mask.json")
        set_widgets(page, FEWER_STEPS)
        page.evaluate("""() => { const find = type => app.graph.nodes.find(n => n.type === type);
            const add = (type, values = {}) => { const node = LiteGraph.createNode(type); app.graph.add(node);
                set(node, values); return node; };
            const set = (node, values) => { for (const [name,
                value] of Object.entries(values)) node.widgets.find(w => w.name === name).value = value; };
            set(find('DecodeVideo'), {original_size: true, fps: 'as the source'});
            const parts = add('GetVideoComponents'), first = add('ImageFromBatch', {batch_index: 0, length: 17}),
                mask = add('MaskToImage');
            const large = add('ImageScale', {upscale_method: 'nearest-exact', width: 640, height: 272, crop: 'center'});
            find('LoadVideo').connect(0, parts, 0); parts.connect(0, first, 0); find('MaskComposite').connect(0,
                mask, 0); mask.connect(0, large, 0);
            for (const [name, node, slot] of [['edited', find('DecodeVideo'), 1], ['source', first, 0], ['mask',
                large, 0]])
                node.connect(slot, add('SaveImage', {filename_prefix: name}), 0); }""")
        pictures = {}
        for output in press_run(page)["outputs"].values():
            for image in output.get("images", []):
                if image["filename"].endswith(".png"):
                    path = base / image["type"] / image["subfolder"] / image["filename"]
                    pictures.setdefault(image["filename"].split("_")[0], []).append(
                        next(av.open(str(path)).decode(video=0)).to_ndarray(format="rgb24")
                    )
    edited, source, (mask,) = np.stack(pictures["edited"]), np.stack(pictures["source"]), pictures["mask"]
    assert edited.shape == source.shape == (17, 272, 640, 3)
    inside = mask[..., 0] > 0
    near = (
        inside | np.roll(inside, 3, 0) | np.roll(inside, -3, 0)
    )  # the mask is smaller than the picture, and its edge is interpolated
    near |= np.roll(near, 3, 1) | np.roll(near, -3, 1)
    assert inside.mean() > 0.1 and near.mean() < 0.5
    assert (edited != source)[:, ~near].sum() == 0
    assert (edited != source)[:, inside].mean() > 0.9


def test_templates_dialog_offers_the_workflows(page):
    templates = page.client.get("workflow_templates")
    assert {path.stem for path in WORKFLOWS} <= set(templates["ComfyUI-LIVEditor"])
    for path in WORKFLOWS:
        assert path.with_suffix(".jpg").stat().st_size < 60_000
        answer = page.request.get(
            f"http://{page.client.address}/api/workflow_templates/ComfyUI-LIVEditor/{path.stem}.jpg"
        )
        assert answer.ok and answer.headers["content-type"] == "image/jpeg"
