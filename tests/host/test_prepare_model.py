"""Prepare LIVEditor Model through a server: the published file found or fetched, converted, loaded, edited with.

Small files of the published layout stand for it. Nothing half-written stays behind, whatever happens in the middle.
"""

import os
import shutil
import signal
import sys
import threading
import time

import host
import pytest
import tiny_models
import torch
from fake_hub import FakeHub
from safetensors.torch import load_file
from through_server import node, with_defaults

FOLDER = "models/diffusion_models"
PUBLISHED, LARGE = "liveditor_ckpt.bin", "large.bin"
GGUF_NODE = host.PACK / "tests" / "support" / "gguf_node.py"  # without it, GGUF files are refused
FILE_NAME = """
class FileName:
    RETURN_TYPES, FUNCTION = ("*",), "give"
    INPUT_TYPES = classmethod(lambda cls: {"required": {"name": ("STRING",)}})
    give = lambda self, name: (name,)
NODE_CLASS_MAPPINGS = {"FileName": FileName}
"""
SLOW = "gguf_q5_1"  # takes a few seconds for LARGE
NANO = host.PACK / "models" / "diffusion_models" / "liveditor_nano.safetensors"


@pytest.fixture(scope="module")
def hub(tmp_path_factory):
    path = tmp_path_factory.mktemp("hub") / PUBLISHED
    torch.save({"module": {"state_dict": load_file(NANO)}}, path)
    with FakeHub(path.read_bytes()) as hub:
        yield hub


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    base = tmp_path_factory.mktemp("comfyui")
    for folder in ("custom_nodes", "input", "output", "temp", "user", FOLDER):
        (base / folder).mkdir(parents=True)
    (base / "custom_nodes" / "ComfyUI-LIVEditor").symlink_to(host.PACK, target_is_directory=True)
    (base / "custom_nodes" / GGUF_NODE.name).symlink_to(GGUF_NODE)
    shutil.copy(host.CLIPS / "bikes.mp4", base / "input" / "bikes.mp4")
    torch.save(tiny_models.transformer(1024, 8192, 4), base / FOLDER / LARGE)
    return base


@pytest.fixture(scope="module")
def start(hub, base):
    """A function that starts a server for which the hub is here."""
    patch = pytest.MonkeyPatch()
    patch.setenv("HF_ENDPOINT", hub.endpoint)
    yield lambda: host.Server(base=base)
    patch.undo()


@pytest.fixture(scope="module")
def server(start):
    with start() as server:
        yield server


@pytest.fixture
def folder(hub, base):
    """The folder of models with nothing in it but LARGE; a hub that is whole."""
    folder = base / FOLDER
    for path in folder.iterdir():
        if path.name != LARGE:
            path.unlink()
    hub.gone, hub.gone_after, hub.cut_after, hub.asked = False, None, None, []
    hub.pause.set()
    return folder


def names(folder):
    return sorted(path.name for path in folder.iterdir())


def prepare(client, published_file, weight_type, **inputs):
    prompt = {
        "prepare": node("LIVEditPrepareModel", published_file=published_file, weight_type=weight_type, **inputs),
    }
    return client.run(prompt)


def menu(client, node_id, name):
    kind, *options = client.get(f"object_info/{node_id}")[node_id]["input"]["required"][name]
    return options[0]["options"] if kind == "COMBO" else kind


def download_choice(client):
    (choice,) = [each for each in menu(client, "LIVEditPrepareModel", "published_file") if each.startswith("download")]
    return choice


def wait_for(condition, seconds=60):
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def partials(folder):
    return [path for path in folder.iterdir() if path.name.endswith(".partial")]


def in_background(call):
    """Start a call; a function that waits for it and gives what it raised, or None."""
    raised = [None]

    def go():
        try:
            call()
        except Exception as error:
            raised[0] = error

    thread = threading.Thread(target=go)
    thread.start()
    return lambda: (thread.join(), raised[0])[1]


