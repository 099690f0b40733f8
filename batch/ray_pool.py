"""Workers anywhere in a Ray cluster: an actor for every GPU, which Ray starts again where there is room.

Clips and results go by paths that all machines have, or through Ray's object store.
"""

import contextlib
import hashlib
import os
import shutil
import tempfile
import threading
from pathlib import Path

import ray

from .errors import BY_NAME, BatchError, JobFailed, ServerDidNotStart, WorkerDied
from .server import ComfyUI, Server
from .worker import UNFINISHED, Result, Task, Worker

ROOT = Path(__file__).resolve().parents[1]
POLL = 0.3  # seconds from one look at a job to the next
CALL = 30  # seconds that an actor may take for anything but a job


class _Actor:
    """In a process of its own on some machine; Ray hides all GPUs from it but its own.

    Args:
        scratch: folder on that machine for the server, and for what is sent.
        user: folder of unfinished edits, one that all machines share if paths are.
    """

    def __init__(self, comfyui: tuple, scratch: str, user: str | None):
        self._scratch = Path(scratch)
        self._scratch.mkdir(parents=True, exist_ok=True)
        user = Path(user) if user else self._scratch / "user"
        self._worker = Worker(Server(ComfyUI(*comfyui), self._scratch, user, None))
        self._steps, self._one = None, threading.Lock()

    def ready(self):
        return os.getpid()

    def run(self, task: tuple, clip):
        """What became of a task: ("done", *Result), with the bytes in place of the path if bytes came, or a failure."""
        with self._one:  # the driver may have lost sight of one that is still at work
            return self._run(Task(*task), clip)

    def _run(self, task, clip):
        self._steps = None
        if clip is not None:
            there = self._scratch / f"sent{Path(task.clip).suffix}"
            there.write_bytes(clip)
            task = task._replace(clip=str(there), result=str(self._scratch / Path(task.result).name))
        try:
            done = self._worker.run(task, self._step)
        except tuple(BY_NAME.values()) as error:
            return type(error).__name__, str(error)
        if clip is None:
            return "done", *done
        path = Path(done.path)
        sent = path.read_bytes()
        path.unlink()
        return "done", path.suffix, done.size, done.seconds, done.report, sent

    def steps(self):
        """Steps done and all steps of the job at work, None before the first."""
        return self._steps

    def interrupt(self):
        self._worker.interrupt()

    def close(self):
        self._worker.close()
        for name in ("input", "output", "temp"):  # unfinished edits stay
            shutil.rmtree(self._scratch / name, ignore_errors=True)

    def _step(self, done, of):
        self._steps = done, of


class RayWorker:
    """One actor, as the driver has it.

    Args:
        name: of the worker, alike in every run, so that an actor finds what the one before it left on its machine.
        out: the output folder.
        send: clips and results go through the object store; else by paths that all machines have.
        gpus: 1, or 0 for a machine without.
    """

    def __init__(self, name: str, comfyui: ComfyUI, out: Path, work: Path, send: bool, gpus: int):
        self.name, self._send = name, send
        ours = hashlib.sha256(str(out.resolve()).encode()).hexdigest()[:12]
        scratch = Path(tempfile.gettempdir()) / f"liveditor_batch_{ours}_{name.replace(' ', '_')}"
        user = None if send else str((work / "user").resolve())
        # A job that was at work is not tried again by Ray: the driver counts who dies of it.
        kind = ray.remote(
            max_restarts=-1, max_task_retries=0, max_concurrency=4, num_gpus=gpus, num_cpus=0 if gpus else 1
        )(_Actor)
        self._actor = kind.remote(tuple(comfyui), str(scratch), user)
        self._answers = self._actor.ready.remote()

    def is_ready(self):
        """Whether Ray has found a place for the actor; at once.

        Raises:
            ServerDidNotStart: there will be none.
        """
        if not ray.wait([self._answers], timeout=0)[0]:
            return False
        try:
            ray.get(self._answers)
            return True
        except ray.exceptions.RayError as error:
            if "creation task" in str(error):
                raise ServerDidNotStart(f"Ray cannot start it: {error}") from None
            # It is being started again.
            self._answers = self._actor.ready.remote()
            return False

    def run(self, task: Task, on_progress) -> Result:
        """Do a job; waits for it.

        Raises:
            Those of `Worker.run`, and WorkerDied.
        """
        seen = None
        try:
            clip = ray.put(_bytes_of(task.clip)) if self._send else None
            answer = self._actor.run.remote(tuple(task), clip)
            while not ray.wait([answer], timeout=POLL)[0]:
                # No answer in time means that the machine is lost, too: Ray may not say so for minutes.
                steps = ray.get(self._actor.steps.remote(), timeout=CALL)
                if steps is not None and steps != seen:
                    on_progress(*steps)
                    seen = steps
            kind, *said = ray.get(answer)
        except ray.exceptions.RayError as error:
            self._answers = self._actor.ready.remote()
            raise WorkerDied(f"the worker {self.name} ended: {type(error).__name__}") from None
        if kind != "done":
            raise BY_NAME[kind](*said)
        return self._receive(task, *said) if self._send else Result(*said)

    def interrupt(self):
        """Stop the job at work; `run` raises Interrupted then."""
        self._actor.interrupt.remote()

    def close(self, now=False):
        """End the actor and its server."""
        with contextlib.suppress(ray.exceptions.RayError):  # it is gone; its server ends with it
            ray.get(self._actor.close.remote(), timeout=1 if now or not self.is_ready() else CALL)
        ray.kill(self._actor)

    @staticmethod
    def _receive(task, suffix, size, seconds, report, sent):
        result = Path(task.result + suffix)
        beside = result.with_name(result.name + UNFINISHED)
        with open(beside, "wb") as file:
            file.write(sent)
            file.flush()
            os.fsync(file.fileno())
        os.replace(beside, result)
        return Result(str(result), size, seconds, report)


def _bytes_of(clip):
    try:
        return Path(clip).read_bytes()
    except OSError as error:
        raise JobFailed(f"{type(error).__name__}: {error}") from None


def workers_of_cluster(address: str, comfyui: ComfyUI, out: Path, work: Path, *, send: bool, workers: int | None):
    """A worker for every GPU of a cluster, or so many where it has none.

    Args:
        address: of the cluster, as ray.init takes it; "local" starts one on this machine.

    Raises:
        BatchError: there is no cluster.
    """
    # Actors unpickle by import: every machine has the pack in the same place, as it has ComfyUI and the weights.
    environment = {"env_vars": {"PYTHONPATH": str(ROOT)}}
    try:
        ray.init(address=address, runtime_env=environment, log_to_driver=False, configure_logging=False)
    except (ConnectionError, ValueError, RuntimeError) as error:
        raise BatchError(f"--ray {address}: there is no Ray cluster: {error}") from None
    gpus = int(ray.cluster_resources().get("GPU", 0))
    count = gpus or workers or 1
    comfyui = comfyui if gpus else comfyui.on_cpu()
    return [RayWorker(f"worker {i}", comfyui, out, work, send, gpus=1 if gpus else 0) for i in range(count)]
