"""A call that runs out of GPU memory is done again with less of the weights on the GPU, a few times."""

import pytest
import torch

import comfy.model_management
from liveditor.liveditor_core.model import make_room

OOM = comfy.model_management.OOM_EXCEPTION
GPU, CPU = torch.device("cuda"), torch.device("cpu")


class Patcher:
    load_device, offload_device = GPU, CPU

    def __init__(self):
        self.unloaded = []

    def partially_unload(self, device, amount):
        self.unloaded.append((device, amount))
        return amount


def failing(times, error):
    """A call that fails so many times first; every one is counted."""
    calls = []

    def call():
        calls.append(None)
        if len(calls) <= times:
            raise error
        return "answer"

    return call, calls


@pytest.mark.parametrize("times", [0, 1, 3])
def test_until_there_is_room(times, caplog):
    patcher = Patcher()
    call, calls = failing(times, OOM("out of memory: tried to allocate\nmore"))
    assert make_room.call_again([patcher], call) == "answer"
    assert len(calls) == times + 1 and patcher.unloaded == [(CPU, make_room.ROOM)] * times
    said = [record.message for record in caplog.records]
    assert len(said) == times and all(
        "tried to allocate; 1.0 GiB of the weights leave the GPU" in line for line in said
    )


def test_not_for_ever():
    patcher = Patcher()
    call, calls = failing(99, OOM("out of memory"))
    with pytest.raises(OOM):
        make_room.call_again([patcher], call)
    assert len(calls) == make_room.TRIES


@pytest.mark.parametrize(
    "patcher, error",
    [
        (Patcher(), ValueError("wrong")),
        (None, OOM("out of memory")),
        (type("OnCPU", (Patcher,), {"load_device": CPU})(), OOM("out of memory")),
    ],
)
def test_other_failures_are_not_repeated(patcher, error):
    call, calls = failing(1, error)
    with pytest.raises(type(error)):
        make_room.call_again([each for each in (patcher,) if each is not None], call)
    assert len(calls) == 1


def test_the_model_is_called_that_way(tiny_model, monkeypatch):
    """The host asks for a call and its room, with something for what lies between the allocator's blocks."""
    seen = []
    monkeypatch.setattr(make_room, "call_again", lambda patchers, call: seen.append(patchers) or call())
    latent = torch.randn(1, 16, 2, 8, 8)
    comfy.model_management.load_models_gpu([tiny_model])
    monkeypatch.setattr(tiny_model.model, "current_patcher", tiny_model)
    tiny_model.model.apply_model(
        latent, torch.full((1,), 0.8), c_crossattn=torch.randn(1, 512, 4096), liveditor_source=latent
    )
    assert len(seen) == 1 and seen[0][0] is tiny_model and len(seen[0]) == 1
    tokens = 2 * 2 * 4 * 4
    assert tiny_model.model.memory_required(latent.shape) == (
        tiny_model.model.memory_of_call(1, tokens) + make_room.BETWEEN_BLOCKS
    )
