"""The result page: every job with its clips before and after, in one HTML file that needs no server."""

import json
import os
import urllib.parse
from pathlib import Path

from .table import numbers

FILE = "index.html"
TEMPLATE = Path(__file__).with_name("page.html")
DATA = "/*JOBS*/"


def write_page(out: Path, rows):
    """Beside, and renamed, so that a browser never reads half of it.

    Args:
        rows: of the journal.
    """
    jobs = [
        {
            "name": row["name"],
            "state": row["state"],
            "instruction": row["instruction"],
            "before": _address(Path(row["clip"]), out),
            "after": _address(out / row["result"], out) if row["result"] else "",
            "seconds": row["seconds"],
            "attempts": row["attempts"],
            "worker": row["worker"],
            "message": row["message"],
            "report": row["report"],
        }
        | numbers(row)
        for row in rows
    ]
    text = json.dumps(jobs, ensure_ascii=False).replace("<", "\\u003c")  # nothing in it may end the script
    beside = out / f"{FILE}.tmp"
    beside.write_text(TEMPLATE.read_text(encoding="utf-8").replace(DATA, text), encoding="utf-8")
    os.replace(beside, out / FILE)


def _address(path, out):
    """Relative to the page where that is possible, so that the folder may be moved with its clips."""
    try:
        return urllib.parse.quote(Path(os.path.relpath(path, out)).as_posix())
    except ValueError:  # on another drive of Windows
        return path.resolve().as_uri()
