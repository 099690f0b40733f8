"""The training code: a few steps of each part, and that what it writes is what the nodes read."""

import os
import random
import shutil
import subprocess
import sys

import host
import pytest
import torch

import comfy.latent_formats
import comfy.model_management
import comfy.sd
import comfy.utils
from liveditor.liveditor_core.checkpoint.check import check_liveditor
from liveditor.liveditor_core.model.lora import apply_lora
from liveditor.liveditor_core.model.registration import LIVEditor
from liveditor.liveditor_core.model.text_encoder import load_small_text_encoder
from liveditor.training import activations, common, distill, edits, evaluate, nano, score, transformer, vae, words
from liveditor.training.data import SIZES, Scenes, read_video


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A folder with a VAE, a transformer and a text encoder after two steps of training each, by the command line."""
    folder = tmp_path_factory.mktemp("nano")
    run = {"--minutes": "1", "--steps": "2"}
    main(vae, run | {"--out": folder / nano.VAE, "--megapixels": "0"})
    main(
        transformer,
        run
        | {
            "--vae": folder / nano.VAE,
            "--out": folder,
            "--dim": "128",
            "--layers": "2",
            "--ffn": "256",
            "--pool": "0",
            "--batch": "1",
            "--shapes": ["5:64x48", "1:32x64"],
        },
    )
    return folder


def main(module, options, *arguments):
    words = [*map(str, arguments)] + [
        str(word)
        for name, value in options.items()
        for word in (name, *(value if isinstance(value, list) else [value]))
    ]
    before = sys.argv
    sys.argv = [module.__name__, *words]
    try:
        module.main()
    finally:
        sys.argv = before
        comfy.model_management.in_training = False


@pytest.mark.parametrize(
    "name", ["vae", "transformer", "words", "distill", "evaluate", "activations", "towers", "tower_score"]
)
def test_each_part_runs_by_itself(name):
    """As `python tasks.py python -m` runs it: nothing of ComfyUI is imported before it is told to stay on the CPU."""
    run = subprocess.run(
        [sys.executable, "-s", "-m", f"training.{name}", "--help"],
        cwd=host.PACK,
        env=os.environ | {"PYTHONPATH": os.environ["LIVEDITOR_COMFYUI"]},
        capture_output=True,
        text=True,
    )
    assert run.returncode == 0 and run.stdout.startswith("usage:"), run.stderr


def test_scenes_move_and_repeat_from_a_seed():
    clips = [
        Scenes("cpu", 3, read_video(host.CLIPS / "bigbuckbunny.mp4", 90), textures=8).clips(4, 5, (160, 96))
        for _ in range(2)
    ]
    assert torch.equal(*clips) and clips[0].shape == (4, 5, 3, 96, 160) and clips[0].min() >= 0 and clips[0].max() <= 1
    assert (clips[0].diff(dim=1).abs().mean(dim=(1, 2, 3, 4)) > 1e-4).any()
    assert clips[0].std() > 0.1


def test_edits_are_exact():
    x = torch.rand(2, 3, 112, 144, generator=torch.Generator().manual_seed(0))
    for name, edit in edits.EDITS.items():
        y = edit(x)
        assert y.shape == x.shape and y.min() >= 0 and y.max() <= 1 and not torch.equal(x, y), name
        torch.testing.assert_close(edit(x.unsqueeze(0))[0], y)
    for name in ("invert", "mirror", "upside_down", "swap_red_and_blue"):
        torch.testing.assert_close(edits.apply([name, name], x), x)
    for name in ("black_and_white", "red_border", "pixelate"):
        torch.testing.assert_close(edits.apply([name, name], x), edits.apply([name], x))


def test_phrases_are_many_and_those_held_out_are_not_among_them():
    for name in edits.EDITS:
        assert len(set(edits.PHRASES[name])) >= 10 and len(edits.HELD_OUT[name]) >= 4
    asked = {phrase for phrases in edits.PHRASES.values() for phrase in phrases}
    assert not asked & {phrase for phrases in edits.HELD_OUT.values() for phrase in phrases}
    choose = random.Random(0).choice
    assert not {edits._phrase(name, choose).lower() for name in edits.EDITS for _ in range(3000)} & edits.SPOKEN_FOR
    assert edits.ask(["mirror", "sepia"], random.Random(0).choice) == edits.ask(
        ["mirror", "sepia"], random.Random(0).choice
    )


def test_the_host_loads_the_vae_with_our_latents(library, trained):
    """Wan's own normalisation gives the latents that the transformer was trained on; decoding undoes it."""
    path = trained / nano.VAE
    model = vae.Autoencoder.load(path).eval()
    loaded = comfy.sd.VAE(sd=comfy.utils.load_torch_file(str(path)))
    x = Scenes("cpu", 0, textures=4).clips(1, 9, SIZES[0])[0]
    wan = comfy.latent_formats.Wan21()
    ours = model.encode(x.transpose(0, 1).unsqueeze(0) * 2 - 1)
    theirs = wan.process_in(loaded.encode(x.movedim(1, -1)))
    torch.testing.assert_close(theirs, ours, atol=0.02, rtol=0.02)
    pixels = loaded.decode(wan.process_out(ours))[0].movedim(-1, 1)
    torch.testing.assert_close(
        pixels, (model.decode(ours)[0].transpose(0, 1) / 2 + 0.5).clamp(0, 1), atol=0.01, rtol=0.01
    )


