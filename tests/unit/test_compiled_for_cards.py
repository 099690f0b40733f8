"""The kernels compiled for every kind of card, without one: what they would occupy there."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("triton", reason="Triton has no wheel for this system")

SUPPORT = Path(__file__).resolve().parents[1] / "support"
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


def table(script, folder):
    """What a script of tests/support writes, from a process of its own: the interpreter is on in this one."""
    environment = {name: value for name, value in os.environ.items() if name != "TRITON_INTERPRET"}
    run = subprocess.run(
        [sys.executable, SUPPORT / script, folder / "table.json"],
        env=environment | {"TRITON_CACHE_DIR": str(folder / "cache")},
        capture_output=True,
        text=True,
    )
    assert run.returncode == 0, run.stderr[-4000:]
    return json.loads((folder / "table.json").read_text())


@pytest.fixture(scope="module")
def compiled(tmp_path_factory):
    return table("compiled_for_cards.py", tmp_path_factory.mktemp("compiled"))


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


def test_the_dense_kernel_in_8_bits(tmp_path):
    """For Hopper alone. Nothing spills, and a product still runs while weights are made."""
    rows = table("compiled_int8_fp8.py", tmp_path)
    assert {(row["dim"], row["dtype"]) for row in rows} == {
        (dim, dtype) for dim in (64, 128) for dtype in ("bfloat16", "float16")
    }
    for row in rows:
        assert row["spilled"] == row["stack"] == 0 and row["registers"] <= 168, row
        assert row["shared"] <= LIMITS[90] * KIB, row
        assert set(row["products"]) == {
            "wgmma.mma_async.sync.aligned.m64n128k32.s32.s8.s8",
            f"wgmma.mma_async.sync.aligned.m64n{row['dim']}k32.f32.e4m3.e4m3",
        }, row
        assert row["waits"] == [0, 1], row
