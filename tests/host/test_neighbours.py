"""Other packs, files in other spellings and numbers that go wrong: what works, what is refused, and in which words."""

import gc
import logging
import types
import weakref

import pytest
import tiny_models
import torch
from safetensors.torch import save_file
from sampling import STEPS, sample, source_video

import comfy.controlnet
import comfy.model_management
import comfy.samplers
from liveditor.liveditor_core.checkpoint.weights import CheckpointError
from liveditor.liveditor_core.model import neighbours
from liveditor.liveditor_core.model.lora import apply_lora
from liveditor.liveditor_core.sampling import flow_unipc
from liveditor.liveditor_core.sampling.edit import clone_for_a_run, edit
from liveditor.liveditor_core.sampling.run_report import report_runs


def test_a_replaced_forward_is_refused_by_name(tiny_model, conditioning, latent):
    def teacache_forward(self, x, t, context, clip_fea=None, freqs=None, transformer_options=None, **kwargs):
        raise AssertionError("must not be called")

    transformer = tiny_model.model.diffusion_model
    model = tiny_model.clone()
    model.add_object_patch("diffusion_model.forward_orig", types.MethodType(teacache_forward, transformer))
    with pytest.raises(
        ValueError, match="forward_orig must be its own, got .*teacache_forward of another node.*EasyCache"
    ):
        sample(model, conditioning, latent)
    sample(tiny_model, conditioning, latent)  # once the node is gone, the model is its own again


def test_a_patch_that_is_gone_counts_no_more(tiny_model, conditioning, latent, caplog):
    attention = tiny_model.model.diffusion_model.blocks[0].self_attn
    model = tiny_model.clone()
    model.add_object_patch("diffusion_model.blocks.0.self_attn.forward", lambda x, freqs, **kwargs: attention.o(x))
    sample(model, conditioning, latent)
    caplog.clear()
    with caplog.at_level(logging.WARNING):
        sample(tiny_model, conditioning, latent)
    assert "another node replaced" not in caplog.text
    assert not neighbours.has_replaced_layers(tiny_model.model.diffusion_model.blocks)


@pytest.mark.parametrize("key", neighbours.FOREIGN_CONDITIONINGS)
def test_conditionings_of_other_models_are_refused_by_name(tiny_model, conditioning, latent, key):
    positive, negative = conditioning
    foreign = [[positive[0][0], positive[0][1] | {key: [latent]}]]
    with pytest.raises(
        ValueError, match="the positive conditioning must carry text and source alone, got .* from .*: remove"
    ):
        tiny_model.model.extra_conds(noise=latent, prompt_type="positive", device="cpu", **foreign[0][1])
    tiny_model.model.extra_conds(noise=latent, prompt_type="negative", device="cpu", **negative[0][1])


def test_a_controlnet_in_a_graph_is_refused(tiny_model, conditioning, latent):
    positive, negative = conditioning
    with pytest.raises(ValueError, match="a ControlNet, from Apply ControlNet"):
        sample(
            tiny_model,
            [[[positive[0][0], positive[0][1] | {"control": comfy.controlnet.ControlBase()}]], negative],
            latent,
        )


@pytest.mark.parametrize("step", [1, 2, 3])
def test_nan_is_noticed_in_any_step_and_its_block_named(tiny_model, conditioning, latent, step):
    model = tiny_model.clone()

    def break_at(args):
        options = args["transformer_options"]
        at = (options["sample_sigmas"] == options["sigmas"][0]).nonzero().item() + 1
        return {"img": args["img"] * (float("nan") if at == step and options["block_index"] == 1 else 1)}

    model.set_model_patch(break_at, "double_block")
    with pytest.raises(ValueError, match=f"step {step} of 3 gave NaN or infinity in block 1 of {tiny_models.LAYERS}"):
        sample(model, conditioning, latent, steps=3)


