"""The numbers of all jobs as a CSV."""

import csv
import os
import re
from pathlib import Path

FILE = "results.csv"
COLUMNS = (
    "name",
    "state",
    "clip",
    "instruction",
    "inputs",
    "result",
    "seconds",
    "seconds_per_step",
    "peak_gib",
    "attempts",
    "worker",
    "message",
)
# Of LIVEdit Sampler's report.
FROM_REPORT = {"seconds_per_step": r"time: ([\d.]+) s per step", "peak_gib": r"memory: peak ([\d.]+) GiB"}


def write_table(out: Path, rows):
    """Beside, and renamed: whoever reads it finds it whole. Excel takes it for UTF-8 by its first bytes."""
    beside = out / f"{FILE}.tmp"
    with open(beside, "w", encoding="utf-8-sig", newline="") as file:
        writer = csv.DictWriter(file, COLUMNS)
        writer.writeheader()
        for row in rows:
            writer.writerow({name: row.get(name) for name in COLUMNS} | numbers(row))
    os.replace(beside, out / FILE)


def numbers(row):
    """What is read from a job's report, and its inputs as words."""
    found = {name: re.search(pattern, row["report"] or "") for name, pattern in FROM_REPORT.items()}
    inputs = "; ".join(f"{name}={value}" for name, value in row["inputs"].items())
    return {name: float(match[1]) if match else None for name, match in found.items()} | {"inputs": inputs}
