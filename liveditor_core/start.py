"""What the pack looks at before it offers anything: whether it can run in this ComfyUI, and what of it."""

import importlib
import logging
import re
from typing import NamedTuple

from . import host_contract
from .host_contract import NEEDED, NODES, OLDEST, OPTIONAL

REMEDY = "Update LIVEditor, or ComfyUI if LIVEditor is up to date."


class Losses(NamedTuple):
    """What of the pack does not run in this ComfyUI."""

    nodes: set[str]
    features: set[str]  # of OPTIONAL


def refuse_to_start():
    """Refuse where nothing of the pack would run. ComfyUI logs the message in a line, and goes on without the pack.

    Raises:
        ImportError: ComfyUI is too old or lacks what every node needs.
    """
    version = _comfyui_version()
    numbers = re.match(r"(\d+)\.(\d+)", version)
    if numbers and tuple(map(int, numbers.groups())) < OLDEST:
        raise ImportError(
            f"LIVEditor: needs ComfyUI {'.'.join(map(str, OLDEST))} or later, found {version}. Update ComfyUI."
        )
    if missing := host_contract.missing(NEEDED[NODES]):
        raise ImportError(f"LIVEditor: needs {_listed(missing)}, which ComfyUI {version} does not have. {REMEDY}")


def find_losses() -> Losses:
    """What of the pack does not run here; every loss is a line in the log."""
    version, absent, losses = _comfyui_version(), [], Losses(set(), set())
    for nodes, lines in NEEDED.items():
        if missing := host_contract.missing(lines):
            absent += missing
            losses.nodes.update(nodes)
    if absent:
        lost = ", ".join(name for name in NODES if name in losses.nodes)
        logging.error(f"LIVEditor: ComfyUI {version} does not have {_listed(absent)}, so there is no {lost}. {REMEDY}")
    for lost, lines in OPTIONAL.items():
        if missing := host_contract.missing(lines):
            losses.features.add(lost)
            logging.warning(f"LIVEditor: ComfyUI {version} does not have {_listed(missing)}: {lost}.")
    return losses


def _comfyui_version():
    try:
        return importlib.import_module("comfyui_version").__version__
    except (ImportError, AttributeError):
        return "of an unknown version"


def _listed(names):
    return ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")
