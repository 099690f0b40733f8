"""What Sparse Attention Settings says of memory: of this machine, and of any card, as the server would answer."""

import json

import host
import pytest
from canvas import RENDERERS, open_workflow, renderer

GIB = 2**30
TEXT = ".liveditor-budget"
CARD = {
    "weights": 13.5 * GIB,
    "call": 5.5 * GIB,
    "text_encoder": 6.3 * GIB,
    "vae": 0.2 * GIB,
    "machine": {"gpu": 11.5 * GIB, "ram": 20 * GIB, "all_ram": 32 * GIB},
    "in_ram": 0,
    "fits": True,
    "tight": False,
    "packed": False,
    "lacks_ram": False,
}
NEEDS = "weights 13.5 GiB, a call 5.5 GiB, text encoder 6.3 GiB, VAE 0.2 GiB; 11.5 GiB of GPU memory free"


def wait_for_text(page, words, end=""):
    """The text once it contains some words and ends with others; while the server is asked it says less."""
    return page.wait_for_function(
        """([where, words, end]) => { const text = document.querySelector(where)?.textContent ?? '';
        return text.includes(words) && text.endsWith(end) ? text : null; }""",
        arg=[TEXT, words, end],
        timeout=20_000,
    ).json_value()


@pytest.mark.parametrize("which", RENDERERS)
def test_this_machine(page, which):
    with renderer(page, which):
        open_workflow(page, host.PACK / "workflows" / "liveditor_edit.json")
        text = wait_for_text(page, "weights ")
        assert "weights 16 MiB, a call " in text and "no GPU, " in text and "of RAM free" in text


@pytest.mark.parametrize(
    "card, line",
    [
        ({}, None),
        ({"in_ram": 8.6 * GIB}, "8.6 GiB of the weights stay in RAM"),
        ({"in_ram": 8.6 * GIB, "packed": True}, "8.6 GiB of the weights stay in RAM: about 1.7 s more a call"),
        ({"in_ram": 8.6 * GIB, "tight": True}, "little GPU memory: a smaller size or window is safer"),
        ({"in_ram": 13.5 * GIB, "fits": False}, "too little GPU memory: take a smaller size or window"),
        ({"lacks_ram": True}, "too little RAM (32.0 GiB): take a smaller weight type"),
    ],
)
def test_any_card(page, card, line):
    asked = []

    def answer(route):
        asked.append(route.request.url)
        route.fulfill(content_type="application/json", body=json.dumps(CARD | card))

    page.route("**/liveditor/fit?*", answer)
    try:
        open_workflow(page, host.PACK / "workflows" / "liveditor_edit.json")
        wait_for_text(page, NEEDS, NEEDS if line is None else f"{NEEDS}\n{line}")
        assert "checkpoint=liveditor_14b_bf16.safetensors" in asked[0] and "tokens=" in asked[0]
    finally:
        page.unroute("**/liveditor/fit?*")


def test_before_the_model_is_prepared(page):
    open_workflow(page, host.PACK / "workflows" / "liveditor_edit.json")
    wait_for_text(page, "weights ")
    page.evaluate(
        "() => app.graph.nodes.find(node => node.type === 'LoadLIVEditor').widgets.find(each => each.name === "
        "'checkpoint').value = 'liveditor_14b_not_here.safetensors'"
    )
    wait_for_text(page, "memory: known once the model is prepared or chosen")


def test_nothing_is_said_of_a_model_that_is_not_connected(page):
    open_workflow(page, host.PACK / "workflows" / "liveditor_edit.json")
    wait_for_text(page, "weights ")
    page.evaluate("() => app.graph.nodes.find(node => node.type === 'SparseAttentionSettings').disconnectInput(0)")
    page.wait_for_function(
        "where => !document.querySelector(where).textContent.includes('weights')", arg=TEXT, timeout=10_000
    )
