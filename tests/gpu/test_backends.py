"""The GPU backends on a GPU: needs torch, Triton and pytest, not ComfyUI.

python -m pytest --import-mode=importlib -c pyproject.toml tests/gpu
"""

import importlib

import backend_checks
import pytest
import torch
from backend_checks import ACTIVATION_NAMES, SHAPES, Case

from liveditor.kernels import BackendUnavailable
from liveditor.kernels.dispatch import MODULES, choose_backend, unavailable_reason
from liveditor.liveditor_core.attention import head_groups
from liveditor.liveditor_core.attention.config import SparseAttentionConfig
from liveditor.liveditor_core.attention.kept_source import with_room
from liveditor.liveditor_core.attention.sparse_attention import in_context_sparse_attention
from liveditor.liveditor_core.attention.token_layout import TokenLayout

pytestmark = pytest.mark.gpu
DEVICE = torch.device("cuda")


def backend(name):
    return importlib.import_module(MODULES[name], "liveditor.kernels")


BACKENDS = [name for name in ("triton", "tilelang") if unavailable_reason(name, DEVICE) is None]
LARGER = [
    (3000, 3100, 1, 1, 64),
    (1000, 1100, 2, 2, 128),
    (2040, 2040, 1, 2, 128),
    (4096, 4096, 1, 2, 64),
    (63 * 64, 5000, 1, 2, 64),
]


def test_triton_can_run():
    assert "triton" in BACKENDS


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16], ids=str)
@pytest.mark.parametrize("shape", SHAPES + LARGER, ids=str)
@pytest.mark.parametrize("name", BACKENDS)
def test_every_operation(name, shape, dtype):
    backend_checks.check_all(
        backend(name), Case(shape, dtype, DEVICE), tolerance=2e-3 if dtype == torch.float16 else 1e-2
    )


@pytest.mark.parametrize("activations", ACTIVATION_NAMES)
@pytest.mark.parametrize("name", BACKENDS)
def test_on_what_the_small_model_computes(name, activations):
    """Every operation, and the whole method under several settings against the reference in fp32."""
    case = Case.recorded(activations, torch.bfloat16, DEVICE)
    backend_checks.check_all(backend(name), case, tolerance=1e-2)
    for ratios in ((0.25, 1.0, 0.5), (0.0625, 0.125, 0.5), (0.25, 0.5, 0.0)):
        ours, expected = (
            in_context_sparse_attention(
                *(x.to(dtype) for x in (case.q, case.k, case.v)),
                case.gate,
                layout=case.layout,
                config=SparseAttentionConfig(*ratios, backend=chosen),
                dense_attention=torch.nn.functional.scaled_dot_product_attention,
            )
            for chosen, dtype in ((name, torch.bfloat16), ("pytorch", torch.float32))
        )
        backend_checks.close(ours, expected, 1e-2)


@pytest.mark.parametrize("name", BACKENDS)
def test_ties(name):
    backend_checks.check_split_largest(backend(name), DEVICE)


@pytest.mark.parametrize("shape", LARGER, ids=str)
@pytest.mark.parametrize("name", BACKENDS)
def test_errs_at_most_twice_as_much_as_plain_attention(name, shape):
    """Against the reference in fp32 with the same selection: the error may be twice that of plain bf16 attention."""
    case = Case(shape, torch.bfloat16, DEVICE)
    exact, ours = [torch.zeros_like(case.q, dtype=t) for t in (torch.float32, torch.bfloat16)]
    backend("pytorch").sparse_attention(
        *(x.float() for x in (case.q, case.k, case.v)), out=exact, **case.sparse_arguments()
    )
    backend(name).sparse_attention(case.q, case.k, case.v, out=ours, **case.sparse_arguments())
    plain = (
        torch.softmax(case.q.float() @ case.k.float().transpose(-1, -2) * case.q.shape[-1] ** -0.5, dim=-1)
        @ case.v.float()
    )
    plain_error = (
        (torch.nn.functional.scaled_dot_product_attention(case.q, case.k, case.v).float() - plain).abs().mean()
    )
    rows = torch.zeros(exact.shape[:3], dtype=torch.bool, device=DEVICE)
    rows = torch.nn.functional.pad(rows, (0, -rows.shape[-1] % 64)).unflatten(-1, (-1, 64))
    rows = rows.scatter(2, case.chosen.sparse.query_blocks.long().unsqueeze(-1).expand(-1, -1, -1, 64), True).flatten(
        2
    )[:, :, : exact.shape[2]]
    assert (ours.float() - exact)[rows].abs().mean() <= 2 * plain_error


@pytest.mark.skipif(len(BACKENDS) < 2, reason="needs Triton and TileLang")
@pytest.mark.parametrize("shape", LARGER, ids=str)
def test_backends_agree_on_the_same_selection(shape):
    case = Case(shape, torch.bfloat16, DEVICE)
    outs = [torch.zeros_like(case.q) for _ in BACKENDS]
    for name, out in zip(BACKENDS, outs, strict=True):
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
        out[chosen] = in_context_sparse_attention(
            *x,
            case.gate,
            layout=TokenLayout(target, source),
            config=config,
            dense_attention=torch.nn.functional.scaled_dot_product_attention,
        )
    backend_checks.close(out[name], out["pytorch"], 1e-2)


