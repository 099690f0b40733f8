"""Which files the models came from: name and SHA-256, so that numbers of two people can be compared."""

import hashlib

from safetensors import safe_open

from ..footage.errors import FootageError
from .measure import ModelFile

AT_ONCE = 1 << 22  # bytes
PROJECTION = "text_projection"  # in the names of CLIP's weights, however they are spelled


def hashed(used_as: str, name: str, path: str, check=lambda: None) -> ModelFile:
    """The SHA-256 of a whole file, which is what pages of models show.

    Args:
        used_as: for whom it is.
        check: called now and then; may raise to stop.
    """
    digest = hashlib.sha256()
    with open(path, "rb") as file:
        while part := file.read(AT_ONCE):
            digest.update(part)
            check()
    return ModelFile(used_as, name, digest.hexdigest())


def require_projection(paths: list[str]):
    """Refuse text encoders whose files have no text projection: the host loads them, and leaves it to chance.

    Args:
        paths: of all files that a CLIP came from; others than safetensors are not looked into.

    Raises:
        FootageError: none of them has one.
    """
    if not paths or not all(path.endswith((".safetensors", ".sft")) for path in paths):
        return
    for path in paths:
        with safe_open(path, framework="pt") as file:
            if any(PROJECTION in name for name in file.keys()):  # noqa: SIM118
                return
    raise FootageError(
        f"CLIP must have its text projection, got {', '.join(paths)} without one, as in most checkpoints of Stable "
        "Diffusion 1. Load a whole CLIP model with Load CLIP, such as model.safetensors of "
        "openai/clip-vit-large-patch14."
    )
