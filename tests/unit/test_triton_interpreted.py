"""The Triton backend in Triton's interpreter, which runs its kernels on the CPU, against the reference."""

import backend_checks
import pytest
import torch
from backend_checks import ACTIVATION_NAMES, SHAPES, Case

triton = pytest.importorskip("triton", reason="Triton has no wheel for this system")

from liveditor.kernels import triton_backend  # noqa: E402
from liveditor.kernels.triton_backend import attention  # noqa: E402

FORMS = {
    "whole": {"HALVES": False},
    "halves": {"HALVES": True},
    "descriptors": {"HALVES": False, "DESCRIPTORS": True},
}


@pytest.fixture(params=FORMS)
def form(request, monkeypatch):
    """One of the forms that the sparse kernel is compiled in, whatever the card would get."""
    choose = attention.form_for
    monkeypatch.setattr(
        attention, "form_for", lambda *arguments, **options: choose(*arguments, **options) | FORMS[request.param]
    )


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


@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_every_form_of_the_sparse_kernel(shape, form):
    backend_checks.check_sparse(triton_backend, Case(shape, torch.float16, "cpu"), tolerance=2e-3)


@pytest.mark.parametrize("name", ACTIVATION_NAMES)
def test_every_form_on_what_the_small_model_computes(name, form):
    backend_checks.check_sparse(triton_backend, Case.recorded(name, torch.float16, "cpu"), tolerance=2e-3)


@pytest.mark.parametrize(
    "capability, whole",
    [((8, 0), False), ((8, 6), False), ((8, 9), False), ((9, 0), True), ((10, 0), True), ((11, 0), True)]
    + [((10, 3), True), ((12, 0), False), ((12, 1), False)],
)
def test_forms_by_card(capability, whole):
    """Whole and by descriptor with wgmma and tcgen05, in halves of 128 channels without."""
    for dim in (64, 128):
        chosen = attention.form_for(capability, dim, describable=True)
        assert chosen["DESCRIPTORS"] == whole and chosen["HALVES"] == (dim == 128 and not whole)
        assert ("maxnreg" in chosen) == (dim == 128 and whole)
        assert not attention.form_for(capability, dim, describable=False)["DESCRIPTORS"]
