"""LoRA files for Wan in the spellings that trainers write, as ComfyUI names the layers of this model.

ComfyUI itself reads `diffusion_model.blocks.0.self_attn.q` and `lora_unet_blocks_0_self_attn_q`. The others are:

- DiffSynth: `pipe.dit.blocks...`; PEFT: `base_model.model.blocks...`; without any prefix: `blocks...`;
- diffusers: `transformer.blocks.0.attn1.to_q`, and `ffn.net.0.proj` for the feed-forward layer;
- LyCORIS: `lycoris_blocks_0_self_attn_q`;
- PEFT's name of the adapter in the middle: `lora_A.default.weight`.
"""

import re
from typing import NamedTuple

PREFIXES = ("pipe.dit.", "base_model.model.", "transformer.", "diffusion_model.", "dit.", "model.", "")
# Of diffusers' Wan; the longer one first where one begins the other.
DIFFUSERS_LAYERS = {
    "attn1.to_out.0": "self_attn.o",
    "attn2.to_out.0": "cross_attn.o",
    "ffn.net.0.proj": "ffn.0",
    "ffn.net.2": "ffn.2",
    **{f"attn1.to_{x}": f"self_attn.{x}" for x in "qkv"},
    **{f"attn2.to_{x}": f"cross_attn.{x}" for x in "qkv"},
}
ADAPTER_NAME = re.compile(r"\.(lora_[AB])\.\w+\.weight$")
LYCORIS = "lycoris_"


class Renamed(NamedTuple):
    """A LoRA file's tensors under the names that ComfyUI reads, and how many of its keys are of this model's layers."""

    tensors: dict
    fitted: int
    unknown: list[str]  # keys that fit no layer, as in the file


def rename(lora: dict, layers) -> Renamed:
    """Name the tensors of a LoRA file as ComfyUI reads them.

    Args:
        lora: a file's tensors by name.
        layers: names of the model's layers without `diffusion_model.`, such as `blocks.0.self_attn.q`.
    """
    flat = {layer.replace(".", "_"): layer for layer in layers}
    tensors, unknown = {}, []
    for key, tensor in lora.items():
        layer, rest = _split(ADAPTER_NAME.sub(r".\1.weight", key), layers, flat)
        if layer is None:
            unknown.append(key)
            tensors[key] = tensor
        else:
            tensors[f"diffusion_model.{layer}.{rest}"] = tensor
    return Renamed(tensors, len(lora) - len(unknown), unknown)


def _split(key, layers, flat):
    """The layer that a key is of, and what follows its name in the key; None and None if it is of none."""
    for flat_prefix in ("lora_unet__", "lora_unet_", LYCORIS):
        if key.startswith(flat_prefix):
            name, _, rest = key[len(flat_prefix) :].partition(".")
            return (flat[name], rest) if name in flat else (None, None)
    prefix = next(prefix for prefix in PREFIXES if key.startswith(prefix))
    name = key[len(prefix) :]
    for theirs, ours in DIFFUSERS_LAYERS.items():
        name = name.replace(f".{theirs}.", f".{ours}.", 1)
    parts = name.split(".")
    for end in range(len(parts) - 1, 0, -1):
        if (layer := ".".join(parts[:end])) in layers:
            return layer, ".".join(parts[end:])
    return None, None
