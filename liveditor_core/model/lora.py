"""Put a LoRA file on a MODEL, in whichever of its usual spellings it comes."""

import os

import comfy.sd
import comfy.utils

from ..checkpoint.weights import CheckpointError
from .lora_keys import rename

ATTACHMENT = "liveditor_loras"  # on a MODEL: a line for every LoRA on it
_SHOWN = 3


def apply_lora(model, path, strength):
    """A clone of a MODEL with a LoRA file on it.

    Args:
        model: the host's MODEL, a LIVEditor.
        path: of a LoRA file for Wan.
        strength: 1 as trained.

    Returns:
        The host's MODEL, and a line that says how many of the file's keys fit.

    Raises:
        CheckpointError: the file cannot be read, or nothing in it is of a layer of this model.
    """
    name = os.path.basename(path)
    try:
        lora, metadata = comfy.utils.load_torch_file(str(path), safe_load=True, return_metadata=True)
    except Exception as error:  # the readers of each format raise their own
        raise CheckpointError(
            f"{name}: must be a LoRA file, could not be read ({error}). Download it again."
        ) from error
    weights = (key for key in model.model.state_dict() if key.endswith(".weight"))
    renamed = rename(lora, {key.removeprefix("diffusion_model.").removesuffix(".weight") for key in weights})
    some = ", ".join(renamed.unknown[:_SHOWN]) + (", ..." if len(renamed.unknown) > _SHOWN else "")
    if not renamed.fitted:
        raise CheckpointError(
            f"{name}: must be a LoRA of Wan 2.1 or 2.2 14B, got one of whose {len(lora)} keys none fits a layer, such "
            f"as {some}. Choose another."
        )
    line = f"{name} at {strength:g}: {renamed.fitted} of {len(lora)} keys fit" + (f", not {some}" if some else "")
    changed, _ = comfy.sd.load_lora_for_models(model, None, renamed.tensors, strength, 0.0, lora_metadata=metadata)
    changed.set_attachments(ATTACHMENT, [*(model.get_attachment(ATTACHMENT) or []), line])
    return changed, line


def loras_of(patcher):
    """A line for every LoRA on a MODEL; of those put on it by other loaders the number of layers alone is known."""
    known = patcher.get_attachment(ATTACHMENT) or []
    return known or ([f"{len(patcher.patches)} layers changed"] if patcher.patches else [])
