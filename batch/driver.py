"""Hands jobs to workers until none is left, and writes down what becomes of them."""

import contextlib
import json
import os
import platform
import shutil
import threading
import time
from pathlib import Path

import psutil

from .errors import (
    BatchError,
    DiskFull,
    Interrupted,
    JobFailed,
    PromptRefused,
    ServerDidNotStart,
    ServerDied,
    WorkerDied,
)
from .graph import LOADED, fill_in
from .jobs import key_of, name_of
from .journal import DONE, FAILED, QUEUED, RUNNING, Journal
from .living import find, named
from .page import write_page
from .table import write_table
from .worker import UNFINISHED, Task

WORK = ".batch"  # in the output folder: journal, workers' folders, unfinished edits
LOCK = "driver.lock"
MOST_FALSE_STARTS = 2  # of a worker's server in a row, before the worker is given up
SAY_AFTER = 20.0  # seconds that a worker waits for a place before that is said
PAGE_EVERY = 5.0  # seconds at least between two writings of the page


class Driver:
    """Of one output folder, which no other driver may use at the same time.

    Args:
        out: the output folder.
        graph: the workflow, in API format.
        models: folders of the models' files.
        left_free: bytes of the disk below which no further job begins.
        silence: seconds without a word from a server after which it counts as hung.
        see: what shows progress, see `Bars`.
    """

    def __init__(self, out: Path, graph: dict, models: list, *, left_free: int, silence: float, see):
        self.out, self._graph, self._models = Path(out).resolve(), graph, models
        self._left_free, self._silence, self._see = left_free, silence, see
        self._work = work_folder(self.out)
        self._lock = _Lock(self._work / LOCK)
        self.journal = Journal(self._work)
        self._changed = threading.Condition()
        self._stopping, self._why = False, ""
        self._page_due, self._write_failed = 0.0, False

    def plan(self, jobs):
        """Write jobs into the journal; what is done and whole stays done, what was begun is queued again.

        Returns:
            Jobs that are the same as one before: the clip's name, and the name of that one's result.

        Raises:
            BatchError: a job sets an input that there is not.
        """
        planned, twice = {}, []
        for job in jobs:
            digest = self.journal.digest(job.clip)
            key = key_of(job, self._graph, digest, self._models)
            if key in planned:
                twice.append((job.clip.name, planned[key][1]))
            planned.setdefault(key, (key, name_of(job, key), job._replace(clip=job.clip.resolve()), digest))
        self.journal.add(planned.values())
        self.keys = set(planned)
        digests = {str(job.clip): digest for _, _, job, digest in planned.values()}
        for row in self.journal.all():
            was, now = row["clip_digest"], digests.get(row["clip"])
            if row["state"] != DONE and row["key"] not in self.keys and was and now and was != now:
                self.journal.forget(row["key"])
            elif row["state"] == RUNNING:  # of a driver that ended
                self.journal.put_back(row["key"], "begun before; the driver ended")
            elif row["state"] == DONE and row["key"] in self.keys and not self._is_whole(row):
                self.journal.put_back(row["key"], "its result was gone or changed")
        ours = {row["name"] for row in self.journal.all()}
        for left in self.out.glob(f"*{UNFINISHED}"):
            if Path(left.stem).stem in ours:
                left.unlink(missing_ok=True)
        return twice

    def run(self, workers):
        """Do all jobs; comes back when none is left that could be done.

        Returns:
            Why it ended before all jobs were tried; "" if it did not.
        """
        counts = self.journal.counts(self.keys)
        self._see.begin(len(self.keys), counts[DONE] + counts[FAILED])
        threads = [threading.Thread(target=self._serve, args=(worker,), daemon=True) for worker in workers]
        for thread in threads:
            thread.start()
        try:
            while any(thread.is_alive() for thread in threads):
                time.sleep(0.1)  # not join(): ^C must come through
                if time.monotonic() >= self._page_due:
                    self._write()
        except KeyboardInterrupt:
            self._end(workers, threads)
        counts = self.journal.counts(self.keys)
        if not self._why and counts[QUEUED] + counts[RUNNING]:
            self._why = "no worker is left"
        return self._why

    def close(self):
        """Write page and table, and give the folder free."""
        try:
            self._write()
        finally:
            self.journal.close()
            self._lock.release()

    def _end(self, workers, threads):
        """After ^C: jobs at work are interrupted, so that their state is saved. Another ^C ends it at once."""
        self._stop("stopped")
        self._see.say("stopping; what is at work is saved (^C again: at once)")
        try:
            while any(thread.is_alive() for thread in threads):
                for worker in workers:  # again and again: a job may have been on its way to a server
                    worker.interrupt()
                time.sleep(0.5)
        except KeyboardInterrupt:
            for worker in workers:
                worker.close(now=True)

    def _stop(self, why):
        with self._changed:
            self._stopping, self._why = True, self._why or why
            self._changed.notify_all()

    def _serve(self, worker):
        """One worker's jobs, in a thread of its own."""
        false_starts = 0
        while (row := self._next(worker)) is not None:
            key, name, message, ended = row["key"], row["name"], "", False

            def step(done, of, name=name):
                self._see.step(worker.name, name, done, of)

            try:
                done = worker.run(self._task(row), step)
                self.journal.done(key, os.path.relpath(done.path, self.out), done.size, done.seconds, done.report)
                false_starts, ended = 0, True
            except JobFailed as error:
                message = str(error)
                if isinstance(error, PromptRefused) and self._is_of_all(error.inputs):
                    self._stop(f"no job can be done: {message}")
                    self.journal.put_back(key)
                elif not self.out.is_dir():
                    self._stop(self._gone())
                    self.journal.put_back(key)
                else:
                    ended = True
                    self.journal.failed(key, message)
            except ServerDidNotStart as error:
                message, false_starts = str(error), false_starts + 1
                self.journal.put_back(key)
            except (Interrupted, DiskFull, BatchError) as error:
                message = str(error) or "interrupted"
                if isinstance(error, DiskFull):
                    self._stop(f"{message}. Make room and start again: it goes on.")
                elif isinstance(error, BatchError):
                    self._stop(message)
                self.journal.put_back(key)  # when nobody will take it
            except (ServerDied, WorkerDied) as error:
                message = str(error)
                if self._stopping:
                    self.journal.put_back(key)
                else:
                    ended = self.journal.died(key, message)
            except Exception as error:  # of a kind that nobody thought of: no job is lost, and nobody waits for it
                message = f"{type(error).__name__}: {error}"
                self._stop(f"{worker.name}: {message}")
                with contextlib.suppress(Exception):
                    self.journal.put_back(key)
            self._see.end(worker.name, name, message.split("\n")[0], ended)
            with self._changed:
                self._changed.notify_all()
            if false_starts >= MOST_FALSE_STARTS:
                self._see.say(f"{worker.name} is given up: {message}")
                return

    def _next(self, worker):
        """A job for a worker; waits while jobs at work may come back. None when there will be none."""
        since, said = time.monotonic(), False
        while True:
            try:
                ready = worker.is_ready()  # not under the lock, which ^C needs: a cluster may be slow to answer
            except ServerDidNotStart as error:
                self._see.say(f"{worker.name} is given up: {error}")
                return None
            except BatchError as error:
                self._stop(str(error))
                return None
            if not ready and not said and time.monotonic() - since >= SAY_AFTER:
                self._see.say(f"{worker.name} waits for a place")
                said = True
            with self._changed:
                if self._stopping:
                    return None
                try:
                    free = shutil.disk_usage(self.out).free
                except OSError:
                    self._stop(self._gone())
                    return None
                if free >= self._left_free:
                    row = self.journal.take(worker.name, self.keys) if ready else None
                    if row is not None:
                        return row
                counts = self.journal.counts(self.keys)
                if not counts[QUEUED] + counts[RUNNING]:
                    return None
                if free >= self._left_free or not counts[QUEUED]:
                    self._changed.wait(1.0)
                    continue
            self._stop(
                f"{free / 2**30:.1f} GiB are free on the disk of {self.out}, fewer than the "
                f"{self._left_free / 2**30:.1f} that are to be left. Make room and start again: it goes on."
            )

    def _gone(self):
        return f"{self.out}: the folder of the results is gone, renamed or its disk is. Put it back and start again."

    def _is_of_all(self, inputs):
        """Whether what a server refused is the same in all jobs: missing weights, and not a clip or a job's setting."""
        rows = [row["inputs"] for row in self.journal.all() if row["key"] in self.keys]
        return bool(inputs) and all(
            (kind, name) != LOADED
            and len({json.dumps([row.get(f"{kind}.{name}"), row.get(f"#{node}.{name}")]) for row in rows}) == 1
            for node, kind, name in inputs
        )

    def _task(self, row):
        graph = fill_in(self._graph, row["instruction"], row["inputs"])
        return Task(row["key"], row["clip"], graph, tuple(row["inputs"]), str(self.out / row["name"]), self._silence)

    def _is_whole(self, row):
        path = self.out / row["result"]
        return path.is_file() and path.stat().st_size == row["size"]

    def _write(self):
        rows = self.journal.all()
        for write in (write_page, write_table):
            try:
                write(self.out, rows)
            except OSError as error:  # open in another program, a full disk: the jobs go on
                if not self._write_failed:
                    self._see.say(f"{error}; tried again until it can be written")
                self._write_failed = True
        self._page_due = time.monotonic() + PAGE_EVERY


