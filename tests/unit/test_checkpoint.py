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
from liveditor.liveditor_core.checkpoint.sizes import size_of
from liveditor.liveditor_core.checkpoint.weight_types import WEIGHT_TYPES, size_of_14b
from liveditor.liveditor_core.checkpoint.weights import QUANTISED, CheckpointError


@pytest.fixture(scope="module")
def weights():
    return tiny_models.transformer()


def convert(source, destination, **options):
    convert_checkpoint(source, destination, **options)
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


def relative(approximate, exact):
    return ((approximate.float() - exact.float()).norm() / exact.float().norm()).item()


@pytest.mark.parametrize("weight_type, most", [("int8_tensorwise", 0.012), ("int8_convrot", 0.012)])
def test_int8(weights, tmp_path, weight_type, most):
    """As the host reads it: its own class gives the weight back."""
    from comfy_kitchen.tensor import QuantizedTensor, TensorWiseINT8Layout

    save_file(weights, tmp_path / "in.safetensors")
    out = convert(tmp_path / "in.safetensors", tmp_path / "out.safetensors", weight_type=weight_type)
    with safe_open(tmp_path / "out.safetensors", framework="pt") as file:
        layers = json.loads(file.metadata()["_quantization_metadata"])["layers"]
    assert len(layers) == 10 * tiny_models.LAYERS
    rotated = weight_type == "int8_convrot"
    for layer, config in layers.items():
        stored, scale, exact = out[f"{layer}.weight"], out[f"{layer}.weight_scale"], weights[f"{layer}.weight"]
        assert stored.dtype == torch.int8 and scale.shape == (len(exact), 1) and scale.dtype == torch.float32
        assert config == {"format": "int8_tensorwise"} | (
            {"convrot": True, "convrot_groupsize": 256} if rotated else {}
        )
        params = TensorWiseINT8Layout.Params(
            scale=scale,
            orig_dtype=torch.float32,
            orig_shape=tuple(exact.shape),
            convrot=rotated,
            convrot_groupsize=256,
        )
        assert relative(QuantizedTensor(stored, "TensorWiseINT8Layout", params).dequantize(), exact) < most
        if rotated:  # without turning it back it is another matrix
            assert relative(stored * scale, exact) > 1
    for key in weights.keys() - {f"{layer}.weight" for layer in layers}:
        assert torch.equal(out[key], weights[key]), key
    check_liveditor(tmp_path / "out.safetensors")


GGUF_TYPES = [name for name, kind in WEIGHT_TYPES.items() if kind.ggml]


@pytest.mark.parametrize("weight_type, most", zip(GGUF_TYPES, (0.006, 0.04, 0.05, 0.08, 0.1), strict=True))
def test_gguf(weights, tmp_path, weight_type, most):
    gguf = pytest.importorskip("gguf")
    save_file(weights, tmp_path / "in.safetensors")
    convert_checkpoint(tmp_path / "in.safetensors", tmp_path / "out.gguf", weight_type=weight_type)
    reader = gguf.GGUFReader(tmp_path / "out.gguf")
    assert bytes(reader.get_field("general.architecture").parts[-1]).decode() == "wan"
    assert {tensor.name for tensor in reader.tensors} == set(weights)
    quantised = 0
    for tensor in reader.tensors:
        exact = weights[tensor.name]
        if (shape := reader.get_field(f"comfy.gguf.orig_shape.{tensor.name}")) is None:
            assert tuple(reversed(tensor.shape.tolist())) == tuple(exact.shape) and exact.ndim < 5
        else:
            assert tuple(int(shape.parts[i][0]) for i in shape.data) == tuple(exact.shape) and exact.ndim == 5
        found = torch.from_numpy(gguf.dequantize(tensor.data, tensor.tensor_type).copy()).reshape(exact.shape)
        if QUANTISED.fullmatch(tensor.name):
            quantised += 1
            assert tensor.tensor_type.name == WEIGHT_TYPES[weight_type].ggml
            assert relative(found, exact) < most
        else:
            assert torch.equal(found.to(exact.dtype), exact), tensor.name
            assert exact.ndim > 1 or tensor.tensor_type.name == "F32"
    assert quantised == 10 * tiny_models.LAYERS
    assert set(check_liveditor(tmp_path / "out.gguf")["keys"]) == set(weights)


def test_damaged_gguf(weights, tmp_path):
    save_file(weights, tmp_path / "in.safetensors")
    convert_checkpoint(tmp_path / "in.safetensors", tmp_path / "out.gguf", weight_type="gguf_q8_0")
    data = (tmp_path / "out.gguf").read_bytes()
    for name, content in {
        "cut.gguf": data[:-5000],
        "head.gguf": data[:500],
        "text.gguf": b"hello, text",
        "no.gguf": b"",
    }.items():
        (tmp_path / name).write_bytes(content)
        with pytest.raises(CheckpointError, match=f"{name}: the file is truncated or damaged"):
            check_liveditor(tmp_path / name)
    with pytest.raises(CheckpointError, match="nowhere.gguf: there is no such file"):
        check_liveditor(tmp_path / "nowhere.gguf")


@pytest.mark.parametrize("weight_type", [name for name, kind in WEIGHT_TYPES.items() if kind.layers])
def test_what_is_quantised_is_not_quantised_again(weights, tmp_path, weight_type):
    save_file(weights, tmp_path / "in.safetensors")
    convert(tmp_path / "in.safetensors", tmp_path / "small.safetensors", weight_type=weight_type)
    for other in ("bf16", "int8_tensorwise"):
        with pytest.raises(CheckpointError, match="small.safetensors: its weights are quantised already"):
            convert(tmp_path / "small.safetensors", tmp_path / "out.safetensors", weight_type=other)


