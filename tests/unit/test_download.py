"""The published file over a network that fails: it comes whole or not at all, and what came is not fetched again."""

import os
import shutil

import pytest
from fake_hub import FakeHub

from liveditor.liveditor_core.checkpoint import download
from liveditor.liveditor_core.checkpoint.download import HUB_FILE
from liveditor.liveditor_core.checkpoint.weights import CheckpointError

CONTENT = os.urandom(3_000_000)


@pytest.fixture
def hub_of(monkeypatch):
    """A function that makes a hub and lets huggingface_hub find it."""
    import huggingface_hub.constants

    hubs = []
    monkeypatch.setattr(download, "AT_ONCE", 100_000)
    monkeypatch.setattr(download.time, "sleep", lambda seconds: None)

    def make(**options):
        hubs.append(FakeHub(CONTENT, **options))
        hub = hubs[-1].__enter__()
        monkeypatch.setattr(
            huggingface_hub.constants,
            "HUGGINGFACE_CO_URL_TEMPLATE",
            hub.endpoint + "/{repo_id}/resolve/{revision}/{filename}",
        )
        return hub

    yield make
    for hub in hubs:
        hub.__exit__()


def names(folder):
    return sorted(path.name for path in folder.iterdir())


def test_whole(hub_of, tmp_path):
    hub, seen = hub_of(), []
    path = download.download(tmp_path, progress=lambda *numbers: seen.append(numbers))
    assert path == os.path.join(tmp_path, HUB_FILE) and (tmp_path / HUB_FILE).read_bytes() == CONTENT
    assert names(tmp_path) == [HUB_FILE] and hub.asked == [0]
    assert seen[0] == (100_000, len(CONTENT)) and seen[-1] == (len(CONTENT), len(CONTENT))
    assert download.download(tmp_path) == path and hub.asked == [0]  # it is there


def test_an_answer_that_ends_early_goes_on(hub_of, tmp_path):
    hub = hub_of(cut_after=1_000_000)
    download.download(tmp_path)
    assert (tmp_path / HUB_FILE).read_bytes() == CONTENT and hub.asked == [0, 1_000_000, 2_000_000]


def test_a_network_that_is_gone_keeps_what_came(hub_of, tmp_path):
    hub = hub_of()

    def gone(done, total):
        if done >= 1_500_000:
            hub.gone, hub.cut_after = True, 0

    hub.cut_after = 1_600_000
    with pytest.raises(
        CheckpointError, match=r"liveditor_ckpt.bin: the network is gone .*; 0.0 of 0.0 GB are kept. Run"
    ):
        download.download(tmp_path, progress=gone)
    (partial,) = names(tmp_path)
    assert partial.endswith(".partial") and (tmp_path / partial).stat().st_size == 1_600_000
    with pytest.raises(CheckpointError, match=r"the hub cannot be reached at http.*Try again later, or download it by"):
        download.download(tmp_path)
    hub.gone, hub.cut_after, hub.asked = False, None, []
    download.download(tmp_path)
    assert hub.asked == [1_600_000] and names(tmp_path) == [HUB_FILE]
    assert (tmp_path / HUB_FILE).read_bytes() == CONTENT


def test_an_interrupt_keeps_what_came(hub_of, tmp_path):
    hub = hub_of()

    class Interrupt(Exception):
        pass

    def interrupt(done, total):
        if done >= 900_000:
            raise Interrupt

    with pytest.raises(Interrupt):
        download.download(tmp_path, progress=interrupt)
    hub.asked = []
    download.download(tmp_path)
    assert hub.asked[0] >= 900_000 and (tmp_path / HUB_FILE).read_bytes() == CONTENT


def test_a_server_without_ranges_begins_anew(hub_of, tmp_path):
    hub = hub_of(ranges=False)
    (tmp_path / f"{HUB_FILE}.{hub.sha256[:12]}.partial").write_bytes(CONTENT[:1_000_000])
    download.download(tmp_path)
    assert (tmp_path / HUB_FILE).read_bytes() == CONTENT and hub.asked == [0]


def test_another_version_of_the_file_is_not_gone_on_with(hub_of, tmp_path):
    hub = hub_of()
    (tmp_path / f"{HUB_FILE}.{'0' * 12}.partial").write_bytes(b"old")
    (tmp_path / "other.partial").write_bytes(b"somebody's")
    download.download(tmp_path)
    assert names(tmp_path) == [HUB_FILE, "other.partial"] and hub.asked == [0]


def test_what_is_not_the_hub_s_is_not_kept(hub_of, tmp_path):
    hub_of(sha256="f" * 64)
    with pytest.raises(CheckpointError, match="what came is not what the hub has, and is removed. Download it again"):
        download.download(tmp_path)
    assert names(tmp_path) == []


def test_too_little_disk_is_said_first(hub_of, tmp_path, monkeypatch):
    hub = hub_of()
    monkeypatch.setattr(shutil, "disk_usage", lambda path: type("Usage", (), {"free": 2_000_000}))
    with pytest.raises(CheckpointError, match=f"{HUB_FILE}: needs 0.0 GB of disk, 0.0 GB are free there"):
        download.download(tmp_path)
    assert hub.asked == [] and names(tmp_path) == []
    monkeypatch.setattr(shutil, "disk_usage", lambda path: type("Usage", (), {"free": 4_000_000}))
    with pytest.raises(CheckpointError, match="GB of disk"):
        download.download(tmp_path, beside=0.5)  # what is to be made of it needs room as well
    download.download(tmp_path, beside=0.3)


def test_a_disk_that_fills_up_keeps_what_came(hub_of, tmp_path, monkeypatch):
    hub = hub_of()
    opened = open

    class Full:
        def __init__(self, file):
            self._file = file

        def __enter__(self):
            return self

        def __exit__(self, *_):
            self._file.close()

        def __getattr__(self, name):
            return getattr(self._file, name)

        def write(self, data):
            if self._file.tell() + len(data) > 700_000:
                raise OSError(28, "No space left on device")
            return self._file.write(data)

    monkeypatch.setattr(
        download,
        "open",
        lambda path, mode: Full(opened(path, mode)) if "a" in mode else opened(path, mode),
        raising=False,
    )
    with pytest.raises(CheckpointError, match="could not be written .No space left on device.. Free some disk"):
        download.download(tmp_path)
    monkeypatch.undo()
    (partial,) = names(tmp_path)
    assert (tmp_path / partial).stat().st_size == 700_000 and hub.asked == [0]
