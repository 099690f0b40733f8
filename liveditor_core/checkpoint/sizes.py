"""How large a checkpoint's model is in memory and how wide, from the file's header alone."""

import functools
import os
from typing import NamedTuple

import safetensors
import torch

from .check import check_liveditor
from .quantise import gguf_library
from .weights import QUANTISED, TORCH_NAMES, UNUSED_WEIGHTS


class Size(NamedTuple):
    """weights: bytes in memory. dim, ffn_dim: the transformer's. rounds_to: what products round their inputs to, as
    the host has it for fp8 and int8, or None. packed: GGUF, unpacked by its own loader whenever it is used."""

    weights: int
    dim: int
    ffn_dim: int
    rounds_to: torch.dtype | None = None
    packed: bool = False


def size_of(path, bytes_per_weight=None) -> Size:
    """Of a LIVEditor checkpoint.

    Args:
        bytes_per_weight: where the loader is asked to keep the weights of a 16-bit file in another type.

    Raises:
        CheckpointError: see `check_liveditor`.
    """
    state = os.stat(path) if os.path.isfile(path) else None
    return _size_of(str(path), bytes_per_weight, state and (state.st_size, state.st_mtime))


@functools.lru_cache(maxsize=32)
def _size_of(path, bytes_per_weight, _state):
    check_liveditor(path)
    if path.lower().endswith(".gguf"):
        tensors = gguf_library().GGUFReader(path).tensors
        found = {tensor.name: (tuple(reversed(tensor.shape.tolist())), int(tensor.n_bytes)) for tensor in tensors}
        return _made(found, packed=True)
    found, rounds_to = {}, None
    with safetensors.safe_open(path, framework="pt") as file:
        for key in list(file.keys()):
            tensor = file.get_slice(key)
            shape, dtype = tuple(tensor.get_shape()), TORCH_NAMES.get(tensor.get_dtype(), torch.bfloat16)
            if QUANTISED.search(key) is not None and dtype in (torch.float8_e4m3fn, torch.int8):
                rounds_to = dtype
            kept = bytes_per_weight if bytes_per_weight and rounds_to is None else dtype.itemsize
            found[key] = shape, torch.Size(shape).numel() * kept
    return _made(found, rounds_to=rounds_to)


def _made(found, **kind):
    (dim,) = {shape[-1] for key, (shape, _) in found.items() if key.endswith("head.modulation")}
    (ffn_dim,) = {shape[0] for key, (shape, _) in found.items() if key.endswith("blocks.0.ffn.0.weight")}
    weights = sum(size for key, (_, size) in found.items() if not key.endswith(UNUSED_WEIGHTS))
    return Size(weights, dim, ffn_dim, **kind)
