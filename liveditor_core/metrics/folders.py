"""Pairs of clips on a disk: those of a batch, of a list, of folders, and of benchmarks that the user brings."""

import contextlib
import csv
import json
import os
import re
import sqlite3
from pathlib import Path
from typing import NamedTuple

from ..footage.errors import FootageError
from ..footage.frame_folder import PICTURES, pictures_in
from .model_files import hashed

VIDEOS = {".mp4", ".mov", ".mkv", ".webm", ".avi", ".m4v", ".mpg", ".mpeg", ".ts", ".gif", ".wmv"}
BEFORE = ("before", "source", "input", "original", "video1")
AFTER = ("after", "edit", "edited", "output", "result", "generate", "generated")
JOURNAL = Path(".batch") / "journal.sqlite"  # of a batch, in its folder of results
RUN = Path(".batch") / "run.json"  # its last command
PROMPTS = "prompts.csv"  # beside the edits: name, target, source_text
TARGET, SOURCE_TEXT = "target", "source_text"


class PairFiles(NamedTuple):
    """One edit and its source, as files or folders of frames."""

    name: str
    before: Path
    after: Path
    mask: Path | None = None  # a picture, a video or a folder of pictures: what is not black is inside
    target: str = ""  # what the edit should show
    source_text: str = ""  # what the source shows
    group: str = ""  # a kind of edit, of which means are made too
    of_part: bool = False  # the edit's own file says which part of the source it is of


class Found(NamedTuple):
    """What there is to measure."""

    pairs: list[PairFiles]
    layout: str  # what it was read as, for people
    notes: list[str]  # what is missing, and what else is to be known


def find_pairs(path: Path, edits: Path | None = None) -> Found:
    """Read a folder or a list.

    Args:
        path: a batch's folder; a .csv or .jsonl with the columns before, after and, where there are any, name, mask,
            target, source_text, group; a folder with folders of two clips each, or with the folders before and after;
            EditVerseBench (`test.json`), DAVIS (`JPEGImages`), VIPSeg (`images`, `panomasks`).
        edits: of a benchmark, the folder of the edits: `<name>.mp4`, a folder of frames `<name>`, or
            `<name>/generate.mp4`.

    Raises:
        FootageError: nothing that can be compared; names what is missing.
    """
    path = Path(path)
    if path.suffix.lower() in (".csv", ".jsonl") and path.is_file():
        found = _of_list(path)
    elif not path.is_dir():
        raise FootageError(f"{path}: must be a folder, or a list in .csv or .jsonl; there is none.")
    elif (path / JOURNAL).is_file():
        found = _of_batch(path)
    elif (path / "test.json").is_file():
        found = _of_editverse(path, _needed(edits, path))
    elif (path / "JPEGImages").is_dir():
        found = _of_frames(
            path, _needed(edits, path), _inner(path / "JPEGImages"), _inner(path / "Annotations"), "DAVIS"
        )
    elif (path / "images").is_dir() and (path / "panomasks").is_dir():
        found = _of_frames(path, _needed(edits, path), path / "images", None, "VIPSeg")
        found.notes.append(
            "VIPSeg's masks say of every pixel what it is, not where to edit: none was used. A list with masks does."
        )
    else:
        found = _of_folders(path)
    if not found.pairs:
        raise FootageError(
            f"{path}: read as {found.layout}, there is no pair of clips to compare. {' '.join(found.notes)}".strip()
        )
    return found


def _needed(edits, path):
    if edits is None or not Path(edits).is_dir():
        raise FootageError(f"{path}: is a benchmark's folder and needs that of the edits, got {edits}. Give --edits.")
    return Path(edits)


def _of_batch(path):
    rows, known = _journal(path / JOURNAL)
    pairs, missing, changed, home = [], 0, 0, _home_of(path)
    for row in rows:
        before, after = Path(row["clip"]), path / row["result"]
        if home and not before.is_file():  # the folder was moved with its clips
            with contextlib.suppress(ValueError):  # on another drive
                before = path / os.path.relpath(before, home)
        if row["state"] != "done" or not after.is_file() or not before.is_file():
            missing += 1
        elif not _is_as_edited(before, row.get("clip_digest"), known):
            changed += 1
        else:
            pairs.append(PairFiles(row["name"], before, after, target=row["instruction"], of_part=True))
    notes = [f"{missing} of {len(rows)} jobs are not done, or their clips are gone"] if missing else []
    notes += [f"{changed} of {len(rows)} clips are no longer those that were edited"] if changed else []
    return Found(pairs, "a batch; its instructions are the target texts", notes)


