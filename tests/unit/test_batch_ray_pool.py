"""Workers in a Ray that only pretends: places, silence, what is lost, what goes through it; the actor."""

import sys
import threading
import time
from argparse import Namespace
from concurrent.futures import Future
from pathlib import Path

import pytest
from ray.exceptions import ActorDiedError, ActorUnavailableError, RaySystemError, RayTaskError

from liveditor import batch
from liveditor.batch import ray_pool
from liveditor.batch.errors import BatchError, DiskFull, Interrupted, JobFailed, ServerDidNotStart, WorkerDied
from liveditor.batch.ray_actor import Actor
from liveditor.batch.ray_pool import Cluster, RayWorker
from liveditor.batch.worker import Result, Task

UNAVAILABLE = ActorUnavailableError("the connection broke", b"0" * 16)


class Method:
    def __init__(self, answer):
        self._answer = answer

    def remote(self, *arguments):
        """An answer: what a function of the arguments gives; that of "never" does not come."""
        future, given = Future(), self._answer(*arguments)
        if isinstance(given, Exception):
            future.set_exception(given)
        elif given != "never":
            future.set_result(given)
        return future


class Ray:
    """What the pool uses of Ray; an actor's methods are in `answers`."""

    def __init__(self):
        self.killed, self.alive, self.answers, self.until = [], ["ours", "other"], {}, time.monotonic() + 10

    def actor(self):
        names = {"ready": None, "steps": None, "interrupt": None, "close": None, "run": "never"}
        return Namespace(
            **{
                name: Method(lambda *said, name=name: self.answers.get(name, lambda *_: names[name])(*said))
                for name in names
            }
        )

    def get_runtime_context(self):
        return Namespace(get_node_id=lambda: "ours")

    def nodes(self):
        return [{"NodeID": name, "Alive": name in self.alive} for name in ("ours", "other")]

    def wait(self, futures, timeout):
        assert time.monotonic() < self.until, "somebody waits without a limit"
        deadline = time.monotonic() + timeout
        while not futures[0].done() and time.monotonic() < deadline:
            time.sleep(0.005)
        return [each for each in futures if each.done()], [each for each in futures if not each.done()]

    def get(self, future, timeout):
        return future.result(timeout)

    def put(self, value):
        return value

    def kill(self, actor, no_restart=True):
        self.killed.append(no_restart)

    def shutdown(self):
        pass


@pytest.fixture
def ray(monkeypatch):
    made = Ray()
    monkeypatch.setattr(ray_pool, "ray", made)
    for name, seconds in {"POLL": 0.02, "LOOK": 0.02, "SILENCE": 0.3, "HEAD": 0.3, "PLACE": 0.2, "CLOSE": 0.2}.items():
        monkeypatch.setattr(ray_pool, name, seconds)
    return made


@pytest.fixture
def worker(ray):
    """A function that makes a worker, with a place unless said otherwise."""
    clusters = []

    def worker(send=False, placed=True):
        clusters.append(Cluster())
        made = RayWorker("worker 0", ray.actor, clusters[-1], send)
        assert not placed or made.is_ready()
        return made

    yield worker
    for each in clusters:
        each.leave()


@pytest.fixture
def task(tmp_path):
    (tmp_path / "clip.mp4").write_bytes(b"clip")
    return Task("key", str(tmp_path / "clip.mp4"), {}, (), str(tmp_path / "result"), 60.0)


def test_a_job_is_done_and_its_steps_are_told(ray, worker, task):
    steps, told, done = iter([None, (1, 4), (1, 4), (2, 4)]), [], Future()

    def step():
        told_last = next(steps, "end")
        if told_last == "end":
            done.set_result(("done", "result.mp4", 5, 1.0, "report"))
            return "never"
        return told_last

    ray.answers["steps"] = step
    made = worker()
    made._actor.run = Namespace(remote=lambda *_: done)
    assert made.run(task, lambda *said: told.append(said)) == Result("result.mp4", 5, 1.0, "report")
    assert told == [(1, 4), (2, 4)]


@pytest.mark.parametrize("kind", [JobFailed, Interrupted, DiskFull, ServerDidNotStart])
def test_what_the_actor_says_of_a_job_is_raised(ray, worker, task, kind):
    ray.answers["run"] = lambda *_: (kind.__name__, "why")
    with pytest.raises(kind, match="why"):
        worker().run(task, None)


def test_an_actor_without_a_word_is_lost_and_ended_where_it_is(ray, worker, task):
    ray.answers["steps"] = lambda: "never"
    made, since = worker(), time.monotonic()
    with pytest.raises(WorkerDied, match="worker 0 ended: GetTimeoutError"):
        made.run(task, None)
    assert time.monotonic() - since < 5 and ray.killed == [False]


@pytest.mark.parametrize("who", ["run", "steps"])
def test_a_lost_actor_takes_no_job_until_it_has_a_place_again(ray, worker, task, who):
    made = worker()
    ray.answers |= {who: lambda *_: UNAVAILABLE, "ready": lambda: UNAVAILABLE}
    with pytest.raises(WorkerDied, match="ActorUnavailableError"):
        made.run(task, None)
    assert not made.is_ready() and ray.killed == [False]
    ray.answers = {"run": lambda *_: ("done", "result.mp4", 5, 1.0, "")}
    assert not made.is_ready(), "its last answer was that it is gone"
    assert made.is_ready() and made.run(task, None).size == 5


