"""Refuse files that are not what they should be, before anything of them is loaded."""

import os

import safetensors

from .quantise import gguf_library
from .weights import SOURCE_EMBEDDING, CheckpointError, missing_keys

CHECKPOINT = "LIVEditor checkpoint"
SMALL_TEXT_ENCODER = "liveditor_text_encoder"  # in the metadata of a text encoder of ours: its configuration
# A weight by which each kind of text encoder is known, in the order in which they are asked for.
TEXT_ENCODERS = {
    "encoder.block.1.layer.0.SelfAttention.relative_attention_bias.weight": None,  # UMT5-XXL, as ComfyUI reads it
    "blocks.0.attn.q.weight": "UMT5-XXL as WanVideoWrapper and the Wan repository keep it",
    "encoder.block.0.layer.0.SelfAttention.q.weight": "T5-XXL, of Flux, SD3 and others",
    "text_model.encoder.layers.0.self_attn.q_proj.weight": "a CLIP",
    "model.layers.0.self_attn.q_proj.weight": "a language model",
}


def check_safetensors(path, what=CHECKPOINT) -> dict:
    """Read a safetensors file's header; the weights stay on disk.

    Returns:
        {"keys": [...], "metadata": {...}}.

    Raises:
        CheckpointError: the file is missing, of another format, empty, truncated or damaged.
    """
    name = os.path.basename(path)
    remedy = (
        "Turn it into one with the node Prepare LIVEditor Model, or in a terminal: python -m "
        f"liveditor_core.checkpoint convert {name} OUT.safetensors"
        if what == CHECKPOINT
        else "Choose a safetensors file."
    )
    if not os.path.isfile(path):
        raise CheckpointError(f"{name}: there is no such file. Put the {what} there or choose another.")
    if not name.lower().endswith((".safetensors", ".sft")):
        raise CheckpointError(
            f"{name}: a {what} must be a safetensors file, got {os.path.splitext(name)[1] or 'no file type'}. " + remedy
        )
    try:
        with safetensors.safe_open(path, framework="pt") as file:
            return {"keys": list(file.keys()), "metadata": file.metadata() or {}}
    except (safetensors.SafetensorError, OSError) as error:
        raise CheckpointError(
            f"{name}: the file is truncated or damaged ({error}). Download or convert it again."
        ) from error


def check_liveditor(path) -> dict:
    """Refuse a file, safetensors or GGUF, that LIVEditor cannot be loaded from, before anything of it is loaded.

    Returns:
        As `check_safetensors`.

    Raises:
        CheckpointError: see `check_safetensors`; also for another model, or for missing weights, which it names.
    """
    header = _check_gguf(path) if str(path).lower().endswith(".gguf") else check_safetensors(path)
    name, keys = os.path.basename(path), header["keys"]
    if not any(key.endswith("head.modulation") for key in keys):
        raise CheckpointError(f"{name}: this is no Wan-type video model. Choose a LIVEditor checkpoint.")
    if not any(key.endswith(f"{SOURCE_EMBEDDING}.weight") for key in keys):
        raise CheckpointError(
            f"{name}: this is a Wan model without a source stream ({SOURCE_EMBEDDING}.weight is missing). "
            "Choose a LIVEditor checkpoint, or load this one with Load Diffusion Model."
        )
    prefix = next(key for key in keys if key.endswith("head.modulation"))[: -len("head.modulation")]
    missing = missing_keys(key[len(prefix) :] for key in keys if key.startswith(prefix))
    if missing:
        raise CheckpointError(
            f"{name}: {len(missing)} weights are missing: "
            f"{', '.join(missing[:5])}{', ...' if len(missing) > 5 else ''}. Download or convert the checkpoint again."
        )
    return header


def _check_gguf(path) -> dict:
    """The same of a GGUF file."""
    name = os.path.basename(path)
    if not os.path.isfile(path):
        raise CheckpointError(f"{name}: there is no such file. Put the {CHECKPOINT} there or choose another.")
    library = gguf_library()
    try:
        return {"keys": [tensor.name for tensor in library.GGUFReader(path).tensors], "metadata": {}}
    except (ValueError, IndexError, KeyError, OSError) as error:  # whichever number of a damaged file comes first
        raise CheckpointError(
            f"{name}: the file is truncated or damaged ({error}). Download or convert it again."
        ) from error


def check_text_encoder(path) -> dict:
    """Refuse a text encoder that is not Wan's UMT5-XXL, or not as ComfyUI reads it, before anything of it is loaded.

    Returns:
        As `check_safetensors`.

    Raises:
        CheckpointError: see `check_safetensors`; also for another kind, which it names.
    """
    header = check_safetensors(path, "text encoder")
    if SMALL_TEXT_ENCODER not in header["metadata"]:
        keys = set(header["keys"])
        kind = next((kind for key, kind in TEXT_ENCODERS.items() if key in keys), "no text encoder that is known here")
        if kind is not None:
            raise CheckpointError(
                f"{os.path.basename(path)}: needs the UMT5-XXL text encoder of Wan as ComfyUI reads it, got {kind}. "
                "Choose umt5_xxl_fp8_e4m3fn_scaled.safetensors or umt5_xxl_fp16.safetensors, from "
                "Comfy-Org/Wan_2.1_ComfyUI_repackaged on Hugging Face, in models/text_encoders."
            )
    return header
