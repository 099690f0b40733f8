"""Turn a checkpoint into a file that ComfyUI's loaders read, in one of the weight types."""

import json
import os

import torch

from .quantise import layer_config, plain, quantised
from .read import model_tensors, open_tensors
from .weight_types import WEIGHT_TYPES
from .weights import HIGH_PRECISION, QUANTISED, CheckpointError, missing_keys
from .write import write_safetensors
from .write_gguf import write_gguf

FLOATS = (torch.float64, torch.float32, torch.float16, torch.bfloat16)


def convert_checkpoint(source, destination, *, weight_type="bf16", prefix=None, progress=None) -> None:
    """Write a published or converted LIVEditor checkpoint as a file that ComfyUI's loaders read.

    Weights are read, cast and written a million numbers at a time; the file appears under its name only when it is
    whole.

    Args:
        source: the published PyTorch pickle, or a safetensors file.
        destination: file to write.
        weight_type: one of WEIGHT_TYPES.
        prefix: of the keys to take, where the file holds several copies of the model.
        progress: called with bytes done and bytes in all; what it raises ends the conversion, and nothing is left.

    Raises:
        CheckpointError: not a LIVEditor checkpoint, weights missing or already quantised, unreadable, or a pickle
            that holds code (which is not run); the package for a weight type is missing; or the disk is full.
    """
    if weight_type not in WEIGHT_TYPES:
        raise CheckpointError(f"weight type must be one of {', '.join(WEIGHT_TYPES)}, got {weight_type}.")
    kind = WEIGHT_TYPES[weight_type]
    if not str(destination).endswith(kind.extension):
        raise CheckpointError(
            f"{os.path.basename(destination)}: a file of {weight_type} must end in {kind.extension}. Name it "
            "so, or choose another weight type."
        )
    name = os.path.basename(source)
    tensors = model_tensors(open_tensors(source), name, prefix)
    missing = missing_keys(tensors)
    if missing:
        raise CheckpointError(
            f"{name}: not a whole LIVEditor checkpoint, {len(missing)} weights are missing: {', '.join(missing[:5])}, "
            "..."
        )
    if any(tensors[key].dtype not in FLOATS for key in tensors if QUANTISED.fullmatch(key)):
        raise CheckpointError(
            f"{name}: its weights are quantised already, and would lose twice. Choose the published file or one in "
            "bf16."
        )
    entries, metadata = entries_of(tensors, weight_type)
    if kind.ggml:
        write_gguf(destination, entries, kind.ggml, progress)
    else:
        write_safetensors(destination, entries, metadata, progress)


def entries_of(tensors, weight_type):
    """What a file of a weight type holds.

    Args:
        tensors: weights by name, each read when it is asked for.

    Returns:
        (entries, metadata): of a safetensors file; GGUF has its own.
    """
    kind, entries, layers = WEIGHT_TYPES[weight_type], [], {}
    for key in sorted(tensors):
        tensor = _later(tensors, key)
        dtype, shape = tensor().dtype, tensor().shape
        if weight_type != "bf16" and QUANTISED.fullmatch(key):
            entries += quantised(key, tensor, weight_type)
            if kind.layers:
                layers[key.removesuffix(".weight")] = layer_config(weight_type, shape[1])
        elif kind.ggml:  # its readers know vectors in fp32
            exact = HIGH_PRECISION.search(key) or len(shape) < 2
            entries.append(plain(key, tensor, *((torch.float32, "F32") if exact else (torch.bfloat16, "BF16"))))
        else:
            keep = HIGH_PRECISION.search(key) or not dtype.is_floating_point
            entries.append(plain(key, tensor, dtype if keep else torch.bfloat16))
    metadata = {"format": "pt", "liveditor": f"LIVEditor, {weight_type}"}
    if layers:
        metadata["_quantization_metadata"] = json.dumps({"format_version": "1.0", "layers": layers})
    return entries, metadata


def _later(tensors, key):
    return lambda: tensors[key]
