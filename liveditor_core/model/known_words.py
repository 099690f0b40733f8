"""Words that a small text encoder was never trained on: an edit is made of them all the same, so the run says so."""

import re

METADATA_KEY = "liveditor_words"  # of a small text encoder: every word of its training, between spaces
UNKNOWN_KEY = "liveditor_unknown_words"  # of a conditioning: those of its instruction, a list
WORD = r"[^\W\d_]+(?:['\u2019][^\W\d_]+)*"


def words_of(text) -> list[str]:
    """The words of a text in small letters, each once, in order."""
    return list(dict.fromkeys(re.findall(WORD, text.casefold())))


def unknown_words(conditionings) -> list[str]:
    """Words of instructions that their text encoder never saw.

    Args:
        conditionings: the dictionaries of the host's positive conditioning.
    """
    return list(dict.fromkeys(word for values in conditionings for word in values.get(UNKNOWN_KEY, ())))


def describe_unknown(conditionings) -> list[str]:
    """A line on `unknown_words` for a run's report, where there are any."""
    unknown = unknown_words(conditionings)
    if not unknown:
        return []
    return [
        f"the small model was never trained on {', '.join(unknown)}: where it does not understand an instruction it "
        "makes some edit or none. Its edits are listed in the note of template liveditor_demo"
    ]
