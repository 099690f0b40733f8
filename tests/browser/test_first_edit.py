"""The first edit as the README tells it, in a ComfyUI where nobody has set anything yet."""

import re
import shutil

import host
import pytest
from canvas import choose_template, open_workflow, press_run, wait_for_run

PLAYER = ".liveditor-compare canvas"


def place_of(page, node, label):
    """Where the canvas shows a widget, once it has come to rest."""
    place = f"""() => {{ const node = {node}, widget = node.widgets.find(w => w.label === '{label}');
        const [x, y] = app.canvas.ds.convertOffsetToCanvas([node.pos[0] + node.size[0] / 2,
            node.pos[1] + widget.last_y + 10]);
        const box = app.canvas.canvas.getBoundingClientRect(); return [box.x + x, box.y + y]; }}"""
    page.wait_for_function(
        f"""() => {{ const before = window.placeBefore; window.placeBefore = String(({place})());
        return window.placeBefore === before; }}""",
        polling=500,
    )
    return page.evaluate(place)


@pytest.fixture(params=["server", "newest_server"])
def new_server(request):
    """A server of each frontend, without the clip that the templates name."""
    server = request.getfixturevalue(request.param)
    clip = server.base / "input" / "bikes.mp4"
    clip.unlink()
    yield server
    if not clip.is_file():
        shutil.copy(host.CLIPS / clip.name, clip)


def test_the_steps_of_the_readme(open_page, new_server):
    section = (host.PACK / "README.md").read_text(encoding="utf-8").split("## The first edit")[1].split("\n## ")[0]
    button, category, search, template, title, upload, _, run = re.findall(r"\*+([^*]+)\*+", section)[:8]
    assert (button, title, run) == ("Templates", "Video to edit", "Run")
    with open_page(new_server, settings={}) as page:
        choose_template(page, template, category, search)
        node = f"app.graph.nodes.find(n => n.title === '{title}')"
        page.wait_for_function(f"() => {node}?.has_errors")
        with page.expect_file_chooser() as chooser:
            page.mouse.click(*place_of(page, node, upload))
        chooser.value.set_files(str(host.CLIPS / "bikes.mp4"))
        page.wait_for_function("() => !app.graph.nodes.some(n => n.has_errors)")
        assert (new_server.base / "input" / "bikes.mp4").is_file()
        edited = host.saved_file(press_run(page)["outputs"], new_server.base)
        assert edited.parent == new_server.base / "output" / "video"
        page.wait_for_function("c => document.querySelector(c)?.dataset.frame === '0'", arg=PLAYER)


@pytest.mark.parametrize("which", ["server", "newest_server"])
def test_the_demo_in_app_mode(open_page, which, request):
    """Clip, instruction and Run on one page, and the edit beside them."""
    server = request.getfixturevalue(which)
    with open_page(server) as page:
        open_workflow(page, host.PACK / "workflows" / "liveditor_demo.json")
        page.evaluate("() => app.extensionManager.command.execute('Comfy.ToggleLinear')")
        run = page.get_by_role("button", name="Run", exact=True).last
        if which == "newest_server":
            page.get_by_role("button", name="Skip").click()
        before = set(page.client.get("history"))
        text = page.locator("textarea").filter(visible=True).first
        assert text.input_value() == "turn it into a night scene"
        text.fill("make it black and white")
        run.click()
        entry = wait_for_run(page, before)
        assert "make it black and white" in str(entry["prompt"])
        page.locator("video[src*='LIVEditor']").first.wait_for(timeout=10_000)
