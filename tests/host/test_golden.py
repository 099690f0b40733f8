"""Fidelity: against tensors made with the authors' code in fp32, through ComfyUI's own loader and KSampler."""

import host
import pytest
import torch

import comfy.sd
import nodes as host_nodes
from liveditor.liveditor_core.model.registration import SOURCE_KEY
from liveditor.liveditor_core.sampling.flow_unipc import wan_flow_sigmas

# Leaving out any one ingredient (gate, retrieval, sparse split, source stream) moves the result by 0.3 % or more.
TOLERANCE = 1e-4
CASES = [("aligned", "released"), ("ragged", "exact")]


@pytest.fixture
def model(library):
    return comfy.sd.load_diffusion_model(
        str(host.PACK / "tests" / "golden" / "aligned_weights.safetensors"), {"dtype": torch.float32}
    )


def relative_error(out, expected):
    return ((out - expected).norm() / expected.norm()).item()


def conditioning(model, io, name):
    source = model.model.process_latent_out(io["source_latent"][None])
    return [[torch.nn.functional.pad(io[name], (0, 0, 0, 512 - len(io[name])))[None], {SOURCE_KEY: source}]]


@pytest.mark.parametrize("case, tails", CASES)
def test_transformer(model, golden, case, tails):
    io = golden(f"{case}_io")
    text = conditioning(model, io, "context")[0][0]
    out = model.model.diffusion_model(
        io["noise"][None],
        torch.tensor([800.0]),
        text,
        transformer_options={},
        liveditor_source=io["source_latent"][None],
    )
    assert relative_error(out[0], io[f"velocity_t800_{tails}"]) < TOLERANCE


@pytest.mark.parametrize("case", ["aligned", "ragged"])
def test_schedule(golden, case):
    io = golden(f"{case}_io")
    sigmas = wan_flow_sigmas(6.0, len(io["timesteps"]))
    torch.testing.assert_close(sigmas, io["sigmas"], atol=1e-7, rtol=0)
    assert torch.equal((1000 * sigmas[:-1]).floor(), io["timesteps"].float())


@pytest.mark.parametrize("case, tails", CASES)
def test_sampling_through_ksampler(model, golden, monkeypatch, case, tails):
    io = golden(f"{case}_io")
    monkeypatch.setattr("comfy.sample.prepare_noise", lambda *args: io["noise"][None])
    empty = {"samples": torch.zeros_like(io["noise"])[None]}
    out = host_nodes.KSampler().sample(
        model,
        0,
        len(io["timesteps"]),
        2.5,
        "flow_unipc",
        "wan_flow",
        conditioning(model, io, "context"),
        conditioning(model, io, "context_null"),
        empty,
    )[0]["samples"]
    assert relative_error(model.model.process_latent_in(out)[0], io[f"sample_{tails}"]) < TOLERANCE
