"""One clip over a grid of settings: quality against time, as a table and a picture with the settings worth taking.

Quality is nearness to the edit by the reference settings (dense attention in 16 bits, cfg in all steps) with the same
seed: the decibels that a setting costs. A batch makes the edits, the metrics' tool compares them.
"""

import argparse
import csv
import itertools
import json
import os
import re
import subprocess
import sys
from pathlib import Path

from .errors import BatchError
from .graph import ROOT
from .jobs import value_of
from .journal import DONE, Journal

DESCRIPTION = """Edit one clip over a grid of settings, and draw quality against time.

  python -m batch sweep clip.mp4 --instruction "make it snow" --out sweep/
  python -m batch sweep clip.mp4 --instruction ... --out sweep/ --grid SparseAttentionSettings.sar=0.0625,0.125

All other arguments are those of a batch, as --workflow and --set. Start the same again after whatever happened."""
GRID = (
    "SparseAttentionSettings.sar=0.0625,0.125",
    "SparseAttentionSettings.srr=0.125,0.25",
    "SparseAttentionSettings.flat_ratio=0.25,0.5,0.75",
    "LIVEditSampler.cfg_until=1,0.5",
)
REFERENCE = {
    "SparseAttentionSettings.backend": "dense",
    "SparseAttentionSettings.precision_of_attention": "16 bit",
    "LIVEditSampler.cfg_until": 1,
}
TABLE, PICTURE = "sweep.csv", "sweep.png"
COSTS = {  # by name: what stands at the axis
    "seconds": "seconds of sampling",
    "compute": "attention computed, in calls of dense attention",
}


def sweep(arguments, edit, work: str) -> int:
    """Do what the command line says.

    Args:
        edit: function of a batch's arguments that runs it, and gives its exit code.
        work: name of the folder within the output folder in which the journal lies.

    Raises:
        BatchError: the command is wrong, or there is nothing to compare.
    """
    options, rest = _parse(arguments)
    out = options.out.resolve()
    grid = [_values(text) for text in options.grid or GRID]
    names = [name for name, _ in grid]
    if seeds := [name for name in names if name.endswith(".seed")]:
        raise BatchError(f"--grid {seeds[0]}: all edits of a sweep have one seed, as that to which they are compared.")
    settings = [dict(zip(names, values, strict=True)) for values in itertools.product(*(values for _, values in grid))]
    out.mkdir(parents=True, exist_ok=True)
    jobs = out / "sweep.jsonl"
    job = {"video": str(options.clip.resolve()), "instruction": options.instruction}
    rows = [job | each for each in (REFERENCE, *settings)]
    jobs.write_text("\n".join(map(json.dumps, rows)), encoding="utf-8")
    code = edit([str(jobs), "--out", str(out), *rest])
    journal = Journal(out / work)
    done = {json.dumps(row["inputs"], sort_keys=True): row for row in journal.all() if row["state"] == DONE}
    journal.close()
    # Settings for all jobs are among each one's inputs, and a sweep of before may have left others.
    common = dict(_setting(text) for text in options.set)
    found = [(each, done.get(json.dumps(common | each, sort_keys=True))) for each in (REFERENCE, *settings)]
    if found[0][1] is None:
        raise BatchError(f"{out}: the reference edit was not made, so that there is nothing to compare with.")
    points = _points([(each, row) for each, row in found[1:] if row is not None], found[0][1], out, options)
    if not points:
        raise BatchError(f"{out}: no edit of the grid was made.")
    _write_table(out / TABLE, names, points)
    _draw(out / PICTURE, names, points, options.against)
    for point in sorted((each for each in points if each["worth taking"]), key=lambda each: each[options.against]):
        print(f"{point['decibels']:6.2f} dB  {point[options.against]:8.2f}  {_label(names, point)}")
    print(f"{out / TABLE}\n{out / PICTURE}")
    return code


