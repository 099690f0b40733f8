"""The journal of a batch, as disks and earlier versions leave it."""

import os
import sqlite3

import pytest

from liveditor.batch import journal as journals
from liveditor.batch.errors import BatchError
from liveditor.batch.jobs import Job
from liveditor.batch.journal import DONE, FILE, Journal


@pytest.fixture
def folder(tmp_path):
    journal = Journal(tmp_path)
    journal.add([("key", "name", Job(tmp_path / "clip.mp4", "snow", {}), "digest")])
    journal.done("key", "name.mp4", 1, 1.0, "")
    journal.close()
    return tmp_path


def test_one_of_an_earlier_version_is_gone_on_with(folder):
    with sqlite3.connect(folder / FILE) as database:
        database.execute("ALTER TABLE jobs DROP COLUMN clip_digest")
    journal = Journal(folder)
    assert journal.of("key")["state"] == DONE and journal.of("key")["clip_digest"] == ""
    journal.add([("key", "name", Job(folder / "clip.mp4", "snow", {}), "digest")])
    assert journal.of("key")["state"] == DONE and journal.of("key")["clip_digest"] == "digest"
    journal.close()


@pytest.mark.parametrize("to_read", [True, False])
def test_a_damaged_one_is_named_with_what_to_do(tmp_path, to_read):
    (tmp_path / FILE).write_bytes(b"no database at all" * 100)
    with pytest.raises(BatchError, match=rf"{FILE}: the journal of the batch cannot be used: .* delete {tmp_path}"):
        Journal(tmp_path, to_read)


@pytest.mark.parametrize("words", ["disk I/O error", "database or disk is full", "unable to open database file"])
def test_of_a_full_disk_it_does_not_say_that_it_is_damaged(folder, monkeypatch, words):
    def fails(*_):
        raise sqlite3.OperationalError(words)

    monkeypatch.setattr(Journal, "_open", fails)
    with pytest.raises(BatchError, match=f"{words}. Look whether its disk is full") as raised:
        Journal(folder)
    assert "delete" not in str(raised.value)


def test_it_is_read_where_nothing_can_be_written(folder, monkeypatch):
    monkeypatch.setattr(journals.os, "access", lambda path, how: how != os.W_OK)
    before = sorted(folder.iterdir())
    journal = Journal(folder, to_read=True)
    assert journal.of("key")["state"] == DONE and sorted(folder.iterdir()) == before
    journal.close()
