"""The sparse Triton kernel compiled for every kind of card, without one: what it would occupy there."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("triton", reason="Triton has no wheel for this system")

SCRIPT = Path(__file__).resolve().parents[1] / "support" / "compiled_for_cards.py"
KIB = 1024
LIMITS = {80: 163, 86: 99, 89: 99, 90: 227, 100: 227, 120: 99}  # KiB of shared memory that a program may have
PROGRAMS = {  # at least so many fit on a multiprocessor, by arch and head dim
    (80, 128): 2,
    (86, 128): 2,
    (89, 128): 2,
    (90, 128): 3,
    (100, 128): 2,
    (120, 128): 2,
    (80, 64): 2,
    (86, 64): 3,
    (89, 64): 3,
    (90, 64): 3,
    (100, 64): 4,
    (120, 64): 2,
}
TENSOR_CORES = {90: "wgmma [4, 1]", 100: "tcgen05"}  # elsewhere every warp has rows of its own


@pytest.fixture(scope="module")
def compiled(tmp_path_factory):
    """A row per variant, from a process of its own: the interpreter is on in this one."""
    folder = tmp_path_factory.mktemp("compiled")
    environment = {name: value for name, value in os.environ.items() if name != "TRITON_INTERPRET"}
    run = subprocess.run(
        [sys.executable, SCRIPT, folder / "table.json"],
        env=environment | {"TRITON_CACHE_DIR": str(folder / "cache")},
        capture_output=True,
        text=True,
    )
    assert run.returncode == 0, run.stderr[-4000:]
    return json.loads((folder / "table.json").read_text())


def test_every_card_is_there(compiled):
    assert {(row["arch"], row["dim"]) for row in compiled} == set(PROGRAMS)
    assert {row["dtype"] for row in compiled} == {"bfloat16", "float16"}


def test_a_softmax_row_stays_in_its_warp(compiled):
    for row in compiled:
        assert row["tensor_cores"] == TENSOR_CORES.get(row["arch"], "mma.sync [4, 1]"), row


def test_nothing_spills(compiled):
    for row in compiled:
        assert row["spilled"] == row["stack"] == 0, row


def test_as_many_programs_as_expected_share_a_multiprocessor(compiled):
    for row in compiled:
        assert row["shared"] <= LIMITS[row["arch"]] * KIB, row
        assert row["programs"] >= PROGRAMS[row["arch"], row["dim"]], row