def _parse(arguments):
    parser = argparse.ArgumentParser(
        prog="python -m batch sweep CLIP", description=DESCRIPTION, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--instruction", required=True)
    parser.add_argument("--out", type=Path, required=True, help="folder of the results")
    parser.add_argument(
        "--grid",
        action="append",
        metavar="NODE.INPUT=VALUE,VALUE",
        help=f"an input and its values; several make a grid (default: {' '.join(GRID)})",
    )
    parser.add_argument("--against", choices=COSTS, default="seconds", help="what quality is drawn against")
    parser.add_argument("--set", action="append", default=[], help=argparse.SUPPRESS)
    parser.add_argument("--comfyui", type=Path, default=ROOT.parents[1], help=argparse.SUPPRESS)
    # The clip stands first: among arguments that this parser does not know it could not be told from their values.
    clip = [] if not arguments or arguments[0].startswith("-") else arguments[:1]
    options, rest = parser.parse_known_args(arguments[len(clip) :])
    if not clip:
        raise BatchError("sweep: the clip must stand first, as sweep clip.mp4 --instruction WORDS --out FOLDER.")
    options.clip = Path(clip[0])
    if not options.clip.is_file():
        raise BatchError(f"{options.clip}: there is no such clip.")
    return options, [*rest, "--comfyui", str(options.comfyui), *(f"--set={text}" for text in options.set)]


def _setting(text):
    name, _, value = text.partition("=")
    return name, value_of(value)


def _values(text):
    name, equals, values = text.partition("=")
    found = [value_of(each.strip()) for each in values.split(",") if each.strip()]
    if not equals or "." not in name or not found:
        raise BatchError(f"--grid {text}: must be NODE.INPUT=VALUE,VALUE.")
    return name, found


def costs_of(report: str) -> dict:
    """What a run cost, from its report: by the names of COSTS, None for what is not there."""
    seconds = re.search(r"time: .*?([\d.]+) s in all", report)
    calls = re.search(r"([\d,]+) model calls.*? x (\d+) in|([\d,]+) model calls", report)
    left = re.search(r"([\d.]+) of dense attention", report)
    compute = None
    if calls and left:
        prompts = int(calls[2] or 1)
        compute = int((calls[1] or calls[3]).replace(",", "")) * prompts * float(left[1])
    return {"seconds": float(seconds[1]) if seconds else None, "compute": compute}


def _points(found, reference, out, options):
    """A dict for each edit: its settings, decibels, costs, and whether no other is both nearer and cheaper."""
    decibels = _decibels(found, reference, out, options.comfyui)
    points = [
        settings | costs_of(row["report"]) | {"decibels": decibels[row["name"]], "result": row["result"]}
        for settings, row in found
        if row["name"] in decibels
    ]
    points = [each for each in points if each[options.against] is not None]
    for each in points:
        each["worth taking"] = not any(_beats(other, each, options.against) for other in points)
    return points


def _beats(one, other, cost):
    at_least = one["decibels"] >= other["decibels"] and one[cost] <= other[cost]
    return at_least and (one["decibels"], -one[cost]) != (other["decibels"], -other[cost])


def _decibels(found, reference, out, comfyui):
    """By the name of an edit, PSNR of all of its pixels to those of the reference."""
    pairs = out / "to_reference.csv"
    with open(pairs, "w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(("name", "before", "after"))
        writer.writerows((row["name"], out / reference["result"], out / row["result"]) for _, row in found)
    compared = out / "to_reference"
    command = [sys.executable, "-s", ROOT / "liveditor_core" / "metrics", pairs, "--out", compared]
    done = subprocess.run([*map(str, command), "--comfyui", str(comfyui)], stdout=subprocess.DEVNULL)
    if done.returncode == 2:
        raise BatchError(f"{out}: the edits could not be compared with the reference, see above.")
    with open(compared / "metrics.csv", encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    return {row["name"]: float(row["psnr_whole"]) for row in rows if row["psnr_whole"]}


def _write_table(path, names, points):
    columns = [*names, "decibels", *COSTS, "worth taking", "result"]
    beside = path.with_name(path.name + ".part")
    with open(beside, "w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, columns, extrasaction="ignore")
        writer.writeheader()
        writer.writerows(points)
    os.replace(beside, path)


def _label(names, point):
    return ", ".join(f"{name.rpartition('.')[2]} {point[name]}" for name in names)


def _draw(path, names, points, against):
    """Every edit a dot, those worth taking joined and named."""
    from PIL import Image, ImageDraw, ImageFont

    width, height, left, right, top, bottom = 1000, 620, 70, 30, 50, 60
    ink, paper, grid, dot, line = (40, 40, 48), (250, 250, 252), (222, 222, 228), (150, 170, 205), (196, 62, 40)
    picture = Image.new("RGB", (width, height), paper)
    draw, small = ImageDraw.Draw(picture), ImageFont.load_default(12)
    costs, values = [each[against] for each in points], [each["decibels"] for each in points]
    spread = [(max(each) - min(each)) or max(abs(max(each)), 1) * 0.1 for each in (costs, values)]
    low = min(costs) - 0.05 * spread[0], min(values) - 0.08 * spread[1]
    size = 1.25 * spread[0], 1.2 * spread[1]  # with room for names on the right

    def place(point):
        x = left + (width - left - right) * (point[against] - low[0]) / size[0]
        return x, height - bottom - (height - top - bottom) * (point["decibels"] - low[1]) / size[1]

    draw.text((left, 14), "nearness to dense attention, 16 bit, cfg in all steps (dB)", ink, ImageFont.load_default(16))
    draw.text((width - right, height - 26), COSTS[against], ink, ImageFont.load_default(16), anchor="ra")
    for share in (0, 0.25, 0.5, 0.75, 1):
        value, cost = low[1] + share * size[1], low[0] + share * size[0]
        y, x = height - bottom - (height - top - bottom) * share, left + (width - left - right) * share
        draw.line([(left, y), (width - right, y)], grid)
        draw.text((left - 8, y), f"{value:.1f}", ink, small, anchor="rm")
        draw.text((x, height - bottom + 8), f"{cost:.3g}", ink, small, anchor="ma")
    worth = sorted((each for each in points if each["worth taking"]), key=lambda each: each[against])
    if len(worth) > 1:
        draw.line([place(each) for each in worth], line, 2)
    for each in points:
        x, y = place(each)
        draw.ellipse((x - 4, y - 4, x + 4, y + 4), fill=line if each["worth taking"] else dot)
    named = []
    for each in worth:
        x, y = place(each)
        if all(abs(x - other) > 12 or abs(y - there) > 12 for other, there in named):  # of equals one has its name
            draw.text((x + 8, y - 4), _label(names, each), ink, small, anchor="ls")
            named.append((x, y))
    beside = path.with_name(f"{path.stem}.part{path.suffix}")
    picture.save(beside)
    os.replace(beside, path)
