"""What people and programs get of the numbers: report, JSON, plots."""

import json

import pytest
import torch
from measured import COLOURS, Frames, panned, textured, whole_motion

from liveditor.liveditor_core.metrics.measure import ModelFile, Models, measure
from liveditor.liveditor_core.metrics.plots import HEIGHT, WIDTH, plots
from liveditor.liveditor_core.metrics.report import headline, report

FILE = ModelFile("clip", "clip_l.safetensors", "0123456789abcdef" * 4)


def wide(embed):
    """As wide as PickScore."""
    return lambda given: torch.nn.functional.pad(embed(given), (0, 1021))


@pytest.fixture(scope="module")
def everything():
    """Numbers of an edit with a mask and all models: darker inside, one frame of the rest brighter."""
    before = panned(6, 3) * 0.8 + 0.1
    after = before.clone()
    outside = torch.zeros(160, 224, dtype=torch.bool)
    outside[:, 112:] = True
    after[:, ~outside] *= 0.5
    after[3, outside] += 5 / 255
    models = Models(wide(COLOURS.images), wide(COLOURS.texts), whole_motion, (FILE,))
    return measure(
        Frames(before, after), outside=lambda number: outside, models=models, target="red", source_text="green"
    )


def test_the_report_has_every_number_beside_that_of_an_unedited_copy(everything):
    summary, text = everything.summary, report(everything.summary)
    words, flow, steady = summary["words"], summary["flow"], summary["steady"]
    for part in (
        f"PSNR {summary['kept']['psnr']:.2f} dB [identical]",
        f"{summary['kept']['exact_pixels']} of {summary['kept']['pixels']} pixels, 83.33 % [100 %]",
        f"inside the mask: {summary['changed']['inside']['mean']:.2f} levels of 255 on average [0]",
        "outside the mask: 0.83 levels of 255 on average [0], by more than 16 in 0.00 % of the pixels [0 %]; edited: 0",
        f"flicker {steady['flicker_edit']:.2f} levels [{steady['flicker_source']:.2f}]",
        f"warp error {1000 * flow['warp_error_edit']:.4f} / 1000 [{1000 * flow['warp_error_source']:.4f}]",
        f"similarity {flow['similarity']:.3f} [1]",
        f"cosine of text and frame {words['text_edit']:.4f} [{words['text_source']:.4f}], gain {words['gain']:+.4f}",
        f'direction from "green" {words["direction"]:+.4f} [+0.0000]',
        f"score {words['score_edit']:.2f} [{words['score_source']:.2f}]",
        f"cosine of neighbours {words['consistency_edit']:.4f} [{words['consistency_source']:.4f}]",
        f"kept if edited: {summary['gate']['kept_if_edited']:.4f} [0]",
        "clip: clip_l.safetensors, sha256 0123456789ab",
        f"worst from frame {steady['worst_pair'][0]} to {steady['worst_pair'][1]}",
    ):
        assert part in text, part
    assert steady["worst_pair"] in ([3, 4], [4, 5])


def test_the_json_is_whole_and_of_plain_values(everything):
    read = json.loads(everything.to_json(), parse_constant=pytest.fail)
    assert read.pop("frames") == everything.frames and read == everything.summary
    assert {len(values) for values in everything.frames.values()} == {6}
    assert read["models"] == [FILE._asdict()] and read["compared"]["masked"] and read["version"] == 1


def test_what_was_not_measured_is_said():
    black = torch.zeros(1, 35, 51, 3)
    summary = measure(Frames(black, black.clone())).summary
    text = report(summary)
    assert "steady: not measured (a single frame)" in text and "flow: not measured (no OPTICAL_FLOW)" in text
    assert "words: not measured (no CLIP_VISION)" in text and "inside" not in text
    nothing_outside = torch.zeros(35, 51, dtype=torch.bool)
    text = report(measure(Frames(black, black + 0.5), outside=lambda number: nothing_outside).summary)
    assert "PSNR of no pixel" in text and "kept if edited: not measured" in text and "there is no pixel" in text
    one = measure(Frames(black, black.clone()), models=Models(flow=whole_motion)).summary
    assert "flow: not measured (a single frame)" in report(one)
    two = torch.full((2, 35, 51, 3), 0.5)
    text = report(measure(Frames(two, two.clone()), models=Models(COLOURS.images, flow=whole_motion), every=1).summary)
    assert "similarity cannot be said, nothing moves" in text and "no CLIP, or no target text" in text


def test_the_canvas_gets_what_says_most(everything):
    found, summary = headline(everything.summary), everything.summary
    assert found["masked"] and found["share"] == summary["changed"]["inside"]["share"] > 0.9
    assert found["gain"] == summary["words"]["gain"] and found["similarity"] == summary["flow"]["similarity"]
    clip = textured(2)
    alone = headline(measure(Frames(clip, clip.clone())).summary)
    assert alone["gain"] is alone["similarity"] is None and alone["identical"] and not alone["masked"]


def test_there_is_a_panel_for_each_kind_of_number(everything):
    picture = plots(everything)
    assert picture.shape == (1, 8 * HEIGHT + 10, WIDTH, 3) and picture.min() >= 0 and picture.max() <= 1
    clip = textured(1)
    assert plots(measure(Frames(clip, clip.clone()))).shape == (1, 2 * HEIGHT + 10, WIDTH, 3), "flicker needs two"


def test_a_curve_goes_where_its_numbers_are():
    before = textured(1).expand(11, -1, -1, -1).clone()
    after = before.clone()
    after[5] += 40 / 255  # the change is 40 levels in the middle, 0 elsewhere
    picture = plots(measure(Frames(before, after)))[0]
    panel = picture[HEIGHT : 2 * HEIGHT]  # that of the change
    red = (panel[..., 0] > 0.7) & (panel[..., 1] < 0.4)
    rows = [int(red[34:, column].nonzero().float().mean()) for column in (100, 475, 850)]
    assert rows[1] < 10 and rows[0] == rows[2] > 70
