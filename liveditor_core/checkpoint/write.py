"""Write a safetensors file piece by piece, whole or not at all."""

import json
import os
import shutil
import struct

import torch
from tqdm import tqdm

from .weights import SAFETENSORS_NAMES, CheckpointError


def write_safetensors(path, entries, metadata, progress):
    """Stream tensors into a safetensors file (its own writer wants them all at once), then rename it into place."""
    header, offset = {"__metadata__": metadata}, 0
    for key, dtype, shape, _ in entries:
        size = torch.Size(shape).numel() * dtype.itemsize
        header[key] = {"dtype": SAFETENSORS_NAMES[dtype], "shape": list(shape), "data_offsets": [offset, offset + size]}
        offset += size
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    name, partial = os.path.basename(path), f"{path}.partial"
    free = shutil.disk_usage(os.path.dirname(os.path.abspath(path))).free
    if free < offset:
        raise CheckpointError(
            f"{name}: needs {offset / 1e9:.1f} GB of disk, {free / 1e9:.1f} GB are free there. Free some or "
            "write it to another disk."
        )
    try:
        with (
            open(partial, "wb") as file,
            tqdm(total=offset, unit="B", unit_scale=True, desc=name, disable=not progress) as bar,
        ):
            file.write(struct.pack("<Q", len(text)) + text)
            for _, dtype, _, pieces in entries:
                for piece in pieces():
                    data = piece.detach().to(dtype).reshape(-1).view(torch.uint8).numpy()
                    file.write(data)
                    bar.update(data.nbytes)
        os.replace(partial, path)
    except BaseException as error:
        if os.path.exists(partial):
            os.remove(partial)
        if isinstance(error, OSError):
            raise CheckpointError(
                f"{name}: could not be written ({error.strerror or error}); the part that was is removed. It "
                f"needs {offset / 1e9:.1f} GB of disk."
            ) from error
        raise