def work_folder(out: Path) -> Path:
    folder = out / WORK
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise BatchError(f"--out {out}: cannot be made: {error}") from None
    return folder


def is_driven(out: Path) -> bool:
    """Whether a driver is at work in an output folder, as far as that can be told from here."""
    return _is_alive(out / WORK / LOCK)


class _Lock:
    """A file that says which process drives a folder; one that a dead process left is taken over."""

    def __init__(self, path):
        self._path, me = path, psutil.Process()
        while True:
            try:
                with open(path, "x", encoding="utf-8") as file:
                    json.dump({"machine": platform.node()} | named(me), file)
                return
            except FileExistsError:
                if _is_alive(path):
                    raise BatchError(
                        f"{path.parent.parent}: another batch is at work here. If none is, on any machine, delete "
                        f"{path}."
                    ) from None
                path.unlink(missing_ok=True)
            except OSError as error:
                raise BatchError(f"{path.parent.parent}: cannot be written to: {error}") from None

    def release(self):
        self._path.unlink(missing_ok=True)


def _is_alive(lock):
    """Whether the process that a lock names is there; one on another machine counts as if it were."""
    try:
        owner = json.loads(lock.read_text(encoding="utf-8"))
        return owner["machine"] != platform.node() or find(owner) is not None
    except (OSError, ValueError, KeyError, TypeError):
        return False
