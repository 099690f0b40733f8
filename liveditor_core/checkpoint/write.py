"""Write a checkpoint piece by piece, whole or not at all."""

import contextlib
import json
import os
import shutil
import struct

import torch

from .weights import SAFETENSORS_NAMES, CheckpointError

PARTIAL = ".partial"  # the end of a file's name until it is whole


@contextlib.contextmanager
def whole_file(path, size):
    """The name under which to write a file of so many bytes; it gets its own when the block ends well, or goes.

    Raises:
        CheckpointError: there is not enough disk, before anything is written or while it is.
    """
    name, partial = os.path.basename(path), f"{path}{PARTIAL}"
    with contextlib.suppress(FileNotFoundError):
        os.remove(partial)  # of a process that was killed
    needs_disk(path, size)
    try:
        yield partial
        os.replace(partial, path)
    except BaseException as error:
        with contextlib.suppress(FileNotFoundError):
            os.remove(partial)
        if isinstance(error, OSError):
            raise CheckpointError(
                f"{name}: could not be written ({error.strerror or error}); the part that was is removed. It "
                f"needs {size / 1e9:.1f} GB of disk."
            ) from error
        raise


def needs_disk(path, size):
    """Raise CheckpointError where a file of so many bytes does not fit on its disk."""
    free = shutil.disk_usage(os.path.dirname(os.path.abspath(path))).free
    if free < size:
        raise CheckpointError(
            f"{os.path.basename(path)}: needs {size / 1e9:.1f} GB of disk, {free / 1e9:.1f} GB are free there. Free "
            "some or write it to another disk."
        )


def write_pieces(file, entries, progress, end=None):
    """Write all entries' numbers; `end(entry)` follows each."""
    done, total = 0, sum(entry.size for entry in entries)
    for entry in entries:
        for piece in entry.pieces():
            data = piece.detach().contiguous().reshape(-1).view(torch.uint8).numpy()
            file.write(data)
            done += data.nbytes
            if progress is not None:
                progress(done, total)
        if end is not None:
            end(entry)
    file.flush()
    os.fsync(file.fileno())  # or the file could have its name before it has its content


def write_safetensors(path, entries, metadata, progress=None):
    """Stream entries into a safetensors file (its own writer wants them all at once)."""
    header, offset = {"__metadata__": metadata}, 0
    for key, dtype, shape, size, _ in entries:
        header[key] = {"dtype": SAFETENSORS_NAMES[dtype], "shape": list(shape), "data_offsets": [offset, offset + size]}
        offset += size
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    with whole_file(path, 8 + len(text) + offset) as partial, open(partial, "wb") as file:
        file.write(struct.pack("<Q", len(text)) + text)
        write_pieces(file, entries, progress)
