"""The weight types in which a checkpoint can be kept, their size and the cards they are for."""

from typing import NamedTuple


class WeightType(NamedTuple):
    """How the matrices of the blocks are kept; all else keeps its precision.

    bits: of one of their numbers, scales counted.
    about: whom it is for, as the menu says it.
    layers: what the host is told of a quantised layer; None where the file says it itself or nothing is quantised.
    ggml: the type's name in GGUF; None for safetensors.
    """

    bits: float
    about: str
    layers: dict | None = None
    ggml: str | None = None

    @property
    def extension(self):
        return ".gguf" if self.ggml else ".safetensors"


ROTATED = 256  # numbers that are rotated together, at most; ComfyUI's own choice

WEIGHT_TYPES = {
    "bf16": WeightType(16, "as published; for 24 GB with 48 GB of RAM"),
    "fp8_e4m3fn_scaled": WeightType(8, "RTX 40, 50, H100: fastest there", {"format": "float8_e4m3fn"}),
    "int8_tensorwise": WeightType(8, "RTX 20, 30 and later", {"format": "int8_tensorwise"}),
    "int8_convrot": WeightType(
        8, "as int8_tensorwise, rotated: more exact, slower", {"format": "int8_tensorwise", "convrot": True}
    ),
    "gguf_q8_0": WeightType(8.5, "any card, the most exact; needs ComfyUI-GGUF", ggml="Q8_0"),
    "gguf_q5_1": WeightType(6, "any card, less RAM; needs ComfyUI-GGUF", ggml="Q5_1"),
    "gguf_q5_0": WeightType(5.5, "any card, less RAM; needs ComfyUI-GGUF", ggml="Q5_0"),
    "gguf_q4_1": WeightType(5, "any card, least RAM; needs ComfyUI-GGUF", ggml="Q4_1"),
    "gguf_q4_0": WeightType(4.5, "any card, smallest, coarsest; needs ComfyUI-GGUF", ggml="Q4_0"),
}

# LIVEditor-14B: 40 blocks of eight matrices of 5120 x 5120 and two of 5120 x 13824, and what is not quantised, in
# bytes.
MATRICES = 40 * (8 * 5120 * 5120 + 2 * 5120 * 13824)
ALL_ELSE = 478_000_000


def size_of_14b(name) -> float:
    """Bytes of LIVEditor-14B in a weight type; within one percent."""
    return MATRICES * WEIGHT_TYPES[name].bits / 8 + ALL_ELSE


def label(name) -> str:
    """A weight type as menus show it."""
    return f"{name}: {size_of_14b(name) / 1e9:.1f} GB, {WEIGHT_TYPES[name].about}"
