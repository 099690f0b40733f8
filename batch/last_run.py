"""The command of a batch's last run, so that it may be tried again, also in a folder that was moved since."""

import json
import os
from pathlib import Path
from typing import NamedTuple

from .errors import BatchError

FILE = "run.json"  # in the work folder; the metrics read it too, see liveditor_core/metrics/folders.py


class LastRun(NamedTuple):
    """A command line."""

    folder: str  # in which it was given: its paths may be relative
    arguments: list[str]
    sweep: list[str] | None  # the arguments of the sweep whose edits those are


def remember(work: Path, out: Path, arguments: list[str], of_sweep: list[str] | None):
    """Write down the command of a run with an output folder."""
    last = {"folder": os.getcwd(), "arguments": arguments, "out": str(out), "sweep": of_sweep}
    (work / FILE).write_text(json.dumps(last), encoding="utf-8")


def last_run(work: Path, out: Path) -> LastRun:
    """The command of the last run, with what lay in its output folder where that is now.

    Raises:
        BatchError: there was none.
    """
    try:
        last = json.loads((work / FILE).read_text(encoding="utf-8"))
    except OSError:
        raise BatchError(f"{out}: no batch has run here to its first job.") from None
    arguments, sweep = (
        last.get(kind) and [where_it_is(text, last, out) for text in last[kind]] for kind in ("arguments", "sweep")
    )
    return LastRun(last["folder"], arguments, sweep)


def where_it_is(text: str, last: dict, out: Path) -> str:
    """An argument of an earlier run; a path into its output folder leads there still."""
    if text.startswith("--") and "=" in text:
        name, _, value = text.partition("=")
        return f"{name}={where_it_is(value, last, out)}"
    home, path = last.get("out"), os.path.normpath(os.path.join(last["folder"], text))
    if home in (None, str(out)) or not path.startswith(home + os.sep):
        return text
    there = str(out) + path[len(home) :]
    return there if os.path.exists(there) else text
