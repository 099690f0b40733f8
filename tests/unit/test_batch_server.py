"""What a batch's server is started with."""

import threading
import time

import pytest

from liveditor.batch import server
from liveditor.batch.errors import BatchError, Interrupted
from liveditor.batch.server import SERVERS, ComfyUI, Server


@pytest.fixture
def environment(monkeypatch, tmp_path):
    for name in ("OMP_NUM_THREADS", "OMP_WAIT_POLICY", "CUDA_VISIBLE_DEVICES"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(server, "_cores", lambda: 32)

    def environment(servers, gpu, arguments=(), threads=None):
        comfyui = ComfyUI(tmp_path, arguments=arguments, servers=servers, threads=threads)
        return Server(comfyui, tmp_path, tmp_path, gpu).environment()

    return environment


def test_servers_on_one_machine_share_its_cores(environment):
    found = environment(3, "1")
    assert found["OMP_NUM_THREADS"] == "10" and found["OMP_WAIT_POLICY"] == "PASSIVE"
    assert found["CUDA_VISIBLE_DEVICES"] == "1" and found[SERVERS] == "3"
    assert environment(64, "1")["OMP_NUM_THREADS"] == "1"


def test_a_server_alone_has_all_cores(environment):
    assert not {"OMP_NUM_THREADS", "OMP_WAIT_POLICY"} & set(environment(1, "0"))


def test_what_is_computed_on_the_cpu_is_computed_as_alone(environment):
    assert "OMP_NUM_THREADS" not in environment(2, None, ("--cpu",))


def test_in_a_ray_cluster(environment, monkeypatch):
    """Ray hides other GPUs, and gives what it starts one thread."""
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    found = environment(2, None)
    assert found["OMP_NUM_THREADS"] == "16" and "CUDA_VISIBLE_DEVICES" not in found
    assert "OMP_NUM_THREADS" not in environment(1, None)


def test_what_the_user_chose_stays(environment, monkeypatch):
    monkeypatch.setenv("OMP_WAIT_POLICY", "ACTIVE")
    found = environment(2, "0", threads="5")
    assert found["OMP_NUM_THREADS"] == "5" and found["OMP_WAIT_POLICY"] == "ACTIVE"


@pytest.mark.parametrize("text, cores", [("max 100000", 32), ("1600000 100000", 16), ("50000 100000", 1), ("", 32)])
def test_a_container_has_as_many_cores_as_it_has_time_for(tmp_path, monkeypatch, text, cores):
    monkeypatch.setattr(server.os, "sched_getaffinity", lambda _: range(32), raising=False)
    monkeypatch.setattr(server, "CPU_TIME", tmp_path / "cpu.max")
    if text:
        (tmp_path / "cpu.max").write_text(text)
    assert server._cores() == cores


@pytest.mark.parametrize(
    "word", ["--port", "--listen=0.0.0.0", "--output-dir", "--base-directory", "--tls-certfile", "--database-url"]
)
def test_arguments_that_a_batch_gives_itself_are_refused(tmp_path, word):
    with pytest.raises(BatchError, match=f"must not hold {word.partition('=')[0]}"):
        ComfyUI(tmp_path, arguments=("--lowvram", word, "x")).require_free_arguments()
    ComfyUI(
        tmp_path, arguments=("--lowvram", "--fast", "-1", "--extra-model-paths-config", "x")
    ).require_free_arguments()


def test_a_server_that_only_starts_is_ended(tmp_path):
    """By the first ^C: it may take minutes, or never answer."""
    (tmp_path / "main.py").write_text("import time; time.sleep(100)")
    starting = Server(ComfyUI(tmp_path), tmp_path, tmp_path / "user", None)
    threading.Timer(1, starting.interrupt).start()
    begun = time.monotonic()
    with pytest.raises(Interrupted):
        starting.start()
    assert time.monotonic() - begun < 10 and not starting.running()
