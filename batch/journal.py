"""What became of every job, in SQLite: it survives a killed process whole, needs no server and can be asked by others.

A job is `queued`, `running`, `done` or `failed`. A change is one transaction, so that there is never half of one.
"""

import json
import os
import sqlite3
import threading
import time
from pathlib import Path

from .errors import BatchError
from .jobs import digest_of_file

FILE = "journal.sqlite"
MOST_DEATHS = 3  # of workers and servers with the same job in them, before it is given up
QUEUED, RUNNING, DONE, FAILED = "queued", "running", "done", "failed"
TABLES = """
CREATE TABLE IF NOT EXISTS jobs (
    key TEXT PRIMARY KEY, number INTEGER, name TEXT, clip TEXT, instruction TEXT, inputs TEXT, state TEXT,
    attempts INTEGER DEFAULT 0, deaths INTEGER DEFAULT 0, message TEXT DEFAULT '', report TEXT DEFAULT '',
    worker TEXT DEFAULT '', result TEXT DEFAULT '', size INTEGER, seconds REAL, ended REAL, clip_digest TEXT DEFAULT ''
);
CREATE INDEX IF NOT EXISTS by_state ON jobs (state, number);
CREATE TABLE IF NOT EXISTS digests (path TEXT PRIMARY KEY, size INTEGER, written INTEGER, digest TEXT);
"""


class Journal:
    """Of one output folder. May be used by several threads.

    Args:
        folder: where it lies.
        to_read: nothing will be changed: it may lie on a disk that cannot be written to.

    Raises:
        BatchError: it cannot be read, or written to.
    """

    def __init__(self, folder: Path, to_read: bool = False):
        self._lock = threading.RLock()
        try:
            self._open(folder / FILE, to_read)
        except sqlite3.DatabaseError as error:
            # Of a full disk SQLite speaks in the same words as of a broken one.
            damaged = type(error) is sqlite3.DatabaseError
            raise BatchError(
                f"{folder / FILE}: the journal of the batch cannot be used: {error}. "
                + (
                    f"It is damaged: delete {folder}. Results stay where they are; all jobs are done anew."
                    if damaged
                    else "Look whether its disk is full or cannot be written to, and start again: it goes on."
                )
            ) from None

    def _open(self, file, to_read):
        # A disk that cannot be written to has no room for what SQLite keeps beside a journal that is in use.
        how = "?immutable=1" if to_read and not os.access(file.parent, os.W_OK) else ""
        self._database = sqlite3.connect(file.resolve().as_uri() + how, uri=True, check_same_thread=False, timeout=30)
        self._database.row_factory = sqlite3.Row
        if to_read:
            self._database.execute("SELECT count(*) FROM jobs")
            return
        with self._database:
            self._database.execute("PRAGMA journal_mode=WAL")
            # The last changes may be lost with the power, not with a process: such a job is done again.
            self._database.execute("PRAGMA synchronous=NORMAL")
            self._database.executescript(TABLES)
            if "clip_digest" not in (row["name"] for row in self._database.execute("PRAGMA table_info(jobs)")):
                self._database.execute("ALTER TABLE jobs ADD COLUMN clip_digest TEXT DEFAULT ''")  # of before 2026-12

    def add(self, jobs):
        """Jobs as (key, name, Job, digest of its clip), each once; known ones change their order and clip alone."""
        with self._lock, self._database:
            self._database.executemany(
                "INSERT INTO jobs (key, number, name, clip, instruction, inputs, state, clip_digest) "
                "VALUES (?, ?, ?, ?, ?, ?, ?, ?) "
                "ON CONFLICT (key) DO UPDATE SET number = excluded.number, clip = excluded.clip, "
                "clip_digest = excluded.clip_digest",
                [
                    (key, number, name, str(job.clip), job.instruction, json.dumps(job.inputs), QUEUED, digest)
                    for number, (key, name, job, digest) in enumerate(jobs)
                ],
            )

    def take(self, worker: str, keys):
        """The next queued job of some, which is running from now on; None where there is none."""
        with self._lock, self._database:
            for row in self._database.execute("SELECT * FROM jobs WHERE state = ? ORDER BY number", (QUEUED,)):
                if row["key"] in keys:
                    self._set(row["key"], state=RUNNING, worker=worker, attempts=row["attempts"] + 1, message="")
                    return self.of(row["key"])
        return None

    def done(self, key, result: str, size: int, seconds: float, report: str):
        with self._lock, self._database:
            self._set(key, state=DONE, result=result, size=size, seconds=seconds, report=report, ended=time.time())

    def failed(self, key, message: str):
        with self._lock, self._database:
            self._set(key, state=FAILED, message=message, ended=time.time())

    def put_back(self, key, message: str = ""):
        """A job that was begun is to be done again."""
        with self._lock, self._database:
            self._set(key, state=QUEUED, message=message)

    def died(self, key, message: str) -> bool:
        """A worker or server ended with the job in it. Says whether the job is given up."""
        with self._lock, self._database:
            deaths = self.of(key)["deaths"] + 1
            if deaths < MOST_DEATHS:
                self._set(key, state=QUEUED, deaths=deaths, message=message)
                return False
            text = f"given up after {deaths} workers or servers ended with it; the last: {message}"
            self._set(key, state=FAILED, deaths=deaths, message=text, ended=time.time())
            return True

    def retry(self, key):
        """Queue a failed job once more, as if it had never been tried."""
        with self._lock, self._database:
            self._set(key, state=QUEUED, deaths=0, message="")

    def forget(self, key):
        """A job that cannot come again: its clip is another one now."""
        with self._lock, self._database:
            self._database.execute("DELETE FROM jobs WHERE key = ?", (key,))

    def all(self):
        """Every job, in order, as dicts."""
        with self._lock:
            return [_plain(row) for row in self._database.execute("SELECT * FROM jobs ORDER BY number, name")]

    def of(self, key):
        with self._lock:
            return _plain(self._database.execute("SELECT * FROM jobs WHERE key = ?", (key,)).fetchone())

    def counts(self, keys=None):
        """Jobs by state."""
        with self._lock:
            states = [
                row["state"]
                for row in self._database.execute("SELECT key, state FROM jobs")
                if keys is None or row["key"] in keys
            ]
        return {state: states.count(state) for state in (QUEUED, RUNNING, DONE, FAILED)}

    def digest(self, path: Path) -> str:
        """Of a file's content, remembered by its place, size and time."""
        path = path.resolve()
        stat = path.stat()
        with self._lock:
            row = self._database.execute("SELECT * FROM digests WHERE path = ?", (str(path),)).fetchone()
            if row is not None and (row["size"], row["written"]) == (stat.st_size, stat.st_mtime_ns):
                return row["digest"]
        digest = digest_of_file(path)
        with self._lock, self._database:
            self._database.execute(
                "INSERT OR REPLACE INTO digests VALUES (?, ?, ?, ?)",
                (str(path), stat.st_size, stat.st_mtime_ns, digest),
            )
        return digest

    def close(self):
        with self._lock:
            self._database.close()

    def _set(self, key, **values):
        names = ", ".join(f"{name} = ?" for name in values)
        self._database.execute(f"UPDATE jobs SET {names} WHERE key = ?", (*values.values(), key))


def _plain(row):
    return dict(row) | {"inputs": json.loads(row["inputs"])}