def test_from_the_published_file_to_an_edit(server, hub, folder):
    """One prompt: the pickle is prepared, what comes of it loaded, a clip edited; the second time nothing is done."""
    client = server.client
    (folder / PUBLISHED).write_bytes(hub.content)
    choices = menu(client, "LIVEditPrepareModel", "published_file")
    assert choices[:2] == [LARGE, PUBLISHED] and NANO.name not in choices
    prompt = {
        "prepare": node("LIVEditPrepareModel", published_file=PUBLISHED, weight_type="fp8_e4m3fn_scaled"),
        "load": node(
            "LoadLIVEditor",
            checkpoint=["prepare", 0],
            weight_type="default",
            text_encoder="liveditor_nano_text_encoder.safetensors",
            vae="liveditor_nano_vae.safetensors",
        ),
        "video": node("LoadVideo", file="bikes.mp4"),
        "text": node("CLIPTextEncode", clip=["load", 1], text="turn it into a night scene"),
        "source": node(
            "EncodeSourceVideo", video=["video", 0], vae=["load", 2], size="custom", width=64, height=48, max_frames=5
        ),
        "sample": node(
            "LIVEditSampler",
            model=["load", 0],
            positive=["text", 0],
            negative=["text", 0],
            source=["source", 0],
            steps=2,
        ),
        "decode": node("DecodeVideo", samples=["sample", 0], vae=["load", 2], source=["source", 0]),
        "save": node("SaveVideo", video=["decode", 0], filename_prefix="prepared", format="auto", codec="auto"),
    }
    prompt = with_defaults(client, prompt)
    outputs = client.run(prompt)
    made = "liveditor_14b_fp8_e4m3fn_scaled.safetensors"
    assert outputs["prepare"]["liveditor_prepared"] == [made]
    assert outputs["prepare"]["text"] == [
        f"{made}: 0.0 GB, ready for Load LIVEditor\n{PUBLISHED} (0.0 GB) is needed no more"
    ]
    assert names(folder) == [LARGE, made, PUBLISHED] and host.saved_file(outputs, server.base).stat().st_size > 1000
    assert made in menu(client, "LoadLIVEditor", "checkpoint")
    ran = []
    client.run(prompt, on_event=lambda event: isinstance(event, dict) and ran.append(event))
    cached = next(event["data"]["nodes"] for event in ran if event["type"] == "execution_cached")
    assert {"prepare", "load", "sample"} <= set(cached)
    (folder / made).unlink()
    assert prepare(client, PUBLISHED, "fp8_e4m3fn_scaled")["prepare"]["text"][0].startswith(f"{made}: 0.0 GB, ready")
    assert made in names(folder)


def test_a_pickle_in_load_liveditor_leads_to_prepare(server, hub, folder):
    (folder / PUBLISHED).write_bytes(hub.content)
    prompt = {
        "load": node(
            "LoadLIVEditor",
            checkpoint=PUBLISHED,
            weight_type="default",
            text_encoder="liveditor_nano_text_encoder.safetensors",
            vae="liveditor_nano_vae.safetensors",
        ),
        "show": node("PreviewAny", source=["load", 0]),
    }
    with pytest.raises(host.WorkflowFailed, match=f"{PUBLISHED}: .* Turn it into one with the node Prepare LIVEditor"):
        server.client.run(prompt)


def test_the_menu_says_size_and_card(server, folder):
    lines = menu(server.client, "LIVEditPrepareModel", "weight_type")
    assert [line for line in lines if line.startswith("fp8_e4m3fn_scaled: 14.5 GB, RTX 40")]
    for line in lines:
        weight_type, size = line.split(": ")[0], line.split(": ")[1].split(",")[0]
        assert size.endswith(" GB") and float(size[:-3]) > 8, line
        assert weight_type in prepare_types(server.client)


def prepare_types(client):
    return [line.partition(":")[0] for line in menu(client, "LIVEditPrepareModel", "weight_type")]


@pytest.mark.parametrize(
    "inputs, words",
    [
        ({"published_file": "gone.bin"}, "gone.bin: there is no such file in models/diffusion_models"),
        ({"weight_type": "fp3"}, "weight_type must be one of bf16, fp8_e4m3fn_scaled"),
        ({"name": "../../elsewhere"}, "a name must be without folders"),
    ],
)
def test_what_is_refused(server, folder, inputs, words):
    with pytest.raises(host.WorkflowFailed, match=words):
        prepare(server.client, **{"published_file": LARGE, "weight_type": "bf16"} | inputs)
    assert names(folder) == [LARGE]


def test_downloaded_when_asked(server, hub, folder):
    said = []

    def hear(event):
        if isinstance(event, bytes) and b"GB" in event:
            said.append(event)

    prompt = {
        "prepare": node(
            "LIVEditPrepareModel", published_file=download_choice(server.client), weight_type="int8_convrot"
        )
    }
    outputs = server.client.run(prompt, on_event=hear)
    assert outputs["prepare"]["liveditor_prepared"] == ["liveditor_14b_int8_convrot.safetensors"]
    assert names(folder) == [LARGE, "liveditor_14b_int8_convrot.safetensors", PUBLISHED]
    assert b"downloading liveditor_ckpt.bin" in said[0] and b"converting to int8_convrot" in said[-2]
    assert b"ready for Load LIVEditor" in said[-1]


