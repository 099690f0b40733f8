"""How far a batch is, in the terminal: a bar for the jobs and one for every worker."""

import contextlib
import sys
import threading

from tqdm import tqdm


class Bars:
    """Where the output is no terminal, a line for every job that ended.

    Args:
        workers: their names, in order.
    """

    def __init__(self, workers):
        self._workers, self._lock = workers, threading.Lock()
        self._quiet = not sys.stderr.isatty()
        self._jobs, self._bars = None, {}
        self._ended = self._of = 0

    def begin(self, jobs: int, done: int):
        """Args: how many jobs there are, and how many of them were done before."""
        self._ended, self._of = done, jobs
        self._jobs = tqdm(total=jobs, initial=done, desc="jobs", unit="job", disable=self._quiet, dynamic_ncols=True)
        for place, name in enumerate(self._workers, 1):
            self._bars[name] = tqdm(total=0, desc=name, position=place, disable=self._quiet, dynamic_ncols=True)

    def step(self, worker: str, name: str, done: int, of: int):
        """A worker has done so many steps of a job."""
        with self._lock, contextlib.suppress(OSError):
            bar = self._bars[worker]
            if bar.total != of or done < bar.n:
                bar.reset(of)
                bar.set_description(f"{worker} {name[:40]}")
            bar.update(done - bar.n)

    def end(self, worker: str, name: str, message: str, ended: bool):
        """A worker has let go of a job: it is done, or the message says what happened; it may come back."""
        with self._lock:
            self._ended += ended
            with contextlib.suppress(OSError):
                self._jobs.update(ended)
            if message or self._quiet:
                self._print(f"[{self._ended}/{self._of}] {worker} {name}: {message or 'done'}")

    def say(self, line: str):
        with self._lock:
            self._print(line)

    def close(self):
        for bar in (self._jobs, *self._bars.values()):
            if bar is not None:
                with contextlib.suppress(OSError):
                    bar.close()

    def _print(self, line):
        with contextlib.suppress(OSError):  # the terminal was closed
            if self._quiet:
                print(line, file=sys.stderr, flush=True)
            else:
                tqdm.write(line, file=sys.stderr)
