"""Which part of a clip an edit is of, and how it was fitted, as the workflow in the edit's own file says."""

import json
from fractions import Fraction
from pathlib import Path

import torch

from ..footage.clip import Clip
from ..footage.pyav import open_input
from ..footage.source_video import SourceVideo

ENCODER, DECODER = "EncodeSourceVideo", "DecodeVideo"


def source_of(before: Clip, edit: Clip, path: Path) -> Clip | SourceVideo:
    """The source of an edit that Save Video wrote.

    Args:
        before: the clip that was edited.
        edit: of the file at `path`.

    Returns:
        The part that was edited, fitted as it was; the clip itself where the file does not say.
    """
    graph = _workflow(path)
    encoder, decoder = _inputs(graph, ENCODER), _inputs(graph, DECODER)
    start, fit = encoder.get("start"), encoder.get("fit")
    if not isinstance(start, (int, float)) or not isinstance(fit, str):
        return before
    # Of a whole clip the part is as good as none, so that its frames are taken at their own times.
    seconds = Fraction(0) if decoder.get("whole_video") is True else edit.length()
    return SourceVideo(
        latent=torch.empty(0),  # nobody asks for it
        width=edit.width,
        height=edit.height,
        frames=max(1, round(seconds * edit.rate)),
        fps=edit.rate,
        clip=before,
        start=before.begin_at(Fraction(start).limit_denominator(10**6)),
        stamps=(Fraction(0),),
        original_frames=max(1, round(seconds * before.rate)),
        fit=fit,
    )


def _workflow(path):
    with open_input(str(path)) as container:
        texts = {name.lower(): text for name, text in container.metadata.items()}  # Matroska has them in capitals
    try:
        graph = json.loads(texts.get("prompt", ""))
    except ValueError:
        return {}
    return graph if isinstance(graph, dict) else {}


def _inputs(graph, kind):
    """Of the only node of a class."""
    found = [node["inputs"] for node in graph.values() if isinstance(node, dict) and node.get("class_type") == kind]
    return found[0] if len(found) == 1 else {}
