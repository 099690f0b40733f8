"""Edit Metrics on the canvas, in both renderers: its template runs, the report is read and no widget is cut off."""

import re

import host
import pytest
from canvas import RENDERERS, bring_into_view, open_workflow, place_by_search, press_run, renderer

TEMPLATE = host.PACK / "workflows" / "liveditor_metrics.json"
READOUT = ".liveditor-metrics"
NODE = "app.graph.nodes.find(n => n.type === 'LIVEditMetrics')"


@pytest.fixture(scope="module", params=RENDERERS)
def run(page, base, request):
    """The template after a run: the page, the history's outputs, the folder."""
    with renderer(page, request.param):
        open_workflow(page, TEMPLATE)
        bring_into_view(page, "LIVEditMetrics", 1.2)
        outputs = press_run(page)["outputs"]
        page.drawn_by = request.param
        yield page, outputs, base


def test_the_numbers_are_read_on_the_node_and_in_the_report(run):
    page, outputs, _ = run
    ((report, found),) = (
        (output["text"][0], output["liveditor_metrics"][0])
        for key, output in outputs.items()
        if "liveditor_metrics" in output
    )
    assert found["masked"] and found["share"] > 0.3, "the colours were inverted there"
    assert "outside the mask: PSNR identical" in report and "words: not measured" in report
    shown = page.locator(READOUT)
    page.wait_for_function("r => document.querySelector(r)?.textContent.includes('kept if edited')", arg=READOUT)
    assert f"changed: {100 * found['share']:.2f} % of the pixels inside the mask" in shown.text_content()
    assert "kept outside the mask: PSNR identical, SSIM 1.0000" in shown.text_content()
    assert f"kept if edited: {found['kept_if_edited']:.4f} (an unedited copy: 0)" in shown.text_content()
    assert shown.evaluate("e => e.scrollHeight <= e.clientHeight + 1"), "a line is cut off"
    previews = "app.graph.nodes.filter(n => n.type === 'PreviewAny')"
    written = page.evaluate(f"() => {previews}.map(n => n.widgets[0].value)")
    begin = report.splitlines()[0]
    assert any(begin in str(text) for text in written) or page.get_by_text(begin[:30]).count()
    saved = [image["filename"] for output in outputs.values() for image in output.get("images", [])]
    assert {"LIVEditor_metrics", "LIVEditor_change"} <= {name.rsplit("_", 2)[0] for name in saved}


def test_no_widget_is_cut_off(run):
    page, _, _ = run
    bring_into_view(page, "LIVEditMetrics", 1.2)
    page.wait_for_timeout(500)
    if RENDERERS[page.drawn_by]:
        cut = page.evaluate(
            """id => { const node = document.querySelector(`[data-node-id="${id}"]`);
                const box = node.getBoundingClientRect();
                return [...node.querySelectorAll('textarea, input')].map(e => e.getBoundingClientRect())
                    .filter(b => b.height < 16 || b.bottom > box.bottom + 1 || b.right > box.right + 1).length; }""",
            node_id(page),
        )
        assert cut == 0
    else:
        lowest, height = page.evaluate(
            f"""() => {{ const node = {NODE}; return [Math.max(...node.widgets.filter(w => !w.hidden).map(w =>
                w.y + (w.computedHeight ?? 20))), node.size[1]]; }}"""
        )
        assert lowest <= height + 1


def node_id(page):
    return str(page.evaluate(f"() => {NODE}.id"))


@pytest.mark.parametrize("drawn_by", RENDERERS)
def test_it_is_found_by_what_users_call_it(page, drawn_by):
    with renderer(page, drawn_by):
        place_by_search(page, "psnr", "Edit Metrics")
        widgets = page.evaluate(f"() => Object.fromEntries({NODE}.widgets.map(w => [w.name, w.value]))")
        assert {"target", "source_text", "every"} <= widgets.keys() and widgets["every"] == 1


def test_the_template_is_for_everybody():
    """It names no file but those of the pack and the clip."""
    text = TEMPLATE.read_text(encoding="utf-8")
    assert set(re.findall(r'"([^"]+\.safetensors)"', text)) == {
        "liveditor_nano.safetensors",
        "liveditor_nano_text_encoder.safetensors",
        "liveditor_nano_vae.safetensors",
    }
