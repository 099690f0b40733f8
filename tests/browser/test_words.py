"""Labels and help in English and Chinese, with the picture of the node in use, as the canvas shows them."""

import json

import host
import pytest
from canvas import bring_into_view, open_workflow

WORDS = {
    language: json.loads((host.PACK / "locales" / language / "nodeDefs.json").read_text(encoding="utf-8"))
    for language in ("en", "zh")
}
SHOWN_BY = {
    "LIVEditRecordAttention": "liveditor_inspect",
    "LIVEditInspectAttention": "liveditor_inspect",
    "LIVEditTimeline": "liveditor_timeline",
    "LIVEditSplitHeads": "liveditor_gpus",
}  # the others are in the demo
HELP = ".node-help-content"


@pytest.fixture(scope="module", params=WORDS)
def page(open_page, server, request):
    """A page that was opened by a user of this language."""
    settings = {"Comfy.TutorialCompleted": True, "Comfy.Locale": request.param}
    with open_page(server, settings) as page:
        page.language = request.param
        yield page


@pytest.mark.parametrize("node_type", WORDS["en"])
def test_labels_and_help(page, node_type):
    words = WORDS[page.language][node_type]
    open_workflow(page, host.PACK / "workflows" / f"{SHOWN_BY.get(node_type, 'liveditor_demo')}.json")
    page.evaluate(
        "type => app.graph.nodes.some(n => n.type === type) || app.graph.add(LiteGraph.createNode(type))", node_type
    )
    bring_into_view(page, node_type)
    title, inputs = page.evaluate(
        """type => { const node = app.graph.nodes.find(n => n.type === type); app.canvas.selectNode(node);
            app.canvas.setDirty(true, true);
        return [node.title, node.inputs.map(i => [i.name, i.label ?? i.localized_name ?? i.name])]; }""",
        node_type,
    )
    assert title == words["display_name"]
    for name, label in inputs:
        if name in words["inputs"]:
            assert label == words["inputs"][name]["name"], name
    page.get_by_test_id("info-button").click()
    page.wait_for_function(
        "([help, title]) => document.querySelector(help)?.textContent.includes(title)",
        arg=[HELP, words["description"][:20]],
        timeout=10_000,
    )
    text = page.locator(HELP).first.text_content()
    assert all(entry["name"] in text for entry in words["inputs"].values())
    page.wait_for_function(
        "help => [...document.querySelectorAll(`${help} img`)].some(i => i.naturalWidth > 300)",
        arg=HELP,
        timeout=10_000,
    )


def test_english_words_are_those_of_the_nodes(server):
    """The file for translators repeats what the nodes say themselves."""
    info = server.client.get("object_info")
    for name, words in WORDS["en"].items():
        node = info[name]
        inputs = {
            key: options[0]
            for key, (_, *options) in (node["input"].get("required", {}) | node["input"].get("optional", {})).items()
        }
        assert words["display_name"] == node["display_name"] and words["description"] == node["description"]
        assert words["inputs"] == {
            key: {"name": options.get("display_name") or key, "tooltip": options["tooltip"]}
            for key, options in inputs.items()
        }
        assert [output["name"] for output in words["outputs"].values()] == node["output_name"]
        assert [output.get("tooltip") for output in words["outputs"].values()] == node["output_tooltips"]
