"""Checkpoints: what is taken, what is refused, and that nothing half-done stays behind."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import tiny_models
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from liveditor.liveditor_core.checkpoint import download, read
from liveditor.liveditor_core.checkpoint import weights as weight_names
from liveditor.liveditor_core.checkpoint.__main__ import main
from liveditor.liveditor_core.checkpoint.check import check_liveditor, check_text_encoder
from liveditor.liveditor_core.checkpoint.convert import convert_checkpoint
from liveditor.liveditor_core.checkpoint.weights import CheckpointError


@pytest.fixture(scope="module")
def weights():
    return tiny_models.transformer()


def convert(source, destination, **options):
    convert_checkpoint(source, destination, progress=False, **options)
    return load_file(destination)


def same(a, b):
    return a.keys() == b.keys() and all(torch.equal(a[key], b[key]) and a[key].dtype == b[key].dtype for key in a)


@pytest.mark.parametrize("prefix", ["", *read.PREFIXES])
@pytest.mark.parametrize("nesting", [(), ("state_dict",), ("module",), ("weights",), ("module", "state_dict")])
def test_every_nesting_and_prefix(weights, tmp_path, prefix, nesting):
    content = {f"{prefix}{key}": value for key, value in weights.items()}
    content |= {
        "vae.encoder.weight": torch.ones(1),
        "optimizer.state": torch.ones(1),
        "lr_scheduler.step": torch.ones(1),
    }
    for name in nesting:
        content = {name: content, "step": 7}
    torch.save(content, tmp_path / "in.bin")
    assert same(convert(tmp_path / "in.bin", tmp_path / "out.safetensors"), weights)
    check_liveditor(tmp_path / "out.safetensors")


def test_old_pickles_without_zip(weights, tmp_path):
    torch.save(weights, tmp_path / "in.bin", _use_new_zipfile_serialization=False)
    assert same(convert(tmp_path / "in.bin", tmp_path / "out.safetensors"), weights)


def test_several_copies_need_a_choice(weights, tmp_path):
    torch.save(
        {f"{p}{k}": v + (p == "model_ema.") for p in ("model.", "model_ema.") for k, v in weights.items()},
        tmp_path / "in.bin",
    )
    with pytest.raises(CheckpointError, match="several copies of the model, under 'model.', 'model_ema.'.*--prefix"):
        convert(tmp_path / "in.bin", tmp_path / "out.safetensors")
    assert same(convert(tmp_path / "in.bin", tmp_path / "out.safetensors", prefix="model."), weights)


def test_bf16_casts_all_but_the_sensitive_weights(weights, tmp_path):
    full = {key: value.float() for key, value in weights.items()}
    save_file(full, tmp_path / "in.safetensors")
    out = convert(tmp_path / "in.safetensors", tmp_path / "out.safetensors")
    assert out["blocks.0.self_attn.q.weight"].dtype == torch.bfloat16
    for key in (
        "blocks.0.self_attn.alpha_1.weight",
        "source_video_embedding_more_memory.weight",
        "patch_embedding.weight",
        "blocks.1.modulation",
        "head.modulation",
    ):
        assert out[key].dtype == torch.float32 and torch.equal(out[key], full[key]), key


def test_scaled_fp8(weights, tmp_path):
    save_file(weights, tmp_path / "in.safetensors")
    out = convert(tmp_path / "in.safetensors", tmp_path / "out.safetensors", weight_type="fp8_e4m3fn_scaled")
    with safe_open(tmp_path / "out.safetensors", framework="pt") as file:
        layers = json.loads(file.metadata()["_quantization_metadata"])["layers"]
    assert len(layers) == 10 * tiny_models.LAYERS
    for layer in layers:
        weight, scale = out[f"{layer}.weight"], out[f"{layer}.weight_scale"]
        assert weight.dtype == torch.float8_e4m3fn and weight.float().abs().max() == 448
        exact = weights[f"{layer}.weight"].float()
        assert ((weight.float() * scale - exact).norm() / exact.norm()) < 0.04
    for key in weights.keys() - {f"{layer}.weight" for layer in layers}:
        assert torch.equal(out[key], weights[key]), key
    check_liveditor(tmp_path / "out.safetensors")


def test_a_zero_matrix_survives_fp8(weights, tmp_path):
    save_file(
        weights | {"blocks.0.ffn.0.weight": torch.zeros_like(weights["blocks.0.ffn.0.weight"])},
        tmp_path / "in.safetensors",
    )
    out = convert(tmp_path / "in.safetensors", tmp_path / "out.safetensors", weight_type="fp8_e4m3fn_scaled")
    assert out["blocks.0.ffn.0.weight"].float().eq(0).all()


class Code:
    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return os.mkdir, (str(self.path),)


def test_code_in_a_pickle_does_not_run(tmp_path):
    torch.save({"state_dict": {"a": Code(tmp_path / "ran")}}, tmp_path / "in.bin")
    with pytest.raises(
        CheckpointError, match="in.bin: cannot be read as a PyTorch file of plain weights.*none of it was run"
    ):
        convert(tmp_path / "in.bin", tmp_path / "out.safetensors")
    assert not (tmp_path / "ran").exists() and not (tmp_path / "out.safetensors").exists()


def test_damaged_or_missing_files(weights, tmp_path):
    save_file(weights, tmp_path / "whole.safetensors")
    data = (tmp_path / "whole.safetensors").read_bytes()
    for name, content in {
        "cut.safetensors": data[:-10],
        "empty.safetensors": b"",
        "text.safetensors": b"hello, this is text",
    }.items():
        (tmp_path / name).write_bytes(content)
        with pytest.raises(CheckpointError, match=f"{name}: the file is truncated or damaged"):
            check_liveditor(tmp_path / name)
    (tmp_path / "cut.bin").write_bytes(b"PK\x03\x04 nothing")
    with pytest.raises(CheckpointError, match="cut.bin: cannot be read"):
        convert(tmp_path / "cut.bin", tmp_path / "out.safetensors")
    for call in (check_liveditor, lambda path: convert(path, tmp_path / "out.safetensors")):
        with pytest.raises(CheckpointError, match="no such file"):
            call(tmp_path / "nowhere.safetensors")


def test_missing_weights_are_named(weights, tmp_path):
    lacking = {key: value for key, value in weights.items() if key != "blocks.0.ffn.2.bias"}
    save_file(lacking, tmp_path / "lacking.safetensors")
    for call in (check_liveditor, lambda path: convert(path, tmp_path / "out.safetensors")):
        with pytest.raises(CheckpointError, match=r"1 weights are missing: blocks\.0\.ffn\.2\.bias"):
            call(tmp_path / "lacking.safetensors")


def test_other_models_are_refused(weights, tmp_path):
    save_file({key: value for key, value in weights.items() if "source_video" not in key}, tmp_path / "wan.safetensors")
    with pytest.raises(CheckpointError, match="wan.safetensors: this is a Wan model without a source stream"):
        check_liveditor(tmp_path / "wan.safetensors")
    save_file({"a": torch.ones(1)}, tmp_path / "other.safetensors")
    with pytest.raises(CheckpointError, match="no Wan-type video model"):
        check_liveditor(tmp_path / "other.safetensors")
    torch.save(weights, tmp_path / "model.bin")
    with pytest.raises(CheckpointError, match="must be a safetensors file, got .bin. Convert the published file first"):
        check_liveditor(tmp_path / "model.bin")


def test_a_failure_leaves_the_old_file_and_nothing_else(weights, tmp_path, monkeypatch):
    save_file(weights, tmp_path / "in.safetensors")
    (tmp_path / "out.safetensors").write_bytes(b"the old file")
    get, count = read._SafetensorsFile.__getitem__, []

    def fail_later(self, key):
        count.append(key)
        if len(count) > len(weights) + 20:  # every weight is looked at once for the header
            raise OSError("disk full")
        return get(self, key)

    monkeypatch.setattr(read._SafetensorsFile, "__getitem__", fail_later)
    with pytest.raises(
        CheckpointError,
        match="out.safetensors: could not be written .disk full.; the part that was is removed. It needs 0.0 GB",
    ):
        convert(tmp_path / "in.safetensors", tmp_path / "out.safetensors")
    assert (tmp_path / "out.safetensors").read_bytes() == b"the old file"
    assert sorted(p.name for p in tmp_path.iterdir()) == ["in.safetensors", "out.safetensors"]


IN_A_PROCESS = """
import sys, threading, types
package = types.ModuleType("liveditor")
package.__path__ = [sys.argv[1]]
sys.modules["liveditor"] = package
from liveditor.liveditor_core.checkpoint.__main__ import main

