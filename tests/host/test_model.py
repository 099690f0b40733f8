"""LIVEditor as an ordinary MODEL of ComfyUI: what stock nodes do to a Wan model they do to this one."""

import csv
import logging
import re

import host
import pytest
import tiny_models
import torch
from safetensors.torch import load_file, save_file
from sampling import FRAMES, HEIGHT, STEPS, WIDTH, recording, sample, source_video

import comfy.ops
import comfy.patcher_extension
import comfy.sd
import comfy.supported_models
import nodes as host_nodes
from comfy_extras.nodes_context_windows import WanContextWindowsManualNode
from comfy_extras.nodes_easycache import EasyCacheNode
from comfy_extras.nodes_video_model import ConditioningSetAreaPercentageVideo
from liveditor.kernels import token_ops
from liveditor.liveditor_core.attention.config import OPTIONS_KEY
from liveditor.liveditor_core.checkpoint import weights as checkpoint_weights
from liveditor.liveditor_core.checkpoint.convert import convert_checkpoint
from liveditor.liveditor_core.model import block, fp8_inputs, make_room, memory_estimate, registration
from liveditor.liveditor_core.model.registration import SOURCE_KEY, LIVEditor, LIVEditorT2V
from liveditor.liveditor_core.sampling import flow_unipc
from liveditor.liveditor_core.sampling.fingerprint import fingerprint
from liveditor.nodes.inspect_attention import InspectAttention
from liveditor.nodes.live_edit_sampler import LIVEditSampler
from liveditor.nodes.record_attention import RecordAttention
from liveditor.nodes.sparse_attention_settings import SparseAttentionSettings


def settings_node(model, **changes):
    values = {
        "sar": 0.0625,
        "srr": 0.125,
        "flat_ratio": 0.5,
        "backend": "auto",
        "dense_half": "sharpest (as released)",
    } | changes
    return SparseAttentionSettings.execute(model, **values)


def settings(model, **changes):
    return settings_node(model, **changes)[0]


def test_registered_once_and_before_wan():
    before = list(comfy.supported_models.models)
    registration.register()
    flow_unipc.register()
    assert comfy.supported_models.models == before
    assert before.index(LIVEditorT2V) < before.index(comfy.supported_models.WAN21_T2V)
    assert host_nodes.KSampler.INPUT_TYPES()["required"]["sampler_name"][0].count("flow_unipc") == 1
    assert host_nodes.KSampler.INPUT_TYPES()["required"]["scheduler"][0].count("wan_flow") == 1


def test_stock_loader_builds_liveditor_and_wan_stays_wan(library, tiny_model, tiny_model_path, tmp_path):
    assert isinstance(tiny_model.model, LIVEditor)
    assert tiny_model.model.model_sampling.shift == 6.0
    assert tiny_model.cached_patcher_init is not None
    plain = {k: v for k, v in load_file(tiny_model_path).items() if "alpha" not in k and "source_video" not in k}
    save_file(plain, tmp_path / "wan.safetensors")
    assert type(comfy.sd.load_diffusion_model(str(tmp_path / "wan.safetensors")).model).__name__ == "WAN21"


def test_loads_every_weight(library, tiny_model_path, caplog):
    with caplog.at_level(logging.INFO):
        comfy.sd.load_diffusion_model(str(tiny_model_path))
    assert not [r.message for r in caplog.records if "missing" in r.message or "unexpected" in r.message]


def test_sampler_node_equals_ksampler_bit_for_bit(tiny_model, conditioning, latent):
    expected = sample(tiny_model, conditioning, latent, steps=3)
    bare = [[[text, {}]] for ((text, _),) in conditioning]
    out = LIVEditSampler.execute(tiny_model, *bare, source_video(latent), 7, 3, 2.5, 6.0)[0]["samples"]
    assert torch.equal(out, expected)
    other_shift = LIVEditSampler.execute(tiny_model, *bare, source_video(latent), 7, 3, 2.5, 3.0)[0]["samples"]
    assert not torch.equal(other_shift, expected)


