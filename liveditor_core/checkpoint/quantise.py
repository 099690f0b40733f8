"""One weight of a checkpoint as it is stored, read and computed a million numbers at a time."""

import functools
from collections.abc import Callable, Iterable
from typing import NamedTuple

import torch

from .weight_types import ROTATED, WEIGHT_TYPES
from .weights import CheckpointError

ELEMENTS_AT_ONCE = 1 << 20  # what the converter holds in memory, however large a weight is


class Entry(NamedTuple):
    """A tensor of the file to write.

    stored: its torch dtype, or the name of its GGML type.
    size: bytes.
    pieces: gives its numbers as stored, one piece after the other.
    """

    key: str
    stored: torch.dtype | str
    shape: tuple
    size: int
    pieces: Callable[[], Iterable]


def plain(key, tensor, dtype, stored=None) -> Entry:
    """Args: tensor, a function that gives it; stored, the name of the dtype where the file has its own."""
    shape = tuple(tensor().shape)

    def pieces():
        for piece in _flat(tensor()):
            yield piece.to(dtype)

    return Entry(key, stored or dtype, shape, torch.Size(shape).numel() * dtype.itemsize, pieces)


def quantised(key, tensor, weight_type) -> list[Entry]:
    """A matrix [out, in] and what belongs to it. Args: tensor, a function that gives it; weight_type, its name."""
    return _QUANTISERS[weight_type](key, tensor)


def fp8(key, tensor):
    """One scale for the matrix: `weight_scale` times the numbers gives it back."""
    scale = functools.cache(lambda: fp8_scale(tensor()))

    def pieces():
        for piece in _flat(tensor()):
            yield to_fp8(piece, scale())

    shape = tuple(tensor().shape)
    return [
        Entry(key, torch.float8_e4m3fn, shape, torch.Size(shape).numel(), pieces),
        Entry(f"{key}_scale", torch.float32, (), 4, lambda: [torch.tensor(scale())]),
    ]


def fp8_scale(weight):
    """What a weight is divided by so that its largest number becomes fp8's largest."""
    largest = max(max(abs(x.item()) for x in piece.aminmax()) for piece in _flat(weight))
    return max(largest / torch.finfo(torch.float8_e4m3fn).max, 1e-12)


def to_fp8(weight, scale):
    """A weight as ComfyUI's scaled fp8 keeps it: `weight_scale` times the fp8 numbers gives it back."""
    return (weight.float() / scale).to(torch.float8_e4m3fn)


def rotation(columns) -> int | None:
    """How many numbers of a row are rotated together: a power of 4, as the host has it; None where none fits."""
    return next((size for size in (ROTATED, 64, 16) if columns % size == 0), None)


def hadamard(size):
    """Orthogonal and symmetric, of plus and minus one over the root of `size`, a power of 4; the host's own order."""
    four = torch.ones(4, 4) - 2 * torch.eye(4).flip(0)
    whole = torch.ones(1, 1)
    while len(whole) < size:
        whole = torch.kron(whole, four)
    return whole / size**0.5


def int8(key, tensor, rotated=False):
    """A scale for each row; with `rotated`, parts of rows are rotated first, so that no number stands out (ConvRot)."""
    rows, columns = tensor().shape
    size = rotation(columns) if rotated else None
    turn = hadamard(size) if size else None
    scales = torch.empty(rows, 1)  # at once: small pieces between large ones would keep the heap from being reused

    def pieces():
        for part, scale in zip(_rows(tensor()), _rows(scales, columns), strict=True):
            part = part.float()
            if turn is not None:
                part = (part.view(len(part), -1, size) @ turn).view_as(part)
            torch.amax(part.abs(), 1, keepdim=True, out=scale).div_(127).clamp_(min=1e-30)
            yield (part / scale).round_().to(torch.int8)

    return [
        Entry(key, torch.int8, (rows, columns), rows * columns, pieces),
        Entry(f"{key}_scale", torch.float32, (rows, 1), 4 * rows, lambda: [scales]),
    ]


def ggml(key, tensor, name):
    """Blocks of 32 numbers of a row with a scale each, as llama.cpp has them."""
    library = gguf_library()
    kind = library.GGMLQuantizationType[name]
    rows, columns = tensor().shape
    numbers, block = library.GGML_QUANT_SIZES[kind]
    if columns % numbers:
        return [plain(key, tensor, torch.bfloat16, "BF16")]

    def pieces():
        for part in _rows(tensor()):
            yield torch.from_numpy(library.quants.quantize(part.float().numpy(), kind))

    return [Entry(key, name, (rows, columns), rows * columns // numbers * block, pieces)]


def gguf_library():
    try:
        import gguf
    except ImportError as error:
        raise CheckpointError(
            "GGUF: the package gguf is needed, which comes with ComfyUI-GGUF. Run: pip install gguf"
        ) from error
    return gguf


def layer_config(weight_type, columns) -> dict:
    """What the host is told of a quantised layer with so many inputs."""
    config = dict(WEIGHT_TYPES[weight_type].layers)
    if config.pop("convrot", False) and rotation(columns):
        config |= {"convrot": True, "convrot_groupsize": rotation(columns)}
    return config


_QUANTISERS = {
    "fp8_e4m3fn_scaled": fp8,
    "int8_tensorwise": int8,
    "int8_convrot": functools.partial(int8, rotated=True),
    **{name: functools.partial(ggml, name=kind.ggml) for name, kind in WEIGHT_TYPES.items() if kind.ggml},
}


def _flat(tensor):
    return tensor.reshape(-1).split(ELEMENTS_AT_ONCE)


def _rows(tensor, columns=None):
    return tensor.split(max(1, ELEMENTS_AT_ONCE // (columns or tensor.shape[1])))
