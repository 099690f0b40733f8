"""The worker in a Ray cluster: what runs in an actor's process, on whatever machine Ray gives it."""

import shutil
import sys
import tempfile
import threading
from pathlib import Path

from .errors import BY_NAME, JobFailed
from .server import ComfyUI, Server
from .worker import Task, Worker


class Actor:
    """In a process of its own; Ray hides all GPUs from it but its own.

    Args:
        comfyui: fields of a `ComfyUI`; it is started by the Python of this machine's Ray.
        batch: name of the batch in the folder of temporary files, alike in every run, so that an actor finds what one
            before it left on its machine.
        worker: its name.
        user: folder of unfinished edits that all machines share; None for one of this machine alone.
    """

    def __init__(self, comfyui: tuple, batch: str, worker: str, user: str | None):
        ours = Path(tempfile.gettempdir()) / batch
        self._scratch = ours / worker.replace(" ", "_")
        self._scratch.mkdir(parents=True, exist_ok=True)
        started = ComfyUI(*comfyui)._replace(python=sys.executable)
        self._worker = Worker(Server(started, self._scratch, Path(user) if user else ours / "user", None))
        self._steps, self._one = None, threading.Lock()

    def ready(self):
        """Answers once there is a place for the actor."""

    def run(self, task: tuple, clip):
        """Do a task.

        Args:
            task: fields of a `Task`.
            clip: its bytes, None where the task's paths are good on this machine.

        Returns:
            ("done", *Result), with suffix and bytes of the result in place of its path if bytes came; or name and
            message of a failure.
        """
        with self._one:  # the driver may have lost sight of one that is still at work
            self._steps = None
            try:
                return "done", *self._run(Task(*task), clip)
            except tuple(BY_NAME.values()) as error:
                return type(error).__name__, *error.args
            except Exception as error:  # of a kind that nobody thought of
                return JobFailed.__name__, f"{type(error).__name__}: {error}"

    def _run(self, task, clip):
        if clip is None:
            return self._worker.run(task, self._step)
        there = self._scratch / f"sent{Path(task.clip).suffix}"
        there.write_bytes(clip)
        here = str(self._scratch / Path(task.result).name)
        done = self._worker.run(task._replace(clip=str(there), result=here), self._step)
        path = Path(done.path)
        sent = path.read_bytes()
        path.unlink()
        return (path.suffix, sent), *done[1:]

    def steps(self):
        """Steps done and all steps of the job at work, None before the first."""
        return self._steps

    def interrupt(self):
        self._worker.interrupt()

    def close(self):
        """End the server; unfinished edits stay."""
        self._worker.close()
        shutil.rmtree(self._scratch, ignore_errors=True)

    def _step(self, done, of):
        self._steps = done, of
