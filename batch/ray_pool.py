"""Workers anywhere in a Ray cluster: an actor for every GPU, which Ray starts again where there is room.

Clips and results go by paths that all machines have, or through Ray's object store. A machine may be lost at any
moment, so nothing here waits for Ray without a limit.
"""

import contextlib
import hashlib
import os
import signal
import socket
import threading
import time
from pathlib import Path

import ray
from ray.exceptions import ActorDiedError, ActorUnavailableError, GetTimeoutError, RayError, RuntimeEnvSetupError

from .errors import BY_NAME, BatchError, JobFailed, ServerDidNotStart, WorkerDied
from .ray_actor import Actor
from .server import ComfyUI
from .worker import UNFINISHED, Result, Task

ROOT = Path(__file__).resolve().parents[1]
POLL = 0.3  # seconds from one look at a job to the next
LOOK = 2.0  # seconds from one look at the cluster to the next
SILENCE = 60.0  # seconds without a word from an actor after which it is lost
HEAD = 40.0  # the same of the cluster's head; after 60 Ray ends this process, and nothing would be said
PLACE = 600.0  # seconds that a worker may be without a place; a machine that is started again takes some minutes
CONNECT = 10.0  # seconds that the cluster's head may take to answer at first
CLOSE = 20.0  # seconds that an actor may take to end its server, and Ray to be left
START = "Start one (ray start --head), or let the batch do so: --ray local."


class Cluster:
    """Whether the cluster is there for this driver: its head answers and this machine's node lives.

    Without either Ray may never answer: with the driver's own node Ray ends all of its actors, wherever they are, and
    nobody starts them again. It is asked in a thread of its own, for the question may hang, too.
    """

    def __init__(self):
        self._ours = ray.get_runtime_context().get_node_id()
        self._heard, self._lost, self._left = time.monotonic(), False, threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)
        self._thread.start()

    def lost(self) -> str:
        """Why the cluster is lost, "" if it is not."""
        if self._lost:
            return "Ray: its node on this machine ended. Start Ray and the batch again: it goes on."
        if time.monotonic() - self._heard > HEAD:
            return (
                f"Ray: the head of the cluster has not answered for {HEAD:.0f} s. Start Ray and the batch again: it "
                "goes on."
            )
        return ""

    def check(self, anew=False):
        """See whether it is lost.

        Args:
            anew: by an answer that is still to come, if one does.

        Raises:
            BatchError: it is.
        """
        since = time.monotonic()
        while anew and self._heard < since + LOOK and time.monotonic() < since + 3 * LOOK and not self._lost:
            time.sleep(LOOK / 20)
        if self.lost():
            raise BatchError(self.lost())

    def leave(self) -> bool:
        """Leave Ray. Says whether that was possible: else the process must end itself, for Ray would not let it."""
        self._left.set()
        self._thread.join(2 * LOOK)  # what it asks must not run into the end of Ray
        return _within(2 * LOOK if self.lost() else CLOSE, ray.shutdown)

    def _watch(self):
        while not self._left.wait(LOOK):
            with contextlib.suppress(Exception):  # of whatever kind: it did not answer
                alive = {node["NodeID"] for node in ray.nodes() if node["Alive"]}
                self._heard = time.monotonic()
                self._lost = self._ours not in alive


