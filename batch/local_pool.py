"""Workers on this machine: a process for every GPU."""

import contextlib
import multiprocessing
import os
import signal
import threading
import time
from pathlib import Path

from .errors import BY_NAME, JobFailed, WorkerDied
from .server import ComfyUI, Server
from .worker import Result, Task, Worker

PATIENCE = 30  # seconds that a worker has to end when it is asked to
BEAT = 2.0  # seconds from one sign of life of a worker to the next
SILENCE = 60.0  # seconds without one; after twice that it counts as hung


class LocalWorker:
    """One worker, as the driver has it: the process is started when it is needed, and again when it died.

    Args:
        folder: of the worker and its server.
        user: folder of unfinished edits, which all workers share.
        gpu: its number, None for whatever there is.
    """

    def __init__(self, name: str, comfyui: ComfyUI, folder: Path, user: Path, gpu: str | None):
        self.name = name
        self._how = comfyui, folder, user, gpu
        self._process = self._pipe = None
        self._lock = threading.Lock()  # of the pipe: jobs and interrupts come from several threads

    def is_ready(self):
        """It starts by itself."""
        return True

    def run(self, task: Task, on_progress) -> Result:
        """Do a job; waits for it.

        Raises:
            Those of `Worker.run`, and WorkerDied.
        """
        if self._process is None or not self._process.is_alive():
            self._start()
        try:
            self._tell("run", tuple(task))
            while True:
                kind, *said = self._hear()
                if kind == "alive":
                    continue
                if kind == "progress":
                    on_progress(*said)
                elif kind == "done":
                    return Result(*said)
                else:
                    raise BY_NAME[kind](*said)
        except _Hung:
            self._end(self._process)
            self._process = None
            raise WorkerDied(f"the worker {self.name} hung: no sign of life for {2 * SILENCE:.0f} s") from None
        except (EOFError, OSError):
            self._process.join()
            code = self._process.exitcode
            self._process = None
            raise WorkerDied(f"the worker {self.name} ended with {code}") from None

    def interrupt(self):
        """Stop the job at work; `run` raises Interrupted then."""
        self._tell("interrupt")

    def close(self, now=False):
        """End the worker and its server."""
        process = self._process
        if process is None:
            return
        self._tell("close")
        process.join(0 if now else PATIENCE)
        self._end(process)

    def _end(self, process):
        """End the worker, should it still be there, and the server that it may have left."""
        if process.is_alive():
            process.kill()
            process.join()
        comfyui, folder, user, gpu = self._how
        Server(comfyui, folder, user, gpu).stop()

    def _hear(self):
        """What the worker says next.

        Raises:
            _Hung: it says nothing, not even that it lives.
        """
        # Twice: both may have been stopped together, and this process goes on first.
        if self._pipe.poll(SILENCE) or self._pipe.poll(SILENCE):
            return self._pipe.recv()
        raise _Hung

    def _tell(self, *words):
        with self._lock, contextlib.suppress(OSError):  # it is gone, as whoever listens to it will see
            if self._pipe is not None:
                self._pipe.send(words)

    def _start(self):
        context = multiprocessing.get_context("spawn")
        self._pipe, theirs = context.Pipe()
        process = context.Process(target=_work, args=(theirs, *self._how), name=self.name, daemon=True)
        # A process gets what signals are held back where it is started: ^C and a closed terminal are for the driver,
        # from its first moment on.
        mask = getattr(signal, "pthread_sigmask", None)
        before = mask and mask(signal.SIG_BLOCK, {signal.SIGINT, signal.SIGHUP})
        try:
            process.start()
        finally:
            if mask:
                mask(signal.SIG_SETMASK, before)
        self._process = process  # now: one that was not started cannot be waited for, as `close` may want to
        theirs.close()


class _Hung(Exception):
    """A worker gives no sign of life."""


def _work(pipe, comfyui, folder, user, gpu):
    """The process of a worker."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # where there are no masks of signals
    Path(folder).mkdir(parents=True, exist_ok=True)
    worker = Worker(Server(comfyui, folder, user, gpu))
    tasks, ready, at_work, one = [], threading.Semaphore(0), threading.Event(), threading.Lock()

    def say(*words):
        """From any thread."""
        with one:
            pipe.send(words)

    def live():
        while at_work.wait():  # nobody listens in between
            with contextlib.suppress(OSError):  # the driver is gone, as `listen` will see
                say("alive")
            time.sleep(BEAT)

    def listen():
        """Hears of new jobs, of interrupts while one is at work, and of the driver's end."""
        while True:
            try:
                word, *said = pipe.recv()
            except (EOFError, OSError):  # the driver is gone
                word, said = "close", ()
            if word == "run":
                tasks.append(Task(*said[0]))
                ready.release()
            elif word == "interrupt":
                with contextlib.suppress(Exception):  # the server is gone, or not there yet
                    worker.interrupt()
            else:
                worker.close()
                os._exit(0)

    for each in (listen, live):
        threading.Thread(target=each, daemon=True).start()
    while True:
        ready.acquire()
        at_work.set()
        try:
            result = worker.run(tasks.pop(), lambda done, of: say("progress", done, of))
            answer = "done", *result
        except tuple(BY_NAME.values()) as error:
            answer = type(error).__name__, *error.args
        except Exception as error:  # of a kind that nobody thought of
            answer = JobFailed.__name__, f"{type(error).__name__}: {error}"
        at_work.clear()
        try:
            say(*answer)
        except OSError:
            worker.close()
            os._exit(0)