@pytest.mark.parametrize("dense", [False, True], ids=["sparse", "dense"])
@pytest.mark.parametrize("target, source", [(2040, 2040), (1024, 2048), (500, 700)])
@pytest.mark.parametrize("name", BACKENDS)
def test_with_the_source_that_a_call_left_behind(name, target, source, dense, monkeypatch):
    """The target's answer is that of the call, and of nothing that was never written."""
    case, layout, kept = Case((target, source, 2, 2, 128), torch.bfloat16, DEVICE), TokenLayout(target, source), []
    how = {
        "layout": layout,
        "config": SparseAttentionConfig(backend="dense" if dense else name),
        "dense_attention": torch.nn.functional.scaled_dot_product_attention,
    }
    monkeypatch.setattr(torch.Tensor, "new_empty", lambda x, *shape: x.new_full(shape, float("nan")))
    whole = in_context_sparse_attention(case.q, case.k, case.v, case.gate, keep=kept.append, **how)[:, :, :target]
    q, k, v = (with_room(x.transpose(1, 2)[:, :target], layout).transpose(1, 2) for x in (case.q, case.k, case.v))
    gate = with_room(case.gate[:, :target], layout)
    alone = in_context_sparse_attention(q, k, v, gate, kept=kept[0], **how)[:, :, :target]
    backend_checks.close(alone, whole, 2e-3)


@pytest.mark.parametrize(
    "settings",
    [
        {"dense_query_ratio": 0.0},
        {"dense_query_ratio": 1.0},
        {"source_keep_ratio": 0.0},
        {"source_keep_ratio": 1.0},
        {"exact_kv_ratio": 0.0},
        {"exact_kv_ratio": 1.0},
        {"dense_query_ratio": 0.0, "source_keep_ratio": 0.0, "exact_kv_ratio": 0.0},
    ],
    ids=str,
)
@pytest.mark.parametrize("target, source", [(300, 340), (128, 1), (320, 320)])
@pytest.mark.parametrize("name", BACKENDS)
def test_ends_of_the_settings(name, target, source, settings):
    case = Case((target, source, 2, 2, 128), torch.bfloat16, DEVICE)
    layout = TokenLayout(target, source)
    ours, expected = (
        in_context_sparse_attention(
            *(x.to(dtype) for x in (case.q, case.k, case.v)),
            case.gate,
            layout=layout,
            config=SparseAttentionConfig(backend=chosen, **settings),
            dense_attention=torch.nn.functional.scaled_dot_product_attention,
        )
        for chosen, dtype in ((name, torch.bfloat16), ("pytorch", torch.float32))
    )
    backend_checks.close(ours, expected, 1e-2)


def test_a_new_length_compiles_nothing_in_triton():
    from liveditor.kernels import triton_backend

    def run(tokens):
        case = Case((tokens, tokens, 1, 2, 128), torch.bfloat16, DEVICE)
        backend_checks.check_all(triton_backend, case, 1e-2)

    run(2040)
    modules = (triton_backend.attention, triton_backend.gathers, triton_backend.means, triton_backend.selection)
    kernels = [value for module in modules for value in vars(module).values() if hasattr(value, "device_caches")]

    def compiled():
        return sum(len(cache[0]) for kernel in kernels for cache in kernel.device_caches.values())

    before = compiled()
    run(2032)
    run(1969)
    assert compiled() == before > 0


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
    out = backend(name).gather_query_blocks(
        x.transpose(1, 2), head_index=torch.arange(heads, dtype=torch.int32, device=DEVICE), query_blocks=blocks
    )
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
    case = Case(LARGER[2], torch.bfloat16, DEVICE)
    expected = torch.zeros_like(case.q)
    backend(name).sparse_attention(case.q, case.k, case.v, out=expected, **case.sparse_arguments())
    q, k, v = (x.contiguous() for x in (case.q, case.k, case.v))
    out = torch.zeros_like(q)
    backend(name).sparse_attention(q, k, v, out=out, **case.sparse_arguments())
    assert torch.equal(out, expected)
    wide = torch.randn(
        1, case.q.shape[2], 3, case.q.shape[1], case.q.shape[3], device=DEVICE, dtype=torch.bfloat16
    )  # as one projection gives them
    q, k, v = (wide[:, :, i].copy_(x.transpose(1, 2)).transpose(1, 2) for i, x in enumerate((case.q, case.k, case.v)))
    out.zero_()
    backend(name).sparse_attention(q, k, v, out=out, **case.sparse_arguments())
    assert torch.equal(out, expected)


@pytest.mark.parametrize("name", BACKENDS)
@pytest.mark.parametrize("target, source", [(2040, 2040), (1024, 2048)])
def test_in_groups_of_heads_and_over_the_queries(name, target, source, monkeypatch):
    """Heads in several groups and the answer written over the queries: the same as at once and elsewhere."""
    case = Case((target, source, 2, 5, 128), torch.bfloat16, DEVICE)
    options = {
        "layout": TokenLayout(target, source),
        "config": SparseAttentionConfig(backend=name),
        "dense_attention": torch.nn.functional.scaled_dot_product_attention,
    }
    expected = in_context_sparse_attention(case.q, case.k, case.v, case.gate, **options)
    monkeypatch.setattr(head_groups, "SMALLEST_GROUP", 1)
    monkeypatch.setattr(head_groups, "GATHERED_AT_ONCE", 0.5)
    out = in_context_sparse_attention(case.q, case.k, case.v, case.gate, out=case.q, **options)
    assert out.data_ptr() == case.q.data_ptr() and torch.equal(out, expected)
