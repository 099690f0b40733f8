"""The weights of a LIVEditor checkpoint by name, and which of them keep their precision."""

import re

import torch

SOURCE_EMBEDDING = "source_video_embedding_more_memory"

# Few numbers, much effect: the gates, the embeddings of both streams and the modulation keep the precision they came
# in.
HIGH_PRECISION = re.compile(r"alpha_[12]|patch_embedding|modulation|" + SOURCE_EMBEDDING)
QUANTISED = re.compile(r"blocks\.\d+\.(self_attn\.[qkvo]|cross_attn\.[qkvo]|ffn\.[02])\.weight$")
# In the published checkpoint, read by no one: the released model computes with self_attn.alpha_1 alone.
UNUSED_WEIGHTS = ("self_attn.alpha_2.weight", "cross_attn.alpha_1.weight", "cross_attn.alpha_2.weight")

_LINEAR = ("weight", "bias")
MODEL_KEYS = (
    *(
        f"{name}.{p}"
        for name in (
            "patch_embedding",
            SOURCE_EMBEDDING,
            "text_embedding.0",
            "text_embedding.2",
            "time_embedding.0",
            "time_embedding.2",
            "time_projection.1",
            "head.head",
        )
        for p in _LINEAR
    ),
    "head.modulation",
)
BLOCK_KEYS = (
    "modulation",
    "self_attn.alpha_1.weight",
    "norm3.weight",
    "norm3.bias",
    "ffn.0.weight",
    "ffn.0.bias",
    "ffn.2.weight",
    "ffn.2.bias",
    *(
        f"{attn}.{name}"
        for attn in ("self_attn", "cross_attn")
        for name in ("norm_q.weight", "norm_k.weight", *(f"{x}.{p}" for x in "qkvo" for p in _LINEAR))
    ),
)
TORCH_NAMES = {
    "F64": torch.float64,
    "F32": torch.float32,
    "F16": torch.float16,
    "BF16": torch.bfloat16,
    "F8_E4M3": torch.float8_e4m3fn,
    "F8_E5M2": torch.float8_e5m2,
    "I64": torch.int64,
    "I32": torch.int32,
    "I8": torch.int8,
    "U8": torch.uint8,
}
SAFETENSORS_NAMES = {dtype: name for name, dtype in TORCH_NAMES.items()}


class CheckpointError(ValueError):
    """A file is not what it should be; the message names the file, the rule and the remedy."""


def missing_keys(keys) -> list[str]:
    """Weights that LIVEditor needs and `keys` lack, in the model's order."""
    keys = set(keys)
    blocks = {int(m[1]) for key in keys if (m := re.match(r"blocks\.(\d+)\.", key))}
    wanted = [*MODEL_KEYS, *(f"blocks.{i}.{key}" for i in range(max(blocks, default=0) + 1) for key in BLOCK_KEYS)]
    return [key for key in wanted if key not in keys]