def test_a_latent_that_is_not_finite_is_told_from_a_broken_model(tiny_model, conditioning, latent):
    def sampler(model, x, sigmas, extra_args=None, callback=None, disable=None):
        return model(x * float("inf"), sigmas[:1].expand(x.shape[0]), **extra_args)

    with pytest.raises(ValueError, match="the latent must be finite, got NaN or infinity before step 1 of 2"):
        comfy.samplers.sample(
            tiny_model, torch.zeros_like(latent), *conditioning, 1.0, "cpu", comfy.samplers.KSAMPLER(sampler),
            torch.tensor([0.9, 0.5, 0.0]), latent_image=torch.zeros_like(latent),
        )  # fmt: skip


@pytest.mark.parametrize(
    "sigmas", [[0.9, 0.9, 0.5, 0.5, 0.5, 0.2, 0.0], [0.9, 0.5, 0.2, 0.0, 0.0], [1.0, 1.0, 0.5, 0.2, 0.0]]
)
def test_equal_sigmas_are_one_step(sigmas):
    calls = []

    def model(x, sigma):
        calls.append(sigma.item())
        return x * 0.5

    model.latent_image = torch.zeros(1)
    x = torch.randn(1, 4, generator=torch.Generator().manual_seed(0))
    out = flow_unipc.sample_flow_unipc(model, x, torch.tensor(sigmas), disable=True)
    assert torch.isfinite(out).all() and calls == pytest.approx(sorted(set(sigmas) - {0.0}, reverse=True))
    assert torch.equal(
        out, flow_unipc.sample_flow_unipc(model, x, torch.tensor(sorted(set(sigmas), reverse=True)), disable=True)
    )


def test_ten_thousand_steps_of_a_stock_schedule_stay_finite(tiny_model):
    def model(x, sigma):
        return x * 0.5

    model.latent_image = torch.zeros(1)
    sigmas = comfy.samplers.calculate_sigmas(tiny_model.get_model_object("model_sampling"), "simple", 10_000)
    assert len(sigmas.unique()) < len(sigmas), "some are equal"
    assert torch.isfinite(flow_unipc.sample_flow_unipc(model, torch.randn(1, 4), sigmas, disable=True)).all()


def lora(spelling):
    """A LoRA on the queries of both blocks."""
    generator = torch.Generator().manual_seed(3)
    tensors = {}
    for block in range(tiny_models.LAYERS):
        for part, shape in (("A", (4, 256)), ("B", (256, 4))):
            tensors[spelling.format(block=block, part=part)] = torch.randn(shape, generator=generator)
    return tensors


SPELLINGS = {
    "ComfyUI": "diffusion_model.blocks.{block}.self_attn.q.lora_{part}.weight",
    "DiffSynth": "pipe.dit.blocks.{block}.self_attn.q.lora_{part}.default.weight",
    "PEFT": "base_model.model.blocks.{block}.self_attn.q.lora_{part}.weight",
    "diffusers": "transformer.blocks.{block}.attn1.to_q.lora_{part}.weight",
    "none": "blocks.{block}.self_attn.q.lora_{part}.default.weight",
}


@pytest.mark.parametrize("name", SPELLINGS)
def test_lora_files_of_every_trainer_do_the_same(tiny_model, conditioning, latent, tmp_path, caplog, name):
    results = []
    for spelling in (SPELLINGS["ComfyUI"], SPELLINGS[name]):
        save_file(lora(spelling) | {"other.lora_A.weight": torch.zeros(1)}, tmp_path / "some.safetensors")
        model, report = apply_lora(tiny_model, tmp_path / "some.safetensors", 0.5)
        assert report == "some.safetensors at 0.5: 4 of 5 keys fit, not other.lora_A.weight"
        report_runs(model)
        with caplog.at_level(logging.INFO):
            results.append(sample(model, conditioning, latent))
        assert f"  LoRA: {report}" in caplog.text, "the run says so as well"
    assert torch.equal(*results) and not torch.equal(results[0], sample(tiny_model, conditioning, latent))


