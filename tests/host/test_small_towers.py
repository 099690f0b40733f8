"""The small text-image encoder: what the numbers of metrics say with it, on clips and in words that it never saw."""

import json
import os
import random
import statistics
import sys
from pathlib import Path

import host
import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file

import comfy.clip_vision
import comfy.model_management
import comfy.model_patcher
import comfy.sd
from liveditor.liveditor_core.checkpoint.check import check_text_encoder
from liveditor.liveditor_core.checkpoint.weights import CheckpointError
from liveditor.liveditor_core.model.small_towers import CONFIGURATION, load_small_towers
from liveditor.nodes.load_text_image_encoder import LoadTextImageEncoder
from liveditor.training import nano, tower_score, towers
from liveditor.training.edits import EDITS, HELD_OUT, PHRASES

MODELS = host.PACK / "models"
FILE = MODELS / "clip_vision" / towers.FILE
RECOGNISED = 0.9  # share of edits, of those that a frame shows by itself
SEEN = ("black_and_white", "sepia", "night", "red_border", "pixelate", "brighter")
UNDO_THEMSELVES = ("invert", "mirror", "upside_down", "swap_red_and_blue")
BY = ("by_gain", "by_direction")


@pytest.fixture(scope="module")
def judge():
    with torch.inference_mode():
        return tower_score.Judge(MODELS)


@pytest.fixture(scope="module")
def sources():
    return list(tower_score.parts(host.CLIPS))


@pytest.fixture(scope="module")
def found(judge, sources):
    """Every exact edit of every part of the clips, in all phrasings that were held out."""
    with torch.inference_mode():
        return tower_score.measure(judge, sources)


def test_they_are_the_hosts_objects_and_loaded_by_it(library, judge):
    frames = torch.rand(3, 48, 80, 3)
    for patcher in (judge.clip.patcher, judge.vision.patcher):
        patcher.detach()
    comfy.model_management.unload_all_models()
    tokens = judge.clip.tokenize("make it night")
    pooled = judge.clip.encode_from_tokens(tokens, return_pooled=True)[1]
    embeds = judge.vision.encode_image(frames)["image_embeds"]
    assert isinstance(judge.clip, comfy.sd.CLIP) and isinstance(judge.vision, comfy.clip_vision.ClipVisionModel)
    assert pooled.shape == (1, towers.WIDTH) and embeds.shape == (3, towers.WIDTH)
    loaded = [entry.model for entry in comfy.model_management.current_loaded_models]
    for patcher in (judge.clip.patcher, judge.vision.patcher):
        assert isinstance(patcher, comfy.model_patcher.ModelPatcher)
        assert any(patcher.is_clone(model) for model in loaded)
    assert torch.equal(judge.clip.clone().encode_from_tokens(tokens, return_pooled=True)[1], pooled)


@pytest.mark.parametrize("by", BY)
def test_edits_that_a_frame_shows_are_recognised(found, by):
    seen = [one for one in found if one.edit in SEEN]
    assert tower_score.recognised(seen, by) >= RECOGNISED, tower_score.table(found)
    for name in SEEN:
        assert tower_score.recognised([one for one in seen if one.edit == name], by) > 0.8, tower_score.table(found)


@pytest.mark.parametrize("by", BY)
def test_shuffled_pairs_are_recognised_by_chance(found, by):
    """Frames of other edits than those that are claimed: so the test above can fail."""
    claimed = [one.edit for one in found]
    random.Random(0).shuffle(claimed)
    shuffled = [one._replace(edit=name) for one, name in zip(found, claimed, strict=True)]
    assert abs(tower_score.recognised(shuffled, by) - 1 / len(EDITS)) < 0.05


def test_a_copy_gains_nothing_and_ranks_last(judge, sources, library):
    clip, frames = sources[0]
    words, source_words = tower_score.words_of(judge, 0)
    copy = judge.found(clip, None, frames, frames.clone(), words, source_words)
    assert not copy.gains.any() and not copy.directions.any()


def test_what_is_right_gains_and_goes_along(found):
    for name in SEEN:
        own = tower_score.NAMES.index(name)
        of_it = [one for one in found if one.edit == name]
        assert statistics.mean(one.gains[own].item() > 0.05 for one in of_it) >= RECOGNISED, name
        assert statistics.mean(one.directions[own].item() for one in of_it) > 0.4, name
        others = [one.gains[own].item() for one in found if one.edit in SEEN and one.edit != name]
        assert statistics.mean(others) < 0, f"{name}: words of another edit"


def test_other_words_for_the_same_agree(judge, library):
    """Phrasings of an edit lie nearer to each other, trained or held out, than to those of any other edit."""
    centres = torch.stack([judge.texts(PHRASES[name]).mean(dim=0) for name in EDITS])
    right = [
        tower_score.NAMES[(line @ centres.T).argmax()] == name for name in EDITS for line in judge.texts(HELD_OUT[name])
    ]
    assert statistics.mean(right) >= RECOGNISED, right