@pytest.mark.parametrize("answer", ["never", UNAVAILABLE, RaySystemError("restarting")])
def test_a_worker_that_gets_no_place_is_given_up_after_a_while(ray, worker, answer):
    ray.answers["ready"] = lambda: answer
    made = worker(placed=False)
    assert not made.is_ready()
    time.sleep(ray_pool.PLACE)
    with pytest.raises(ServerDidNotStart, match="no place for it"):
        made.is_ready()


def test_a_worker_that_cannot_be_made_is_given_up_at_once(ray, worker):
    ray.answers["ready"] = lambda: ActorDiedError(RayTaskError("__init__", "no package aiohttp", ImportError()))
    with pytest.raises(ServerDidNotStart, match="(?s)Ray cannot start it.*no package aiohttp"):
        worker(placed=False).is_ready()


def test_the_loss_of_the_own_node_ends_every_wait(ray, worker, task):
    made, homeless = worker(), worker(placed=False)
    ray.answers["ready"] = lambda: "never"
    homeless._look_for()
    threading.Timer(0.1, ray.alive.remove, ["ours"]).start()
    with pytest.raises(BatchError, match="its node on this machine ended"):
        made.run(task, None)
    time.sleep(0.1)
    with pytest.raises(BatchError, match="its node on this machine ended"):
        homeless.is_ready()


def test_actors_that_end_with_the_own_node_are_no_fault_of_a_job(ray, worker, task):
    made = worker()
    ray.alive.remove("ours")
    ray.answers["run"] = lambda *_: UNAVAILABLE
    with pytest.raises(BatchError, match="its node on this machine ended"):
        made.run(task, None)


def test_a_head_that_does_not_answer_ends_every_wait(ray, worker, task, monkeypatch):
    made, asked = worker(), threading.Event()
    monkeypatch.setattr(ray, "nodes", asked.wait)
    monkeypatch.setattr(ray, "shutdown", asked.wait)
    with pytest.raises(BatchError, match="the head of the cluster has not answered"):
        made.run(task, None)
    since = time.monotonic()
    made.close()
    assert not made._cluster.leave() and time.monotonic() - since < 5 and ray.killed == []
    asked.set()


def test_closing_waits_for_nobody(ray, worker, monkeypatch):
    made, since = worker(), time.monotonic()
    monkeypatch.setattr(ray, "kill", lambda *_: time.sleep(10))
    ray.answers["close"] = lambda: "never"
    made.close()
    made.interrupt()
    assert time.monotonic() - since < 5


def test_clip_and_result_go_through_ray(ray, worker, task, tmp_path):
    ray.answers["run"] = lambda task, clip: ("done", (".mp4", clip + b" edited"), 11, 1.0, "report")
    assert worker(send=True).run(task, None) == Result(f"{task.result}.mp4", 11, 1.0, "report")
    assert (tmp_path / "result.mp4").read_bytes() == b"clip edited" and not list(tmp_path.glob("*.part"))
    with pytest.raises(JobFailed, match="FileNotFoundError"):
        worker(send=True).run(task._replace(clip=str(tmp_path / "gone.mp4")), None)


@pytest.mark.parametrize("address", ["nonsense", "ray://127.0.0.1:1", "127.0.0.1:", ":6379"])
def test_what_is_no_address_is_refused(address):
    with pytest.raises(BatchError, match=f"--ray {address}: must be HOST:PORT"):
        ray_pool._see_that_it_answers(address)


def test_without_ray_it_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "ray", None)
    monkeypatch.delitem(sys.modules, f"{batch.__name__}.ray_pool")
    monkeypatch.delattr(batch, "ray_pool")
    from liveditor.batch.__main__ import _ray_workers

    with pytest.raises(BatchError, match="--ray local: needs the package ray, .* -m pip install ray"):
        _ray_workers(Namespace(ray="local", gpus=None), None, None)


class Edits:
    """A `Worker` that appends to the clip."""

    def run(self, task, on_progress):
        on_progress(1, 2)
        if not task.key:
            raise KeyError("odd")
        result = Path(f"{task.result}.mp4")
        result.write_bytes(Path(task.clip).read_bytes() + b" edited")
        return Result(str(result), result.stat().st_size, 1.0, "report")


@pytest.fixture
def actor(tmp_path, monkeypatch):
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "there"))
    made = Actor((tmp_path, None, "another machine's python", ()), "batch", "worker 0", None)
    made._worker = Edits()
    return made


def test_an_actor_edits_in_place_or_what_is_sent(actor, task, tmp_path):
    assert actor.run(tuple(task), None) == ("done", str(tmp_path / "result.mp4"), 11, 1.0, "report")
    assert actor.steps() == (1, 2)
    sent = task._replace(clip="of/another/machine.mp4", result="of/another/result")
    assert actor.run(tuple(sent), b"sent") == ("done", (".mp4", b"sent edited"), 11, 1.0, "report")
    assert not list((tmp_path / "there").rglob("*result*"))


def test_an_actor_names_what_went_wrong(actor, task):
    assert actor.run(tuple(task._replace(key="")), None) == ("JobFailed", "KeyError: 'odd'")
    assert actor.run(tuple(task._replace(clip="gone")), None)[0] == "JobFailed"