def test_the_vae_begins_as_a_transform_code(library, trained):
    """Found in closed form, before any training to speak of, it gives back a clip that it never saw, through the
    host's own VAE.
    """
    loaded = comfy.sd.VAE(sd=comfy.utils.load_torch_file(str(trained / nano.VAE)))
    frames = vae.fit(read_video(host.CLIPS / "bikes.mp4")[:9], (192, 192))
    decoded = loaded.decode(loaded.encode(frames.movedim(1, -1)))[0].movedim(-1, 1)
    assert score.psnr(decoded, frames) > 24


def test_the_host_loads_transformer_and_text_encoder(library, trained):
    path = trained / nano.MODEL
    check_liveditor(path)
    model = comfy.sd.load_diffusion_model(str(path), {"dtype": torch.float32})
    assert isinstance(model.model, LIVEditor)
    clip = load_small_text_encoder(str(trained / nano.TEXT_ENCODER))
    editor = transformer.resume(trained, 128, 2, 256)
    text = "Turn it upside-down, bitte"
    ours = editor.text(editor.text.tokens([text]), 512)
    theirs = clip.encode_from_tokens_scheduled(clip.tokenize(text))[0][0]
    torch.testing.assert_close(
        torch.nn.functional.pad(theirs, (0, 0, 0, 512 - theirs.shape[1])), ours, atol=1e-3, rtol=1e-3
    )

    x = torch.randn(1, 16, 2, 16, 16)
    config = transformer.SparseAttentionConfig(0.25, 0.5, 0.5)
    velocity = editor(x, torch.tensor([0.5]), x, editor.text.tokens([text]), config)
    expected = model.model.diffusion_model(
        x, torch.tensor([500.0]), ours, liveditor_source=x, transformer_options={nano.OPTIONS_KEY: config.to_options()}
    )
    torch.testing.assert_close(expected, velocity, atol=1e-4, rtol=1e-4)


def test_words_change_the_text_encoder_alone(trained, tmp_path, capsys):
    models, out = tmp_path / "models", tmp_path / "out"
    shutil.copytree(trained, models)
    weights = comfy.utils.load_torch_file(str(models / nano.MODEL))
    weights["head.head.weight"] = torch.randn_like(
        weights["head.head.weight"]
    )  # untrained, it answers all words with nothing
    common.save(models / nano.MODEL, weights)
    main(
        words,
        {
            "--out": out,
            "--dim": 128,
            "--layers": 2,
            "--ffn": 256,
            "--pool": 1,
            "--batch": 96,
            "--steps": 2,
            "--minutes": 1,
            "--learning-rate": 0.1,
        },
        models,
    )
    assert "sentences 0 misread" in capsys.readouterr().out  # nothing is, where before and after are the same
    assert [path.name for path in out.iterdir()] == [nano.TEXT_ENCODER]
    before, after = (comfy.utils.load_torch_file(str(folder / nano.TEXT_ENCODER)) for folder in (trained, out))
    assert before.keys() == after.keys() and any(not torch.equal(before[name], after[name]) for name in before)


