"""The GPU backends on a GPU: needs torch, Triton and pytest, not ComfyUI.

    python -m pytest --import-mode=importlib -c pyproject.toml tests/gpu
"""

import importlib

import backend_checks
import pytest
import torch
from backend_checks import SHAPES, Case

from liveditor.kernels import BackendUnavailable
from liveditor.kernels.dispatch import MODULES, choose_backend, unavailable_reason
from liveditor.liveditor_core.config import SparseAttentionConfig
from liveditor.liveditor_core.sparse_attention import in_context_sparse_attention
from liveditor.liveditor_core.token_layout import TokenLayout

pytestmark = pytest.mark.gpu
DEVICE = torch.device("cuda")


def backend(name):
    return importlib.import_module(MODULES[name], "liveditor.kernels")


BACKENDS = [name for name in ("triton", "tilelang") if unavailable_reason(name, DEVICE) is None]
LARGER = [(1000, 1100, 2, 2, 128), (2040, 2040, 1, 2, 128), (4096, 4096, 1, 2, 64), (63 * 64, 5000, 1, 2, 64)]


def test_triton_can_run():
    assert "triton" in BACKENDS


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16], ids=str)
@pytest.mark.parametrize("shape", SHAPES + LARGER, ids=str)
@pytest.mark.parametrize("name", BACKENDS)
def test_every_operation(name, shape, dtype):
    backend_checks.check_all(backend(name), Case(shape, dtype, DEVICE), tolerance=2e-3 if dtype == torch.float16 else 1e-2)


@pytest.mark.parametrize("name", BACKENDS)
def test_ties(name):
    backend_checks.check_split_largest(backend(name), DEVICE)


@pytest.mark.parametrize("shape", LARGER, ids=str)
@pytest.mark.parametrize("name", BACKENDS)
def test_errs_at_most_twice_as_much_as_plain_attention(name, shape):
    """Against the reference in fp32 with the same selection: the error may be twice that of plain bf16 attention."""
    case = Case(shape, torch.bfloat16, DEVICE)
    exact, ours = [torch.zeros_like(case.q, dtype=t) for t in (torch.float32, torch.bfloat16)]
    backend("pytorch").sparse_attention(*(x.float() for x in (case.q, case.k, case.v)), out=exact, **case.sparse_arguments())
    backend(name).sparse_attention(case.q, case.k, case.v, out=ours, **case.sparse_arguments())
    plain = torch.softmax(case.q.float() @ case.k.float().transpose(-1, -2) * case.q.shape[-1] ** -0.5, dim=-1) @ case.v.float()
    plain_error = (torch.nn.functional.scaled_dot_product_attention(case.q, case.k, case.v).float() - plain).abs().mean()
    rows = ours != 0
    assert (ours.float() - exact)[rows].abs().mean() <= 2 * plain_error


@pytest.mark.skipif(len(BACKENDS) < 2, reason="needs Triton and TileLang")
@pytest.mark.parametrize("shape", LARGER, ids=str)
def test_backends_agree_on_the_same_selection(shape):
    case = Case(shape, torch.bfloat16, DEVICE)
    outs = [torch.zeros_like(case.q) for _ in BACKENDS]
    for name, out in zip(BACKENDS, outs):
        backend(name).sparse_attention(case.q, case.k, case.v, out=out, **case.sparse_arguments())
    assert (outs[0].float() - outs[1].float()).abs().mean() <= 1e-4


@pytest.mark.parametrize("name", BACKENDS)
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16], ids=str)
@pytest.mark.parametrize("target, source", [(2040, 2040), (1024, 2048), (30, 500)])
def test_the_whole_method(name, dtype, target, source):
    case = Case((target, source, 2, 2, 128), dtype, DEVICE)
    out = {}
    for chosen in (name, "pytorch"):
        config = SparseAttentionConfig(backend=chosen)
        x = [t if chosen == name else t.float() for t in (case.q, case.k, case.v)]
        out[chosen] = in_context_sparse_attention(*x, case.gate, layout=TokenLayout(target, source), config=config,
                                                   dense_attention=torch.nn.functional.scaled_dot_product_attention)
    backend_checks.close(out[name], out["pytorch"], 1e-2)


@pytest.mark.parametrize("name", BACKENDS)
def test_offsets_past_2_to_the_31(name):
    """B * H * N * D > 2^31: the last head's last tokens must be right."""
    tokens, heads, dim = 460_800, 40, 128
    x = torch.zeros(1, tokens, heads, dim, dtype=torch.bfloat16, device=DEVICE)
    x[:, -64:, -1] = 3.0
    assert x.numel() > 2**31
    means = backend(name).block_means(x.transpose(1, 2), target=tokens // 2)
    assert means[0, -1, -1].eq(3).all() and means[0, -1, -2].eq(0).all() and means[0, -2].eq(0).all()
    blocks = torch.full((1, heads, 1), tokens // 64 - 1, dtype=torch.int32, device=DEVICE)
    out = backend(name).gather_query_blocks(x.transpose(1, 2), head_index=torch.arange(heads, dtype=torch.int32, device=DEVICE), query_blocks=blocks)
    assert out[-1].eq(3).all() and out[:-1].eq(0).all()


def test_the_choice_on_this_gpu():
    assert choose_backend("auto", DEVICE, torch.bfloat16, 128).name == BACKENDS[0]
    on_fp32 = choose_backend("auto", DEVICE, torch.float32, 128)
    assert on_fp32.name == "pytorch" and "the model runs in float32" in on_fp32.reasons["triton"]
    with pytest.raises(BackendUnavailable, match="head dims 64 and 128, the model's is 96"):
        choose_backend("triton", DEVICE, torch.bfloat16, 96)


@pytest.mark.parametrize("name", BACKENDS)
def test_any_strides(name):
    """Views of another layout than [B, N, H, D] give the same, and are written in place."""
    case = Case(LARGER[1], torch.bfloat16, DEVICE)
    expected = torch.zeros_like(case.q)
    backend(name).sparse_attention(case.q, case.k, case.v, out=expected, **case.sparse_arguments())
    q, k, v = (x.contiguous() for x in (case.q, case.k, case.v))
    out = torch.zeros_like(q)
    backend(name).sparse_attention(q, k, v, out=out, **case.sparse_arguments())
    assert torch.equal(out, expected)
    wide = torch.randn(1, case.q.shape[2], 3, case.q.shape[1], case.q.shape[3], device=DEVICE, dtype=torch.bfloat16)  # as one projection gives them
    q, k, v = (wide[:, :, i].copy_(x.transpose(1, 2)).transpose(1, 2) for i, x in enumerate((case.q, case.k, case.v)))
    out.zero_()
    backend(name).sparse_attention(q, k, v, out=out, **case.sparse_arguments())
    assert torch.equal(out, expected)
