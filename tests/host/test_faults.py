"""What goes wrong in the middle of things: a clear message, the server alive, the next prompt runs."""

import copy
import os
import shutil
import threading
import time

import av
import host
import numpy as np
import pytest
import tiny_models
from host import key_of, set_inputs
from safetensors.torch import load_file, save_file

CHECKPOINT = host.RUN / "models" / "diffusion_models" / "faults.safetensors"


def edited(client, prompt):
    """The pixels of an edit.

    The video encoder gives the same frames back a little differently each time, another seed very differently.
    """
    with av.open(str(host.saved_file(client.run(prompt)))) as container:
        return np.stack([frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)]).astype(float)


def queue(client, prompt):
    """Queue a prompt without waiting; the thread ends with its result, or the failure, in `result`."""
    own = host.Client(client.address)  # the server talks to the last one of a name only

    def run():
        try:
            thread.result = host.saved_file(own.run(prompt, timeout=120))
        except host.WorkflowFailed as failure:
            thread.result = failure

    thread = threading.Thread(target=run)
    thread.start()
    return thread


def wait_until(condition):
    deadline = time.monotonic() + 120
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.05)


@pytest.fixture
def checkpoint(edit_prompt):
    """A copy of the tiny model that a test may replace or delete, loaded by the prompt."""
    save_file(tiny_models.transformer(), CHECKPOINT)
    set_inputs(edit_prompt, "LoadLIVEditor", checkpoint=CHECKPOINT.name)
    yield CHECKPOINT
    CHECKPOINT.unlink(missing_ok=True)


@pytest.mark.parametrize(
    "fault, words",
    [
        (
            "out of memory",
            (
                "LIVEditor: out of GPU memory in step 2 of 3",
                "One call at this size needs about",
                "fp8 weights",
                "What was computed is kept: the same run goes on from there",
            ),
        ),
        (
            "GPU lost",
            (
                "LIVEditor: the GPU failed in step 2 of 3: CUDA error: unspecified launch failure.",
                "until ComfyUI is started again",
            ),
        ),
    ],
)
def test_failures_in_the_middle_of_a_step(server, client, edit_prompt, fault, words):
    set_inputs(edit_prompt, "LIVEditSampler", steps=3)
    expected = edited(client, edit_prompt)
    sampler = edit_prompt[key_of(edit_prompt, "LIVEditSampler")]["inputs"]
    model, sampler["model"] = sampler["model"], ["fault", 0]
    edit_prompt["fault"] = {"class_type": "FailInSampling", "inputs": {"model": model, "fault": fault, "step": 2}}
    with pytest.raises(host.WorkflowFailed) as failure:
        client.run(edit_prompt)
    for word in words:
        assert word in str(failure.value), str(failure.value)
    if fault == "out of memory":
        assert "unloading all loaded models" in server.log_text(), (
            "the host must see that memory ran out, to give it back"
        )
    sampler["model"] = model
    sampler["seed"] = 43  # or the cached result would come back
    assert np.abs(edited(client, edit_prompt) - expected).mean() > 8
    sampler["seed"] = 42
    assert np.abs(edited(client, edit_prompt) - expected).mean() < 5


def test_a_failed_prompt_leaks_nothing(server, client, edit_prompt):
    """The host warns of a leak after every prompt, and evicts the weights no more, where a clone died with its
    parent.
    """
    begun = len(server.log_text())
    model = edit_prompt[key_of(edit_prompt, "LIVEditSampler")]["inputs"]["model"]
    for seed in range(3):
        failing, good = copy.deepcopy(edit_prompt), copy.deepcopy(edit_prompt)
        failing["fault"] = {"class_type": "FailInSampling", "inputs": {"model": model, "fault": "any", "step": 1}}
        set_inputs(failing, "LIVEditSampler", model=["fault", 0], seed=seed)
        with pytest.raises(host.WorkflowFailed, match="any other failure"):
            client.run(failing)
        good["garbage"] = {"class_type": "CollectGarbage", "inputs": {"model": model, "time": seed}}
        set_inputs(good, "LIVEditSampler", model=["garbage", 0], seed=seed)
        client.run(good)
    assert "memory leak" not in server.log_text()[begun:].lower()


