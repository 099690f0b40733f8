"""The templates as they open and run: no node lies on another, in either renderer."""

import host
import pytest
from canvas import RENDERERS, open_workflow, renderer

TITLE = 30  # pixels above a node's position
LINE = 66  # pixels that LIVEdit Sampler grows by while it says how far it is
BOXES = """() => app.graph.nodes.map(node => {
    const drawn = document.querySelector(`[data-node-id="${node.id}"]`);
    const height = drawn ? drawn.getBoundingClientRect().height / app.canvas.ds.scale - 30 : node.size[1];
    return {name: node.title, type: node.type, x: node.pos[0], y: node.pos[1], width: node.size[0], height};
})"""


@pytest.mark.parametrize("which", RENDERERS)
def test_no_node_lies_on_another(page, which):
    with renderer(page, which):
        for path in sorted((host.PACK / "workflows").glob("*.json")):
            open_workflow(page, path)
            page.wait_for_timeout(1000)  # readouts and previews find their heights
            boxes = page.evaluate(BOXES)
            assert overlaps(boxes) == [], path.name
            assert (
                overlaps([{**box, "height": box["height"] + LINE * (box["type"] == "LIVEditSampler")} for box in boxes])
                == []
            ), path.name


def overlaps(boxes):
    found = []
    for i, a in enumerate(boxes):
        for b in boxes[i + 1 :]:
            across = min(a["x"] + a["width"], b["x"] + b["width"]) - max(a["x"], b["x"])
            down = min(a["y"] + a["height"], b["y"] + b["height"]) - max(a["y"], b["y"]) + TITLE
            if across > 2 and down > 2:
                found.append((a["name"], b["name"], round(across), round(down)))
    return found


def test_overlaps_are_seen():
    first = {"name": "a", "x": 0, "y": 0, "width": 100, "height": 100}
    assert overlaps([first, {**first, "name": "b", "y": 120}]) == [("a", "b", 100, 10)]
    assert overlaps([first, {**first, "name": "b", "y": 140}, {**first, "name": "c", "x": 110}]) == []
