"""The numbers of many edits: each measured once, a table, means with confidence intervals, a picture of them."""

import csv
import hashlib
import io
import json
import os
from fractions import Fraction
from pathlib import Path

import numpy as np
import torch

from ..footage.errors import FootageError
from ..footage.file_clip import FileClip
from ..footage.frame_folder import FrameFolder, pictures_in
from .edited_part import source_of
from .folders import Found, PairFiles
from .masks import outside_of
from .measure import VERSION, Models, measure
from .overview import overview
from .pairs import TimedPairs

NUMBERS = "numbers"  # folder of a JSON for each pair
TABLE, SUMMARY, SCRIPT, PICTURE = "metrics.csv", "summary.json", "metrics.js", "metrics.png"
RESAMPLED, CONFIDENCE, SEED = 10_000, 0.95, 0
# By column, where a number lies in the summary of a pair.
COLUMNS = {
    "frames": ("compared", "frames"),
    "psnr": ("kept", "psnr"),
    "identical": ("kept", "identical"),
    "psnr_whole": ("kept", "whole_frame", "psnr"),
    "ssim_whole": ("kept", "whole_frame", "ssim"),
    "ssim": ("kept", "ssim"),
    "exact": ("kept", "exact"),
    "change": ("changed", "whole_frame", "mean"),
    "change_share": ("changed", "whole_frame", "share"),
    "change_inside": ("changed", "inside", "mean"),
    "change_outside": ("changed", "outside", "mean"),
    "flicker_edit": ("steady", "flicker_edit"),
    "flicker_source": ("steady", "flicker_source"),
    "flicker_excess": ("steady", "excess"),
    "warp_error_edit": ("flow", "warp_error_edit"),
    "warp_error_source": ("flow", "warp_error_source"),
    "flow_similarity": ("flow", "similarity"),
    "text_edit": ("words", "text_edit"),
    "text_source": ("words", "text_source"),
    "text_gain": ("words", "gain"),
    "direction": ("words", "direction"),
    "consistency_edit": ("words", "consistency_edit"),
    "consistency_source": ("words", "consistency_source"),
    "score_edit": ("words", "score_edit"),
    "score_gain": ("words", "score_gain"),
    "kept_if_edited": ("gate", "kept_if_edited"),
}


def measure_pair(pair: PairFiles, fps: Fraction, models: Models, every: int, device="cpu") -> dict:
    """The numbers of one pair, as `Numbers.to_json` gives them.

    Args:
        fps: of folders of frames, unless both clips have as many: then those of the other.

    Raises:
        FootageError: a clip or mask cannot be read, or models do not fit.
    """
    before, after = _clips(pair, fps)
    if pair.of_part:
        before = source_of(before, after, pair.after)
    pairs = TimedPairs(before, after)
    outside = None if pair.mask is None else outside_of(_masks(pair.mask), pairs)
    numbers = measure(
        pairs,
        outside=outside,
        models=models,
        target=pair.target,
        source_text=pair.source_text,
        every=every,
        device=device,
    )
    return json.loads(numbers.to_json())


def key_of(pair: PairFiles, models: Models, every: int, fps: Fraction) -> str:
    """What the numbers of a pair depend on: a pair that was measured under the same is not measured again."""
    files = [_stamps(each) for each in (pair.before, pair.after, pair.mask) if each is not None]
    parts = [VERSION, files, pair.target, pair.source_text, [list(each) for each in models.files], every, str(fps)]
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()


def measured_before(out: Path, pair: PairFiles, key: str) -> dict | None:
    try:
        found = json.loads(_file_of(out, pair).read_text(encoding="utf-8"))
        return found["numbers"] if found["key"] == key else None
    except (OSError, ValueError, KeyError):
        return None


def keep(out: Path, pair: PairFiles, key: str, numbers: dict):
    _write(_file_of(out, pair), json.dumps({"key": key, "name": pair.name, "numbers": numbers}, ensure_ascii=False))


def row_of(pair: PairFiles, numbers: dict) -> dict:
    """A row of the table; None for what was not measured."""
    row = {"name": pair.name, "group": pair.group, "target": pair.target, "masked": pair.mask is not None}
    for column, path in COLUMNS.items():
        value = numbers
        for name in path:
            value = value and value.get(name)
        row[column] = value
    return row


