"""All numbers of an edit, a pair of frames at a time."""

import json
from collections.abc import Callable
from typing import NamedTuple

import torch

from .changed import Changed
from .flow import Flow
from .gate import gate
from .kept import Kept
from .pair import pair_of
from .steady import Steady
from .words import Words

VERSION = 1  # of what the numbers mean and are called


class ModelFile(NamedTuple):
    """A file that a model came from."""

    used_as: str
    name: str
    sha256: str


class Models(NamedTuple):
    """What judges that pixels cannot: functions of any models. None for what there is not.

    Attributes:
        images: [N, H, W, 3] in 0..1 to embeddings, [N, D].
        texts: a list of texts to embeddings, [number, D].
        flow: as `estimate` of Flow.
        files: where they come from.
    """

    images: Callable | None = None
    texts: Callable | None = None
    flow: Callable | None = None
    files: tuple[ModelFile, ...] = ()


class Numbers(NamedTuple):
    """What was measured.

    Attributes:
        summary: nested dicts of the whole clip, ready for JSON: no NaN or infinity in it, None for what was not
            measured or cannot be said.
        frames: a list for each name, with a number or None for each pair of frames.
    """

    summary: dict
    frames: dict

    def to_json(self) -> str:
        return json.dumps({**self.summary, "frames": self.frames}, indent=2, ensure_ascii=False, allow_nan=False)


def measure(
    pairs,
    *,
    outside=None,
    models: Models = Models(),  # noqa: B008
    target: str = "",
    source_text: str = "",
    every: int = 1,
    device="cpu",
    tick: Callable = lambda done, total: None,
) -> Numbers:
    """Measure an edit. Two pairs of frames are in memory at a time, whatever the clip's length.

    Args:
        pairs: TimedPairs, or anything with `frames()` that yields (before, after) of [H, W, 3] in 0..1 each, with
            `count`, `rate`, `width`, `height` and `notes`.
        outside: function of a pair's number to where the mask is not, [H, W] bool; None without a mask.
        target, source_text: what the edit should show, and what the source shows.
        every: the models look at each so-manieth frame, or pair of neighbours.
        device: of the pixels' numbers.
        tick: called with the number of pairs that are done and of all; may raise to stop.

    Raises:
        FootageError: the models do not fit each other, or the clips cannot be read.
    """
    with torch.inference_mode():
        meters = {"kept": Kept(), "changed": Changed(), "steady": Steady()}
        if models.flow is not None:
            meters["flow"] = Flow(models.flow, every)
        if models.images is not None:
            meters["words"] = Words(models.images, models.texts, target, source_text, every)
        for number, frames in enumerate(pairs.frames()):
            tick(number, pairs.count)
            before, after = (frame.to(device, torch.float32) for frame in frames)
            pair = pair_of(before, after, None if outside is None else outside(number).to(device))
            for meter in meters.values():
                meter.add(pair)
        tick(pairs.count, pairs.count)
    numbers = {name: meter.numbers() for name, meter in meters.items()}
    summary = {
        "version": VERSION,
        "compared": {
            "frames": pairs.count,
            "fps": float(pairs.rate),
            "width": pairs.width,
            "height": pairs.height,
            "masked": outside is not None,
        },
        **{name: numbers.get(name) for name in ("kept", "changed", "steady", "flow", "words")},
        "gate": gate(numbers["kept"], numbers["changed"], numbers.get("words")),
        "models": [file._asdict() for file in models.files],
        "notes": list(pairs.notes),
    }
    summary["unedited_copy"] = unedited(summary)
    frames = {name: values for meter in meters.values() for name, values in meter.frames.items()}
    return Numbers(summary, {name: values for name, values in frames.items() if any(v is not None for v in values)})


def unedited(summary: dict) -> dict:
    """What a copy of the source would score in place of the edit: known without measuring it.

    Args:
        summary: of Numbers, without this part.

    Returns:
        The same names as there, of what an edit is judged by.
    """
    flow, words = summary["flow"], summary["words"]
    same = {"psnr": None, "identical": True, "ssim": 1.0, "exact": 1.0}
    return {
        "kept": same,
        "changed": {"mean": 0.0, "share": 0.0, "edited": 0.0},
        "steady": {"flicker_edit": summary["steady"]["flicker_source"], "excess": 0.0},
        "flow": flow and {"warp_error_edit": flow["warp_error_source"], "similarity": 1.0},
        "words": words
        and {
            "text_edit": words["text_source"],
            "gain": 0.0,
            "direction": 0.0,
            "consistency_edit": words["consistency_source"],
            "score_edit": words["score_source"],
        },
        "gate": {"gate": 0.0, "kept_if_edited": 0.0},
    }
