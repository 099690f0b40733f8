"""Instructions to choose from on the CLIP Text Encode nodes that lead to an edit, in both renderers."""

import json
import re

import host
import pytest
from canvas import RENDERERS, bring_into_view, open_workflow, renderer, set_setting

from liveditor.training import score
from liveditor.training.edits import EDITS

WORKFLOWS = host.PACK / "workflows"
LIST = "liveditor_examples"


def template(name):
    return json.loads((WORKFLOWS / f"{name}.json").read_text(encoding="utf-8"))


def prompt_node(kind):
    """JavaScript for the node that the sampler's input is connected to."""
    return (
        "(() => { const s = app.graph.nodes.find(n => n.type === 'LIVEditSampler' || n.type === 'EncodeSourceVideo' && "
        f"n.inputs.find(i => i.name === 'positive').link != null); return s.getInputNode(s.inputs.findIndex(i => "
        f"i.name === '{kind}')); }})()"
    )


def offered(page, kind):
    """What the list on a prompt has, without its first line; None where there is no list."""
    return page.evaluate(
        f"() => {{ const list = {prompt_node(kind)}.widgets.find(w => w.name === '{LIST}'); if (!list) return null;"
        "const { values } = list.options; return (typeof values === 'function' ? values() : values).slice(1); }"
    )


def wait_for_list(page, kind):
    page.wait_for_function(f"() => {prompt_node(kind)}?.widgets.some(w => w.name === '{LIST}')", timeout=30_000)
    return offered(page, kind)


def text_of(page, kind):
    return page.evaluate(f"() => {prompt_node(kind)}.widgets.find(w => w.name === 'text').value")


@pytest.mark.parametrize("drawn_by", RENDERERS)
def test_an_example_is_chosen_with_the_mouse(page, drawn_by):
    with renderer(page, drawn_by):
        open_workflow(page, WORKFLOWS / "liveditor_demo.json")
        names = wait_for_list(page, "positive")
        bring_into_view(page, "CLIPTextEncode", 1.6)
        page.wait_for_timeout(500)
        node = prompt_node("positive")
        if RENDERERS[drawn_by]:
            key = page.evaluate(f"() => {node}.id")
            page.locator(f"[data-node-id='{key}']").get_by_role("combobox").last.click()
            page.get_by_role("option", name=names[5]).click()
        else:
            x, y = page.evaluate(f"""() => {{ const node = {node}, list = node.widgets.find(w => w.name === '{LIST}');
                const [x, y] = app.canvas.ds.convertOffsetToCanvas([node.pos[0] + node.size[0] / 2,
                    node.pos[1] + list.last_y + 10]);
                const box = app.canvas.canvas.getBoundingClientRect(); return [box.x + x, box.y + y]; }}""")
            page.mouse.click(x, y)
            page.get_by_role("menuitem", name=names[5]).click()
        page.wait_for_function(
            f"text => {node}.widgets.find(w => w.name === 'text').value === text", arg=names[5], timeout=30_000
        )
        assert page.evaluate(f"() => {node}.serialize().widgets_values") == [names[5]], "the list is saved nowhere"
        sent = page.evaluate("async () => Object.values((await app.graphToPrompt()).output)")
        assert {tuple(sorted(each["inputs"])) for each in sent if each["class_type"] == "CLIPTextEncode"} == {
            ("clip", "text")
        }


def test_the_small_model_is_offered_the_edits_that_it_knows(page):
    open_workflow(page, WORKFLOWS / "liveditor_demo.json")
    examples = wait_for_list(page, "positive")
    assert sorted(score.asked_edit(text) for text in examples) == sorted(EDITS)
    note = next(node for node in template("liveditor_demo")["nodes"] if node["type"] == "MarkdownNote")
    assert re.findall(r"^- (.*)$", note["widgets_values"][0], re.MULTILINE) == examples
    assert offered(page, "negative") is None, "it takes no negative prompt"


@pytest.mark.parametrize("name", ["liveditor_edit", "liveditor_edit_stock_nodes"])
def test_the_large_one_is_offered_any_and_the_released_negative_prompt(page, name):
    open_workflow(page, WORKFLOWS / f"{name}.json")
    assert len(wait_for_list(page, "positive")) > 10
    (released,) = wait_for_list(page, "negative")
    assert released == text_of(page, "negative") and len(released) > 100
    page.evaluate(
        f"() => {{ const node = {prompt_node('negative')}; node.widgets.find(w => w.name === 'text').value = ''; "
        f"const list = node.widgets.find(w => w.name === '{LIST}'); list.callback(list.options.values()[1]); }}"
    )
    assert text_of(page, "negative") == released


def test_the_list_comes_and_goes_with_the_link(page):
    open_workflow(page, WORKFLOWS / "liveditor_demo.json")
    wait_for_list(page, "positive")
    count = f"() => app.graph.nodes.flatMap(n => n.widgets ?? []).filter(w => w.name === '{LIST}').length"
    assert page.evaluate(count) == 1, "other nodes stay as they are"
    page.evaluate(
        "() => { const s = app.graph.nodes.find(n => n.type === 'LIVEditSampler'); "
        "s.disconnectInput(s.inputs.findIndex(i => i.name === 'positive')); }"
    )
    page.wait_for_function(f"() => ({count})() === 0", timeout=30_000)


def test_in_chinese(page):
    set_setting(page, "Comfy.Locale", "zh")
    page.wait_for_timeout(1500)  # ComfyUI then draws the graph before once more
    try:
        open_workflow(page, WORKFLOWS / "liveditor_demo.json")
        page.wait_for_function(  # "examples"
            f"""() => {prompt_node("positive")}?.widgets.find(w => w.name === '{LIST}')?.label === '\u793a\u4f8b'""",
            timeout=30_000,
        )
    finally:
        set_setting(page, "Comfy.Locale", "en")
