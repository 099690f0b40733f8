"""Fixtures with a real ComfyUI: its server in a process of its own, and ComfyUI as a library in this one."""

import json
import os
import shutil

import comfy_library  # noqa: F401  (before anything of ComfyUI)
import host
import pytest
import sampling
import tiny_models
import torch
from safetensors.torch import load_file

import comfy.sd
import comfy.utils
from liveditor.liveditor_core.model import registration
from liveditor.liveditor_core.model.registration import SOURCE_KEY
from liveditor.liveditor_core.sampling import flow_unipc

registration.register()
flow_unipc.register()


@pytest.fixture(scope="session")
def server():
    tiny_models.make_in_subprocess()
    for name in ("bikes.mp4", "bigbuckbunny.mp4", "carphone_pristine.mp4"):
        shutil.copy(host.CLIPS / name, host.RUN / "input" / name)
    os.environ["LIVEDITOR_TEST_SUPPORT"] = str(host.PACK / "tests" / "support")
    for name in ("clip_node.py", "fault_node.py", "footage_nodes.py", "same_id_node.py"):
        shutil.copy(host.PACK / "tests" / "support" / name, host.RUN / "custom_nodes" / name)
    with host.Server(arguments=["--preview-method", "latent2rgb"]) as running:
        yield running


@pytest.fixture
def client(server):
    """A client of the server; the server must outlive the test."""
    yield server.client
    assert server.alive(), server.log_text()[-3000:]


@pytest.fixture
def edit_prompt(client):
    """The shipped main workflow in API format, small enough for a CPU: 9 frames of 64x48, 2 steps."""
    workflow = json.loads((host.PACK / "workflows" / "liveditor_edit.json").read_text(encoding="utf-8"))
    prompt = client.to_api(workflow)
    host.remove(prompt, "LIVEditCompareVideos")
    host.set_inputs(prompt, "LoadVideo", file="carphone_pristine.mp4")
    host.set_inputs(
        prompt,
        "LoadLIVEditor",
        checkpoint=tiny_models.TRANSFORMER,
        text_encoder=tiny_models.TEXT_ENCODER,
        vae=tiny_models.VAE,
    )
    host.set_inputs(prompt, "EncodeSourceVideo", size="custom", width=64, height=48, max_frames=9)
    host.set_inputs(prompt, "LIVEditSampler", steps=2)
    return prompt


@pytest.fixture
def library():
    """ComfyUI as a library runs everything under inference mode, as its server does."""
    with torch.inference_mode():
        yield


@pytest.fixture(scope="session")
def tiny_model_path(tmp_path_factory):
    from safetensors.torch import save_file

    path = tmp_path_factory.mktemp("models") / "tiny.safetensors"
    save_file(tiny_models.transformer(), path)
    return path


@pytest.fixture
def tiny_model(library, tiny_model_path):
    """A fresh tiny LIVEditor MODEL from ComfyUI's own loader, fp32."""
    return comfy.sd.load_diffusion_model(str(tiny_model_path), {"dtype": torch.float32})


@pytest.fixture
def tiny_vae(library):
    """A fresh VAE of the host's on the CPU, with random weights and eight channels at full size."""
    tiny_models.make_in_subprocess()
    path = host.RUN / "models" / "vae" / tiny_models.VAE
    sd, metadata = comfy.utils.load_torch_file(str(path), return_metadata=True)
    return comfy.sd.VAE(sd=sd, metadata=metadata, device=torch.device("cpu"))


@pytest.fixture
def golden():
    """The golden tensors of one case: function of its name."""
    return lambda name: load_file(host.PACK / "tests" / "golden" / f"{name}.safetensors")


@pytest.fixture
def latent():
    return torch.randn(
        1, 16, sampling.FRAMES, sampling.HEIGHT, sampling.WIDTH, generator=torch.Generator().manual_seed(1)
    )


@pytest.fixture
def conditioning(latent):
    """Positive and negative with the source attached."""
    text = torch.randn(2, 1, 77, 4096, generator=torch.Generator().manual_seed(2))
    return [[[t, {SOURCE_KEY: latent}]] for t in text]
