"""What is to be done: clips with an instruction each, from a folder or a list; and what makes a job the same job."""

import csv
import hashlib
import json
import re
from pathlib import Path
from typing import NamedTuple

from .errors import BatchError
from .graph import ROOT, fill_in

VIDEOS = {
    ".mp4",
    ".mov",
    ".mkv",
    ".webm",
    ".avi",
    ".m4v",
    ".mpg",
    ".mpeg",
    ".ts",
    ".mts",
    ".m2ts",
    ".mxf",
    ".gif",
    ".wmv",
}
WEIGHTS = {".safetensors", ".sft", ".gguf", ".pt", ".pth", ".bin", ".ckpt"}
VIDEO, INSTRUCTION = "video", "instruction"


class Job(NamedTuple):
    """One clip with one instruction."""

    clip: Path
    instruction: str  # "" for that of the workflow
    inputs: dict  # other inputs of nodes, see `fill_in`


def read_jobs(path: Path, instruction: str | None) -> list[Job]:
    """The jobs of a folder of clips, a CSV or a JSONL.

    Lists name clips relative to their own folder, in the column `video`; `instruction` may be missing where one is
    given for all; other columns are inputs of nodes, as `LIVEditSampler.seed`, and an empty cell leaves the workflow's.
    In a folder hidden files are none of the clips: some systems put one beside every file.

    Args:
        instruction: of every clip that has none of its own.

    Raises:
        BatchError: what is wrong, with the line.
    """
    path = Path(path)
    if path.is_dir():
        clips = sorted(each for each in _shown(path) if _is_clip(each))
        if not clips:
            folders = ", ".join(each.name for each in _shown(path) if each.is_dir())
            raise BatchError(
                f"{path}: there are no videos in it."
                + (f" Folders in it are not looked into: {folders}." * bool(folders))
            )
        if not _words(instruction):
            raise BatchError(f"{path}: a folder needs an instruction for its clips: --instruction WORDS.")
        return [Job(_named_readably(clip, path), _words(instruction), {}) for clip in clips]
    if not path.is_file():
        raise BatchError(f"{path}: there is no such file or folder.")
    read = {".csv": _rows_of_csv, ".jsonl": _rows_of_jsonl}.get(path.suffix.lower())
    if read is None:
        raise BatchError(f"{path}: must be a folder, .csv or .jsonl.")
    try:
        jobs = [_job(row, f"{path}, line {line}", path.parent, instruction) for line, row in read(path)]
    except UnicodeDecodeError:
        raise BatchError(f"{path}: must be in UTF-8. Save it as CSV UTF-8.") from None
    except csv.Error as error:
        raise BatchError(
            f"{path}: a quotation mark is not closed, or closed within a text ({error}). A text with such marks must "
            'stand in them, and each of its own twice: "say ""hello"" to it".'
        ) from None
    if not jobs:
        raise BatchError(
            f"{path}: there are no jobs in it. The first line of a .csv names the columns: {VIDEO},{INSTRUCTION}."
        )
    return jobs


def left_out(path: Path) -> list[str]:
    """What of a folder is none of the clips, hidden files left aside."""
    if not path.is_dir():
        return []
    return sorted(f"{each.name}/" if each.is_dir() else each.name for each in _shown(path) if not _is_clip(each))


def _shown(folder):
    return [each for each in folder.iterdir() if not each.name.startswith(".")]


def _is_clip(path):
    return path.suffix.lower() in VIDEOS and path.is_file()


def _words(text):
    return "" if text is None else str(text).encode(errors="replace").decode().strip()  # half of a character is none


def _named_readably(clip, where):
    try:
        str(clip).encode()
    except UnicodeEncodeError:
        raise BatchError(f"{where}: the name of {str(clip)!r} is not in UTF-8. Rename it.") from None
    return clip


def _rows_of_csv(path):
    with open(path, encoding="utf-8-sig", newline="") as file:
        first = file.readline()
        file.seek(0)
        mark = max(",;\t", key=first.count)
        rows = csv.DictReader(file, delimiter=mark, strict=True)
        rows.fieldnames = [_column(name) for name in rows.fieldnames or ()]
        for name in rows.fieldnames:
            if name and rows.fieldnames.count(name) > 1:
                raise BatchError(f"{path}, line 1: names the column {name} twice.")
        for row in rows:
            if any(row.get(None, ())):
                raise BatchError(
                    f"{path}, line {rows.line_num}: has more cells than the first line names. A text with {mark} in it "
                    'must stand in quotes: "snow, please".'
                )
            cells = {name: text.strip() for name, text in row.items() if name and text and text.strip()}
            if cells:
                yield rows.line_num, {name: value_of(text) if "." in name else text for name, text in cells.items()}


