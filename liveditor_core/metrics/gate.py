"""Accuracy gates preservation: that the rest was kept counts only as far as the edit did what it should.

An unedited copy keeps everything. So what was kept is multiplied by a gate in 0..1 that is shut for such a copy, coded
anew or not: how much of the picture was edited and, where that was measured, how much nearer the frames came to the
words.
"""

ENOUGH_EDITED = 0.01  # share of the picture, inside the mask where there is one, that opens the gate wholly
ENOUGH_GAINED = 0.02  # cosine of frames and text beyond the source's that does


def gate(kept: dict, changed: dict, words: dict | None) -> dict:
    """Of what Kept, Changed and Words give as their numbers.

    Returns:
        `changed` and `words`, the two factors (None: not measured), `gate`, their product, and `kept_if_edited`, that
        times the SSIM of the kept part, None where that has none.
    """
    edited = changed["inside"]["edited"]
    by_change = _open(changed["whole_frame"]["edited"] if edited is None else edited, ENOUGH_EDITED)
    gain = words and words["gain"]
    by_words = None if gain is None else _open(gain, ENOUGH_GAINED)
    opened = by_change * (1 if by_words is None else by_words)
    kept_if_edited = None if kept["ssim"] is None else max(0.0, kept["ssim"]) * opened
    return {"changed": by_change, "words": by_words, "gate": opened, "kept_if_edited": kept_if_edited}


def _open(value, enough):
    return min(1.0, max(0.0, value / enough))
