"""Whether the edit follows the words, and how steady its frames are to a model that sees what they show."""

import torch

from ..footage.errors import FootageError
from .pair import Pair, mean_of

LOGIT_SCALE = 100.0  # exp of the logit scale that CLIP models were trained up to, PickScore's too
PICKSCORE_WIDTH = 1024  # of CLIP-H, which PickScore is
UNCHANGED = 1e-4  # distance of two embeddings of length 1, below which a frame did not change in any direction


class Words:
    """Cosines of embeddings.

    Args:
        images: [N, H, W, 3] in 0..1 to [N, D].
        texts: a list of texts to [number, D]; None for what needs no text.
        target: what the edit should show; empty for what needs no text.
        source_text: what the source shows; empty for no direction.
        every: look at each so-manieth frame only.

    Raises:
        FootageError: embeddings of texts and of images are of different widths, or of a text nothing but zeros.
    """

    def __init__(self, images, texts=None, target="", source_text="", every: int = 1):
        self._images, self._every, self._count = images, every, 0
        self.target, self.source_text = (target, source_text) if texts and target else ("", "")
        wanted = [text for text in (self.target, self.source_text) if text]
        self._texts = [_unit(text, "The text") for text in texts(wanted)] if wanted else []
        self._last = self._width = None
        self.frames = {
            "text_edit": [],
            "text_source": [],
            "direction": [],
            "consistency_edit": [],
            "consistency_source": [],
        }

    def add(self, pair: Pair):
        number, self._count = self._count, self._count + 1
        found = self._look(pair) if number % self._every == 0 else (None,) * 5
        for values, value in zip(self.frames.values(), found, strict=True):
            values.append(value)

    def _look(self, pair):
        both = [_unit(one, "A frame") for one in self._images(torch.stack([pair.after, pair.before]))]
        self._width, (last, self._last) = len(both[0]), (self._last, both)
        steady = [None, None] if last is None else [float(a @ b) for a, b in zip(last, both, strict=True)]
        if not self._texts:
            return None, None, None, *steady
        target, *source = self._texts
        if len(target) != self._width:
            raise FootageError(
                f"CLIP and CLIP_VISION must be of one model, got embeddings {len(target)} wide of texts and "
                f"{self._width} wide of frames. Load both from the same model, as CLIP-L (768), CLIP-H (1024) or "
                "CLIP-G (1280)."
            )
        change, direction = both[0] - both[1], None
        if source:
            wanted = target - source[0]
            lengths = change.norm() * wanted.norm()
            direction = float(change @ wanted / lengths) if min(change.norm(), wanted.norm()) > UNCHANGED else 0.0
        return *(float(each @ target) for each in both), direction, *steady

    def numbers(self) -> dict:
        edit, source, direction, steady_edit, steady_source = map(mean_of, self.frames.values())
        scored = edit is not None and self._width == PICKSCORE_WIDTH
        gain = None if edit is None else edit - source
        return {
            "target": self.target or None,
            "source_text": self.source_text or None,
            "text_edit": edit,
            "text_source": source,
            "gain": gain,
            "direction": direction,
            "consistency_edit": steady_edit,
            "consistency_source": steady_source,
            "score_edit": LOGIT_SCALE * edit if scored else None,
            "score_source": LOGIT_SCALE * source if scored else None,
            "score_gain": LOGIT_SCALE * gain if scored else None,
            "width": self._width,
            "every": self._every,
        }


def _unit(vector, what):
    """A vector of length 1, in double precision on the CPU."""
    vector = vector.double().flatten().cpu()
    length = float(vector.norm())
    if not 0 < length < float("inf"):
        raise FootageError(
            f"{what} must have an embedding that is not zero and finite, got one of length {length}. The model file "
            "lacks its projection, or is damaged: load a whole CLIP model."
        )
    return vector / length
