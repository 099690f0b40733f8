"""Refuse files that are not what they should be, before anything of them is loaded."""

import os

import safetensors

from .weights import SOURCE_EMBEDDING, CheckpointError, missing_keys


def check_safetensors(path, what="LIVEditor checkpoint") -> dict:
    """Read a safetensors file's header; the weights stay on disk.

    Returns:
        {"keys": [...], "metadata": {...}}.

    Raises:
        CheckpointError: the file is missing, of another format, empty, truncated or damaged.
    """
    name = os.path.basename(path)
    if not os.path.isfile(path):
        raise CheckpointError(f"{name}: there is no such file. Put the {what} there or choose another.")
    if not name.lower().endswith((".safetensors", ".sft")):
        raise CheckpointError(
            f"{name}: a {what} must be a safetensors file, got {os.path.splitext(name)[1] or 'no file type'}. "
            f"Convert the published file first: python -m liveditor_core.checkpoint convert {name} OUT.safetensors"
        )
    try:
        with safetensors.safe_open(path, framework="pt") as file:
            return {"keys": list(file.keys()), "metadata": file.metadata() or {}}
    except (safetensors.SafetensorError, OSError) as error:
        raise CheckpointError(
            f"{name}: the file is truncated or damaged ({error}). Download or convert it again."
        ) from error


def check_liveditor(path) -> dict:
    """Refuse a file that LIVEditor cannot be loaded from, before anything of it is loaded.

    Returns:
        As `check_safetensors`.

    Raises:
        CheckpointError: see `check_safetensors`; also for another model, or for missing weights, which it names.
    """
    header = check_safetensors(path)
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
