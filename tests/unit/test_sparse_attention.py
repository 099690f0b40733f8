"""The method against an independent reference, over the shapes and settings where tails and counts change."""

import pytest
import torch
from backend_checks import ACTIVATION_NAMES, Case
from independent_attention import in_context_sparse_attention as expected_attention

from liveditor.liveditor_core.attention import head_groups
from liveditor.liveditor_core.attention.config import SparseAttentionConfig
from liveditor.liveditor_core.attention.sparse_attention import in_context_sparse_attention
from liveditor.liveditor_core.attention.token_layout import TokenLayout

RELEASED = {"sar": 0.0625, "srr": 0.125, "flat_ratio": 0.5}
# target, source tokens
SHAPES = [
    (256, 256),  # both whole blocks
    (300, 300),  # a block over the border and a short last one
    (320, 300),  # no block over the border, a short last one
    (300, 340),  # a block over the border, the sequence ends on a block
    (500, 100),  # more target than source
    (100, 700),  # more source than target
    (64, 64),  # one block each
    (65, 1),  # one token over; a source of one token
    (64, 1),
    (127, 2),  # the border block holds all of the source
    (30, 40),  # fewer target tokens than a block: dense
    (63, 200),
    (1, 1),
]
SETTINGS = [
    RELEASED,
    {"sar": 0.25, "srr": 0.5, "flat_ratio": 0.25},
    {"sar": 0.0, "srr": 0.0, "flat_ratio": 0.0},
    {"sar": 0.0, "srr": 0.5, "flat_ratio": 0.5},
    {"sar": 0.25, "srr": 0.0, "flat_ratio": 0.5},
    {"sar": 0.25, "srr": 0.5, "flat_ratio": 0.0},
    {"sar": 1.0, "srr": 0.5, "flat_ratio": 0.25},
    {"sar": 0.25, "srr": 1.0, "flat_ratio": 0.25},
    {"sar": 0.25, "srr": 0.5, "flat_ratio": 1.0},
    {"sar": 1.0, "srr": 1.0, "flat_ratio": 1.0},
    {"sar": 0.25, "srr": 0.5, "flat_ratio": 0.25, "dense_half": "flattest"},
]
sdpa = torch.nn.functional.scaled_dot_product_attention