@pytest.mark.parametrize("name", UNDO_THEMSELVES)
def test_of_a_frame_and_its_mirror_one_at_most_is_the_edited_one(judge, sources, library, name):
    """Of edits that undo themselves: what there and back gain is opposite, with this encoder as with any other."""
    clip, frames = sources[-1]
    there = tower_score.exact(name, frames)
    words = tower_score.words_of(judge, 0)
    found = [judge.found(clip, name, *pair, *words) for pair in ((frames, there), (there, frames))]
    torch.testing.assert_close(found[0].gains, -found[1].gains, atol=1e-4, rtol=0)


def test_edits_of_the_small_model_are_recognised(judge, library):
    found = tower_score.of_the_small_model(judge, MODELS, host.CLIPS, steps=2)
    seen = [one for one in found if one.edit in SEEN]
    for by in BY:
        assert tower_score.recognised(seen, by) >= RECOGNISED, tower_score.table(found)


def test_a_node_gives_both_to_nodes_of_the_host(client):
    prompt = {
        "towers": {"class_type": "LIVEditLoadTextImageEncoder", "inputs": {"encoder": towers.FILE}},
        "picture": {"class_type": "EmptyImage", "inputs": {"width": 96, "height": 64, "batch_size": 1, "color": 255}},
        "seen": {
            "class_type": "CLIPVisionEncode",
            "inputs": {"clip_vision": ["towers", 1], "image": ["picture", 0], "crop": "center"},
        },
        "read": {"class_type": "CLIPTextEncode", "inputs": {"clip": ["towers", 0], "text": "make it night"}},
        "show seen": {"class_type": "PreviewAny", "inputs": {"source": ["seen", 0]}},
        "show read": {"class_type": "PreviewAny", "inputs": {"source": ["read", 0]}},
    }
    shown = client.run(prompt)
    assert "Output" in shown["show seen"]["text"][0] and "pooled_output" in shown["show read"]["text"][0]


def test_a_node_misses_a_file_by_name():
    with pytest.raises(ValueError, match="^Load Small Text-Image Encoder: gone.safetensors: there is no such file"):
        LoadTextImageEncoder.execute("gone.safetensors")


def test_other_files_are_refused(tmp_path):
    with pytest.raises(CheckpointError, match="must be a small text-image encoder"):
        load_small_towers(str(MODELS / "text_encoders" / nano.TEXT_ENCODER))
    weights = load_file(FILE)
    with safe_open(FILE, "pt") as file:
        metadata = file.metadata()
    del weights["text_projection.weight"]
    save_file(weights, tmp_path / "less.safetensors", metadata)
    with pytest.raises(CheckpointError, match="must have all weights, 1 are missing: text_projection.weight"):
        load_small_towers(str(tmp_path / "less.safetensors"))
    (tmp_path / "cut.safetensors").write_bytes(FILE.read_bytes()[:1000])
    with pytest.raises(CheckpointError, match="truncated or damaged"):
        load_small_towers(str(tmp_path / "cut.safetensors"))


def test_loaders_of_other_models_refuse_it():
    """It lies where the host looks for image encoders, of which its own loader takes those that it knows by name."""
    assert comfy.clip_vision.load(str(FILE)) is None
    with pytest.raises(CheckpointError, match="got a CLIP"):
        check_text_encoder(FILE)


def test_the_file_says_what_it_is():
    with safe_open(FILE, "pt") as file:
        metadata = file.metadata()
    assert "ten edits and nothing else" in metadata["what"] and metadata["edits"].split(", ") == list(EDITS)
    assert json.loads(metadata[CONFIGURATION])["vision"] == towers.VISION
    assert os.path.getsize(FILE) < 1_000_000


def test_what_training_writes_is_what_the_host_loads(tmp_path, monkeypatch, library):
    """Two steps by the command line; both towers give what they gave in training, up to half precision."""
    torch.manual_seed(0)
    arguments = {"--out": tmp_path, "--steps": 2, "--minutes": 1, "--batch": 5}
    monkeypatch.setattr(sys, "argv", ["towers", *(str(word) for pair in arguments.items() for word in pair)])
    with torch.inference_mode(False), torch.enable_grad():
        towers.main()
    trained = towers.resume(tmp_path)
    judge = tower_score.Judge(Path(tmp_path))
    frames = torch.rand(2, towers.SIZE, towers.SIZE, 3).mul(255).round() / 255
    torch.testing.assert_close(judge.images(frames), trained.images(frames.movedim(-1, 1)), atol=2e-3, rtol=0)
    lines = ["make it night", "turn red into blue and blue into red", "x " * 60]
    torch.testing.assert_close(judge.texts(lines), trained.texts(lines), atol=2e-3, rtol=0)
