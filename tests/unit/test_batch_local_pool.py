"""A worker's process on this machine, as the driver sees it."""

import importlib
import os
import signal
import threading
from pathlib import Path

import psutil
import pytest

NEVER = "import time\ntime.sleep(600)\n"  # a server that does not answer


@pytest.mark.skipif(not hasattr(signal, "SIGSTOP"), reason="processes cannot be stopped here")
def test_a_worker_that_hangs_is_ended_with_its_server(tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(Path(__file__).resolve().parents[2])  # its process looks for it by this name
    errors, local_pool, server, worker = (
        importlib.import_module(f"batch.{name}") for name in ("errors", "local_pool", "server", "worker")
    )
    monkeypatch.setattr(local_pool, "SILENCE", 1.5 * local_pool.BEAT)
    (tmp_path / "main.py").write_text(NEVER)
    pool = local_pool.LocalWorker("worker 0", server.ComfyUI(tmp_path), tmp_path / "worker", tmp_path / "user", None)
    told = []

    def run():
        try:
            pool.run(worker.Task("key", str(tmp_path / "clip.mp4"), {}, (), str(tmp_path / "result"), 60.0), print)
        except errors.WorkerDied as error:
            told.append(str(error))

    thread = threading.Thread(target=run)
    thread.start()
    thread.join(2.5 * local_pool.SILENCE)
    assert thread.is_alive()  # the worker waits for its server, and lives
    process = psutil.Process(pool._process.pid)
    servers = [each for each in process.children(recursive=True) if str(tmp_path / "main.py") in each.cmdline()]
    assert servers
    os.kill(process.pid, signal.SIGSTOP)
    thread.join(60)
    assert told == ["the worker worker 0 hung: no sign of life for 6 s"]
    gone, _ = psutil.wait_procs([process, *servers], timeout=20)
    assert len(gone) == 1 + len(servers)
