"""What decides the result of a run, as one number: two runs with the same one give the same edit."""

import functools
import hashlib
import json
from pathlib import Path

import torch

import comfy.model_management

from ..start import comfyui_version

SAMPLED = 1 << 14  # bytes from the beginning, the middle and the end of every weight: all of 28 GB takes half a minute


def fingerprint(model, **parts) -> str:
    """Of a MODEL and whatever else decides the result.

    Weights are those of the MODEL without its patches, whether or not these are applied at the moment, as samples of
    every tensor; patches such as LoRAs count with their strength. Everything in `parts` counts wholly: tensors, and
    numbers, words, lists and dicts of them. Of other objects, hooks among them, only the class counts: what they were
    made by must be among the parts.
    """
    digest = hashlib.sha256()
    originals = getattr(model, "backup", {})
    transformer = model.model.diffusion_model  # its state dict may be another than its weights, as GGUF's is
    for name, weight in sorted([*transformer.named_parameters(), *transformer.named_buffers()], key=lambda n: n[0]):
        backup = originals.get(f"diffusion_model.{name}")
        for each in _tensors_of(weight if backup is None else backup.weight):
            _add_sample(digest, name, each)
    for key, patches in sorted(model.patches.items(), key=lambda item: str(item[0])):
        _add(digest, key)
        for strength, patch, strength_model, offset, *_ in patches:
            _add(digest, (strength, strength_model, str(offset)))
            for weight in _weights_of(patch):
                _add_sample(digest, "", weight)
    device = comfy.model_management.get_torch_device()
    _add(digest, (str(model.model.get_dtype_inference()), device.type))
    _add(digest, parts)
    return digest.hexdigest()


@functools.cache
def code_version() -> str:
    """Of the pack's code as it lies on the disk, of ComfyUI and of PyTorch."""
    digest = hashlib.sha256(f"{comfyui_version()} {torch.__version__}".encode())
    core = Path(__file__).parents[1]
    for file in sorted([*core.rglob("*.py"), *core.with_name("kernels").rglob("*.py")]):
        digest.update(file.read_bytes())
    return digest.hexdigest()


def _tensors_of(weight):
    """The tensors that a weight consists of: a quantised one has values and scales."""
    if type(weight) in (torch.Tensor, torch.nn.Parameter) or not hasattr(weight, "__tensor_flatten__"):
        return [weight]
    return [getattr(weight, name) for name in weight.__tensor_flatten__()[0]]


def _weights_of(patch):
    """The tensors of a patch: the host has adapters with `weights`, and nested tuples."""
    if isinstance(patch, torch.Tensor):
        yield patch
    elif isinstance(patch, (tuple, list)):
        for each in patch:
            yield from _weights_of(each)
    elif hasattr(patch, "weights"):
        yield from _weights_of(patch.weights)


def _add_sample(digest, name, weight):
    _add(digest, (name, str(weight.dtype), list(weight.shape)))
    if weight.device.type == "meta":
        return
    flat = weight.detach().reshape(-1)
    count = max(1, SAMPLED // max(1, flat.element_size()))
    middle = max(0, len(flat) // 2 - count // 2)
    for start in (0, middle, max(0, len(flat) - count)):
        _add_bytes(digest, flat[start : start + count])


def _add_bytes(digest, tensor):
    flat = tensor.detach().cpu().contiguous().reshape(-1)
    digest.update(flat.view(torch.uint8).numpy().data)


def _add(digest, value):
    if isinstance(value, torch.Tensor):
        _add(digest, (str(value.dtype), list(value.shape)))
        _add_bytes(digest, value)
    elif isinstance(value, dict):
        digest.update(b"{")
        for key in sorted(value, key=str):
            _add(digest, str(key))
            _add(digest, value[key])
        digest.update(b"}")
    elif isinstance(value, (list, tuple)):
        digest.update(b"[")
        for each in value:
            _add(digest, each)
        digest.update(b"]")
    else:
        plain = value if isinstance(value, (str, int, float, bool, type(None))) else type(value).__qualname__
        digest.update(json.dumps(plain).encode() + b"\n")