def _home_of(path):
    """Where a batch's folder lay when it ran last, None if that is not known."""
    try:
        return json.loads((path / RUN).read_text(encoding="utf-8")).get("out")
    except (OSError, ValueError, AttributeError):
        return None


def _journal(file):
    """Jobs of a batch, and what is known of clips: size, time and SHA-256 by path."""
    # A disk that cannot be written to has no room for what SQLite keeps beside a journal that is in use.
    how = "mode=ro" if os.access(file.parent, os.W_OK) else "immutable=1"
    try:
        with contextlib.closing(sqlite3.connect(f"{file.resolve().as_uri()}?{how}", uri=True)) as database:
            database.row_factory = sqlite3.Row
            rows = [dict(row) for row in database.execute("SELECT * FROM jobs ORDER BY number")]
            digests = database.execute("SELECT path, size, written, digest FROM digests").fetchall()
    except sqlite3.DatabaseError as error:
        raise FootageError(f"{file}: the journal of the batch cannot be read: {error}.") from None
    return rows, {path: rest for path, *rest in digests}


def _is_as_edited(before, digest, known):
    """Whether a clip is still the one that was edited; taken for it where the journal does not say."""
    if not digest:
        return True
    before = before.resolve()
    stat = before.stat()
    *of, last = known.get(str(before), (None, None, None))
    return digest == (last if of == [stat.st_size, stat.st_mtime_ns] else hashed("", "", str(before)).sha256)


def _of_list(path):
    try:
        if path.suffix.lower() == ".csv":
            with open(path, encoding="utf-8-sig", newline="") as file:
                first = file.readline()
                file.seek(0)
                rows = list(csv.DictReader(file, delimiter=max(",;\t", key=first.count), strict=True))
        else:
            rows = [json.loads(line) for line in path.read_text(encoding="utf-8-sig").split("\n") if line.strip()]
    except (OSError, ValueError, csv.Error) as error:
        raise FootageError(f"{path}: cannot be read as a list: {error}") from None
    pairs = []
    for number, row in enumerate(rows, 1):
        if not isinstance(row, dict) or any(row.pop(None, None) or ()):
            raise FootageError(
                f"{path}, row {number}: must have a cell for each column, or be an object of names and values. A text "
                "with the sign between cells in it must stand in quotes."
            )
        row = {name.strip().lower(): str(value).strip() for name, value in row.items() if value is not None}
        row = {name: value for name, value in row.items() if value}
        if not row:
            continue
        missing = [name for name in ("before", "after") if not row.get(name)]
        if missing:
            raise FootageError(f"{path}, row {number}: must name {' and '.join(missing)}; it has {', '.join(row)}.")
        files = {name: path.parent / row[name] for name in ("before", "after", "mask") if row.get(name)}
        for each in files.values():
            if not each.exists():
                raise FootageError(f"{path}, row {number}: there is no {each}.")
        words = {name: row.get(name) or "" for name in (TARGET, SOURCE_TEXT, "group")}
        pairs.append(PairFiles(row.get("name") or files["after"].stem, mask=files.pop("mask", None), **files, **words))
    return Found(_named_apart(pairs), "a list", [])


def _of_editverse(path, edits):
    entries = json.loads((path / "test.json").read_text(encoding="utf-8"))
    pairs, missing = [], 0
    for name, entry in entries.items():
        before, after = path / str(entry.get("<video1>", "")), _edit_of(edits, name)
        if not before.is_file() or after is None:
            missing += 1
            continue
        words = str(entry.get("target_prompt", "")), str(entry.get("source_prompt", ""))
        pairs.append(PairFiles(name, before, after, None, *words, str(entry.get("type", ""))))
    notes = [f"{missing} of {len(entries)} have no source or no edit here"] if missing else []
    return Found(pairs, "clips and prompts of EditVerseBench; these are not EditVerse's scores", notes)


