"""The published pickle to an edit without a terminal, in both renderers: Prepare, Load, Run."""

import re

import host
import pytest
import torch
from canvas import RENDERERS, open_workflow, place_by_search, press_run, renderer
from safetensors.torch import load_file

PUBLISHED = "liveditor_ckpt.bin"
NANO = host.PACK / "models" / "diffusion_models" / "liveditor_nano.safetensors"
LOAD = "app.graph.nodes.find(node => node.type === 'LoadLIVEditor')"
STOCK = "app.graph.nodes.find(node => node.type === 'UNETLoader')"
PREPARE = "app.graph.nodes.find(node => node.type === 'LIVEditPrepareModel')"


@pytest.fixture
def published(base):
    """A small file of the published layout in the folder of models; what is made of it goes when the test ends."""
    folder = base / "models" / "diffusion_models"
    before = set(folder.iterdir())
    torch.save({"state_dict": load_file(NANO)}, folder / PUBLISHED)
    yield folder
    for path in set(folder.iterdir()) - before:
        path.unlink()


def widget(page, node, name, value=None):
    """A widget's value, after it was set where one is given."""
    return page.evaluate(
        f"""([name, value]) => {{ const widget = {node}.widgets.find(each => each.name === name);
        if (value !== null) {{ widget.value = value; widget.callback?.(value); }} return widget.value; }}""",
        [name, value],
    )


def wait_for_checkpoint(page, name):
    """Of a blueprint that stands alone, by what would be sent if its video were saved."""
    page.evaluate("""() => { const edit = app.graph.nodes[0], save = LiteGraph.createNode('SaveVideo');
        app.graph.add(save);
        edit.connect(edit.outputs.findIndex(o => (o.label ?? o.name) === 'edited video'), save, 'video'); }""")
    page.wait_for_function(
        """async name => Object.values((await app.graphToPrompt()).output).find(n => n.class_type === 'LoadLIVEditor')
        .inputs.checkpoint === name""",
        arg=name,
    )


@pytest.mark.parametrize("which", RENDERERS)
def test_from_the_pickle_to_an_edit(page, published, which):
    with renderer(page, which):
        open_workflow(page, host.PACK / "workflows" / "liveditor_demo.json")
        page.evaluate("() => app.refreshComboInNodes()")
        widget(page, LOAD, "checkpoint", PUBLISHED)  # as a user would who finds it in the menu
        view = page.evaluate("() => [app.canvas.ds.scale, ...app.canvas.ds.offset]")
        page.evaluate(f"() => {LOAD}.widgets.find(each => each.name === 'prepare').callback()")
        page.wait_for_function(f"() => {PREPARE} !== undefined")
        scale, x, y = page.evaluate("() => [app.canvas.ds.scale, ...app.canvas.ds.offset]")
        left = (page.evaluate(f"() => {PREPARE}.pos[0]") + x) * scale
        assert [scale, y] == [view[0], view[2]] and (x == view[1] or left == pytest.approx(80)), (
            "no further than needed"
        )
        page.evaluate(f"() => {LOAD}.widgets.find(each => each.name === 'prepare').callback()")  # a second click
        assert page.evaluate("() => app.graph.nodes.filter(node => node.type === 'LIVEditPrepareModel').length") == 1
        assert widget(page, PREPARE, "published_file") == PUBLISHED
        types = page.evaluate(f"() => {PREPARE}.widgets.find(each => each.name === 'weight_type').options.values")
        (int8,) = [each for each in types if each.startswith("int8_convrot")]
        assert re.fullmatch(r"int8_convrot: 14\.5 GB, .+", int8)
        widget(page, PREPARE, "weight_type", int8)
        made = "liveditor_14b_int8_convrot.safetensors"
        outputs = press_run(page)["outputs"]
        assert any("liveditor_compare" in output for output in outputs.values())
        assert (published / made).is_file() and not list(published.glob("*.partial"))
        page.wait_for_function(
            f"name => {LOAD}.widgets.find(each => each.name === 'checkpoint').value === name", arg=made, timeout=20_000
        )
        values = page.evaluate(f"() => {LOAD}.widgets.find(each => each.name === 'checkpoint').options.values")
        assert made in values
        page.get_by_text(f"{made}: 0.0 GB, ready for Load LIVEditor").first.wait_for()


def test_a_graph_takes_the_weight_type_that_is_here(open_page, server, base):
    """Templates name the model in bf16; what was prepared here is another weight type of it."""
    folder = base / "models" / "diffusion_models"
    there, here = folder / "liveditor_14b_bf16.safetensors", folder / "liveditor_14b_int8_tensorwise.safetensors"
    there.rename(here)
    try:
        with open_page(server) as page:
            open_workflow(page, host.PACK / "workflows" / "liveditor_edit.json")
            assert widget(page, LOAD, "checkpoint") == here.name
            open_workflow(page, host.PACK / "workflows" / "liveditor_demo.json")
            assert widget(page, LOAD, "checkpoint") == NANO.name  # a file that is there stays
            open_workflow(page, host.PACK / "workflows" / "liveditor_edit_stock_nodes.json")
            assert widget(page, STOCK, "unet_name") == here.name
            open_workflow(page, host.PACK / "subgraphs" / "Edit video (LIVEditor).json")
            wait_for_checkpoint(page, here.name)
            place_by_search(page, "edit video liveditor", "Edit video (LIVEditor)")
            wait_for_checkpoint(page, here.name)
    finally:
        here.rename(there)