def test_interrupt_with_another_prompt_queued(client, edit_prompt):
    long, short = dict(edit_prompt), edit_prompt
    key = key_of(long, "LIVEditSampler")
    long[key] = {**long[key], "inputs": {**long[key]["inputs"], "steps": 1000}}
    first = queue(client, long)
    wait_until(lambda: client.get("queue")["queue_running"])
    second = queue(client, short)
    wait_until(lambda: client.get("queue")["queue_pending"])
    client.post("interrupt", {})
    first.join()
    second.join()
    assert str(first.result) == "interrupted"
    assert second.result.is_file()


def test_weights_replaced_while_queued(client, edit_prompt, checkpoint):
    before = edited(client, edit_prompt)
    weights = load_file(checkpoint)
    weights["head.head.weight"] *= -1
    save_file(weights, checkpoint.with_suffix(".new"))
    os.replace(checkpoint.with_suffix(".new"), checkpoint)
    assert np.abs(edited(client, edit_prompt) - before).mean() > 8, "the old weights were used again"


LOADED = "Requested to load LIVEditor"  # in the log


def test_weights_deleted_while_queued(server, client, edit_prompt, checkpoint):
    loads = server.log_text().count(LOADED)
    first = dict(edit_prompt)
    key = key_of(first, "LIVEditSampler")
    first[key] = {**first[key], "inputs": {**first[key]["inputs"], "steps": 60}}
    running = queue(client, first)
    wait_until(lambda: client.get("queue")["queue_running"])
    waiting = queue(client, edit_prompt)
    wait_until(lambda: client.get("queue")["queue_pending"])
    wait_until(lambda: server.log_text().count(LOADED) > loads)
    checkpoint.unlink()
    running.join()
    waiting.join()
    assert running.result.is_file(), "what was loaded goes on"
    assert "faults.safetensors: there is no such file" in str(waiting.result)
    set_inputs(edit_prompt, "LoadLIVEditor", checkpoint=tiny_models.TRANSFORMER)
    client.run(edit_prompt)


@pytest.mark.parametrize("name", tiny_models.PLACES)
@pytest.mark.parametrize("way", ["absolute", "relative"])
def test_a_name_that_is_a_path_opens_nothing_outside(client, edit_prompt, tmp_path, name, way):
    """A linked name is not looked up in a list first: files outside the model folders must stay unread."""
    outside = tmp_path / "outside.safetensors"
    shutil.copy(host.RUN / "models" / tiny_models.PLACES[name] / name, outside)
    path = str(outside) if way == "absolute" else os.path.relpath(outside)
    loader = edit_prompt[key_of(edit_prompt, "LoadLIVEditor")]["inputs"]
    (linked,) = [key for key, value in loader.items() if value == name]
    loader[linked] = ["path", 0]
    edit_prompt["path"] = {"class_type": "NameOfAnyType", "inputs": {"name": path}}
    with pytest.raises(host.WorkflowFailed) as failure:
        client.run(edit_prompt)
    assert "Load LIVEditor: outside.safetensors: there is no such file in models/" in str(failure.value)
    assert str(tmp_path) not in str(failure.value)
    edit_prompt["path"]["inputs"]["name"] = name
    client.run(edit_prompt)


def test_the_report(client, edit_prompt):
    set_inputs(edit_prompt, "EncodeSourceVideo", width=128, height=80)
    edit_prompt["show"] = {"class_type": "PreviewAny", "inputs": {"source": [key_of(edit_prompt, "LIVEditSampler"), 1]}}
    text = client.run(edit_prompt)["show"]["text"][0]
    assert (
        "2 steps, 2 model calls of 240 tokens x 2" in text
        and "attention: pytorch on cpu" in text
        and "per step" in text
        and "triton: needs an NVIDIA GPU" in text
    )