def inputs(target, source, batch=1, heads=2, dim=64, dtype=torch.float32, seed=0):
    """q, k, v as ComfyUI hands them, [B, N, H, D] seen as [B, H, N, D], with structure that makes blocks differ."""
    generator = torch.Generator().manual_seed(seed)
    n = target + source
    level = torch.randn(3, batch, -(-n // 64), heads, dim, generator=generator).repeat_interleave(64, dim=2)[:, :, :n]
    q, k, v = (level + torch.randn(3, batch, n, heads, dim, generator=generator)).to(dtype).transpose(2, 3)
    gate = 0.5 * (torch.rand(batch, n, generator=generator) - 0.5)
    return q, k, v, gate


def run(q, k, v, gate, target, backend="pytorch", dense_attention=sdpa, **settings):
    config = SparseAttentionConfig.from_settings(**{"dense_half": "sharpest", "backend": backend} | settings)
    layout = TokenLayout(target=target, source=q.shape[2] - target)
    return in_context_sparse_attention(q, k, v, gate, layout=layout, config=config, dense_attention=dense_attention)


@pytest.mark.parametrize("settings", SETTINGS, ids=str)
@pytest.mark.parametrize("target, source", SHAPES)
def test_against_an_independent_reference(target, source, settings):
    q, k, v, gate = inputs(target, source)
    out = run(q, k, v, gate, target, **settings)
    assert not q.is_contiguous() and out.shape == q.shape
    torch.testing.assert_close(
        out.double(), expected_attention(q, k, v, gate, target, **settings), atol=2e-5, rtol=1e-5
    )


@pytest.mark.parametrize("settings", SETTINGS, ids=str)
@pytest.mark.parametrize("name", ACTIVATION_NAMES)
def test_on_what_the_small_model_computes(name, settings):
    case = Case.recorded(name, torch.float32, "cpu")
    out = run(case.q, case.k, case.v, case.gate, case.layout.target, **settings)
    torch.testing.assert_close(
        out.double(),
        expected_attention(case.q, case.k, case.v, case.gate, case.layout.target, **settings),
        atol=1e-4,
        rtol=1e-4,
    )


@pytest.mark.parametrize("settings", SETTINGS, ids=str)
@pytest.mark.parametrize("target, source", SHAPES)
def test_the_form_for_training_gives_the_same(target, source, settings):
    q, k, v, gate = inputs(target, source)
    out = run(q.requires_grad_(), k, v, gate, target, **settings)
    assert out.requires_grad
    torch.testing.assert_close(
        out.detach().double(), expected_attention(q.detach(), k, v, gate, target, **settings), atol=2e-5, rtol=1e-5
    )


def test_gradients_against_differences():
    """Along random directions small enough that the same blocks stay chosen."""
    *x, gate = inputs(150, 170)
    x = [t.clone().requires_grad_() for t in x]
    settings = {"sar": 0.25, "srr": 0.5, "flat_ratio": 0.4}
    target = torch.randn(x[0].shape, generator=torch.Generator().manual_seed(1))
    (run(*x, gate, 150, **settings) * target).sum().backward()
    for i in range(3):
        direction = torch.randn(x[i].shape, generator=torch.Generator().manual_seed(2 + i))
        step = 2e-3
        ends = [
            (
                expected_attention(
                    *(t.detach() + sign * step * direction if j == i else t.detach() for j, t in enumerate(x)),
                    gate,
                    150,
                    **settings,
                )
                * target
            ).sum()
            for sign in (1, -1)
        ]
        expected = (ends[0] - ends[1]) / (2 * step)
        torch.testing.assert_close((x[i].grad.double() * direction).sum(), expected.double(), rtol=1e-2, atol=1e-2)


@pytest.mark.parametrize("settings", [RELEASED, {"sar": 0.25, "srr": 0.4, "flat_ratio": 0.3}], ids=str)
def test_batch_of_two_and_three_heads(settings):
    q, k, v, gate = inputs(330, 270, batch=2, heads=3)
    expected = expected_attention(q, k, v, gate, 330, **settings)
    torch.testing.assert_close(run(q, k, v, gate, 330, **settings).double(), expected, atol=2e-5, rtol=1e-5)


@pytest.mark.parametrize("target, source", SHAPES)
def test_all_ratios_one_is_dense_attention_and_the_residual(target, source):
    q, k, v, gate = inputs(target, source)
    ones = run(q, k, v, gate, target, sar=1.0, srr=1.0, flat_ratio=1.0)
    dense = run(q, k, v, gate, target, backend="dense", **RELEASED)
    torch.testing.assert_close(ones, dense, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(
        dense.double(),
        expected_attention(q, k, v, gate, target, dense_everywhere=True, **RELEASED),
        atol=2e-5,
        rtol=1e-5,
    )
    without_residual = run(q, k, v, torch.zeros_like(gate), target, backend="dense", **RELEASED)
    torch.testing.assert_close(without_residual, sdpa(q, k, v), atol=1e-5, rtol=1e-5)


def test_ties_take_the_earlier_block():
    q, k, v, gate = inputs(256, 256, seed=3)
    q[:], k[:] = 1.0, 1.0  # every score is the same; only the values tell which blocks were taken
    settings = {"sar": 0.3, "srr": 0.3, "flat_ratio": 0.5}
    torch.testing.assert_close(
        run(q, k, v, gate, 256, **settings).double(),
        expected_attention(q, k, v, gate, 256, **settings),
        atol=2e-5,
        rtol=1e-5,
    )


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_errs_at_most_twice_as_much_as_plain_attention(dtype):
    q, k, v, gate = inputs(330, 270, dtype=dtype)
    expected = expected_attention(q, k, v, gate, 330, **RELEASED)
    error = (run(q, k, v, gate, 330, **RELEASED).double() - expected).abs().mean()
    exact = sdpa(*(x.double() for x in (q, k, v)))
    plain_error = (sdpa(q, k, v).double() - exact).abs().mean()
    assert error <= 2 * plain_error


def test_dense_attention_gets_no_mask_and_no_padding():
    lengths = set()

    def spy(q, k, v):
        assert q.shape[:2] == k.shape[:2] == v.shape[:2] and k.shape == v.shape
        lengths.add(k.shape[2])
        return sdpa(q, k, v)

    q, k, v, gate = inputs(330, 270, heads=8, seed=5)
    run(q, k, v, gate, 330, dense_attention=spy, sar=0.25, srr=0.5, flat_ratio=0.5)
    assert len(lengths) > 1, "the heads keep different numbers of tokens, so they must be called apart"
    assert all(330 < n < 600 for n in lengths)


def test_wrong_shapes_are_refused():
    q, k, v, gate = inputs(128, 128)
    with pytest.raises(ValueError, match=r"must be \[B, H, 255, D\]"):
        run(q[:, :, :-1], k, v, gate, 127, **RELEASED)
    with pytest.raises(ValueError, match="gate"):
        run(q, k, v, gate[:, :-1], 128, **RELEASED)


@pytest.mark.parametrize("backend", ["pytorch", "dense"])
@pytest.mark.parametrize("target, source", [(300, 340), (256, 256), (30, 40)])
def test_in_groups_of_heads_and_over_the_queries(target, source, backend, monkeypatch):
    q, k, v, gate = inputs(target, source, batch=2, heads=5)
    expected = run(q, k, v, gate, target, backend=backend, **RELEASED)
    calls = []
    monkeypatch.setattr(head_groups, "SMALLEST_GROUP", 1)
    monkeypatch.setattr(head_groups, "GATHERED_AT_ONCE", 0.5)
    config = SparseAttentionConfig(backend=backend)
    out = in_context_sparse_attention(
        q,
        k,
        v,
        gate,
        layout=TokenLayout(target, source),
        config=config,
        out=q,
        dense_attention=lambda *qkv: calls.append(qkv) or sdpa(*qkv),
    )
    assert out.data_ptr() == q.data_ptr() and len(calls) > 1
    torch.testing.assert_close(out, expected, atol=1e-6, rtol=1e-6)


@pytest.mark.parametrize("backend", ["pytorch", "dense"])
@pytest.mark.parametrize("dense_query_ratio", [0.5, 0.0])
@pytest.mark.parametrize("target, source", [(300, 340), (256, 256), (30, 40)])
def test_heads_are_named_once_they_are_answered(target, source, dense_query_ratio, backend, monkeypatch):
    monkeypatch.setattr(head_groups, "SMALLEST_GROUP", 1)
    monkeypatch.setattr(head_groups, "GATHERED_AT_ONCE", 0.5)
    q, k, v, gate = inputs(target, source, batch=2, heads=5)
    named, then = [], {}

    def answered(out, heads):
        named.append(heads)
        then.update((head, out.flatten(0, 1)[head].clone()) for head in heads)

    config = SparseAttentionConfig(backend=backend, dense_query_ratio=dense_query_ratio)
    out = in_context_sparse_attention(
        q, k, v, gate, layout=TokenLayout(target, source), config=config, dense_attention=sdpa, answered=answered
    )
    assert sorted(sum(named, [])) == list(range(10))
    assert len(named) > 1 or dense_query_ratio == 0
    assert all(torch.equal(then[head], out.flatten(0, 1)[head]) for head in range(10))


@pytest.mark.parametrize(
    "settings",
    [RELEASED, {"sar": 0.25, "srr": 0.5, "flat_ratio": 0.0}, {"sar": 0.25, "srr": 0.5, "flat_ratio": 1.0}],
    ids=str,
)
@pytest.mark.parametrize("target, source", [(300, 340), (256, 256), (128, 700), (30, 40)])
def test_only_the_first_tokens(target, source, settings):
    """What is needed is the same, and fewer query blocks are computed."""
    q, k, v, gate = inputs(target, source, batch=2)
    expected = run(q, k, v, gate, target, **settings)
    out = torch.full_like(q, float("nan"))
    config = SparseAttentionConfig.from_settings(**{"dense_half": "sharpest", "backend": "pytorch"} | settings)
    out = in_context_sparse_attention(
        q, k, v, gate, layout=TokenLayout(target, source), config=config, dense_attention=sdpa, out=out, needed=target
    )
    torch.testing.assert_close(out[:, :, :target], expected[:, :, :target], atol=1e-6, rtol=1e-6)
    assert source < 64 or out.isnan().any()
