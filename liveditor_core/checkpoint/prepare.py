"""Bring the published model into place: found or fetched, converted, checked."""

import os

from .check import check_liveditor
from .convert import convert_checkpoint
from .download import HUB_FILE, download
from .quantise import gguf_library
from .weight_types import WEIGHT_TYPES, size_of_14b
from .weights import CheckpointError

PICKLES = (".bin", ".pt", ".pth", ".ckpt", ".pkl")
NAME = "liveditor_14b"


def target(source, folder, weight_type, name="") -> str:
    """Path of the file that `prepare` makes of these.

    Raises:
        CheckpointError: the name leads elsewhere, or would replace the file that is read.
    """
    name = name.strip() or _name_after(source or HUB_FILE, weight_type)
    if os.path.basename(name) != name or name in (os.curdir, os.pardir):
        raise CheckpointError(f"{name}: a name must be without folders. Give only the file's own name.")
    extension = WEIGHT_TYPES[weight_type].extension
    path = os.path.join(folder, name.removesuffix(extension) + extension)
    if source is not None and os.path.abspath(source) == os.path.abspath(path):
        raise CheckpointError(f"{name}: would replace the file that is read. Give another name.")
    return path


def prepare(source, folder, weight_type, *, name="", progress=None) -> tuple[str, str]:
    """Make a file that Load LIVEditor takes, unless it is there already.

    Args:
        source: path of the published pickle, or of a safetensors file in bf16 or more; None to download it into
            `folder`.
        folder: for the new file.
        weight_type: one of WEIGHT_TYPES.
        name: of the new file; by itself the model's and the weight type.
        progress: called with what is being done, bytes done and bytes in all; what it raises ends the work, and
            nothing half-written is left but the download, to go on from.

    Returns:
        (path, report).

    Raises:
        CheckpointError: see `target`, `convert_checkpoint` and `download`.
    """
    path = target(source, folder, weight_type, name)
    if is_whole(path) and (source is None or os.path.getmtime(path) >= os.path.getmtime(source)):
        return path, f"{os.path.basename(path)} is there already"

    def step(what):
        return None if progress is None else lambda done, total: progress(what, done, total)

    if WEIGHT_TYPES[weight_type].ggml:
        gguf_library()  # missed now, not after hours
    if source is None:
        beside = size_of_14b(weight_type) / size_of_14b("bf16")
        source = download(folder, beside=beside, progress=step(f"downloading {HUB_FILE}"))
    convert_checkpoint(source, path, weight_type=weight_type, progress=step(f"converting to {weight_type}"))
    check_liveditor(path)
    report = f"{os.path.basename(path)}: {os.path.getsize(path) / 1e9:.1f} GB, ready for Load LIVEditor"
    if source.lower().endswith(PICKLES):
        report += f"\n{os.path.basename(source)} ({os.path.getsize(source) / 1e9:.1f} GB) is needed no more"
    return path, report


def is_whole(path) -> bool:
    """Whether there is a LIVEditor checkpoint that can be loaded."""
    try:
        return bool(check_liveditor(path))
    except CheckpointError:
        return False


def _name_after(source, weight_type):
    stem = os.path.splitext(os.path.basename(source))[0]
    if stem == os.path.splitext(HUB_FILE)[0]:
        stem = NAME
    for each in WEIGHT_TYPES:
        stem = stem.removesuffix(f"_{each}")
    return f"{stem}_{weight_type}"
