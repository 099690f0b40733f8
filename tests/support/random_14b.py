"""Files of full-size random models in their published layouts, for speed and memory: made in seconds, not minutes.

All blocks of the transformer are the same one, which is quantised once.
"""

import json
import re
from pathlib import Path

import tiny_models
import torch

FULL = (5120, 13824, 40)  # width, feed-forward width, blocks


def write_transformer(path, weight_type, size=FULL):
    """A LIVEditor transformer of a weight type, as the converter writes it."""
    from liveditor.liveditor_core.checkpoint.convert import entries_of
    from liveditor.liveditor_core.checkpoint.weight_types import WEIGHT_TYPES
    from liveditor.liveditor_core.checkpoint.write import write_safetensors
    from liveditor.liveditor_core.checkpoint.write_gguf import write_gguf

    dim, ffn, layers = size
    one, metadata = entries_of(tiny_models.transformer(dim, ffn, 1), weight_type)
    entries = []
    for entry in one:
        if not entry.key.startswith("blocks.0."):
            entries.append(entry)
            continue
        pieces = [piece.clone() for piece in entry.pieces()]
        for block in range(layers):
            entries.append(entry._replace(key=_of_block(entry.key, block), pieces=lambda pieces=pieces: pieces))
    if ggml := WEIGHT_TYPES[weight_type].ggml:
        return write_gguf(path, entries, ggml)
    if "_quantization_metadata" in metadata:
        quantisation = json.loads(metadata["_quantization_metadata"])
        quantisation["layers"] = {
            _of_block(key, block): config for key, config in quantisation["layers"].items() for block in range(layers)
        }
        metadata["_quantization_metadata"] = json.dumps(quantisation)
    write_safetensors(path, entries, metadata)


def _of_block(key, block):
    return re.sub(r"^blocks\.0\.", f"blocks.{block}.", key)


def write_text_encoder(path):
    """UMT5-XXL as umt5_xxl_fp8_e4m3fn_scaled: layers in fp8 with a scale each, the table of words in fp16."""
    from safetensors.torch import save_file

    import comfy.ops
    import comfy.text_encoders.t5

    with torch.device("meta"):
        config = json.loads((Path(comfy.text_encoders.t5.__file__).parent / "umt5_config_xxl.json").read_text())
        t5 = comfy.text_encoders.t5.T5(config, torch.bfloat16, "meta", comfy.ops.disable_weight_init)
    weights = {"scaled_fp8": torch.zeros(0, dtype=torch.float8_e4m3fn)}
    for key, like in t5.state_dict().items():
        if "norm" in key:
            weights[key] = torch.ones(like.shape, dtype=torch.float16)
            continue
        numbers = _random(like)
        if like.ndim == 2 and key.startswith("encoder.block.") and "relative_attention_bias" not in key:
            weights[key] = numbers.to(torch.float8_e4m3fn).cpu()
            weights[key.removesuffix("weight") + "scale_weight"] = torch.ones(())
        else:
            weights[key] = numbers.half().cpu()
    weights["spiece_model"] = torch.frombuffer(bytearray(tiny_models.vocabulary()), dtype=torch.uint8)
    save_file(weights, path)


def write_vae(path):
    """The VAE of Wan 2.1."""
    from safetensors.torch import save_file

    import comfy.ldm.wan.vae

    with torch.device("meta"):
        vae = comfy.ldm.wan.vae.WanVAE(
            dim=96,
            z_dim=16,
            dim_mult=[1, 2, 4, 4],
            num_res_blocks=2,
            attn_scales=[],
            temperal_downsample=[False, True, True],
            image_channels=3,
            conv_out_channels=3,
            dropout=0.0,
        )
    weights = {
        key: torch.ones(like.shape).bfloat16() if key.endswith("gamma") else _random(like).bfloat16().cpu()
        for key, like in vae.state_dict().items()
    }
    save_file(weights, path)


def _random(like):
    device = "cuda" if torch.cuda.is_available() else "cpu"
    return torch.randn(like.shape, device=device) * max(1, like[0].numel()) ** -0.5