def means_of(rows: list[dict]) -> dict:
    """Of every column with numbers: mean, the ends of its 95 % confidence interval, and of how many.

    The interval is that of the percentiles of means of as many rows drawn with replacement (bootstrap); None for fewer
    than two. Pairs that are identical have no PSNR: their number stands beside the mean of the others.
    """
    out = {}
    for column in COLUMNS:
        values = [float(row[column]) for row in rows if row[column] is not None]
        if not values:
            continue
        low = high = None
        if len(values) > 1:
            drawn = np.random.default_rng(SEED).choice(np.array(values), (RESAMPLED, len(values)))
            tail = 100 * (1 - CONFIDENCE) / 2
            low, high = (float(each) for each in np.percentile(drawn.mean(axis=1), [tail, 100 - tail]))
        out[column] = {"mean": float(np.mean(values)), "low": low, "high": high, "of": len(values)}
    return out


def by_group(rows: list[dict]) -> dict:
    """Means of all, and of every group where there are several."""
    groups = sorted({row["group"] for row in rows if row["group"]})
    return {"all": means_of(rows)} | {name: means_of([r for r in rows if r["group"] == name]) for name in groups}


def measure_all(pairs, out: Path, models: Models, fps: Fraction, every: int, device="cpu"):
    """Every pair with its row of the table, or with None and why it could not be measured.

    Args:
        out: folder in which numbers are kept, and looked for.
    """
    for pair in pairs:
        try:
            key = key_of(pair, models, every, fps)
            numbers = measured_before(out, pair, key)
            if numbers is None:
                numbers = measure_pair(pair, fps, models, every, device)
                keep(out, pair, key, numbers)
            yield pair, row_of(pair, numbers), ""
        except (FootageError, ValueError, OSError) as error:
            yield pair, None, str(error)


def write_results(out: Path, rows: list[dict], failed: list[dict], found: Found, models: Models, title: str):
    """The table, the summary, a picture, and the table once more as a script that a page without a server can read.

    Returns:
        The means by group, and the files for people.
    """
    means = by_group(rows)
    summary = {
        "read_as": found.layout,
        "notes": found.notes,
        "models": [each._asdict() for each in models.files],
        "measured": len(rows),
        "failed": failed,
        "means": means,
    }
    text = io.StringIO(newline="")
    writer = csv.DictWriter(text, rows[0])
    writer.writeheader()
    writer.writerows(rows)
    _write(out / TABLE, text.getvalue())
    _write(out / SUMMARY, json.dumps(summary, indent=2, ensure_ascii=False))
    script = json.dumps({row["name"]: row for row in rows}, ensure_ascii=False).replace("<", "\\u003c")
    _write(out / SCRIPT, f"window.liveditorMetrics = {script};\n")
    overview(rows, means["all"], title).save(out / PICTURE)
    return means, [out / TABLE, out / SUMMARY, out / PICTURE]


def _clips(pair, fps):
    paths = pair.before, pair.after
    folders = [path.is_dir() for path in paths]
    if all(folders) or not any(folders):
        return tuple(FrameFolder(path, fps) if path.is_dir() else FileClip(str(path)) for path in paths)
    video = FileClip(str(paths[folders.index(False)]))
    folder, count = paths[folders.index(True)], max(1, round(video.length() * video.rate))
    frames = FrameFolder(folder, video.rate if len(pictures_in(folder)) == count else fps)
    return (frames, video) if folders[0] else (video, frames)


def _masks(path):
    """[M, H, W] in 0..1."""
    if path.is_dir():
        clip = FrameFolder(path, Fraction(1))
        return torch.stack([clip.rgb(picture).amax(dim=-1) > 0 for picture in clip.pictures(Fraction(0))]).float()
    clip = FileClip(str(path))
    return torch.stack([clip.rgb(picture)[..., :3].mean(dim=-1) for picture in clip.pictures(Fraction(0))])


def _stamps(path):
    files = pictures_in(path) if path.is_dir() else [path]
    return [(str(path), *(stat.st_size for stat in [each.stat()]), each.stat().st_mtime_ns) for each in files]


def _file_of(out, pair):
    safe = "".join(c if c.isalnum() or c in "-_. " else "_" for c in pair.name)[:100]
    return out / NUMBERS / f"{safe}-{hashlib.sha256(pair.name.encode()).hexdigest()[:8]}.json"


def _write(path, text):
    """Beside, and renamed."""
    path.parent.mkdir(parents=True, exist_ok=True)
    beside = path.with_name(path.name + ".part")
    beside.write_text(text, encoding="utf-8", newline="")
    os.replace(beside, path)
