"""Read the tensors of a checkpoint, published or converted, without holding them all in memory."""

import os
import re

import safetensors
import torch

from .check import check_safetensors
from .download import HUB_REPOSITORY
from .weights import SOURCE_EMBEDDING, CheckpointError

NESTINGS = ("state_dict", "module", "weights")
PREFIXES = ("wanx_unimodel.guidance_model.feedforward_model.", "model_ema.", "model.")
FOREIGN_KEY = re.compile(r"^vae\.|optimizer|scheduler")


def open_tensors(path):
    """All tensors of a file as a flat dict, mapped from disk where the format allows it."""
    name = os.path.basename(path)
    if name.lower().endswith((".safetensors", ".sft")):
        check_safetensors(path)
        return _SafetensorsFile(path)
    try:
        try:
            loaded = torch.load(path, map_location="cpu", weights_only=True, mmap=True)
        except RuntimeError:  # the old, non-zip format cannot be mapped
            loaded = torch.load(path, map_location="cpu", weights_only=True)
    except FileNotFoundError as error:
        raise CheckpointError(f"{name}: there is no such file.") from error
    except Exception as error:  # the unpickler raises many types on damaged files
        raise CheckpointError(
            f"{name}: cannot be read as a PyTorch file of plain weights; it is damaged or holds code, and none of it "
            f"was run ({str(error).splitlines()[0]}). Download it again from {HUB_REPOSITORY}."
        ) from error
    while isinstance(loaded, dict):
        inner = next((loaded[n] for n in NESTINGS if isinstance(loaded.get(n), dict)), None)
        if inner is None:
            return {key: value for key, value in loaded.items() if isinstance(value, torch.Tensor)}
        loaded = inner
    raise CheckpointError(f"{name}: holds a {type(loaded).__name__} instead of named weights.")


class _SafetensorsFile(dict):
    """Tensors of a safetensors file, each read when it is asked for."""

    def __init__(self, path):
        self._file = safetensors.safe_open(path, framework="pt")
        super().__init__(dict.fromkeys(self._file.keys()))

    def __getitem__(self, key):
        return self._file.get_tensor(key)


def model_tensors(tensors, name, wanted_prefix):
    """Strip the prefix under which the model lies; drop what is not the model's."""
    prefixes = {}
    for key in tensors:
        if not FOREIGN_KEY.search(key):
            prefix = next((p for p in PREFIXES if key.startswith(p)), "")
            prefixes.setdefault(prefix, []).append(key)
    if wanted_prefix is None and len(prefixes) > 1:
        whole = [p for p, keys in prefixes.items() if any(key.endswith(f"{SOURCE_EMBEDDING}.weight") for key in keys)]
        if len(whole) > 1:
            raise CheckpointError(
                f"{name}: holds several copies of the model, under {', '.join(repr(p) for p in sorted(whole))}. "
                "Choose one with --prefix."
            )
        wanted_prefix = whole[0] if whole else ""
    elif wanted_prefix is None:
        wanted_prefix = next(iter(prefixes), "")
    return _Renamed(tensors, {key[len(wanted_prefix) :]: key for key in prefixes.get(wanted_prefix, [])})


class _Renamed(dict):
    """Another dict's values under other names, looked up only when asked for."""

    def __init__(self, tensors, names):
        super().__init__(names)
        self._tensors = tensors

    def __getitem__(self, key):
        return self._tensors[super().__getitem__(key)]