def test_interrupted_while_downloading(server, hub, folder):
    hub.pause.clear()
    client = server.client
    choice = download_choice(client)
    ended = in_background(lambda: prepare(client, choice, "bf16"))
    wait_for(lambda: hub.asked and partials(folder))
    client.post("interrupt", {})
    time.sleep(0.2)
    for _ in range(40):  # a few pieces, as a network gives them
        hub.pause.set()
        time.sleep(0.005)
        hub.pause.clear()
    hub.pause.set()
    assert "interrupted" in str(ended())
    (partial,) = partials(folder)
    assert names(folder) == [LARGE, partial.name]
    came, hub.asked = partial.stat().st_size, []
    assert prepare(client, choice, "bf16")["prepare"]["liveditor_prepared"] == ["liveditor_14b_bf16.safetensors"]
    assert hub.asked == ([came] if came else [0]) and not partials(folder)


def test_the_network_gone_while_downloading(server, hub, folder):
    client = server.client
    choice, hub.cut_after, hub.gone_after = download_choice(client), 3_000_000, 1
    with pytest.raises(host.WorkflowFailed, match="the network is gone .*GB are kept. Run again to go on"):
        prepare(client, choice, "bf16")
    (partial,) = partials(folder)
    assert partial.stat().st_size >= 3_000_000
    came = partial.stat().st_size
    hub.gone, hub.gone_after, hub.cut_after, hub.asked = False, None, None, []
    prepare(client, choice, "bf16")
    assert hub.asked == [came] and names(folder) == [LARGE, "liveditor_14b_bf16.safetensors", PUBLISHED]


def test_interrupted_while_converting(server, folder):
    client = server.client
    ended = in_background(lambda: prepare(client, LARGE, SLOW))
    wait_for(lambda: partials(folder) and partials(folder)[0].stat().st_size > 1_000_000)
    client.post("interrupt", {})
    assert "interrupted" in str(ended())
    assert names(folder) == [LARGE]


@pytest.mark.skipif(sys.platform != "linux", reason="the limit is Linux's")
def test_the_disk_full_while_converting(server, folder):
    """A file that may grow no further."""
    import resource

    limits = resource.prlimit(server.pid, resource.RLIMIT_FSIZE, (10 << 20, resource.RLIM_INFINITY))
    try:
        with pytest.raises(
            host.WorkflowFailed, match="could not be written .File too large.; the part that was is remov"
        ):
            prepare(server.client, LARGE, SLOW)
    finally:
        resource.prlimit(server.pid, resource.RLIMIT_FSIZE, limits)
    assert names(folder) == [LARGE] and server.alive()


def test_killed_while_converting(start, folder):
    with start() as server:
        ended = in_background(lambda: prepare(server.client, LARGE, SLOW))
        wait_for(lambda: partials(folder) and partials(folder)[0].stat().st_size > 1_000_000)
        os.kill(server.pid, signal.SIGKILL)
        server.wait()
        assert ended() is not None
    assert names(folder) == [LARGE, f"large_{SLOW}.gguf.partial"]  # nothing under the file's own name
    with start() as server:
        assert not [each for each in menu(server.client, "LoadLIVEditor", "checkpoint") if SLOW in each]
        prepare(server.client, LARGE, SLOW)
    assert names(folder) == [LARGE, f"large_{SLOW}.gguf"]


def test_gguf_without_the_pack_that_reads_it(start, hub, base, folder):
    """Refused before download and conversion; a file that is there is not said to be missing."""
    (folder / "there.gguf").write_bytes(b"GGUF of another installation")
    link = base / "custom_nodes" / GGUF_NODE.name
    link.unlink()
    names_a_file = base / "custom_nodes" / "file_name.py"
    names_a_file.write_text(FILE_NAME)
    try:
        with start() as server:
            for source in (LARGE, download_choice(server.client)):
                with pytest.raises(
                    host.WorkflowFailed,
                    match=f"Prepare LIVEditor Model: {SLOW}: GGUF files are read through the node pack ComfyUI-GGUF, "
                    "which is not installed. Install it, or choose fp8 or int8. .* python -m liveditor_core",
                ):
                    prepare(server.client, source, SLOW)
            prompt = {
                "name": node("FileName", name="there.gguf"),
                "load": node(
                    "LoadLIVEditor",
                    checkpoint=["name", 0],
                    weight_type="default",
                    text_encoder="liveditor_nano_text_encoder.safetensors",
                    vae="liveditor_nano_vae.safetensors",
                ),
                "show": node("PreviewAny", source=["load", 0]),
            }
            with pytest.raises(
                host.WorkflowFailed, match="there.gguf: GGUF files are read through the node pack .* Install it, or"
            ):
                server.client.run(prompt)
    finally:
        names_a_file.unlink()
        link.symlink_to(GGUF_NODE)
    assert names(folder) == [LARGE, "there.gguf"] and not hub.asked