def _of_frames(path, edits, frames, masks, layout):
    prompts = _prompts(edits)
    names = sorted(each.name for each in frames.iterdir() if each.is_dir())
    pairs = []
    for name in names:
        after, mask = _edit_of(edits, name), masks and masks / name
        if after is not None:
            mask = mask if mask is not None and mask.is_dir() else None
            pairs.append(PairFiles(name, frames / name, after, mask, *prompts.get(name, ("", ""))))
    notes = [f"{len(names) - len(pairs)} of {len(names)} clips have no edit here"] if len(pairs) < len(names) else []
    return Found(pairs, f"frames of {layout}", notes)


def _of_folders(path):
    befores, afters = (_first(path, names, folders=True) for names in (BEFORE, AFTER))
    if befores is not None and afters is not None:
        prompts, pairs, alone = _prompts(path), [], 0
        for before in sorted(each for each in befores.iterdir() if _is_clip(each)):
            after, mask = _edit_of(afters, before.stem), _edit_of(path / "mask", before.stem)
            if after is None:
                alone += 1
            else:
                pairs.append(PairFiles(before.stem, before, after, mask, *prompts.get(before.stem, ("", ""))))
        notes = [f"{alone} clips in {befores.name} have none of their name in {afters.name}"] if alone else []
        return Found(pairs, f"the folders {befores.name} and {afters.name}", notes)
    pairs, other = [], []
    for folder in sorted(each for each in path.iterdir() if each.is_dir() and not each.name.startswith(".")):
        before, after = _first(folder, BEFORE), _first(folder, AFTER)
        if before is None or after is None:
            other.append(folder.name)
            continue
        words = [_text(folder / f"{name}.txt") for name in (TARGET, SOURCE_TEXT)]
        pairs.append(PairFiles(folder.name, before, after, _first(folder, ("mask",), pictures=True), *words))
    notes = [f"passed over, since they hold no {BEFORE[0]} and {AFTER[0]}: {', '.join(other)}"] if other else []
    return Found(pairs, "folders of two clips each", notes)


def _first(folder, names, folders=False, pictures=False):
    """What is called by one of some names: a clip, or only a folder, or a picture too."""
    there = sorted(folder.iterdir())
    for name in names:
        for each in there:
            if each.stem.lower() == name and (each.is_dir() if folders else _is_clip(each, pictures)):
                return each
    return None


def _edit_of(folder, name):
    """The clip of a name in a folder, however it lies there; None where there is none."""
    if not folder.is_dir():
        return None
    for each in sorted(folder.glob(f"{_escaped(name)}.*")) + [folder / name]:
        if each.is_file() and each.suffix.lower() in VIDEOS | PICTURES and each.stem == name:
            return each
        if each.is_dir() and each.name == name:
            inner = _first(each, AFTER)
            return inner if inner is not None else each if pictures_in(each) else None
    return None


def _is_clip(path, pictures=False):
    if path.is_dir():
        return bool(pictures_in(path))
    return path.suffix.lower() in (VIDEOS | PICTURES if pictures else VIDEOS)


def _inner(folder):
    """Of DAVIS's folders of sizes the first, as 480p; the folder itself where it has none."""
    sizes = sorted(each for each in folder.iterdir() if each.is_dir()) if folder.is_dir() else []
    return next((each for each in sizes if re.fullmatch(r"\d+p|Full-Resolution", each.name)), folder)


def _prompts(folder):
    """(target, source text) by name."""
    if not (folder / PROMPTS).is_file():
        return {}
    with open(folder / PROMPTS, encoding="utf-8-sig", newline="") as file:
        rows = list(csv.DictReader(file))
    return {row.get("name", ""): (row.get(TARGET) or "", row.get(SOURCE_TEXT) or "") for row in rows}


def _text(path):
    return path.read_text(encoding="utf-8-sig").strip() if path.is_file() else ""


def _escaped(name):
    return re.sub(r"([\[\]*?])", r"[\1]", name)


def _named_apart(pairs):
    """Pairs of one name get a number behind it."""
    seen, out = {}, []
    for pair in pairs:
        seen[pair.name] = count = seen.get(pair.name, 0) + 1
        out.append(pair if count == 1 else pair._replace(name=f"{pair.name}-{count}"))
    return out
