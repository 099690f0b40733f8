"""The result page of a batch, opened from its folder as users do, with thousands of jobs."""

import json
import shutil

import host
import pytest
from playwright.sync_api import expect

from liveditor.batch.page import write_page
from liveditor.batch.table import write_table

JOBS = 2000


def row(number, **changes):
    """Of the journal: a job that is done."""
    values = {"name": f"clip{number:04}--snow", "state": "done", "instruction": "make it snow", "inputs": {}}
    values |= {"result": "", "seconds": float(number), "attempts": 1, "worker": "GPU 0", "message": ""}
    return values | {"report": f"time: {number / 10:.2f} s per step"} | changes


@pytest.fixture
def page(browser, tmp_path):
    """Of a batch whose first job has clips, whose second failed, with words that try to be markup."""
    for name in ("before.mp4", "after one.mp4"):
        shutil.copy(host.CLIPS / "bikes.mp4", tmp_path / name)
    words = "</script><b>bold</b> & \u2028 'words'"
    rows = [row(0, result="after one.mp4", instruction=words)]
    rows += [row(1, state="failed", message=words, seconds=None, report="")]
    rows += [row(number, inputs={"LIVEditSampler.seed": number}) for number in range(2, JOBS)]
    rows = [{**each, "clip": str(tmp_path / "before.mp4")} for each in rows]
    write_page(tmp_path, rows)
    write_table(tmp_path, rows)
    page = browser.new_page()
    page.goto((tmp_path / "index.html").as_uri())
    yield page
    page.close()


def test_numbers_of_edits_are_columns_once_they_were_measured(page, tmp_path):
    assert page.locator("th", has_text="kept if edited").count() == 0
    numbers = {"clip0002--snow": {"kept_if_edited": 0.25, "psnr": None}, "clip0005--snow": {"kept_if_edited": 0.7512}}
    (tmp_path / "metrics").mkdir()
    (tmp_path / "metrics" / "metrics.js").write_text(f"window.liveditorMetrics = {json.dumps(numbers)};")
    page.reload()
    head = page.locator("th", has_text="kept if edited")
    head.click(), head.click()
    assert names(page)[:2] == ["clip0005--snow", "clip0002--snow"]
    assert page.locator("tbody tr").first.locator("td").last.inner_text() == "0.751"
    assert page.locator("th", has_text="PSNR").count() == 0, "nothing was measured of it"


def test_a_screen_shows_all_columns_and_long_words_take_one_row(page, tmp_path):
    names = ("kept_if_edited", "psnr", "ssim", "change_share", "flicker_excess", "flow_similarity", "text_gain")
    numbers = {f"clip{i:04}--snow": dict.fromkeys(names, 12.345) for i in range(20)}
    (tmp_path / "metrics").mkdir(exist_ok=True)
    (tmp_path / "metrics" / "metrics.js").write_text(f"window.liveditorMetrics = {json.dumps(numbers)};")
    rows = [row(i, instruction="make it snow " * 500, result="after one.mp4") for i in range(20)]
    write_page(tmp_path, [{**each, "clip": str(tmp_path / "before.mp4")} for each in rows])
    page.set_viewport_size({"width": 1600, "height": 900})
    page.reload()
    assert page.locator("th", has_text="text gain").count() == 1
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
    assert page.locator("tbody tr").first.bounding_box()["height"] < 300
    page.screenshot(path=tmp_path / "page.png")


def names(page):
    return page.locator("tbody tr td:first-child > div").evaluate_all("all => all.map((each) => each.firstChild.data)")


def test_all_jobs_are_there_and_can_be_sorted_and_filtered(page):
    assert page.locator("#counts").inner_text() == f"{JOBS - 1} done, 1 failed"
    assert len(names(page)) == JOBS
    page.locator("th", has_text="seconds").click()
    assert names(page)[:2] == ["clip0001--snow", "clip0000--snow"], "a job without a number comes first"
    page.locator("th", has_text="seconds").click()
    assert names(page)[0] == f"clip{JOBS - 1}--snow"
    page.locator("#filter").fill("failed")
    assert names(page) == ["clip0001--snow"]
    page.locator("#filter").fill("seed=1234 snow")
    assert names(page) == ["clip1234--snow"]


def test_words_are_words(page):
    assert page.locator("b").count() == 0
    assert "</script><b>bold</b>" in page.locator(".message").inner_text()
    assert "</script><b>bold</b>" in page.locator("tbody tr").first.inner_text()


def test_clips_play_together_and_only_those_in_sight_are_loaded(page):
    before, after = page.locator("tbody tr").first.locator("video").all()
    for video in (before, after):
        expect(video).to_have_js_property("readyState", 4, timeout=20_000)
    after.evaluate("video => video.play()")
    expect(before).to_have_js_property("paused", False)
    after.evaluate("video => video.pause()")
    expect(before).to_have_js_property("paused", True)
    assert page.locator("video").count() == JOBS + 1 and page.locator("video[src]").count() < 40
