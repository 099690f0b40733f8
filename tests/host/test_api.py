"""The nodes in a real server, as a user's graph runs them: results, progress, interrupt, and what bad input says."""

import copy
import json
import os
import struct
import subprocess
import sys
import threading
import types
import urllib.error

import av
import host
import numpy as np
import pytest
import tiny_models
import torch
from aiohttp import web
from host import key_of, set_inputs
from safetensors.torch import load_file, save_file

from liveditor.liveditor_core import host_contract
from liveditor.nodes import attention_route, shots_route

MODELS = host.RUN / "models"


def probe(path):
    with av.open(str(path)) as container:
        video = container.streams.video[0]
        frames = [frame.to_ndarray(format="rgb24") for frame in container.decode(video)]
        return {
            "frames": len(frames),
            "fps": float(video.average_rate),
            "size": (video.width, video.height),
            "audio": len(container.streams.audio),
            "pixels": np.stack(frames),
        }


def write_video(name, frames, size=(64, 48), fps=16, audio=False, picture=True):
    """Make an mp4 in ComfyUI's input folder."""
    with av.open(str(host.RUN / "input" / name), "w") as container:
        if picture:
            stream = container.add_stream("h264", rate=fps)
            stream.width, stream.height, stream.pix_fmt = (
                *size,
                "yuv420p" if size[0] % 2 == size[1] % 2 == 0 else "yuv444p",
            )
        sound = container.add_stream("aac", rate=48000, layout="mono") if audio else None
        for i in range(frames if picture else 0):
            image = np.full((size[1], size[0], 3), 40 + 10 * (i % 20), np.uint8)
            container.mux(stream.encode(av.VideoFrame.from_ndarray(image, format="rgb24")))
        if picture:
            container.mux(stream.encode(None))
        if sound:
            tone = np.sin(np.arange(48000 * frames // fps) / 20).astype(np.float32)[None]
            frame = av.AudioFrame.from_ndarray(tone, format="fltp", layout="mono")
            frame.sample_rate, frame.pts = 48000, 0
            container.mux(sound.encode(frame))
            container.mux(sound.encode(None))
    return name


def test_the_server_says_what_computes_the_attention(client):
    """For the canvas: on the CPU nothing was measured, and kernels for GPUs cannot run."""
    expected = {"auto": "pytorch", "pytorch": "pytorch", "dense": "dense", "triton": None, "tilelang": None}
    for backend, computes in expected.items():
        answer = client.get(f"api/liveditor/attention?backend={backend}")
        assert answer == {"computes": computes, "faster_from": None, "measured": False}
    with pytest.raises(urllib.error.HTTPError, match="400"):
        client.get("api/liveditor/attention?backend=sorcery")


@pytest.mark.parametrize("route", [attention_route, shots_route], ids=lambda route: route.PATH)
def test_a_pack_that_is_installed_twice_adds_one_route(route, monkeypatch):
    """The server would not start with two of the same path."""
    instance = types.SimpleNamespace(routes=web.RouteTableDef())
    server = types.SimpleNamespace(PromptServer=types.SimpleNamespace(instance=instance))
    monkeypatch.setitem(sys.modules, "server", server)
    route.register()
    route.register()
    assert [added.path for added in instance.routes] == [route.PATH]


def refused(client, prompt, *words):
    """The prompt must fail with a message that has all these words, and a good one must run after it."""
    with pytest.raises(host.WorkflowFailed) as failure:
        client.run(prompt)
    for word in words:
        assert word in str(failure.value), str(failure.value)


def test_nodes_are_described(client):
    info = client.get("object_info")
    chinese = client.get("i18n")["zh"]["nodeDefs"]
    own = [name for name, node in info.items() if node["python_module"] == "custom_nodes.ComfyUI-LIVEditor"]
    assert len(own) == len(host_contract.NODES)
    for name in own:
        node = info[name]
        assert node["search_aliases"]
        assert node["category"] == "LIVEditor" and node["description"]
        inputs = node["input"].get("required", {}) | node["input"].get("optional", {})
        for key, (_, *options) in inputs.items():
            assert options[0].get("tooltip"), f"{name}.{key} has no tooltip"
        assert chinese[name]["inputs"].keys() == inputs.keys() and len(chinese[name]["outputs"]) == len(node["output"])
        for language in ("en", "zh"):
            rows = (host.PACK / "web" / "docs" / name / f"{language}.md").read_text(encoding="utf-8").count("\n| ")
            assert rows > len(inputs), f"{language} help of {name} lacks inputs"
    assert "flow_unipc" in info["KSampler"]["input"]["required"]["sampler_name"][0]
    assert "wan_flow" in info["KSampler"]["input"]["required"]["scheduler"][0]


def test_a_pack_with_a_node_of_the_same_name(client):
    """Ids are global: each pack must have its own under it."""
    info = client.get("object_info")
    ours, theirs = info["LIVEditCompareVideos"], info["CompareVideos"]
    assert ours["python_module"] == "custom_nodes.ComfyUI-LIVEditor" and ours["display_name"] == "Compare Videos"
    assert theirs["display_name"] == "Theirs"
    prompt = {
        "theirs": {"class_type": "CompareVideos", "inputs": {"text": "as it was"}, "_meta": {"title": "Theirs"}},
        "show": {"class_type": "PreviewAny", "inputs": {"source": ["theirs", 0]}},
    }
    assert client.run(prompt)["show"]["text"] == ["theirs: as it was"]


def test_a_prompt_with_the_ids_of_before(client):
    workflow = json.loads((host.PACK / "workflows" / "liveditor_inspect.json").read_text(encoding="utf-8"))
    prompt = client.to_api(workflow)
    set_inputs(prompt, "LoadVideo", file="carphone_pristine.mp4")
    set_inputs(prompt, "EncodeSourceVideo", width=128, height=80, max_frames=9)
    set_inputs(prompt, "LIVEditSampler", steps=2)
    report = {"class_type": "PreviewAny", "inputs": {"source": [key_of(prompt, "LIVEditInspectAttention"), 3]}}
    for name in ("RecordAttention", "InspectAttention"):
        prompt[key_of(prompt, f"LIVEdit{name}")]["class_type"] = name
    assert "step 2: the most retrieved part" in client.run(prompt | {"report": report})["report"]["text"][0]


def test_the_client_script_edits_a_video(client, tmp_path):
    script = host.PACK / "workflows" / "api" / "edit.py"
    assert sum(bool(line.strip()) for line in script.read_text(encoding="utf-8").splitlines()) <= 25
    edit = [sys.executable, str(script), str(host.CLIPS / "carphone_pristine.mp4")]
    subprocess.run(
        [*edit, "invert the colours", str(tmp_path / "edited.mp4"), f"http://{client.address}"], check=True, timeout=300
    )
    out = probe(tmp_path / "edited.mp4")
    assert out["frames"] == 17 and out["size"] == (256, 112) and out["pixels"].std() > 20
    (tmp_path / "no.mp4").write_text("no video")
    failed = subprocess.run(
        [
            *edit[:2],
            str(tmp_path / "no.mp4"),
            "invert the colours",
            str(tmp_path / "not.mp4"),
            f"http://{client.address}",
        ],
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert failed.returncode and not (tmp_path / "not.mp4").exists()


@pytest.mark.parametrize("frames", [1, 6, 8, 9])
def test_as_many_frames_out_as_in(client, edit_prompt, frames):
    set_inputs(edit_prompt, "LoadVideo", file=write_video(f"frames{frames}.mp4", frames))
    set_inputs(edit_prompt, "EncodeSourceVideo", max_frames=0)
    out = probe(host.saved_file(client.run(edit_prompt)))
    assert out["frames"] == frames and out["fps"] == 16 and out["size"] == (64, 48) and out["audio"] == 0


def test_size_rate_length_and_sound_of_the_source(client, edit_prompt):
    set_inputs(edit_prompt, "LoadVideo", file="bigbuckbunny.mp4")
    set_inputs(edit_prompt, "EncodeSourceVideo", max_frames=10, start=1.0)
    set_inputs(edit_prompt, "DecodeVideo", fps="as the source", original_size=True)
    out = probe(host.saved_file(client.run(edit_prompt)))
    assert (
        out["frames"] == 16 and out["fps"] == 25 and out["size"] == (1280, 720) and out["audio"] == 1
    )  # 10 frames at 16 fps last 16 at 25


@pytest.mark.parametrize("fit", ["crop", "pad", "stretch"])
def test_odd_sizes(client, edit_prompt, fit):
    set_inputs(edit_prompt, "LoadVideo", file=write_video("odd.mp4", 5, size=(101, 67)))
    set_inputs(edit_prompt, "EncodeSourceVideo", fit=fit)
    set_inputs(edit_prompt, "DecodeVideo", original_size=True)
    edit_prompt["images"] = {
        "class_type": "GetVideoComponents",
        "inputs": {"video": [key_of(edit_prompt, "DecodeVideo"), 0]},
    }
    edit_prompt["save"] = {
        "class_type": "SaveImage",
        "inputs": {"images": ["images", 0], "filename_prefix": f"odd_{fit}"},
    }
    del edit_prompt[key_of(edit_prompt, "SaveVideo")]  # H.264 itself cannot hold odd sizes; the frames can
    saved = client.run(edit_prompt)["save"]["images"]
    assert len(saved) == 5
    from PIL import Image

    assert Image.open(host.RUN / "output" / saved[0]["filename"]).size == (101, 67)


def test_images_as_input(client, edit_prompt):
    edit_prompt["frames"] = {
        "class_type": "GetVideoComponents",
        "inputs": {"video": [key_of(edit_prompt, "LoadVideo"), 0]},
    }
    set_inputs(edit_prompt, "EncodeSourceVideo", video=["frames", 0], image_fps=30.0, fps="as the source", max_frames=7)
    out = probe(host.saved_file(client.run(edit_prompt)))
    assert out["frames"] == 7 and out["fps"] == 30


def test_stock_workflow_gives_the_same_latent(client, edit_prompt):
    """Load Diffusion Model -> KSampler against LIVEdit Sampler, both saved with Save Latent."""
    stock = copy.deepcopy(edit_prompt)
    encode = stock[key_of(stock, "EncodeSourceVideo")]["inputs"]
    sampler_key = key_of(stock, "LIVEditSampler")
    sampler = stock[sampler_key]["inputs"]
    encode |= {"positive": sampler["positive"], "negative": sampler["negative"]}
    source = key_of(stock, "EncodeSourceVideo")
    stock["unet"] = {
        "class_type": "UNETLoader",
        "inputs": {"unet_name": tiny_models.TRANSFORMER, "weight_dtype": "default"},
    }
    stock[sampler_key] = {
        "class_type": "KSampler",
        "inputs": {
            "model": ["unet", 0],
            "positive": [source, 1],
            "negative": [source, 2],
            "latent_image": [source, 3],
            "seed": sampler["seed"],
            "steps": sampler["steps"],
            "cfg": sampler["cfg"],
            "sampler_name": "flow_unipc",
            "scheduler": "wan_flow",
            "denoise": 1.0,
        },
    }
    latents = []
    for prompt in (edit_prompt, stock):
        prompt["latent"] = {
            "class_type": "SaveLatent",
            "inputs": {"samples": [sampler_key, 0], "filename_prefix": "latents/test"},
        }
        item = client.run(prompt)["latent"]["latents"][0]
        latents.append(load_file(host.RUN / item["type"] / item["subfolder"] / item["filename"])["latent_tensor"])
    assert torch.equal(*latents)


def test_two_settings_in_one_graph(client, edit_prompt):
    sampler = edit_prompt[key_of(edit_prompt, "LIVEditSampler")]
    settings = edit_prompt[key_of(edit_prompt, "SparseAttentionSettings")]
    edit_prompt["settings2"] = {
        "class_type": "SparseAttentionSettings",
        "inputs": settings["inputs"] | {"backend": "dense"},
    }
    edit_prompt["sampler2"] = {
        "class_type": "LIVEditSampler",
        "inputs": sampler["inputs"] | {"model": ["settings2", 0]},
    }
    set_inputs(edit_prompt, "EncodeSourceVideo", width=160, height=128)
    keys = [next(k for k, n in edit_prompt.items() if n is sampler), "sampler2"]
    for key in keys:
        edit_prompt[f"latent{key}"] = {
            "class_type": "SaveLatent",
            "inputs": {"samples": [key, 0], "filename_prefix": "latents/two"},
        }
    outputs = client.run(edit_prompt)
    items = [outputs[f"latent{key}"]["latents"][0] for key in keys]
    sparse, dense = (load_file(host.RUN / i["type"] / i["subfolder"] / i["filename"])["latent_tensor"] for i in items)
    assert not torch.equal(sparse, dense) and torch.isfinite(sparse).all() and torch.isfinite(dense).all()


def test_the_precision_of_attention_may_be_missing(client, edit_prompt):
    """In prompts that were made before there was such a setting; where 8 bit cannot be, the report says why."""
    settings = key_of(edit_prompt, "SparseAttentionSettings")
    edit_prompt["show"] = {"class_type": "PreviewAny", "inputs": {"source": [settings, 1]}}
    set_inputs(edit_prompt, "SparseAttentionSettings", precision_of_attention="8 bit")
    assert "\n8 bit: needs an NVIDIA GPU" in client.run(edit_prompt)["show"]["text"][0]
    del edit_prompt[settings]["inputs"]["precision_of_attention"]
    text = client.run(edit_prompt)["show"]["text"][0]
    assert text.startswith("attention: ") and "8 bit" not in text


def test_progress_and_previews(client, edit_prompt):
    progress, previews = [], []
    set_inputs(edit_prompt, "LIVEditSampler", steps=3, seed=1)

    def record(message):
        if isinstance(message, bytes) and struct.unpack(">I", message[:4])[0] in (1, 4):
            previews.append(message)
        elif (
            isinstance(message, dict)
            and message["type"] == "progress"
            and message["data"]["node"] == key_of(edit_prompt, "LIVEditSampler")
        ):
            progress.append((message["data"]["value"], message["data"]["max"]))

    client.run(edit_prompt, record)
    assert progress == [(1, 3), (2, 3), (3, 3)]
    assert len(previews) >= 3


def test_interrupt_within_one_model_call(client, edit_prompt):
    set_inputs(edit_prompt, "LIVEditSampler", steps=1000, seed=2)
    asked = []

    def interrupt_after_two_steps(message):
        if isinstance(message, dict) and message["type"] == "progress" and message["data"]["max"] == 1000:
            asked.append(message["data"]["value"])
            if message["data"]["value"] == 2:
                threading.Thread(target=client.post, args=("interrupt", {})).start()

    with pytest.raises(host.WorkflowFailed, match="interrupted"):
        client.run(edit_prompt, interrupt_after_two_steps)
    assert asked[-1] <= 6, "sampling went on for several steps after the interrupt"
    set_inputs(edit_prompt, "LIVEditSampler", steps=2)
    client.run(edit_prompt)


def test_not_a_video(client, edit_prompt):
    (host.RUN / "input" / "text.mp4").write_text("this is no video")
    set_inputs(edit_prompt, "LoadVideo", file="text.mp4")
    refused(client, edit_prompt, "Encode Source Video: text.mp4: must be a video", "Choose another file")


def test_no_picture(client, edit_prompt):
    set_inputs(edit_prompt, "LoadVideo", file=write_video("sound.mp4", 16, audio=True, picture=False))
    refused(client, edit_prompt, "Encode Source Video: sound.mp4: must be a video", "with a picture")


def test_start_after_the_end(client, edit_prompt):
    set_inputs(edit_prompt, "EncodeSourceVideo", start=60.0)
    refused(client, edit_prompt, "at least one frame after its start, got none after 60 s", "an earlier start")


def test_size_not_a_multiple_of_16(client, edit_prompt):
    set_inputs(edit_prompt, "EncodeSourceVideo", width=100)
    refused(client, edit_prompt, "width must be a multiple of 16, got 100. Use 96")


def checkpoint(name, weights=None, data=None):
    """Put a file among the diffusion models."""
    path = MODELS / "diffusion_models" / name
    if weights is not None:
        save_file(weights, path)
    else:
        path.write_bytes(data)
    return name


def tiny_weights():
    return load_file(MODELS / "diffusion_models" / tiny_models.TRANSFORMER)


def test_corrupt_checkpoint(client, edit_prompt):
    data = (MODELS / "diffusion_models" / tiny_models.TRANSFORMER).read_bytes()
    set_inputs(edit_prompt, "LoadLIVEditor", checkpoint=checkpoint("truncated.safetensors", data=data[:-1000]))
    refused(
        client,
        edit_prompt,
        "Load LIVEditor: truncated.safetensors: the file is truncated or damaged",
        "Download or convert it again",
    )


def test_pickle_with_code_does_not_run(client, edit_prompt, tmp_path):
    class Code:
        def __reduce__(self):
            return os.system, (f"touch {tmp_path / 'ran'}",)

    torch.save({"state_dict": Code()}, MODELS / "diffusion_models" / "code.pt")
    set_inputs(edit_prompt, "LoadLIVEditor", checkpoint="code.pt")
    refused(
        client,
        edit_prompt,
        "Load LIVEditor: code.pt: a LIVEditor checkpoint must be a safetensors file",
        "checkpoint convert",
    )
    assert not (tmp_path / "ran").exists()


def test_plain_wan_checkpoint(client, edit_prompt):
    weights = {k: v for k, v in tiny_weights().items() if "source_video" not in k and "alpha" not in k}
    set_inputs(edit_prompt, "LoadLIVEditor", checkpoint=checkpoint("wan.safetensors", weights))
    refused(
        client,
        edit_prompt,
        "wan.safetensors: this is a Wan model without a source stream",
        "Choose a LIVEditor checkpoint",
    )


def test_missing_weights_are_named(client, edit_prompt):
    weights = {k: v for k, v in tiny_weights().items() if k != "blocks.1.self_attn.alpha_1.weight"}
    set_inputs(edit_prompt, "LoadLIVEditor", checkpoint=checkpoint("lacking.safetensors", weights))
    refused(client, edit_prompt, "lacking.safetensors: 1 weights are missing: blocks.1.self_attn.alpha_1.weight")


def test_nan_weights(client, edit_prompt):
    weights = tiny_weights()
    weights["blocks.0.ffn.0.weight"][:] = float("nan")
    set_inputs(edit_prompt, "LoadLIVEditor", checkpoint=checkpoint("nan.safetensors", weights))
    refused(client, edit_prompt, "NaN or infinity in block 0 of 2", "weight type")


def test_another_vae(client, edit_prompt):
    set_inputs(edit_prompt, "LoadLIVEditor", vae="pixel_space")
    refused(client, edit_prompt, "pixel_space")


def test_a_file_that_is_no_vae_is_named(client, edit_prompt):
    save_file({"weight": torch.zeros(4)}, MODELS / "vae" / "no_vae.safetensors")
    set_inputs(edit_prompt, "LoadLIVEditor", vae="no_vae.safetensors")
    refused(client, edit_prompt, "no_vae.safetensors: must be a VAE", "Choose wan_2.1_vae.safetensors")


def test_missing_source_on_one_conditioning(client, edit_prompt):
    sampler = edit_prompt[key_of(edit_prompt, "LIVEditSampler")]["inputs"]
    source = key_of(edit_prompt, "EncodeSourceVideo")
    edit_prompt[source]["inputs"]["positive"] = sampler["positive"]
    stock = {
        "model": sampler["model"],
        "positive": [source, 1],
        "negative": sampler["negative"],
        "latent_image": [source, 3],
        "seed": 1,
        "steps": 1,
        "cfg": 2.5,
        "sampler_name": "flow_unipc",
        "scheduler": "wan_flow",
        "denoise": 1.0,
    }
    edit_prompt[key_of(edit_prompt, "LIVEditSampler")] = {"class_type": "KSampler", "inputs": stock}
    refused(client, edit_prompt, "the negative conditioning carries no source video", "Encode Source Video")


def pngs(client, prompt, **images):
    """Run a prompt and get some of its IMAGEs without loss, uint8."""
    saves = {
        name: {"class_type": "SaveImage", "inputs": {"images": output, "filename_prefix": f"api/{name}"}}
        for name, output in images.items()
    }
    outputs = client.run(prompt | saves)
    return [
        np.concatenate(
            [
                probe(host.RUN / image["type"] / image["subfolder"] / image["filename"])["pixels"]
                for image in outputs[name]["images"]
            ]
        )
        for name in images
    ]


def add_rectangle_mask(prompt, size, corner, inner):
    """A MASK of `size` that is 1 in a rectangle, by stock nodes; its output."""
    for name, value, (width, height) in (("nothing", 0.0, size), ("all", 1.0, inner)):
        prompt[name] = {"class_type": "SolidMask", "inputs": {"value": value, "width": width, "height": height}}
    prompt["mask"] = {
        "class_type": "MaskComposite",
        "inputs": {
            "destination": ["nothing", 0],
            "source": ["all", 0],
            "x": corner[0],
            "y": corner[1],
            "operation": "add",
        },
    }
    return ["mask", 0]


@pytest.mark.parametrize("per_frame", [False, True])
def test_outside_a_mask_every_pixel_is_the_sources(client, edit_prompt, per_frame):
    """At the source's own size and rate, against the frames that the host reads.

    Carphone is 176x144, 30 frames a second.
    """
    host.remove(edit_prompt, "SaveVideo")
    mask = add_rectangle_mask(edit_prompt, (176, 144), (50, 40), (60, 50))
    edit_prompt["original"] = {
        "class_type": "GetVideoComponents",
        "inputs": {"video": [key_of(edit_prompt, "LoadVideo"), 0]},
    }
    edit_prompt["part"] = {
        "class_type": "ImageFromBatch",
        "inputs": {"image": ["original", 0], "batch_index": 4, "length": 17},
    }
    if per_frame:  # as segmentation nodes give them, for the whole video: the frames themselves where they are bright
        edit_prompt["bright"] = {"class_type": "ImageToMask", "inputs": {"image": ["original", 0], "channel": "red"}}
        edit_prompt["threshold"] = {"class_type": "ThresholdMask", "inputs": {"mask": ["bright", 0], "value": 0.5}}
        mask = ["threshold", 0]
    set_inputs(edit_prompt, "EncodeSourceVideo", start=0.11)  # between two frames
    set_inputs(edit_prompt, "LIVEditSampler", mask=mask)
    set_inputs(edit_prompt, "DecodeVideo", original_size=True, fps="as the source")  # the latent brings the mask along
    edit_prompt["drawn"] = {"class_type": "MaskToImage", "inputs": {"mask": mask}}
    edited, source, inside = pngs(
        client, edit_prompt, edited=[key_of(edit_prompt, "DecodeVideo"), 1], source=["part", 0], inside=["drawn", 0]
    )
    assert edited.shape == source.shape == (17, 144, 176, 3)
    inside = inside[4:21, ..., 0] > 0 if per_frame else np.broadcast_to(inside[..., 0] > 0, source.shape[:3])
    assert 0.05 < inside.mean() < 0.95
    assert (edited != source)[~inside].sum() == 0
    assert (edited != source)[inside].mean() > 0.9


def test_masks_of_another_video(client, edit_prompt):
    edit_prompt["mask"] = {"class_type": "SolidMask", "inputs": {"value": 1.0, "width": 64, "height": 48}}
    edit_prompt["two"] = {"class_type": "RepeatImageBatch", "inputs": {"image": ["image", 0], "amount": 2}}
    edit_prompt["image"] = {"class_type": "MaskToImage", "inputs": {"mask": ["mask", 0]}}
    edit_prompt["masks"] = {"class_type": "ImageToMask", "inputs": {"image": ["two", 0], "channel": "red"}}
    set_inputs(edit_prompt, "DecodeVideo", mask=["masks", 0])
    refused(
        client, edit_prompt, "Mask: must be one for all frames, or one for each of the 9 edited frames", "got 2 masks"
    )


def test_latent_of_another_size(client, edit_prompt):
    edit_prompt["other"] = {
        "class_type": "EmptyHunyuanLatentVideo",
        "inputs": {"width": 96, "height": 96, "length": 9, "batch_size": 1},
    }
    edit_prompt[key_of(edit_prompt, "DecodeVideo")]["inputs"]["samples"] = ["other", 0]
    refused(client, edit_prompt, "Decode Video: the latent must be of the source's size")


def test_wrong_values_are_node_errors(client, edit_prompt):
    set_inputs(edit_prompt, "SparseAttentionSettings", sar=1.5)
    set_inputs(edit_prompt, "LoadLIVEditor", checkpoint="nowhere.safetensors")
    answer = client.post("prompt", {"prompt": edit_prompt, "client_id": client.id})
    details = str(answer["node_errors"])
    assert "value_bigger_than_max" in details and "value_not_in_list" in details


def test_everything_still_works_after_all_that(client, edit_prompt):
    set_inputs(edit_prompt, "LIVEditSampler", seed=99)
    assert probe(host.saved_file(client.run(edit_prompt)))["frames"] == 9
