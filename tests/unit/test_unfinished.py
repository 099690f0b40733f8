"""Which saved states and results a run removes where several servers share the folder."""

import os
import time

import pytest
import torch

from liveditor.liveditor_core.sampling import unfinished
from liveditor.liveditor_core.sampling.unfinished import MOST_DECODING, SUFFIX, Keeper


def result_of(folder, key):
    """A run whose state was saved before it was finished; the file that it leaves."""
    keeper = Keeper(folder, key, 0, 0.0, print)
    keeper.step_done(1, {"x": torch.ones(1)})
    keeper.sampled(torch.ones(1))
    keeper.finished()
    (file,) = folder.glob(f"{key}*{SUFFIX}")
    return file


def test_a_result_takes_the_place_of_the_same_process_s_last_one(tmp_path):
    first, second = (result_of(tmp_path, key) for key in ("first", "second"))
    assert second.is_file() and not first.exists()


@pytest.mark.parametrize("age, left", [(0, True), (MOST_DECODING + 60, False)])
def test_a_result_of_another_server_stays_until_it_must_be_decoded(tmp_path, monkeypatch, age, left):
    with monkeypatch.context() as patched:
        patched.setattr(unfinished, "_this_process", lambda: "another")
        theirs = result_of(tmp_path, "theirs")
    os.utime(theirs, (time.time() - age,) * 2)
    result_of(tmp_path, "ours")
    assert theirs.exists() == left