def _column(name):
    """The name of a column, in the letters that are used here."""
    name = name.strip()
    return name.lower() if name.lower() in (VIDEO, INSTRUCTION) else name


def _rows_of_jsonl(path):
    for line, text in enumerate(path.read_text(encoding="utf-8-sig").split("\n"), 1):
        if text.strip():
            try:
                row = json.loads(text)
            except ValueError as error:
                raise BatchError(f"{path}, line {line}: is not JSON: {error}.") from None
            if not isinstance(row, dict):
                raise BatchError(f"{path}, line {line}: must be an object of names and values.")
            yield line, {_column(name): value for name, value in row.items()}


def value_of(text):
    """A cell as what it looks like: a number, true or false, or words."""
    if text.lower() in ("true", "false"):
        return text.lower() == "true"
    for kind in (int, float):
        try:
            return kind(text)
        except ValueError:
            continue
    return text


def _job(row, where, folder, instruction):
    row = dict(row)
    clip, words = row.pop(VIDEO, None), _words(row.pop(INSTRUCTION, None)) or _words(instruction)
    if not _words(clip):
        raise BatchError(
            f"{where}: names no {VIDEO}; its columns are {', '.join(map(str, row)) or 'none'}. The first line of a "
            f".csv names the columns: {VIDEO},{INSTRUCTION}."
        )
    for name in row:
        if "." not in name:
            raise BatchError(
                f"{where}: the column {name} is none of {VIDEO}, {INSTRUCTION} and inputs of nodes, as "
                "LIVEditSampler.seed. Rename it, or leave it out."
            )
    if not words:
        raise BatchError(f"{where}: has no {INSTRUCTION}; give one there, or --instruction WORDS for all.")
    clip = Path(_words(clip))
    clip = folder / (clip.expanduser() if clip.parts[0] == "~" else clip)  # "~draft.mp4" is a name like any other
    if not clip.is_file():
        raise BatchError(f"{where}: there is no file {clip}. Paths count from the list's own folder.")
    return Job(_named_readably(clip, where), words, row)


def name_of(job: Job, key: str) -> str:
    """Of a job's result, without an extension: readable, and of this job alone."""
    words = _cut(re.sub(r"[^\w]+", "-", job.instruction.lower()).strip("-"), 60).rstrip("-")
    return "--".join(part for part in (_cut(job.clip.stem, 80), words, key[:8]) if part)


def _cut(text, size):
    """What of a text takes so many bytes: disks count these in names."""
    return text.encode()[:size].decode(errors="ignore")


def key_of(job: Job, graph: dict, clip_digest: str, models: list) -> str:
    """What tells a job from every other: clip, instruction and settings, weights, version.

    Args:
        graph: of the workflow.
        clip_digest: see `digest_of_file`.
        models: folders in which the files that the graph names are looked for; a file counts by its size and when it
            was written.

    Raises:
        BatchError: the job sets an input that there is not.
    """
    filled = fill_in(graph, job.instruction, job.inputs)
    parts = [clip_digest, filled, _weights_in(filled, models), _version()]
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()


def _weights_in(graph, models):
    found = {}
    for node in graph.values():
        for value in node["inputs"].values():
            if isinstance(value, str) and Path(value).suffix.lower() in WEIGHTS and value not in found:
                files = [folder / value for folder in models if (folder / value).is_file()]
                found[value] = [(file.stat().st_size, file.stat().st_mtime_ns) for file in files]
    return found


def _version():
    for line in (ROOT / "pyproject.toml").read_text(encoding="utf-8").splitlines():
        if line.startswith("version"):
            return line
    return None


def digest_of_file(path: Path) -> str:
    digest = hashlib.sha256()
    with open(path, "rb") as file:
        while part := file.read(1 << 20):
            digest.update(part)
    return digest.hexdigest()
