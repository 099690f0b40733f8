"""Models from files, in a process that is no ComfyUI server; ComfyUI's code loads and runs them."""

from pathlib import Path

import torch

import comfy.clip_vision
import comfy.model_management
import comfy.model_patcher
import comfy.sd
import comfy.utils

from ..footage.errors import FootageError
from .host_models import models_of
from .measure import Models
from .model_files import hashed, require_projection

OPEN_CLIP = "visual."  # how names of its weights begin, which the host makes those of transformers
SMALL = "liveditor_nano_text_image_encoder.safetensors"  # in the pack's models/clip_vision


def load_models(clip=None, clip_vision=None, optical_flow=None, small=False) -> Models:
    """Load what is named.

    Args:
        clip, clip_vision, optical_flow: paths, or None.
        small: the small text-image encoder in place of the first two.

    Raises:
        FootageError: no such file, or a file that is no such model.
    """
    if small:
        clip = clip_vision = Path(__file__).resolve().parents[2] / "models" / "clip_vision" / SMALL
    given = {"clip": clip, "clip_vision": clip_vision, "optical_flow": optical_flow}
    for name, path in given.items():
        if path is not None and not Path(path).is_file():
            raise FootageError(f"{name}: there is no file {path}.")
    try:
        if small:
            from ..model.small_towers import load_small_towers

            both = load_small_towers(str(clip))
        else:
            both = clip and _clip(str(clip)), clip_vision and _clip_vision(str(clip_vision))
        flow = optical_flow and _optical_flow(str(optical_flow))
    except FootageError:
        raise
    except Exception as error:  # ComfyUI raises whatever it stumbles over
        raise FootageError(f"A model cannot be loaded: {type(error).__name__}: {error}") from error
    files = [hashed(name, Path(path).name, str(path)) for name, path in given.items() if path is not None]
    return models_of(*both, flow, files)


def _clip(path):
    require_projection([path])
    return comfy.sd.load_clip(ckpt_paths=[path])


def _clip_vision(path):
    weights = comfy.utils.load_torch_file(path, safe_load=True)
    of_open_clip = any(name.startswith(OPEN_CLIP) for name in weights)
    prefix = OPEN_CLIP if of_open_clip else ""
    found = comfy.clip_vision.load_clipvision_from_sd(weights, prefix=prefix, convert_keys=of_open_clip)
    if found is None:
        raise FootageError(f"{Path(path).name}: must be a CLIP vision model, ComfyUI does not know it as one.")
    return found


def _optical_flow(path):
    """RAFT-large of torchvision, as the host's own node loads it."""
    from torchvision.models.optical_flow import raft_large

    model = raft_large(weights=None, progress=False)
    model.load_state_dict(comfy.utils.load_torch_file(path, safe_load=True))
    device = comfy.model_management.get_torch_device()
    return comfy.model_patcher.ModelPatcher(
        model.eval().float(), load_device=device, offload_device=torch.device("cpu")
    )
