"""The same batch in a Ray cluster of machines that are nodes on this one, each with an address of its own."""

import contextlib
import shutil
import signal
import tempfile
from pathlib import Path

import psutil
import pytest
from batches import (
    assert_all_done_once,
    finish,
    folder_of_jobs,
    no_server_is_left,
    rows_of,
    start,
    unfinished_in,
    wait_for,
    write_jobs,
)
from ray.cluster_utils import Cluster

from liveditor.batch.driver import WORK
from liveditor.batch.journal import QUEUED, RUNNING
from liveditor.batch.ray_pool import name_of_batch

STEPS = 80  # seconds of work, so that both workers are at it when one is lost
# Ray finds out sooner that a node is gone, but gives a slow one as long as ever.
SOONER = {"health_check_initial_delay_ms": 500, "health_check_period_ms": 500}


@pytest.fixture
def folder(tmp_path):
    made = folder_of_jobs(tmp_path)
    yield made
    shutil.rmtree(scratch_of(made), ignore_errors=True)


@pytest.fixture
def clusters():
    """A function that makes one of two nodes with room for a worker each: the head, which is the driver's, and another.

    Were their addresses alike the driver would attach itself to any, now and then to the one that is to be lost.
    """
    made = []

    def cluster():
        room = {"num_cpus": 1, "num_gpus": 0}
        made.append(Cluster(True, head_node_args={"include_dashboard": False, "_system_config": SOONER} | room))
        return made[-1], made[-1].add_node(node_ip_address="127.0.0.2", **room)

    before = psutil.Process().children(recursive=True)
    yield cluster
    started = [each for each in psutil.Process().children(recursive=True) if each not in before]
    for each in made:
        each.shutdown()
    kill(*started)


def kill(*processes):
    for each in processes:
        with contextlib.suppress(psutil.NoSuchProcess):
            each.kill()


def lose(node, leave=()):
    """As when a machine goes off: the node's raylet and all that it began, down to the servers, at once."""
    raylet = psutil.Process(node.all_processes["raylet"][0].process.pid)
    kill(*(each for each in [raylet, *raylet.children(recursive=True)] if each.pid not in leave))


def scratch_of(folder):
    return Path(tempfile.gettempdir()) / name_of_batch(folder / "out")


def begin(folder, jobs, *more, workers=2):
    """A batch of few jobs, at work and saved by all workers."""
    for clip in sorted((folder / "clips").iterdir())[jobs:]:
        clip.unlink()
    write_jobs(folder, STEPS)
    process = start(folder, *more, workers=workers)
    user = (scratch_of(folder) / "user") if "--ray-send" in more else folder / "out" / WORK / "user"
    wait_for(lambda: process.poll() is not None or unfinished_in(user) == workers or None)
    assert process.poll() is None, process.communicate()[0]
    assert [row["state"] for row in rows_of(folder)].count(RUNNING) == workers
    return process


def servers(folder):
    """Ids of ComfyUI's processes, without their guards."""
    scratch = str(scratch_of(folder))
    found = [each for each in psutil.process_iter(["cmdline"]) if scratch in " ".join(each.info["cmdline"] or ())]
    return {each.pid for each in found if not any(part.endswith("guard.py") for part in each.info["cmdline"])}


def nothing_is_left(folder):
    wait_for(lambda: no_server_is_left(scratch_of(folder)) or None, 30)


@pytest.mark.parametrize("sent", [False, True], ids=["shared paths", "through Ray"])
def test_a_node_that_is_lost(folder, clusters, sent):
    cluster, other = clusters()
    process = begin(folder, 3, "--ray", cluster.address, *(["--ray-send"] if sent else []))
    # Ray ends an actor's children with it, not theirs: a server has to see to that by itself.
    lose(other, leave=servers(folder) if sent else ())
    finish(process)
    rows = assert_all_done_once(folder)
    assert sum(row["attempts"] for row in rows) == len(rows) + 1
    (again,) = [row for row in rows if row["deaths"]]
    assert again["deaths"] == 1 and "went on at step" in again["report"]
    nothing_is_left(folder)


def test_a_driver_whose_own_node_is_lost_ends(folder, clusters):
    cluster, _ = clusters()
    process = begin(folder, 2, "--ray", cluster.address)
    lose(cluster.head_node)
    assert "Ray: its node on this machine ended" in finish(process, 3)
    assert {(row["state"], row["deaths"]) for row in rows_of(folder)} == {(QUEUED, 0)}
    assert unfinished_in(folder / "out" / WORK / "user") == 2
    nothing_is_left(folder)


def test_interrupted_it_saves_and_ends_a_cluster_of_its_own(folder):
    process = begin(folder, 2, "--ray", "local", workers=1)
    started = psutil.Process(process.pid).children(recursive=True)
    assert len(started) > 5
    process.send_signal(signal.SIGINT)
    assert "2 queued" in finish(process, 3)
    assert {row["state"] for row in rows_of(folder)} == {QUEUED}
    psutil.wait_procs(started, timeout=30)
    assert [each for each in started if each.is_running() and each.status() != psutil.STATUS_ZOMBIE] == []
    nothing_is_left(folder)


def test_an_address_where_no_cluster_is_is_said_at_once(folder):
    assert "there is no head of a Ray cluster" in finish(start(folder, "--ray", "127.0.0.1:1"), 2)
    assert "must be HOST:PORT" in finish(start(folder, "--ray", "nonsense"), 2)
