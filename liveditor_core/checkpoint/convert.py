"""Turn a checkpoint into safetensors that ComfyUI's loaders read, in bf16 or fp8."""

import functools
import json
import os

import torch

from .read import model_tensors, open_tensors
from .weights import HIGH_PRECISION, QUANTISED, WEIGHT_TYPES, CheckpointError, missing_keys
from .write import write_safetensors

ELEMENTS_AT_ONCE = 1 << 20  # what the converter holds in memory, however large a weight is


def convert_checkpoint(source, destination, *, weight_type="bf16", prefix=None, progress=True) -> None:
    """Write a published or converted LIVEditor checkpoint as safetensors that ComfyUI's loaders read.

    Weights are read, cast and written a million numbers at a time; the file appears under its name only when it is
    whole.

    Args:
        source: the published PyTorch pickle, or a safetensors file.
        destination: file to write.
        weight_type: `bf16`, or `fp8_e4m3fn_scaled` (ComfyUI's scaled fp8: one scale per weight matrix of the blocks).
        prefix: of the keys to take, where the file holds several copies of the model.
        progress: show a progress bar.

    Raises:
        CheckpointError: not a LIVEditor checkpoint, weights missing, unreadable, or a pickle that holds code (which
            is not run); or the disk is full.
    """
    if weight_type not in WEIGHT_TYPES:
        raise CheckpointError(f"weight type must be one of {', '.join(WEIGHT_TYPES)}, got {weight_type}.")
    name = os.path.basename(source)
    tensors = model_tensors(open_tensors(source), name, prefix)
    missing = missing_keys(tensors)
    if missing:
        raise CheckpointError(
            f"{name}: not a whole LIVEditor checkpoint, {len(missing)} weights are missing: {', '.join(missing[:5])}, "
            "..."
        )
    quantised = [key for key in sorted(tensors) if weight_type != "bf16" and QUANTISED.fullmatch(key)]
    layers = {key.removesuffix(".weight"): {"format": "float8_e4m3fn"} for key in quantised}
    metadata = {"format": "pt", "liveditor": f"LIVEditor, {weight_type}"}
    dtypes, shapes = {}, {}
    for key in tensors:
        tensor = tensors[key]
        dtypes[key], shapes[key] = tensor.dtype, tensor.shape
    if layers:
        metadata["_quantization_metadata"] = json.dumps({"format_version": "1.0", "layers": layers})

    entries = []  # (key, dtype, shape, function that gives the numbers piece by piece)
    for key in sorted(tensors):
        if key in quantised:
            scale = functools.cache(lambda key=key: fp8_scale(tensors[key]))
            entries.append(
                (
                    key,
                    torch.float8_e4m3fn,
                    shapes[key],
                    lambda key=key, scale=scale: (to_fp8(piece, scale()) for piece in _pieces(tensors[key])),
                )
            )
            entries.append((f"{key}_scale", torch.float32, (), lambda scale=scale: [torch.tensor(scale())]))
        else:
            entries.append(
                (
                    key,
                    dtypes[key] if HIGH_PRECISION.search(key) or not dtypes[key].is_floating_point else torch.bfloat16,
                    shapes[key],
                    lambda key=key: _pieces(tensors[key]),
                )
            )

    write_safetensors(destination, entries, metadata, progress)


def fp8_scale(weight):
    """What a weight is divided by so that its largest number becomes fp8's largest."""
    largest = max(max(abs(x.item()) for x in piece.aminmax()) for piece in _pieces(weight))
    return max(largest / torch.finfo(torch.float8_e4m3fn).max, 1e-12)


def to_fp8(weight, scale):
    """A weight as ComfyUI's scaled fp8 keeps it: `weight_scale` times the fp8 numbers gives it back."""
    return (weight.float() / scale).to(torch.float8_e4m3fn)


def _pieces(tensor):
    return tensor.reshape(-1).split(ELEMENTS_AT_ONCE)