def test_activations_are_those_that_the_tests_use(tmp_path):
    """Recorded again from the weights that ship, they are those of the fixture, up to another machine's rounding."""
    main(activations, {}, host.PACK / "models", tmp_path / "again.safetensors")
    again, kept = (
        comfy.utils.load_torch_file(str(path))
        for path in (tmp_path / "again.safetensors", host.PACK / "tests" / "activations" / "nano.safetensors")
    )
    assert again.keys() == kept.keys()
    for name, x in kept.items():
        assert (again[name].float() - x.float()).norm() <= 0.05 * x.float().norm(), name


def test_a_step_moves_every_weight(trained):
    """Everything the file holds learns; the text encoder too."""
    editor = transformer.resume(trained, 128, 2, 256)
    comfy.model_management.in_training = True
    try:
        x = torch.randn(1, 16, 2, 16, 16)
        editor(
            x,
            torch.tensor([0.5]),
            x,
            editor.text.tokens(["make it sepia"]),
            transformer.SparseAttentionConfig(0.25, 0.5, 0.5),
        ).square().mean().backward()
    finally:
        comfy.model_management.in_training = False
    still = [
        name
        for name, p in editor.named_parameters()
        if p.grad is None or not p.grad.isfinite().all() or not p.grad.any()
    ]
    assert still == [], still


def test_a_vae_written_and_read_again_is_the_same(trained, tmp_path):
    path = trained / nano.VAE
    model = vae.Autoencoder.load(path)
    common.save(tmp_path / "again.safetensors", model.host_weights())
    again = vae.Autoencoder.load(tmp_path / "again.safetensors").state_dict()
    for name, value in model.state_dict().items():
        torch.testing.assert_close(again[name], value, atol=1e-5, rtol=1e-5)


def test_what_was_trained_is_measured_through_the_nodes(trained, monkeypatch):
    """Two steps of training edit nothing, but every number must be there, and finite."""
    monkeypatch.setattr(evaluate, "RECOMMENDED", nano.RECOMMENDED | {"size": [128, 128], "frames": 5, "steps": 1})
    rows = evaluate.measure(evaluate.Nano(trained), host.CLIPS, evaluate.CASES[:1], evaluate.SETTINGS[:2])
    assert len(rows) == 2 * len(edits.EDITS) and {row["setting"] for row in rows} == {"dense", "recommended"}
    decibels, source, recognised = evaluate.summarise(rows, "recommended")
    assert 0 < decibels < 40 and 5 < source < 40 and 0 <= recognised <= 1
    assert 0 < evaluate.summarise(rows, "dense")[0] < 40


def test_a_lora_for_few_steps(library, trained, tmp_path):
    """Two steps of training; what is written changes the model in the host's loader and in the pack's alike."""
    options = {"--minutes": "1", "--steps": "2", "--dim": "128", "--layers": "2", "--ffn": "256", "--rank": "2"}
    options |= {"--pool": "1", "--batch": "1", "--student-steps": "2", "--shapes": ["5:64x48"], "--out": tmp_path}
    with torch.inference_mode(False), torch.enable_grad():
        main(distill, options, trained)
    path = tmp_path / nano.LORA
    lora = comfy.utils.load_torch_file(str(path))
    assert len(lora) == 2 * 2 * len(distill.LAYERS)
    assert any(weight.any() for name, weight in lora.items() if "lora_B" in name)
    model = comfy.sd.load_diffusion_model(str(trained / nano.MODEL), {"dtype": torch.float32})
    ours, report = apply_lora(model, path, 1.0)
    theirs, _ = comfy.sd.load_lora_for_models(model, None, lora, 1.0, 0.0)
    assert f"{len(lora)} of {len(lora)} keys fit" in report
    assert len(ours.patches) == len(theirs.patches) == len(lora) // 2
