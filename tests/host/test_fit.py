"""Whether an edit fits: as the host divides memory, for every kind of card, in the report and on the canvas."""

import json
import urllib.error
import urllib.parse

import pytest
import tiny_models
import torch

import comfy.model_management
from liveditor.liveditor_core.model import fit as fits
from liveditor.liveditor_core.model.fit import GIB, Machine, describe, fit, fit_of_files, lacks_ram

WEIGHTS, CALL = int(13.5 * GIB), int(5.5 * GIB)


@pytest.fixture(autouse=True)
def reserves(monkeypatch):
    """The host's on Linux; with them goes what the allocator loses between blocks, 768 MiB."""
    monkeypatch.setattr(comfy.model_management, "extra_reserved_memory", lambda: 400 << 20)
    monkeypatch.setattr(comfy.model_management, "minimum_inference_memory", lambda: int(0.8 * GIB) + (400 << 20))


def gpu(gib, ram=64):
    return Machine(int(gib * GIB), 32 * GIB, ram * GIB)


def test_a_large_card_holds_everything():
    found = fit(WEIGHTS, CALL, gpu(23.5))
    assert found.fits and found.in_ram == 0
    assert describe(found) == ["memory: weights 13.5 GiB, a call 5.5 GiB; 23.5 GiB of GPU memory free"]


def test_what_has_no_room_stays_in_ram():
    found = fit(WEIGHTS, CALL, gpu(11.5), text_encoder=6 * GIB, vae=GIB // 4)
    assert found.fits and found.in_ram / GIB == pytest.approx(13.5 - (11.5 - 5.5 - 1168 / 1024), abs=0.01)
    first, second = describe(found)
    assert "text encoder 6.0 GiB, VAE 0.2 GiB" in first
    assert second == "8.6 GiB of the weights stay in RAM and are fetched while it computes"
    packed = fit(WEIGHTS, CALL, gpu(11.5), packed=True)
    assert describe(packed)[1] == "8.6 GiB of the weights stay in RAM and are fetched, about 1.7 s a call"


def test_a_call_that_does_not_fit_is_said():
    found = fit(WEIGHTS, CALL, gpu(5.5))
    assert not found.fits and found.in_ram == WEIGHTS
    assert describe(found)[1] == "too little GPU memory for a call: take a smaller size or window"


def test_what_ran_out_of_memory_on_a_small_card_is_said():
    """Measured with 6.98 GiB free: a call of 4.28 GiB ran out, one of 3.72 did not."""
    tight, enough = (fit(WEIGHTS, int(call * GIB), gpu(6.98)) for call in (4.28, 3.72))
    assert tight.fits and tight.tight and "it may run out; a smaller size or window is safer" in describe(tight)[1]
    assert enough.fits and not enough.tight and "stay in RAM" in describe(enough)[1]
    assert not fit(GIB, 4 * GIB, gpu(6.98)).tight  # all of the weights have room


def test_a_small_call_leaves_the_host_s_minimum():
    assert fit(4 * GIB, 1 << 20, gpu(4)).in_ram / GIB == pytest.approx(0.8 + 400 / 1024, abs=0.01)


def test_ram_that_cannot_hold_the_weights_is_said():
    assert not lacks_ram(fit(WEIGHTS, CALL, gpu(24, ram=8)))
    found = fit(WEIGHTS, CALL, gpu(6.5, ram=8))
    assert lacks_ram(found) and "8.0 GiB cannot hold the weights" in describe(found)[-1]
    assert lacks_ram(fit(WEIGHTS, CALL, Machine(None, 6 * GIB, 8 * GIB)))


def test_no_gpu():
    found = fit(WEIGHTS, CALL, Machine(None, 6 * GIB, 16 * GIB))
    assert found.fits and found.in_ram is None
    assert describe(found) == ["memory: weights 13.5 GiB, a call 5.5 GiB; 6.0 GiB of RAM free"]


def test_files_say_what_the_loaded_model_says(tiny_model_path, library, monkeypatch):
    """Before anything is loaded and afterwards it is the same estimate."""
    model = comfy.sd.load_diffusion_model(str(tiny_model_path), {"dtype": torch.bfloat16})
    monkeypatch.setattr(fits, "this_machine", lambda: gpu(24))
    monkeypatch.setattr(type(model.model), "get_dtype_inference", lambda self: torch.bfloat16)
    tokens = 85680
    found = fit_of_files(str(tiny_model_path), None, None, tokens)
    assert found.weights == pytest.approx(model.model_size(), rel=0.02)
    assert found.call == model.model.memory_of_call(1, tokens)


def ask(client, **query):
    return client.get("liveditor/fit?" + urllib.parse.urlencode(query))


def test_the_server_answers(client):
    files = {
        "checkpoint": tiny_models.TRANSFORMER,
        "weight_type": "default",
        "text_encoder": tiny_models.TEXT_ENCODER,
        "vae": tiny_models.VAE,
    }
    found = ask(client, **files, tokens=1000)
    assert found["weights"] > 100_000 and found["text_encoder"] > 1000 and found["vae"] > 1000
    assert found["machine"]["gpu"] is None and found["fits"] and not found["lacks_ram"]
    assert ask(client, **files, tokens=100_000)["call"] > found["call"]
    for wrong, status in (
        ({"tokens": "x"}, 400),
        ({"tokens": 0}, 400),
        ({"weight_type": "fp3"}, 400),
    ):
        with pytest.raises(urllib.error.HTTPError) as refused:
            ask(client, **{**files, "tokens": 1000, **wrong})
        assert refused.value.code == status and json.load(refused.value)["error"]
    assert ask(client, **{**files, "checkpoint": "nowhere.safetensors"}, tokens=1)["error"].startswith("nowhere.safe")
