"""What the pack looks at before it offers anything: whether it can run in this ComfyUI, and what of it."""

import importlib
import logging
import re
import sys
from pathlib import Path
from typing import NamedTuple

from .host_contract import NEEDED, NODES, OLDEST
from .host_optional import OPTIONAL

MODEL_CLASS = "LIVEditorT2V"  # what a copy of the pack that is at work has put among the host's models
REMEDY = "Update LIVEditor, or ComfyUI if LIVEditor is up to date."


class Losses(NamedTuple):
    """What of the pack does not run in this ComfyUI."""

    nodes: set[str]
    features: set[str]  # of OPTIONAL


def refuse_to_start():
    """Refuse where nothing of the pack would run. ComfyUI logs the message in a line, and goes on without the pack.

    Raises:
        ImportError: ComfyUI is too old or lacks what every node needs, or another copy of the pack is at work.
    """
    version = comfyui_version()
    numbers = re.match(r"(\d+)\.(\d+)", version)
    if numbers and tuple(map(int, numbers.groups())) < OLDEST:
        raise ImportError(
            f"LIVEditor: needs ComfyUI {'.'.join(map(str, OLDEST))} or later, found {version}. Update ComfyUI."
        )
    if other := other_copy():
        raise ImportError(
            f"LIVEditor: is installed twice, in {other} and in {Path(__file__).parents[1]}. The first is used. Delete "
            "one of the two folders and start ComfyUI again."
        )
    if missing := missing_of(NEEDED[NODES]):
        raise ImportError(f"LIVEditor: needs {_listed(missing)}, which ComfyUI {version} does not have. {REMEDY}")


def other_copy() -> Path | None:
    """The folder of another copy of the pack that is at work."""
    own = __package__.rpartition(".")[0]
    for model in getattr(sys.modules.get("comfy.supported_models"), "models", ()):
        if model.__name__ == MODEL_CLASS and not model.__module__.startswith(f"{own}."):
            return Path(sys.modules[model.__module__].__file__).parents[2]
    return None


def find_losses() -> Losses:
    """What of the pack does not run here; every loss is a line in the log."""
    version, absent, losses = comfyui_version(), [], Losses(set(), set())
    for nodes, lines in NEEDED.items():
        if missing := missing_of(lines):
            absent += missing
            losses.nodes.update(nodes)
    if absent:
        lost = ", ".join(name for name in NODES if name in losses.nodes)
        logging.error(f"LIVEditor: ComfyUI {version} does not have {_listed(absent)}, so there is no {lost}. {REMEDY}")
    for lost, lines in OPTIONAL.items():
        if missing := missing_of(lines):
            losses.features.add(lost)
            logging.warning(f"LIVEditor: ComfyUI {version} does not have {_listed(missing)}: {lost}.")
    return losses


def comfyui_version():
    try:
        return importlib.import_module("comfyui_version").__version__
    except (ImportError, AttributeError):
        return "of an unknown version"


def _listed(names):
    return ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")


def name_of(line):
    """The name in a line; None if it is set on objects."""
    return None if "()." in line else line.removeprefix("def ").partition("(")[0]


def missing_of(lines):
    """The names among some lines that this host does not have."""
    return [name for name in map(name_of, lines) if name is not None and not _exists(name)]


def _exists(name):
    first, *others = name.split(".")
    try:
        found, path = importlib.import_module(first), first
        for part in others:
            path += f".{part}"
            found = getattr(found, part) if hasattr(found, part) else importlib.import_module(path)
    except ImportError:
        return False
    return True
