"""What a worker does with a job: the clip into its server's input, the prompt through it, the result to its place.

The same on every machine and in every pool.
"""

import contextlib
import errno
import os
import re
import shutil
import time
from pathlib import Path
from typing import NamedTuple

from .errors import DiskFull, JobFailed, PromptRefused
from .graph import REPORT, prompt_of, refuse_wrong, saver_of
from .server import Server

UNFINISHED = ".part"
FULL = (
    "No space left on device",
    "not enough space on the disk",
    "Disk quota exceeded",
)  # the system's words, in a node's message
NEEDS = re.compile(r"needs ([\d.e+]+) GB in .* on their way, got")  # Decode Video's, before it begins
RESULTS = ("images", "video", "videos", "gifs")  # what nodes that save videos call them


class Task(NamedTuple):
    """A job as a worker gets it: plain values, for it may go to another machine."""

    key: str
    clip: str
    graph: dict  # filled in
    settings: tuple  # inputs that were set in it, as `Class.input`, whose names the server may not know
    result: str  # path of the result, without an extension
    silence: float  # seconds without a word from the server after which it counts as hung


class Result(NamedTuple):
    """A finished job."""

    path: str
    size: int
    seconds: float
    report: str


class Worker:
    """Owns a server.

    Args:
        server: which need not run yet.
    """

    def __init__(self, server: Server):
        self._server = server

    def run(self, task: Task, on_progress) -> Result:
        """Do a job.

        Args:
            on_progress: called with steps done and all steps.

        Raises:
            JobFailed, Interrupted, ServerDied, ServerDidNotStart, DiskFull.
        """
        try:
            return self._run(task, on_progress)
        except (JobFailed, OSError) as error:
            if getattr(error, "errno", None) in (errno.ENOSPC, getattr(errno, "EDQUOT", None)) or self._says_full(
                str(error)
            ):
                raise DiskFull(f"the disk is full: {error}") from None
            if isinstance(error, OSError):  # a clip that cannot be read, a folder that cannot be written to
                raise JobFailed(f"{type(error).__name__}: {error}") from None
            raise

    def _run(self, task, on_progress):
        self._server.start()
        refuse_wrong(task.graph, task.settings, self._server.nodes())
        started = time.monotonic()
        clip = Path(task.clip)
        if clip.stat().st_size == 0:
            raise JobFailed(f"{clip}: the file is empty. Copy it here once more.")
        there = self._server.input / f"{Path(task.result).name}{clip.suffix}"  # a name that messages may say
        try:
            _link_or_copy(clip, there)
            prompt = prompt_of(task.graph, there.name, task.key)
            outputs = self._server.run(prompt, on_progress, task.silence)
        except PromptRefused:
            raise
        except JobFailed as error:  # of the user's clip, not of its second name here
            raise JobFailed(str(error).replace(str(there), str(clip)).replace(there.name, clip.name)) from None
        finally:
            with contextlib.suppress(OSError):  # somebody looks at it; it goes with the worker's folder
                there.unlink(missing_ok=True)
        saved = self._saved(outputs.get(saver_of(task.graph), {}))
        result = Path(task.result + saved.suffix)
        beside = result.with_name(result.name + UNFINISHED)
        shutil.move(saved, beside)  # a rename on the same disk
        with open(beside, "rb+") as file:
            os.fsync(file.fileno())
        size = beside.stat().st_size
        os.replace(beside, result)
        report = "\n".join(outputs.get(REPORT, {}).get("text", ()))
        return Result(str(result), size, time.monotonic() - started, report)

    def _says_full(self, message):
        """Whether a job failed for want of room that can be made: for what no empty disk holds, none can."""
        needs = NEEDS.search(message)
        if needs:
            return float(needs[1]) * 1e9 < shutil.disk_usage(self._server.folder).total
        return any(words in message for words in FULL)

    def interrupt(self):
        """Stop the job at work, from another thread."""
        self._server.interrupt()

    def close(self):
        self._server.stop()

    def _saved(self, output):
        """The video that Save Video gave out."""
        for item in (each for kind in RESULTS for each in output.get(kind, ())):
            return self._server.folder / "output" / item["subfolder"] / item["filename"]
        raise JobFailed("the workflow saved no video")


def _link_or_copy(path, place):
    """A second name of a file where the disk allows it: ComfyUI opens no links that lead out of its input folder."""
    place.unlink(missing_ok=True)
    try:
        os.link(path, place)
    except OSError:
        shutil.copyfile(path, place)
