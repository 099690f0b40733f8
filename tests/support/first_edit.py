"""Make the moving picture of the README: `python tasks.py python tests/support/first_edit.py`.

The first edit as the README tells it, in a ComfyUI where nobody has set anything yet, by the tools of the browser
tests. Needs Chromium: LIVEDITOR_CHROMIUM, or one on the PATH.
"""

import io
import os
import shutil
import sys
import tempfile
from pathlib import Path

import host
from PIL import Image
from playwright.sync_api import sync_playwright
from thumbnails import caption

sys.path.append(str(host.PACK / "tests"))
from browser.conftest import CHROMIUM_ARGUMENTS, start
from canvas import bring_into_view, choose_template, opened, set_setting, start_run, wait_for_run

PICTURE = host.PACK / "web" / "docs" / "first_edit.webp"
CLIP = host.CLIPS / "bigbuckbunny.mp4"
VIEW = {"width": 1600, "height": 1000}
SIZE = 880, 550
PLAYER = ".liveditor-compare"


class Film:
    """Pictures of a page, each with words and the milliseconds for which it shows."""

    def __init__(self, page):
        self._page, self._pictures, self._durations = page, [], []

    def take(self, words, milliseconds):
        shot = Image.open(io.BytesIO(self._page.screenshot())).convert("RGB")
        self._pictures.append(caption(shot.resize(SIZE, Image.Resampling.LANCZOS), words, 20))
        self._durations.append(milliseconds)

    def save(self, path):
        first, *rest = self._pictures
        first.save(path, save_all=True, append_images=rest, duration=self._durations, loop=0, quality=55, method=6)


def perform(page, film):
    page.set_viewport_size(VIEW)
    set_setting(page, "Comfy.Minimap.Visible", False)  # it lies over what is shown
    dialog = page.get_by_role("dialog")
    dialog.get_by_role("button", name="All Templates", exact=True).click()
    dialog.get_by_placeholder("Search").fill("liveditor_demo")
    dialog.get_by_test_id("template-workflow-liveditor_demo").locator("img").first.wait_for()
    page.wait_for_timeout(1500)
    film.take("1  Templates: liveditor_demo", 2500)
    choose_template(page, "liveditor_demo", search="liveditor_demo")
    page.wait_for_timeout(1500)
    film.take("2  Choose a clip", 1500)
    with page.expect_file_chooser() as chooser:
        page.evaluate(
            "() => app.graph.nodes.find(n => n.title === 'Video to edit').widgets.find(w => w.name === "
            "'upload').callback()"
        )
    chooser.value.set_files(str(CLIP))
    page.wait_for_function("() => !app.graph.nodes.some(n => n.has_errors)")
    page.wait_for_timeout(1500)
    film.take("2  Choose a clip", 2000)
    before = start_run(page)
    while len(page.client.get("history")) == len(before):
        film.take("3  Run", 300)
        page.wait_for_timeout(500)
    wait_for_run(page, before)
    page.wait_for_function(f"() => document.querySelector('{PLAYER} canvas')?.dataset.frame === '0'")
    film.take("3  Run", 1000)
    bring_into_view(page, "LIVEditCompareVideos", 1.9)
    page.locator(PLAYER).focus()
    for key in [*"[" * 8, *"]" * 16, *"[" * 8]:
        page.keyboard.press(key)
        page.wait_for_timeout(60)
        film.take("Compare: move the border", 120)
    for _ in range(16):
        page.keyboard.press("ArrowRight")
        page.wait_for_timeout(120)
        film.take("Compare: play", 120)


def main():
    chromium = os.environ.get("LIVEDITOR_CHROMIUM") or shutil.which("chromium")
    with (
        tempfile.TemporaryDirectory() as folder,
        start(Path(folder) / "comfyui") as server,
        sync_playwright() as playwright,
    ):
        (server.base / "input" / "bikes.mp4").unlink()
        browser = playwright.chromium.launch(executable_path=chromium, args=CHROMIUM_ARGUMENTS)
        with opened(browser, [], server, settings={}) as page:
            film = Film(page)
            perform(page, film)
            film.save(PICTURE)
        browser.close()
    print(PICTURE, PICTURE.stat().st_size)


if __name__ == "__main__":
    main()
