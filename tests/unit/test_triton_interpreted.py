"""The Triton backend in Triton's interpreter, which runs its kernels on the CPU, against the reference."""

import backend_checks
import pytest
import torch
from backend_checks import ACTIVATION_NAMES, SHAPES, Case

triton = pytest.importorskip("triton", reason="Triton has no wheel for this system")

from liveditor.kernels import triton_backend  # noqa: E402


def test_the_interpreter_is_on():
    assert triton.knobs.runtime.interpret


@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_every_operation(shape):
    backend_checks.check_all(triton_backend, Case(shape, torch.float16, "cpu"), tolerance=2e-3)


@pytest.mark.parametrize("name", ACTIVATION_NAMES)
def test_on_what_the_small_model_computes(name):
    backend_checks.check_all(triton_backend, Case.recorded(name, torch.float16, "cpu"), tolerance=2e-3)


def test_ties_and_ends_of_the_selection():
    backend_checks.check_split_largest(triton_backend, "cpu")