def test_a_name_must_say_the_format(weights, tmp_path):
    save_file(weights, tmp_path / "in.safetensors")
    for name, weight_type, ending in (("a.gguf", "bf16", ".safetensors"), ("a.safetensors", "gguf_q8_0", ".gguf")):
        with pytest.raises(CheckpointError, match=f"{name}: a file of {weight_type} must end in {ending}. Name it so"):
            convert_checkpoint(tmp_path / "in.safetensors", tmp_path / name, weight_type=weight_type)


def test_a_package_that_is_missing_is_named(weights, tmp_path, monkeypatch):
    save_file(weights, tmp_path / "in.safetensors")
    monkeypatch.setitem(sys.modules, "gguf", None)
    with pytest.raises(CheckpointError, match="pip install gguf"):
        convert_checkpoint(tmp_path / "in.safetensors", tmp_path / "a.gguf", weight_type="gguf_q8_0")
    assert [path.name for path in tmp_path.iterdir()] == ["in.safetensors"]


def test_the_size_of_the_14b_is_what_its_shapes_say(monkeypatch):
    """Counted on shapes alone; the label of every weight type is right to a percent."""
    monkeypatch.setattr(torch, "randn", lambda shape, **_: torch.empty(shape, device="meta"))
    shapes = {key: weight.shape for key, weight in tiny_models.transformer(5120, 13824, 40).items()}
    for name, kind in WEIGHT_TYPES.items():
        size = sum(shape.numel() * (kind.bits / 8 if QUANTISED.fullmatch(key) else 2) for key, shape in shapes.items())
        assert size_of_14b(name) == pytest.approx(size, rel=0.01)


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
    with pytest.raises(
        CheckpointError,
        match="must be a safetensors file, got .bin. Turn it into one with the node Prepare LIVEditor Model",
    ):
        check_liveditor(tmp_path / "model.bin")


def test_a_failure_leaves_the_old_file_and_nothing_else(weights, tmp_path, monkeypatch):
    save_file(weights, tmp_path / "in.safetensors")
    (tmp_path / "out.safetensors").write_bytes(b"the old file")
    get = read._SafetensorsFile.__getitem__

    def fail_later(self, key):
        if (tmp_path / "out.safetensors.partial").exists() and key.startswith("blocks.1."):
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
@pytest.mark.parametrize("weight_type", WEIGHT_TYPES)
def test_memory_does_not_grow_with_the_file(tmp_path, weight_type):
    """At most twice the largest weight, of which the pickle holds many."""
    dim, ffn, peaks = 1024, 16384, []
    for layers in (1, 4):
        torch.save(tiny_models.transformer(dim, ffn, layers), tmp_path / "in.bin")
        done = convert_in_a_process(
            tmp_path / "in.bin", tmp_path / f"out{WEIGHT_TYPES[weight_type].extension}", "--weight-type", weight_type
        )
        assert done.returncode == 0, done.stderr
        peaks.append(int(done.stdout))
    assert max(peaks) <= 2 * dim * ffn * 2, peaks


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
    assert exit_.value.code == 1 and "Turn it into one with the node Prepare LIVEditor Model" in capsys.readouterr().err


def test_download_needs_huggingface_hub(monkeypatch, tmp_path):
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    with pytest.raises(CheckpointError, match="pip install huggingface_hub"):
        download.download(tmp_path)


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
    with pytest.raises(CheckpointError, match="Turn it into one with the node Prepare LIVEditor Model"):
        check_liveditor(tmp_path / "model.bin")
    with pytest.raises(CheckpointError, match="got .pth. Choose a safetensors file"):
        check_text_encoder(tmp_path / "encoder.pth")


@pytest.mark.parametrize("weight_type", WEIGHT_TYPES)
def test_the_size_in_memory_is_read_from_the_header(weights, tmp_path, weight_type):
    """What no one reads is not counted; fp8 asked for at loading halves a 16-bit file and no other."""
    save_file(weights, tmp_path / "in.safetensors")
    path = tmp_path / f"out{WEIGHT_TYPES[weight_type].extension}"
    convert_checkpoint(tmp_path / "in.safetensors", path, weight_type=weight_type)
    found = size_of(path)
    unused = sum(weights[key].numel() for key in weights if key.endswith(weight_names.UNUSED_WEIGHTS))
    assert unused and found.weights == pytest.approx(
        path.stat().st_size - unused * (4 if found.packed else 2), rel=0.05
    )
    assert found[1:] == (
        tiny_models.DIM,
        tiny_models.FFN,
        {"fp8": torch.float8_e4m3fn, "int": torch.int8}.get(weight_type[:3]),
        weight_type.startswith("gguf"),
    )
    halved = size_of(path, 1).weights
    assert halved == (found.weights / 2 if weight_type == "bf16" else pytest.approx(found.weights, rel=0.2))


def test_command_line_of_a_python_that_looks_for_modules_in_no_folder(weights, tmp_path):
    save_file(weights, tmp_path / "whole.safetensors")
    tool = Path(download.__file__).parent
    command = [sys.executable, "-I", tool, "check", tmp_path / "whole.safetensors"]
    out = subprocess.run(list(map(str, command)), cwd=tmp_path, capture_output=True, text=True)
    assert "a whole LIVEditor checkpoint" in out.stdout, out.stderr