def private():
    return next(int(line.split()[1]) for line in open("/proc/self/status") if line.startswith("RssAnon")) * 1024

before = peak = private()
done = threading.Event()
def watch():
    global peak
    while not done.wait(0.001):
        peak = max(peak, private())
thread = threading.Thread(target=watch)
thread.start()
try:
    main(["convert", *sys.argv[2:]])
finally:
    done.set()
    thread.join()
    print(peak - before)
"""


def convert_in_a_process(*arguments, **options):
    return subprocess.run(
        [sys.executable, "-c", IN_A_PROCESS, str(Path(weight_names.__file__).parents[2]), *map(str, arguments)],
        capture_output=True,
        text=True,
        **options,
    )


@pytest.mark.skipif(sys.platform != "linux", reason="memory is read from /proc")
@pytest.mark.parametrize("weight_type", weight_names.WEIGHT_TYPES)
def test_memory_does_not_grow_with_the_file(tmp_path, weight_type):
    """At most 1.3 times the largest weight, of which the pickle holds many."""
    dim, ffn, peaks = 1024, 16384, []
    for layers in (1, 4):
        torch.save(tiny_models.transformer(dim, ffn, layers), tmp_path / "in.bin")
        done = convert_in_a_process(tmp_path / "in.bin", tmp_path / "out.safetensors", "--weight-type", weight_type)
        assert done.returncode == 0, done.stderr
        peaks.append(int(done.stdout))
    assert max(peaks) <= 1.3 * dim * ffn * 2, peaks


@pytest.mark.skipif(sys.platform != "linux", reason="the limit is Linux's")
def test_a_write_that_fails_midway(weights, tmp_path):
    """A file that may grow no further, as on a full disk."""
    import resource

    torch.save(weights, tmp_path / "in.bin")
    done = convert_in_a_process(
        tmp_path / "in.bin",
        tmp_path / "out.safetensors",
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 20, 1 << 20)),
    )
    assert (
        done.returncode == 1
        and "out.safetensors: could not be written (File too large); the part that was is removed" in done.stderr
    )
    assert [p.name for p in tmp_path.iterdir()] == ["in.bin"]


def test_too_little_disk_is_said_before_anything_is_written(weights, tmp_path, monkeypatch):
    save_file(weights, tmp_path / "in.safetensors")
    monkeypatch.setattr(shutil, "disk_usage", lambda path: type("Usage", (), {"free": 2_000_000}))
    with pytest.raises(
        CheckpointError,
        match=r"out.safetensors: needs 0.0 GB of disk, 0.0 GB are free there. Free some or write it to another disk.",
    ):
        convert(tmp_path / "in.safetensors", tmp_path / "out.safetensors")
    assert [p.name for p in tmp_path.iterdir()] == ["in.safetensors"]


def test_command_line(weights, tmp_path, capsys):
    torch.save({"state_dict": weights}, tmp_path / "in.bin")
    main(["convert", str(tmp_path / "in.bin"), str(tmp_path / "out.safetensors")])
    main(["check", str(tmp_path / "out.safetensors")])
    assert "a whole LIVEditor checkpoint" in capsys.readouterr().out
    with pytest.raises(SystemExit) as exit_:
        main(["check", str(tmp_path / "in.bin")])
    assert exit_.value.code == 1 and "Convert the published file first" in capsys.readouterr().err


def test_download_needs_huggingface_hub(monkeypatch, tmp_path):
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    with pytest.raises(CheckpointError, match="pip install huggingface_hub"):
        download.download(tmp_path)


def test_download_asks_the_hub_for_the_published_file(monkeypatch, tmp_path):
    import types

    asked = []
    hub = types.SimpleNamespace(hf_hub_download=lambda *args, **kwargs: asked.append((args, kwargs)) or "path")
    monkeypatch.setitem(sys.modules, "huggingface_hub", hub)
    assert download.download(tmp_path) == "path"
    assert asked == [(("sst12345/liveditor", "liveditor_ckpt.bin"), {"local_dir": tmp_path})]


@pytest.mark.parametrize(
    "key, kind",
    [
        ("blocks.0.attn.q.weight", "UMT5-XXL as WanVideoWrapper and the Wan repository keep it"),
        ("encoder.block.0.layer.0.SelfAttention.q.weight", "T5-XXL, of Flux"),
        ("text_model.encoder.layers.0.self_attn.q_proj.weight", "a CLIP"),
        ("model.layers.0.self_attn.q_proj.weight", "a language model"),
        ("head.modulation", "no text encoder that is known here"),
    ],
)
def test_other_text_encoders_are_named(tmp_path, key, kind):
    """A file called umt5-xxl may be of the other Wan wrapper, which keeps it in another layout."""
    save_file({key: torch.zeros(1)}, tmp_path / "umt5-xxl-enc-bf16.safetensors")
    with pytest.raises(CheckpointError) as refused:
        check_text_encoder(tmp_path / "umt5-xxl-enc-bf16.safetensors")
    for words in (
        "umt5-xxl-enc-bf16.safetensors: needs the UMT5-XXL",
        f"got {kind}",
        "Choose umt5_xxl_fp8_e4m3fn_scaled",
    ):
        assert words in str(refused.value)


def test_umt5_and_the_small_text_encoder_pass(tmp_path):
    umt5 = [
        f"encoder.block.{i}.layer.0.SelfAttention.{x}"
        for i in (0, 1)
        for x in ("q.weight", "relative_attention_bias.weight")
    ]
    save_file({key: torch.zeros(1) for key in umt5}, tmp_path / "umt5.safetensors")
    save_file({"spiece_model": torch.zeros(1)}, tmp_path / "small.safetensors", {"liveditor_text_encoder": "{}"})
    for name in ("umt5", "small"):
        assert check_text_encoder(tmp_path / f"{name}.safetensors")["keys"]


def test_files_that_are_no_safetensors_lead_to_the_right_remedy(tmp_path):
    for name in ("model.bin", "encoder.pth"):
        (tmp_path / name).write_bytes(b"")
    with pytest.raises(CheckpointError, match="Convert the published file first"):
        check_liveditor(tmp_path / "model.bin")
    with pytest.raises(CheckpointError, match="got .pth. Choose a safetensors file"):
        check_text_encoder(tmp_path / "encoder.pth")