class RayWorker:
    """One actor, as the driver has it.

    Args:
        start: starts the actor and gives its handle.
        cluster: that it runs in.
        send: clips and results go through the object store; else by paths that all machines have.
    """

    def __init__(self, name: str, start, cluster: Cluster, send: bool):
        self.name, self._cluster, self._send = name, cluster, send
        self._actor = start()
        self._look_for()

    def _look_for(self):
        """Begin to wait for a place."""
        self._since, self._place = time.monotonic(), self._actor.ready.remote()

    def is_ready(self):
        """Whether Ray has found a place for the actor; at once.

        Raises:
            ServerDidNotStart: there will be none, or has been none for too long.
            BatchError: the cluster is lost.
        """
        if self._place is None:
            return True
        self._cluster.check()
        if ray.wait([self._place], timeout=0)[0]:
            try:
                ray.get(self._place, timeout=SILENCE)
                self._place = None
                return True
            except (ActorDiedError, RuntimeEnvSetupError) as error:
                if isinstance(error, RuntimeEnvSetupError) or "creation task" in str(error):
                    raise ServerDidNotStart(f"Ray cannot start it: {error}") from None
            except RayError:
                pass
            self._place = self._actor.ready.remote()  # it is being started again
        if time.monotonic() - self._since > PLACE:
            raise ServerDidNotStart(f"Ray has had no place for it for {PLACE / 60:.0f} minutes")
        return False

    def run(self, task: Task, on_progress) -> Result:
        """Do a job; waits for it.

        Raises:
            Those of `Worker.run`, WorkerDied, and BatchError: the cluster is lost.
        """
        try:
            clip = ray.put(_bytes_of(task.clip)) if self._send else None
            kind, *said = self._answer(self._actor.run.remote(tuple(task), clip), on_progress)
        except RayError as error:
            if isinstance(error, (ActorUnavailableError, GetTimeoutError)):
                # It may be at work still, where nobody sees it; another worker is to do that job now.
                _within(POLL, ray.kill, self._actor, no_restart=False)
            self._look_for()
            self._cluster.check(anew=True)  # it may have ended with the driver's own node: no fault of the job
            raise WorkerDied(f"the worker {self.name} ended: {type(error).__name__}") from None
        if kind != "done":
            raise BY_NAME[kind](*said)
        return self._receive(task, *said) if self._send else Result(*said)

    def _answer(self, answer, on_progress):
        """What the actor answers. It is asked for its steps meanwhile; RayError where it answers neither."""
        asked, seen, heard = self._actor.steps.remote(), None, time.monotonic()
        while not (done := ray.wait([answer], timeout=POLL)[0]):
            self._cluster.check()
            if ray.wait([asked], timeout=0)[0]:
                steps, heard = ray.get(asked, timeout=SILENCE), time.monotonic()
                if steps is not None and steps != seen:
                    on_progress(*steps)
                    seen = steps
                asked = self._actor.steps.remote()
            elif time.monotonic() - heard > SILENCE:  # its machine is lost: Ray may not say so for minutes
                raise GetTimeoutError(f"no word for {SILENCE:.0f} s")
        return ray.get(done[0], timeout=SILENCE)

    def interrupt(self):
        """Stop the job at work; `run` raises Interrupted then."""
        with contextlib.suppress(Exception):  # it is gone, as `run` will see
            self._actor.interrupt.remote()

    def close(self, now=False):
        """End the actor and its server. Those of a lost cluster end by themselves."""
        if self._cluster.lost():
            return

        def close():
            if self._place is None and not now:
                with contextlib.suppress(RayError):  # it is gone; its server ends with it
                    ray.get(self._actor.close.remote(), timeout=CLOSE)
            ray.kill(self._actor)

        _within(LOOK if now else 2 * CLOSE, close)

    @staticmethod
    def _receive(task, video, size, seconds, report):
        suffix, sent = video
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


def _within(seconds, call, *arguments, **named):
    """Call what may never come back, in a thread of its own. Says whether it came back; its error is lost."""

    def quietly():
        with contextlib.suppress(Exception):
            call(*arguments, **named)

    thread = threading.Thread(target=quietly, daemon=True)
    thread.start()
    thread.join(seconds)
    return not thread.is_alive()


def name_of_batch(out: Path) -> str:
    """Of its folder among the temporary files of every machine."""
    return f"liveditor_batch_{hashlib.sha256(str(out.resolve()).encode()).hexdigest()[:12]}"


def _see_that_it_answers(address):
    """Ray itself takes minutes to find that nothing does."""
    host, _, port = address.rpartition(":")
    if not host or not port.isdigit() or "/" in host:
        raise BatchError(f"--ray {address}: must be HOST:PORT of the cluster's head, auto or local.")
    try:
        socket.create_connection((host.strip("[]"), int(port)), timeout=CONNECT).close()
    except (OSError, OverflowError) as error:
        raise BatchError(f"--ray {address}: there is no head of a Ray cluster: {error}. {START}") from None


def join(address: str, comfyui: ComfyUI, out: Path, work: Path, *, send: bool, workers: int | None):
    """A cluster, and a worker for every GPU of it, or so many where it has none.

    Args:
        address: of the cluster, as ray.init takes it; "local" starts one on this machine.

    Raises:
        BatchError: there is no cluster.
    """
    if address not in ("auto", "local"):
        _see_that_it_answers(address)
    # Actors unpickle by import: every machine has the pack in the same place, as it has ComfyUI and the weights.
    environment = {"env_vars": {"PYTHONPATH": str(ROOT)}}
    heard = signal.getsignal(signal.SIGTERM)
    try:
        ray.init(address=address, runtime_env=environment, log_to_driver=False, configure_logging=False)
    except (ConnectionError, ValueError, RuntimeError, RayError) as error:
        raise BatchError(f"--ray {address}: there is no cluster that this Python can join: {error}. {START}") from None
    finally:
        signal.signal(signal.SIGTERM, heard)  # ray.init takes it, and what is at work would not be saved
    cluster = Cluster()
    gpus = int(ray.cluster_resources().get("GPU", 0))
    count, unit = gpus or workers or 1, "GPU" if gpus else "CPU"
    on_one = max(int(node["Resources"].get(unit, 0)) for node in ray.nodes() if node["Alive"])
    comfyui = (comfyui if gpus else comfyui.on_cpu())._replace(servers=max(1, min(count, on_one)))
    # A job that was at work is not tried again by Ray: the driver counts who dies of it.
    room = {"num_gpus": int(unit == "GPU"), "num_cpus": int(unit == "CPU")}
    kind = ray.remote(max_restarts=-1, max_task_retries=0, max_concurrency=4, **room)(Actor)
    batch = name_of_batch(out)
    user = None if send else str((work / "user").resolve())
    return cluster, [
        RayWorker(name, lambda name=name: kind.remote(tuple(comfyui), batch, name, user), cluster, send)
        for name in (f"worker {i}" for i in range(count))
    ]
