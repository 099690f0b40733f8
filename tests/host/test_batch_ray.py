"""The same batch in a Ray cluster of two machines, which are two nodes on this one."""

import time

import pytest
from batches import (
    LONG,
    assert_all_done_once,
    finish,
    folder_of_jobs,
    no_server_is_left,
    rows_of,
    start,
    wait_for,
    write_jobs,
)
from ray.cluster_utils import Cluster

from liveditor.batch.journal import RUNNING

pytestmark = pytest.mark.xdist_group("batch")


@pytest.fixture
def folder(tmp_path):
    return folder_of_jobs(tmp_path)


@pytest.fixture
def cluster():
    made = Cluster(initialize_head=True, head_node_args={"num_cpus": 1, "num_gpus": 0, "include_dashboard": False})
    yield made
    made.shutdown()


@pytest.mark.parametrize("sent", [False, True], ids=["shared paths", "through Ray"])
def test_a_node_that_is_lost(folder, cluster, sent):
    other = cluster.add_node(num_cpus=1, num_gpus=0)
    for clip in sorted((folder / "clips").iterdir())[6:]:
        clip.unlink()
    write_jobs(folder, LONG)
    process = start(folder, "--ray", cluster.address, *(["--ray-send"] if sent else []))
    wait_for(lambda: [row["state"] for row in rows_of(folder)].count(RUNNING) == 2 or None)
    time.sleep(3)
    cluster.remove_node(other, allow_graceful=False)
    finish(process)
    rows = assert_all_done_once(folder)
    assert sum(row["attempts"] for row in rows) == len(rows) + 1 and sum(row["deaths"] for row in rows) == 1
    wait_for(lambda: no_server_is_left(folder) or None, 60)
