"""What a batch's server is started with."""

import pytest

from liveditor.batch import server
from liveditor.batch.server import SERVERS, ComfyUI, Server


@pytest.fixture
def environment(monkeypatch, tmp_path):
    for name in ("OMP_NUM_THREADS", "OMP_WAIT_POLICY", "CUDA_VISIBLE_DEVICES"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(server, "_cores", lambda: 32)

    def environment(servers, gpu):
        return Server(ComfyUI(tmp_path, servers=servers), tmp_path, tmp_path, gpu).environment()

    return environment


def test_servers_on_one_machine_share_its_cores(environment):
    found = environment(3, "1")
    assert found["OMP_NUM_THREADS"] == "10" and found["OMP_WAIT_POLICY"] == "PASSIVE"
    assert found["CUDA_VISIBLE_DEVICES"] == "1" and found[SERVERS] == "3"
    assert environment(64, "1")["OMP_NUM_THREADS"] == "1"


def test_a_server_alone_has_all_cores(environment):
    assert not {"OMP_NUM_THREADS", "OMP_WAIT_POLICY"} & set(environment(1, "0"))


def test_what_is_computed_on_the_cpu_is_computed_as_alone(environment):
    assert "OMP_NUM_THREADS" not in environment(2, None) and "CUDA_VISIBLE_DEVICES" not in environment(2, None)


def test_what_the_user_chose_stays(environment, monkeypatch):
    monkeypatch.setenv("OMP_NUM_THREADS", "5")
    monkeypatch.setenv("OMP_WAIT_POLICY", "ACTIVE")
    found = environment(2, "0")
    assert found["OMP_NUM_THREADS"] == "5" and found["OMP_WAIT_POLICY"] == "ACTIVE"
