"""Which backend is chosen, and what is said about those that are not."""

import types

import pytest
import torch
from full_gpu import FULL, MAKES_ROOM, full_once

from liveditor.kernels import BackendUnavailable, choose_backend, dispatch, sparse_from_tokens
from liveditor.liveditor_core.attention.config import SparseAttentionConfig
from liveditor.liveditor_core.attention.plan import plan_attention, speed_of
from liveditor.liveditor_core.attention.token_layout import TokenLayout

CPU = torch.device("cpu")


@pytest.mark.parametrize("name", ["triton", "tilelang"])
def test_a_named_backend_that_cannot_run_is_refused_with_its_reason(name):
    with pytest.raises(
        BackendUnavailable,
        match=f"backend {name} cannot run: needs an NVIDIA GPU, the tensors are on cpu. Choose auto or pytorch",
    ):
        choose_backend(name, CPU, torch.bfloat16, 128)


def test_auto_falls_back_and_says_why():
    choice = choose_backend("auto", CPU, torch.bfloat16, 128)
    assert choice.name == "pytorch" and choice.module is choose_backend("pytorch", CPU, torch.float32, 96).module
    assert set(choice.reasons) == {"triton", "tilelang"} and all(
        "needs an NVIDIA GPU" in reason for reason in choice.reasons.values()
    )


CACHED = (dispatch.gpu_family, dispatch.unavailable_reason, dispatch.choose_backend)


@pytest.fixture
def gpu(monkeypatch):
    """A GPU of a given capability, as far as the choice can see; what is put there lies on the CPU."""
    zeros = torch.zeros

    def make(*capability):
        monkeypatch.setattr(torch.version, "cuda", "13.0")
        monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device=None: capability)
        monkeypatch.setattr(torch, "zeros", lambda *shape, device=None, **kwargs: zeros(*shape, **kwargs))
        for function in CACHED:
            function.cache_clear()
        return torch.device("cuda", 0)

    yield make
    for function in CACHED:
        function.cache_clear()


@pytest.mark.parametrize(
    "capability, family",
    [
        ((7, 5), None),
        ((8, 0), "ampere"),
        ((8, 6), "ampere"),
        ((8, 9), "ada"),
        ((9, 0), "hopper"),
        ((10, 0), "blackwell"),
        ((10, 3), "blackwell"),
        ((12, 0), "blackwell of RTX 50"),
        ((12, 1), "blackwell of RTX 50"),
    ],
)
def test_families(gpu, capability, family):
    device = gpu(*capability)
    assert dispatch.gpu_family(device)[0] == family
    for backend in ("triton", "tilelang"):
        assert (sparse_from_tokens(device, backend) is not None) == (family is not None)
    assert sparse_from_tokens(device, "pytorch") is None, "never seen to be faster than dense on a GPU"


def test_reasons_by_dtype_head_dim_and_age(gpu):
    device = gpu(9, 0)
    assert "the model runs in float32" in dispatch.unavailable_reason("triton", device, torch.float32, 128)
    assert "the model's is 96" in dispatch.unavailable_reason("triton", device, torch.bfloat16, 96)
    assert "8.0 or later, this one has 7.5" in dispatch.unavailable_reason("triton", gpu(7, 5), torch.bfloat16, 128)


def test_a_package_that_breaks_at_import_is_a_reason(gpu, monkeypatch):
    def broken(*_):
        raise OSError("wrong CUDA")

    monkeypatch.setattr(dispatch.importlib, "import_module", broken)
    monkeypatch.setattr(dispatch.importlib.util, "find_spec", lambda name: object())
    assert (
        dispatch.unavailable_reason("triton", gpu(9, 0))
        == "the Python package triton does not work here: OSError: wrong CUDA"
    )


@pytest.mark.parametrize("error", FULL.values(), ids=FULL)
def test_a_backend_that_met_a_full_gpu_is_asked_again(gpu, monkeypatch, error):
    module = types.SimpleNamespace(block_means=full_once(error, lambda x, target: x))
    monkeypatch.setattr(dispatch.importlib, "import_module", lambda *_: module)
    monkeypatch.setattr(dispatch.importlib.util, "find_spec", lambda name: object())
    device = gpu(9, 0)
    with pytest.raises(MAKES_ROOM):
        choose_backend("auto", device, torch.bfloat16, 128)
    assert choose_backend("auto", device, torch.bfloat16, 128).name == "triton"


def plan(layout, device=CPU, dtype=torch.float32, **settings):
    return plan_attention(
        layout=layout, config=SparseAttentionConfig(**settings), device=device, dtype=dtype, head_dim=128
    )


def speed(device, backend="auto"):
    config = SparseAttentionConfig(backend=backend)
    return speed_of(config=config, device=device, dtype=torch.bfloat16, head_dim=128)


def test_when_everything_is_dense(monkeypatch):
    assert not plan(TokenLayout(128, 128)).dense_everywhere
    assert "settings ask" in plan(TokenLayout(128, 128), backend="dense").reasons[0]
    assert "fewer than 64 target tokens" in plan(TokenLayout(63, 500)).reasons[0]
    monkeypatch.setattr("liveditor.liveditor_core.attention.plan.sparse_from_tokens", lambda device, backend: 300)
    assert "below 300 tokens" in plan(TokenLayout(128, 128)).reasons[0]
    assert not plan(TokenLayout(128, 172)).dense_everywhere
    assert not plan(TokenLayout(128, 128), backend="pytorch").dense_everywhere, (
        "who names a backend gets sparse attention at any length"
    )


@pytest.fixture
def without_triton(monkeypatch):
    monkeypatch.setattr(dispatch.importlib.util, "find_spec", lambda name: None)


@pytest.mark.parametrize("capability", [(9, 0), (7, 5)])
def test_a_gpu_without_triton_computes_densely(gpu, without_triton, capability):
    """There the reference, in fp32, was never seen to be faster than dense attention."""
    device, long = gpu(*capability), TokenLayout(42_840, 42_840)
    chosen = plan(long, device, torch.bfloat16)
    assert chosen.dense_everywhere and chosen.backend == "pytorch"
    assert "neither Triton nor TileLang runs here" in chosen.reasons[0]
    assert any(reason.startswith("triton: ") for reason in chosen.reasons)
    assert not plan(long, device, torch.bfloat16, backend="pytorch").dense_everywhere
    assert not plan(long, device, torch.float32).dense_everywhere, "both halves compute in fp32"
    assert speed(device) == ("dense", None, capability == (9, 0))
    assert speed(device, "pytorch").faster_from is None


def test_a_gpu_with_triton_says_from_where_on_it_is_faster(gpu, monkeypatch):
    module = types.SimpleNamespace(block_means=lambda x, target: x)
    monkeypatch.setattr(dispatch.importlib, "import_module", lambda *_: module)
    monkeypatch.setattr(dispatch.importlib.util, "find_spec", lambda name: object() if name == "triton" else None)
    for capability, measured in (((9, 0), True), ((8, 9), False)):
        device = gpu(*capability)
        assert speed(device) == speed(device, "triton") == ("triton", sparse_from_tokens(device, "triton"), measured)
        assert speed(device, "tilelang") == (None, None, measured)
        assert speed(device, "dense").computes == "dense"


def test_the_cpu_promises_no_speed():
    assert speed(CPU) == ("pytorch", None, False)