def test_a_second_lora_is_reported_beside_the_first(tiny_model, tmp_path):
    save_file(lora(SPELLINGS["PEFT"]), tmp_path / "one.safetensors")
    save_file(lora(SPELLINGS["diffusers"]), tmp_path / "two.safetensors")
    model, _ = apply_lora(tiny_model, tmp_path / "one.safetensors", 1.0)
    model, _ = apply_lora(model, tmp_path / "two.safetensors", 1.0)
    assert [line.split(":")[0] for line in model.get_attachment("liveditor_loras")] == [
        "one.safetensors at 1",
        "two.safetensors at 1",
    ]
    assert tiny_model.get_attachment("liveditor_loras") is None


def test_a_lora_of_another_model_is_refused(tiny_model, tmp_path):
    save_file(lora("unet.down.{block}.q.lora_{part}.weight"), tmp_path / "sdxl.safetensors")
    with pytest.raises(
        CheckpointError, match="sdxl.safetensors: must be a LoRA of Wan .* none fits a layer, such as unet.down.0"
    ):
        apply_lora(tiny_model, tmp_path / "sdxl.safetensors", 1.0)
    (tmp_path / "no.safetensors").write_bytes(b"no")
    with pytest.raises(CheckpointError, match="no.safetensors: must be a LoRA file, could not be read"):
        apply_lora(tiny_model, tmp_path / "no.safetensors", 1.0)


def test_a_failed_edit_lets_its_model_go(tiny_model, conditioning, latent):
    """Also where the failure is kept: the frames of its traceback must not hold the clone that the edit made."""
    clones, clone = [], tiny_model.clone

    def remember(*args, **kwargs):
        clones.append(weakref.ref(made := clone(*args, **kwargs)))
        return made

    def fail(args):
        raise RuntimeError("in the middle")

    failing = tiny_model.clone()
    failing.set_model_patch(fail, "double_block")
    clone, failing.clone = failing.clone, remember
    bare = [[[text, {}]] for ((text, _),) in conditioning]
    gc.disable()
    try:
        with pytest.raises(RuntimeError, match="in the middle") as kept:
            edit(failing, *bare, source_video(latent), seed=1, steps=STEPS, cfg=2.5, shift=6.0)
        assert len(clones) == 1 and clones[0]() is None, "the clone outlives the edit"
        assert kept.value.__traceback__ is not None
    finally:
        gc.enable()


def test_copies_on_other_gpus_outlive_the_edit_s_clone(tiny_model):
    """As MultiGPU CFG Split leaves a MODEL: with a copy that the host makes anew for every run."""
    copy = tiny_model.deepclone_multigpu(new_load_device=torch.device("cpu"))
    copy.is_multigpu_base_clone = True
    tiny_model.set_additional_models("multigpu", [copy])
    clone = clone_for_a_run(tiny_model)
    clone.match_multigpu_clones()
    (of_this_run,) = clone.get_additional_models_with_key("multigpu")
    assert of_this_run.model is copy.model and of_this_run is not copy
    comfy.model_management.load_models_gpu([clone, of_this_run])
    del clone, of_this_run
    gc.collect()
    loaded = comfy.model_management.current_loaded_models
    assert not any(one.is_dead() for one in loaded)
    assert {id(one.model) for one in loaded} >= {id(tiny_model), id(copy)}


@pytest.mark.parametrize(
    "names, warned",
    [
        (["ComfyUI-LIVEditor", "Raylight"], True),
        (["raylight.disabled", "other"], False),
        (["x.py"], False),
        ([], False),
    ],
)
def test_a_pack_that_would_leave_the_source_out_is_named(tmp_path, caplog, names, warned):
    for name in names:
        (tmp_path / name).mkdir()
    neighbours.warn_of_blind_packs([str(tmp_path), str(tmp_path / "nowhere")])
    said = [record.message for record in caplog.records]
    assert len(said) == warned and all("Raylight is installed" in line for line in said)
