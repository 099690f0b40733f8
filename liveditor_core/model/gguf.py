"""GGUF files, through the node pack ComfyUI-GGUF, which reads them."""

import os
import sys

import folder_paths

from ..checkpoint.weights import CheckpointError

FOLDER = "unet_gguf"  # the pack's name for the folders of diffusion models


def gguf_loader():
    """The pack's loader node; None where it is not installed."""
    return getattr(sys.modules.get("nodes"), "NODE_CLASS_MAPPINGS", {}).get("UnetLoaderGGUF")


def load_gguf(path):
    """The host's MODEL of a file in one of its folders.

    Raises:
        CheckpointError: the pack is not installed.
    """
    loader = gguf_loader()
    if loader is None:
        raise CheckpointError(
            f"{os.path.basename(path)}: GGUF files are read through the node pack ComfyUI-GGUF, which is not "
            "installed. Install it, or prepare a file of another weight type."
        )
    folders = [folder for folder in folder_paths.get_folder_paths(FOLDER) if path.startswith(folder + os.sep)]
    return loader().load_unet(os.path.relpath(path, max(folders, key=len)))[0]