def test_with_a_mask_the_latent_is_the_sources_outside(tiny_model, conditioning, latent):
    bare = [[[text, {}]] for ((text, _),) in conditioning]
    mask = torch.zeros(1, HEIGHT * 8, WIDTH * 8)
    mask[..., WIDTH * 4 :] = 1
    out = LIVEditSampler.execute(tiny_model, *bare, source_video(latent), 7, 3, 2.5, 6.0, mask)[0]["samples"]
    kept, edited = (out - latent).abs()[..., : WIDTH // 2], (out - latent).abs()[..., WIDTH // 2 :]
    assert kept.max() < 1e-5 and edited.mean() > 0.1


def test_recording_changes_nothing_and_is_begun_anew_by_every_run(tiny_model, conditioning, latent):
    expected = sample(tiny_model, conditioning, latent, steps=3)
    model, record = RecordAttention.execute(settings(tiny_model, srr=0.5), "1, last", "all").result
    assert not torch.equal(sample(model, conditioning, latent, steps=3), expected), "another SRR must have an effect"
    model, record = RecordAttention.execute(tiny_model, "1, last", "all").result
    assert torch.equal(sample(model, conditioning, latent, steps=3), expected)
    assert set(record.choices) == {(step, block) for step in (1, 3) for block in range(tiny_models.LAYERS)}
    first = record.choices[1, 0]
    sample(model, conditioning, latent, steps=2, seed=8)
    assert set(record.choices) == {(step, block) for step in (1, 2) for block in range(tiny_models.LAYERS)}
    assert not torch.equal(record.choices[1, 0].sharpness, first.sharpness)
    assert (
        not torch.equal(sample(RecordAttention.execute(model, "all", "0")[0], conditioning, latent), expected)
        and len(record.choices) == 4
    ), "a second recorder replaces the first"


def test_the_inspector_shows_what_was_recorded_and_refuses_what_was_not(tiny_model, conditioning, latent):
    source = source_video(latent, torch.rand(17, HEIGHT * 8, WIDTH * 8, 3))
    model, record = RecordAttention.execute(tiny_model, "1", "all").result

    def inspect(step=0, block=-1, head=-1, source=source):
        return InspectAttention.execute(record, source, {"samples": edit}, step, block, head, 0.5).result

    edit = latent

    with pytest.raises(
        ValueError, match="Inspect Attention: the record must come from the run that made the latent, got an empty one"
    ):
        inspect()
    edit = sample(model, conditioning, latent)
    video, frames, plots, report = inspect()
    assert frames.shape == (17, HEIGHT * 8, WIDTH * 8, 3) and torch.equal(video.get_components().images, frames)
    assert plots.shape[-1] == 3 and "step 1, block 1: each head reads 1 source blocks" in report
    assert not torch.equal(inspect(block=0, head=0)[1], inspect(block=1, head=0)[1])
    for wrong, message in (
        ({"step": 2}, r"step must be one that was recorded \(1\), got 2"),
        ({"block": 7}, r"block must be one that was recorded \(0, 1\), got 7"),
        ({"head": 2}, "head must be one of the model's 2, counted from 0, got 2"),
        ({"source": source_video(latent[:, :, :3])}, "the record must be of the source's size"),
    ):
        with pytest.raises(ValueError, match=message):
            inspect(**wrong)
    again = sample(model, conditioning, latent, seed=8)
    with pytest.raises(ValueError, match="must be of the run that made the latent, got another run's"):
        inspect()
    edit = again
    assert inspect()[3]
    edit = sample(settings(model, backend="dense"), conditioning, latent)
    with pytest.raises(ValueError, match="got a run that was dense everywhere"):
        inspect()
    for text in ("", "1 2", "first"):
        assert "Record Attention: steps must be" in RecordAttention.validate_inputs(steps=text)
        with pytest.raises(ValueError, match="Record Attention: steps must be"):  # as a linked text
            RecordAttention.execute(tiny_model, text, "all")
    assert RecordAttention.validate_inputs(steps="1, last", blocks=None) is True


def test_source_matters(tiny_model, conditioning, latent):
    other = [[[text, {SOURCE_KEY: latent.flip(-1)}]] for ((text, _),) in conditioning]
    assert not torch.allclose(sample(tiny_model, conditioning, latent), sample(tiny_model, other, latent), atol=1e-3)


@pytest.mark.parametrize(
    "sampler, scheduler", [("euler", "simple"), ("uni_pc", "normal"), ("dpmpp_2m", "beta"), ("flow_unipc", "simple")]
)
def test_other_samplers_run(tiny_model, conditioning, latent, sampler, scheduler):
    sample(tiny_model, conditioning, latent, sampler, scheduler)


def test_wan_flow_refuses_other_models(library):
    with pytest.raises(ValueError, match="wan_flow: needs a flow model"):
        flow_unipc.wan_flow_scheduler(object(), 4)


def test_odd_latent_sizes(tiny_model, conditioning, latent):
    odd = latent[..., : HEIGHT - 1, : WIDTH - 1]
    sample(tiny_model, [[[c[0][0], {SOURCE_KEY: odd}]] for c in conditioning], odd)


def test_batch_of_two(tiny_model, conditioning, latent):
    single = sample(tiny_model, conditioning, latent)
    double = host_nodes.KSampler().sample(
        tiny_model,
        7,
        STEPS,
        2.5,
        "flow_unipc",
        "wan_flow",
        *conditioning,
        {"samples": torch.zeros(2, *latent.shape[1:])},
    )[0]["samples"]
    assert double.shape[0] == 2 and not torch.allclose(double[0], double[1], atol=1e-2)
    torch.testing.assert_close(double[:1], single, atol=1e-4, rtol=1e-4)


def test_lora_on_q_changes_the_output(tiny_model, conditioning, latent):
    generator = torch.Generator().manual_seed(3)
    key = "diffusion_model.blocks.0.self_attn.q"
    lora = {
        f"{key}.lora_A.weight": torch.randn(4, 256, generator=generator),
        f"{key}.lora_B.weight": torch.randn(256, 4, generator=generator),
    }
    with_lora, _ = comfy.sd.load_lora_for_models(tiny_model, None, lora, 1.0, 0.0)
    assert with_lora.patches, "the LoRA found no weight"
    plain = sample(tiny_model, conditioning, latent)
    assert not torch.allclose(sample(with_lora, conditioning, latent), plain, atol=1e-3)
    assert torch.equal(sample(tiny_model, conditioning, latent), plain), (
        "the LoRA stayed in the model it was not given to"
    )


@pytest.mark.parametrize(
    "name, known",
    [("diffusion_model.{}.{}.weight", True), ("lora_unet_{}.{}.weight", True), ("another_model.{}.{}.weight", False)],
)
def test_lora_files_of_wan_apply_and_the_rest_is_named(tiny_model, caplog, name, known):
    """In the ways that LoRA files for Wan name their layers; every layer of a block is found, what is not is said."""
    layers = [
        f"blocks.1.{layer}"
        for layer in (*(f"{a}.{x}" for a in ("self_attn", "cross_attn") for x in "qkvo"), "ffn.0", "ffn.2")
    ] + ["blocks.1.cross_attn.k_img"]
    widths = {"ffn.0": (256, 512), "ffn.2": (512, 256)}
    lora = {}
    for layer in layers:
        inputs, outputs = widths.get(layer[len("blocks.1.") :], (256, 256))
        key = layer.replace(".", "_") if name.startswith("lora_unet") else layer
        down, up = ("lora_A", "lora_B") if name.startswith("diffusion_model") else ("lora_down", "lora_up")
        lora |= {name.format(key, down): torch.ones(4, inputs), name.format(key, up): torch.ones(outputs, 4)}
    with caplog.at_level(logging.WARNING):
        with_lora, _ = comfy.sd.load_lora_for_models(tiny_model, None, lora, 1.0, 0.0)
    unknown = [record.message for record in caplog.records if "not loaded" in record.message]
    assert len(with_lora.patches) == (10 if known else 0)
    assert all("k_img" in message for message in unknown) if known else len(unknown) == len(lora)
    assert any("k_img" in message for message in unknown)


class Packed(torch.Tensor):
    """A weight whose numbers are bytes, as loaders of packed files bring them.

    Its layer's `scale` makes them floats again.
    """

    @staticmethod
    def of(weight):
        packed = (weight / weight.abs().amax() * 127).round().to(torch.int8).as_subclass(Packed)
        packed.scale = weight.abs().amax().item() / 127
        return packed


class PackedOps(comfy.ops.manual_cast):
    """Operations of a loader of packed files: a linear layer keeps its weight packed and unpacks it for every call."""

    class Linear(comfy.ops.manual_cast.Linear):
        def _load_from_state_dict(self, state_dict, prefix, *args):
            self.scale = getattr(state_dict[f"{prefix}weight"], "scale", None)
            self.weight = torch.nn.Parameter(state_dict[f"{prefix}weight"], requires_grad=False)
            self.bias = (
                torch.nn.Parameter(state_dict[f"{prefix}bias"], requires_grad=False)
                if f"{prefix}bias" in state_dict
                else None
            )

        def forward(self, x):
            weight = (
                self.weight.to(x.dtype)
                if self.scale is None
                else self.weight.as_subclass(torch.Tensor).to(x.dtype) * self.scale
            )
            return torch.nn.functional.linear(x, weight, None if self.bias is None else self.bias.to(x.dtype))


def test_operations_of_other_loaders(library, tiny_model, conditioning, latent):
    """As GGUF loaders do it: packed weights through `custom_operations`.

    The model must always call its layers and never read their numbers.
    """
    state = {
        key: Packed.of(value.float()) if checkpoint_weights.QUANTISED.fullmatch(key) else value
        for key, value in tiny_models.transformer().items()
    }
    model = comfy.sd.load_diffusion_model_state_dict(state, {"custom_operations": PackedOps})
    assert isinstance(model.model, LIVEditor) and isinstance(
        model.model.diffusion_model.blocks[0].ffn[0].weight, Packed
    )
    out, expected = sample(model, conditioning, latent), sample(tiny_model, conditioning, latent)
    assert ((out - expected).norm() / expected.norm()).item() < 0.1


@pytest.mark.parametrize("weight_type", [torch.float8_e4m3fn, torch.float8_e5m2, torch.bfloat16])
def test_weight_types(library, tiny_model_path, conditioning, latent, weight_type):
    model = comfy.sd.load_diffusion_model(str(tiny_model_path), {"dtype": weight_type})
    transformer = model.model.diffusion_model
    assert transformer.blocks[0].self_attn.q.weight.dtype == weight_type
    for name in (
        "blocks.0.self_attn.alpha_1.weight",
        "source_video_embedding_more_memory.weight",
        "blocks.0.modulation",
    ):
        assert transformer.get_parameter(name).dtype == torch.float32, name
    exact = comfy.sd.load_diffusion_model(str(tiny_model_path), {"dtype": torch.float32})
    out, expected = sample(model, conditioning, latent), sample(exact, conditioning, latent)
    assert ((out - expected).norm() / expected.norm()).item() < {
        torch.bfloat16: 0.05,
        torch.float8_e4m3fn: 0.3,
        torch.float8_e5m2: 0.5,
    }[weight_type]


@pytest.mark.parametrize("kind", ["packed", "scaled fp8"])
def test_packed_and_quantised_weights_can_be_told_apart(library, tiny_model, tiny_model_path, tmp_path, kind):
    """With a LoRA on them as without, and wherever they lie."""
    if kind == "packed":
        state = {
            key: Packed.of(value.float()) if checkpoint_weights.QUANTISED.fullmatch(key) else value
            for key, value in load_file(tiny_model_path).items()
        }
        model = comfy.sd.load_diffusion_model_state_dict(state, {"custom_operations": PackedOps})
        fake = {f"blocks.0.{name}": torch.empty(9, device="meta") for name in "ab"}  # as GGUF's loader gives it
        model.model.diffusion_model.state_dict = lambda *_, **__: fake
    else:
        path = tmp_path / "fp8.safetensors"
        convert_checkpoint(tiny_model_path, path, weight_type="fp8_e4m3fn_scaled")
        model = comfy.sd.load_diffusion_model(str(path))
    number = fingerprint(model)
    assert number != fingerprint(tiny_model)
    patched = model.clone()
    if kind == "scaled fp8":
        key = "diffusion_model.blocks.0.ffn.0.weight"
        change = torch.ones(model.model.diffusion_model.blocks[0].ffn[0].weight.shape)
        patched.add_patches({key: ("diff", (change,))}, 0.5)
    with_lora = fingerprint(patched)
    comfy.model_management.load_models_gpu([patched])
    assert fingerprint(patched) == with_lora and (with_lora != number) == (kind == "scaled fp8")
    assert fingerprint(model) == number
    comfy.model_management.unload_all_models()


def test_scaled_fp8_file_of_the_converter_loads(library, tiny_model_path, conditioning, latent, tmp_path):
    convert_checkpoint(tiny_model_path, tmp_path / "fp8.safetensors", weight_type="fp8_e4m3fn_scaled")
    model = comfy.sd.load_diffusion_model(str(tmp_path / "fp8.safetensors"))
    assert type(model.model.diffusion_model.blocks[0].self_attn.q.weight).__name__ == "QuantizedTensor"
    exact = comfy.sd.load_diffusion_model(str(tiny_model_path), {"dtype": torch.float32})
    out, expected = sample(model, conditioning, latent), sample(exact, conditioning, latent)
    assert ((out - expected).norm() / expected.norm()).item() < 0.2


def test_fp8_inputs_are_rounded_once(library, tiny_model_path, conditioning, latent, tmp_path, monkeypatch):
    """By what makes them, in place of every layer that reads them; the same answer but for the last bits."""
    convert_checkpoint(tiny_model_path, tmp_path / "fp8.safetensors", weight_type="fp8_e4m3fn_scaled")
    model = comfy.sd.load_diffusion_model(str(tmp_path / "fp8.safetensors"))
    feed_forward = model.model.diffusion_model.blocks[0].ffn
    for layer in model.model.diffusion_model.modules():
        if hasattr(layer, "quant_format"):
            layer._full_precision_mm = False  # as on a GPU that multiplies in fp8
    exact = comfy.sd.load_diffusion_model(str(tiny_model_path), {"dtype": torch.float32})
    expected, host_s = sample(exact, conditioning, latent), sample(model, conditioning, latent)
    calls = []
    for name in ("_add_and_quantise", "_gelu_and_quantise"):
        function = getattr(fp8_inputs, name)
        monkeypatch.setattr(
            fp8_inputs, name, lambda *a, name=name, function=function, **k: calls.append(name) or function(*a, **k)
        )
    monkeypatch.setattr(token_ops, "can_quantise", lambda device: True)
    ours = sample(model, conditioning, latent)
    assert calls.count("_add_and_quantise") == 3 * calls.count("_gelu_and_quantise") > 0
    apart, error, its_error = (
        ((a - b).norm() / expected.norm()).item() for a, b in ((ours, host_s), (ours, expected), (host_s, expected))
    )
    assert apart < 1e-3 and error < 1.01 * its_error
    feed_forward[2].weight_function.append(lambda weight: weight)  # as a LoRA's on weights that lie in RAM
    assert fp8_inputs.accept(latent, feed_forward[0]) and not fp8_inputs.accept(latent, feed_forward[2])


def test_easycache_skips_calls(tiny_model, conditioning, latent):
    calls = []
    plain = sample(recording(tiny_model, lambda *a: calls.append(a)), conditioning, latent, steps=8)
    cached = EasyCacheNode.execute(tiny_model, 10.0, 0.15, 0.95, False)[0]
    skipped = []
    # EasyCache wraps the transformer from outside, so a call that it skips never reaches the inner recorder.
    out = sample(recording(cached, lambda *a: skipped.append(a)), conditioning, latent, steps=8)
    assert len(skipped) < len(calls)
    assert not torch.equal(out, plain)


def test_context_windows_slice_the_source(tiny_model, conditioning, latent):
    longer = torch.cat([latent, latent.flip(2)[:, :, 1:3]], dim=2)
    windows = WanContextWindowsManualNode.execute(tiny_model, 13, 4, "standard_static", 1, False, "pyramid", False)[0]
    seen = []
    sample(
        recording(windows, lambda x, source: seen.append((x.shape[2], source))),
        [[[c[0][0], {SOURCE_KEY: longer}]] for c in conditioning],
        longer,
    )
    full = tiny_model.model.process_latent_in(longer)
    starts = set()
    for frames, source in seen:  # 4 frames a window, or 5 where the host puts the frame before in front
        assert source.shape[2] == frames < full.shape[2]
        (start,) = [
            i
            for i in range(full.shape[2] - frames + 1)
            if torch.allclose(source[:1], full[:, :, i : i + frames], atol=1e-6)
        ]
        starts.add(start)
    assert len(starts) > 1


def test_area_conditioning_narrows_the_source(tiny_model, conditioning, latent):
    positive, negative = conditioning
    area = ConditioningSetAreaPercentageVideo().append(
        positive, width=0.5, height=1.0, temporal=1.0, x=0.5, y=0, z=0, strength=1.0
    )[0]
    seen = []
    sample(recording(tiny_model, lambda x, source: seen.append((x.shape, source))), [area + positive, negative], latent)
    full = tiny_model.model.process_latent_in(latent)
    narrow = [source for shape, source in seen if shape[-1] == WIDTH // 2]
    assert narrow and all(torch.allclose(source[:1], full[..., WIDTH // 2 :], atol=1e-6) for source in narrow)


def test_settings_change_a_clone_only(tiny_model, conditioning, latent):
    before = sample(tiny_model, conditioning, latent)
    fine, dense = settings(tiny_model, sar=0.5, srr=1.0), settings(tiny_model, backend="dense")
    assert OPTIONS_KEY not in tiny_model.model_options["transformer_options"]
    results = [sample(m, conditioning, latent) for m in (fine, dense)]
    assert not torch.equal(results[0], before) and not torch.equal(results[0], results[1])
    assert torch.equal(sample(tiny_model, conditioning, latent), before)
    assert torch.equal(sample(settings(tiny_model), conditioning, latent), before), (
        "the node's defaults are the released settings"
    )


def test_all_ratios_one_is_dense(tiny_model, conditioning, latent):
    everything, dense = settings(tiny_model, sar=1.0, srr=1.0, flat_ratio=1.0), settings(tiny_model, backend="dense")
    torch.testing.assert_close(
        sample(everything, conditioning, latent), sample(dense, conditioning, latent), atol=1e-4, rtol=1e-4
    )


def test_settings_refuse_other_models(library, tiny_model_path, tmp_path):
    plain = {k: v for k, v in load_file(tiny_model_path).items() if "alpha" not in k and "source_video" not in k}
    save_file(plain, tmp_path / "wan.safetensors")
    wan = comfy.sd.load_diffusion_model(str(tmp_path / "wan.safetensors"))
    with pytest.raises(ValueError, match="Sparse Attention Settings: needs a LIVEditor model, got WAN21"):
        settings(wan)


def test_a_named_backend_is_never_replaced(tiny_model, conditioning, latent):
    with pytest.raises(RuntimeError, match="backend triton cannot run: needs an NVIDIA GPU"):
        sample(settings(tiny_model, backend="triton"), conditioning, latent)


def test_every_run_reports_its_attention(tiny_model, conditioning, latent, caplog):
    with caplog.at_level(logging.INFO):
        sample(settings(tiny_model), conditioning, latent)
    (text,) = [r.message for r in caplog.records if "model calls" in r.message]
    calls = re.search(r"LIVEditor: 2 steps, (\d+) model calls of ([\d,]+) tokens x 2 in float32", text)
    tokens = 2 * latent.shape[2] * (latent.shape[3] // 2) * (latent.shape[4] // 2)
    assert int(calls[1]) == STEPS and int(calls[2].replace(",", "")) == tokens, text
    attention = re.search(
        r"attention: pytorch on cpu, dense half by \w+, (0\.\d+) of dense attention, "
        r"(\d+\.\d+) ms each, (\d+)% of the time",
        text,
    )
    assert 0.25 < float(attention[1]) < 0.6 and float(attention[2]) > 0 and 0 < int(attention[3]) <= 100, text
    assert re.search(r"time: \d+\.\d+ s per step, the first \d+\.\d+ s, \d+\.\d+ s in all", text), text
    assert "done without: triton: needs an NVIDIA GPU" in text
    assert OPTIONS_KEY not in tiny_model.model_options["transformer_options"]


def test_reports_name_the_attention_that_a_node_chose(tiny_model, conditioning, latent, caplog):
    def attention_of_a_node(function, *args, **kwargs):
        return function(*args, **kwargs)

    tiny_model.model_options["transformer_options"]["optimized_attention_override"] = attention_of_a_node
    model, text = settings_node(tiny_model).result
    assert "dense half by attention_of_a_node (chosen by a node)" in text
    with caplog.at_level(logging.INFO):
        sample(model, conditioning, latent)
    assert any("dense half by attention_of_a_node (chosen by a node), 0." in r.message for r in caplog.records)


def test_settings_report_backend_compute_and_tokens(tiny_model):
    text = settings_node(tiny_model)[1]
    assert (
        "attention: pytorch on cpu" in text
        and "triton: needs an NVIDIA GPU" in text
        and "tokens: 85,680, half of them the source" in text
    )
    assert "compute: 30.3% of dense" in text and "connect the source for your clip" in text
    assert "compute: 100.0% of dense" in settings_node(tiny_model, backend="dense")[1]


def test_settings_report_says_what_one_window_of_a_long_clip_takes(tiny_model):
    text = settings_node(tiny_model, source=source_video(torch.zeros(1, 16, 81, 4, 6)))[1]
    assert "windows: 5 of 81 frames, overlapping by 16 or more (LIVEdit Sampler's own settings count)" in text
    assert "tokens: 252 in each window, half of them the source" in text
    text = settings_node(tiny_model, source=source_video(torch.zeros(1, 16, 21, 4, 6)))[1]
    assert "windows" not in text and "tokens: 252, half of them the source" in text


def test_nan_weights_are_named_after_the_first_step(library, tiny_model_path, conditioning, latent, tmp_path):
    weights = load_file(tiny_model_path)
    weights["blocks.1.ffn.2.weight"][0, 0] = float("nan")
    save_file(weights, tmp_path / "nan.safetensors")
    calls = []
    model = recording(comfy.sd.load_diffusion_model(str(tmp_path / "nan.safetensors")), lambda *a: calls.append(a))
    with pytest.raises(ValueError, match="NaN or infinity in block 1 of 2"):
        sample(model, conditioning, latent)
    assert len(calls) == 2, "the call that failed, and the same once more to find the block"


def test_missing_source_names_the_conditioning(tiny_model, conditioning, latent):
    positive, negative = conditioning
    with pytest.raises(ValueError, match="the negative conditioning carries no source"):
        sample(tiny_model, [positive, [[negative[0][0], {}]]], latent)


def test_source_of_another_size_is_refused(tiny_model, conditioning, latent):
    smaller = [[[c[0][0], {SOURCE_KEY: latent[:, :, :-1]}]] for c in conditioning]
    with pytest.raises(ValueError, match="28x20x4 .* against 28x20x5"):
        sample(tiny_model, smaller, latent)


def test_replaced_self_attention_is_reported(tiny_model, conditioning, latent, caplog):
    attention = tiny_model.model.diffusion_model.blocks[0].self_attn
    model = tiny_model.clone()
    model.add_object_patch("diffusion_model.blocks.0.self_attn.forward", lambda x, freqs, **kwargs: attention.o(x))
    with caplog.at_level(logging.WARNING):
        sample(model, conditioning, latent)
    assert any("another node replaced the self-attention of 1 blocks" in r.message for r in caplog.records)


def rows_of(name):
    """What a benchmark wrote."""
    return list(
        csv.DictReader((host.PACK / "tests" / "benchmarks" / "results" / f"{name}.csv").read_text().splitlines())
    )


MEASURED = [
    row
    for row in rows_of("h200_model")
    if row["what"].startswith(("sparse", "dense")) and "compiled" not in row["what"]
]


@pytest.mark.parametrize("row", MEASURED, ids=lambda row: f"{row['what']} {row['weights']} {row['size']}")
def test_memory_estimate_is_within_a_tenth_of_what_was_measured(library, monkeypatch, row):
    """The 14B without its numbers, asked for every size that was measured on a GPU."""
    shape_of_14b = {
        "dim": 5120,
        "ffn_dim": 13824,
        "num_heads": 40,
        "num_layers": 1,
        "in_dim": 16,
        "out_dim": 16,
        "model_type": "t2v",
        "image_model": "wan2.1",
    }
    config = LIVEditorT2V(shape_of_14b | {"dtype": torch.bfloat16})
    model = LIVEditor(config, device="meta")
    if row["weights"] == "fp8":
        monkeypatch.setattr(memory_estimate, "QuantizedTensor", torch.nn.Parameter)
    width, height, frames = map(int, row["size"].split("x"))
    shape = [1, 16, (frames - 1) // 4 + 1, height // 8, width // 8]
    estimate = (model.memory_required(shape) - make_room.BETWEEN_BLOCKS) / 2**30
    assert estimate == pytest.approx(float(row["peak GiB"]), rel=0.1)


@pytest.mark.parametrize("row", rows_of("h100_rounded_once"), ids=lambda row: " ".join(list(row.values())[:3]))
def test_memory_estimate_where_inputs_are_rounded_once(row, monkeypatch):
    monkeypatch.setattr(memory_estimate, "can_quantise", lambda device: True)
    inputs = memory_estimate.size_of_inputs(torch.float8_e4m3fn if row["weights"] == "fp8" else None)
    widths = memory_estimate.Widths(5120, 13824, 40, inputs, row["weights"] == "fp8")
    estimate = memory_estimate.memory_of_call(widths, 1, int(row["tokens"]), dtype=torch.bfloat16) / 2**30
    assert estimate == pytest.approx(float(row["peak GiB"]), rel=0.1)
    assert estimate == pytest.approx(float(row["estimate GiB"]), abs=0.01)


@pytest.mark.parametrize("row", rows_of("h100_weight_types"), ids=lambda row: f"{row['what']} {row['size']}")
def test_memory_estimate_holds_for_every_weight_type(row):
    """What the canvas says before anything is loaded, against what was measured; also with weights in RAM."""
    weight_type = row["what"].partition(",")[0]
    rounds_to = {"fp8": torch.float8_e4m3fn, "int": torch.int8}.get(weight_type[:3])
    inputs = memory_estimate.size_of_inputs(rounds_to)
    widths = memory_estimate.Widths(5120, 13824, 40, inputs, weight_type != "bf16")
    estimate = memory_estimate.memory_of_call(widths, 1, int(row["tokens"]), dtype=torch.bfloat16)
    assert estimate / 2**30 == pytest.approx(float(row["peak GiB"]), rel=0.1)


def test_memory_estimate_grows_with_the_batch(tiny_model):
    one, two = (tiny_model.model.memory_of_call(batch, 2 * 21 * 32 * 32) for batch in (1, 2))
    assert one * 1.3 < two < 2 * one


@pytest.mark.parametrize("changes", [{}, {"sar": 0.5, "srr": 0.5, "flat_ratio": 0.25}, {"backend": "dense"}], ids=str)
def test_compiled_as_the_core_node_does(tiny_model, conditioning, latent, changes):
    """Its guard filter is what loses changes of settings.

    The graph's own speed is another matter, so it is not lowered here.
    """
    from comfy_api.torch_helpers import set_torch_compile_wrapper
    from comfy_extras.nodes_torch_compile import skip_torch_compile_dict

    compiled = tiny_model.clone()
    set_torch_compile_wrapper(model=compiled, backend="aot_eager", options={"guard_filter_fn": skip_torch_compile_dict})
    sample(settings(compiled), conditioning, latent, steps=1)
    for model_settings in ({}, changes):
        ours, expected = (
            sample(settings(model, **model_settings), conditioning, latent, steps=1) for model in (compiled, tiny_model)
        )
        torch.testing.assert_close(ours, expected, atol=1e-4, rtol=1e-4)


def test_attention_patches_of_other_nodes_are_called(tiny_model, conditioning, latent):
    called = []
    model = tiny_model.clone()
    model.set_model_patch(lambda args: called.append("attn1") or args["x"], "attn1_patch")
    model.set_model_patch(lambda args: called.append("attn2") or args["x"], "attn2_patch")
    model.set_model_patch(lambda args: called.append("block") or {"img": args["img"]}, "double_block")
    model.set_model_patch_replace(
        lambda args, extra: called.append("replace") or extra["original_block"](args), "dit", "double_block", 1
    )
    changed = sample(model, conditioning, latent)
    assert {"attn1", "attn2", "block", "replace"} == set(called)
    torch.testing.assert_close(changed, sample(tiny_model, conditioning, latent), atol=1e-3, rtol=1e-3)


@pytest.mark.parametrize("at_once", [100, 333])
def test_parts_of_the_sequence_are_the_whole(tiny_model, conditioning, latent, monkeypatch, at_once):
    """What follows the self-attention, in several parts and for a batch of two."""
    double = torch.zeros(2, *latent.shape[1:])
    expected, calls = sample(tiny_model, conditioning, double), []
    monkeypatch.setattr(block, "TOKENS_AT_ONCE", at_once)
    original = block.LIVEditorBlock._after_self_attention
    monkeypatch.setattr(
        block.LIVEditorBlock,
        "_after_self_attention",
        lambda self, x, *args, **kwargs: calls.append(x.shape[1]) or original(self, x, *args, **kwargs),
    )
    torch.testing.assert_close(sample(tiny_model, conditioning, double), expected, atol=1e-3, rtol=1e-3)
    assert max(calls) == at_once


def test_a_time_for_every_frame(tiny_model, conditioning, latent):
    """As video samplers with a time per frame ask for it: the same time everywhere is the same as one time."""
    model, text = tiny_model.model, conditioning[0][0][0]
    text = torch.nn.functional.pad(text, (0, 0, 0, 512 - text.shape[1]))
    with torch.inference_mode():
        one, many = (
            model.diffusion_model(
                latent, torch.full(shape, 800.0), text, liveditor_source=latent, transformer_options={}
            )
            for shape in ((1,), (1, FRAMES))
        )
    torch.testing.assert_close(one, many, atol=1e-4, rtol=1e-4)


def test_the_source_shares_the_times_of_the_frames(tiny_model, conditioning, latent, monkeypatch):
    seen, original = [], block.LIVEditorBlock.forward
    monkeypatch.setattr(
        block.LIVEditorBlock,
        "forward",
        lambda self, x, e, **kwargs: seen.append(e) or original(self, x, e, **kwargs),
    )
    text = torch.nn.functional.pad(conditioning[0][0][0], (0, 0, 0, 512 - 77))
    tiny_model.model.diffusion_model(
        latent, torch.linspace(100, 900, FRAMES)[None], text, liveditor_source=latent, transformer_options={}
    )
    of_target, of_source = seen[0].chunk(2, dim=1)
    assert of_target.shape[1] == FRAMES and torch.equal(of_target, of_source)
    assert not torch.allclose(of_target[:, 0], of_target[:, -1])
