"""GGUF files, through the node pack ComfyUI-GGUF, which reads them."""

import os
import sys

import folder_paths

from ..checkpoint.weights import CheckpointError

FOLDER = "unet_gguf"  # the pack's name for the folders of diffusion models


def gguf_loader(name, otherwise="prepare a file of another weight type."):
    """The pack's loader node.

    Args:
        name: of the file or weight type that needs it.
        otherwise: what to do instead of installing the pack, for the message.

    Raises:
        CheckpointError: the pack is not installed.
    """
    loader = getattr(sys.modules.get("nodes"), "NODE_CLASS_MAPPINGS", {}).get("UnetLoaderGGUF")
    if loader is None:
        raise CheckpointError(
            f"{name}: GGUF files are read through the node pack ComfyUI-GGUF, which is not installed. Install it, or "
            f"{otherwise}"
        )
    return loader


def load_gguf(path):
    """The host's MODEL of a file in one of its folders.

    Raises:
        CheckpointError: the pack is not installed.
    """
    loader = gguf_loader(os.path.basename(path))
    folders = [folder for folder in folder_paths.get_folder_paths(FOLDER) if path.startswith(folder + os.sep)]
    return loader().load_unet(os.path.relpath(path, max(folders, key=len)))[0]
