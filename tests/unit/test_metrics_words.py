"""Whether the edit follows the words: with embeddings that can be computed by hand."""

import pytest
import torch
from measured import COLOURS, TEXTS, measured, still, textured

from liveditor.liveditor_core.footage.errors import FootageError
from liveditor.liveditor_core.metrics.gate import ENOUGH_GAINED
from liveditor.liveditor_core.metrics.measure import Models


def plain(*colours):
    """A frame of each colour."""
    return torch.tensor(colours).view(-1, 1, 1, 3).expand(-1, 32, 48, 3).float()


def words_of(before, after, models=COLOURS, **how):
    return measured(before, after, models=models, **how)[0]["words"]


def test_cosine_and_gain():
    before, after = plain((0.6, 0.8, 0), (0.6, 0.8, 0)), plain((0.8, 0.6, 0), (1, 0, 0))
    words = words_of(before, after, target="red")
    assert words["text_edit"] == pytest.approx(0.9) and words["text_source"] == pytest.approx(0.6)
    assert words["gain"] == pytest.approx(0.3) and words["score_edit"] is None, "three wide is no PickScore"
    assert words["direction"] is None


def test_direction_from_the_source_s_words():
    green, red, blue = plain((0, 1, 0)), plain((1, 0, 0)), plain((0, 0, 1))
    along, half, against, none = (
        words_of(before, after, target="red", source_text="green")["direction"]
        for before, after in ((green, red), (green, blue), (red, green), (green, green))
    )
    assert (along, half, against, none) == pytest.approx((1, 0.5, -1, 0))


def test_consistency_of_neighbours():
    a, b = (1, 0, 0), (0.6, 0.8, 0)
    words = words_of(plain(a, a, a, a), plain(a, b, a, a))
    assert words["consistency_edit"] == pytest.approx((0.6 + 0.6 + 1) / 3) and words["consistency_source"] == 1
    assert words["text_edit"] is None, "there are no words"


def test_shuffled_frames_are_less_consistent():
    clip = torch.cat([plain((1 - i / 9, i / 9, 0.1)) for i in range(10)])
    words = words_of(clip, clip[[0, 5, 1, 6, 2, 7, 3, 8, 4, 9]])
    assert words["consistency_edit"] < words["consistency_source"] - 0.1


def test_an_unedited_copy_gains_nothing_and_comes_last():
    clip = textured(3)
    summary = measured(clip, clip.clone(), models=COLOURS, target="red", source_text="green")[0]
    words, copy = summary["words"], summary["unedited_copy"]["words"]
    assert words["gain"] == 0 and words["direction"] == 0 and words["text_edit"] == copy["text_edit"]
    assert summary["gate"]["words"] == 0 and summary["gate"]["kept_if_edited"] == 0


@pytest.mark.parametrize("gain, opened", [(-0.1, 0), (ENOUGH_GAINED / 2, 0.5), (0.3, 1)])
def test_the_gate_opens_with_the_gain(gain, opened):
    before = plain((0.6, 0.8, 0))
    to = 0.6 + gain
    summary = measured(before, plain((to, (1 - to**2) ** 0.5, 0)), models=COLOURS, target="red")[0]
    assert summary["words"]["gain"] == pytest.approx(gain, abs=1e-6)
    assert summary["gate"]["words"] == pytest.approx(opened, abs=1e-4)
    assert summary["gate"]["gate"] == pytest.approx(opened * summary["gate"]["changed"], abs=1e-4)


def test_an_edit_that_does_something_else_does_not_rank_before_one_that_follows():
    before = still(3)
    red, other = before.clone(), before.clone()
    red[:, :36, :, 1:] *= 0.3
    other[:, :9, :9, 0] *= 0.3  # changes less, so that more is kept, and goes the other way
    kept = [
        measured(before, after, models=COLOURS, target="red")[0]["gate"]["kept_if_edited"]
        for after in (red, other, before)
    ]
    assert kept[0] > 0.9 and kept[1] == kept[2] == 0


def test_pickscore_is_a_hundred_cosines_of_models_of_its_shape():
    def wide(embed):
        return lambda given: torch.nn.functional.pad(embed(given), (0, 1021))

    models = Models(wide(COLOURS.images), wide(COLOURS.texts))
    words = words_of(plain((0.6, 0.8, 0)), plain((0.8, 0.6, 0)), models, target="red")
    assert [words[f"score_{name}"] for name in ("edit", "source", "gain")] == pytest.approx([80, 60, 20], abs=1e-4)


def test_every_third_frame():
    seen = []

    def images(pictures):
        seen.append(len(pictures))
        return pictures.mean(dim=(1, 2))

    clip = textured(7)
    summary, frames = measured(clip, clip, models=Models(images, COLOURS.texts), target="red", every=3)
    assert seen == [2, 2, 2] and [value is not None for value in frames["text_edit"]] == [True, False, False] * 2 + [
        True
    ]
    assert len([value for value in frames["consistency_edit"] if value is not None]) == 2
    assert summary["words"]["every"] == 3


def test_models_that_do_not_belong_together_are_refused():
    with pytest.raises(FootageError, match="must be of one model, got embeddings 3 wide of texts and 5 wide of frames"):
        words_of(textured(), textured(), Models(lambda images: torch.ones(2, 5), COLOURS.texts), target="red")
    nothing = Models(COLOURS.images, lambda texts: torch.zeros(len(texts), 3))
    with pytest.raises(FootageError, match="must have an embedding that is not zero and finite, got one of length 0"):
        words_of(textured(), textured(), nothing, target="red")


def test_black_frames_of_a_model_that_sees_nothing_in_them_are_refused_and_not_lost():
    with pytest.raises(FootageError, match="A frame must have an embedding"):
        words_of(torch.zeros(1, 32, 48, 3), torch.zeros(1, 32, 48, 3), target="red")
    assert set(TEXTS) == {"red", "green", "blue"}
