"""The target's attention with the source of an earlier call: the same where nothing has changed, whole otherwise."""

import pytest
import torch
from test_sparse_attention import SETTINGS, SHAPES, inputs, sdpa

from liveditor.liveditor_core.attention.config import SparseAttentionConfig
from liveditor.liveditor_core.attention.kept_source import KeptSource, bytes_of_kept_source, with_room
from liveditor.liveditor_core.attention.sparse_attention import in_context_sparse_attention
from liveditor.liveditor_core.attention.token_layout import TokenLayout

DENSE = {"sar": 0.25, "srr": 0.5, "flat_ratio": 0.5, "backend": "dense"}


def attend(q, k, v, gate, layout, settings, **how):
    config = SparseAttentionConfig.from_settings(**{"dense_half": "sharpest", "backend": "pytorch"} | settings)
    return in_context_sparse_attention(q, k, v, gate, layout=layout, config=config, dense_attention=sdpa, **how)


def keep(q, k, v, gate, layout, settings):
    """The answer for all tokens, and the source that it leaves behind."""
    kept = []
    return attend(q, k, v, gate, layout, settings, keep=kept.append), *kept


def of_target(layout, *tensors):
    """q, k, v and gate of the target alone, with room for the source."""
    *qkv, gate = tensors
    roomy = (with_room(x.transpose(1, 2)[:, : layout.target], layout).transpose(1, 2) for x in qkv)
    return *roomy, with_room(gate[:, : layout.target], layout)


@pytest.fixture(autouse=True)
def unwritten_memory_is_nan(monkeypatch):
    monkeypatch.setattr(torch.Tensor, "new_empty", lambda x, *shape: x.new_full(shape, float("nan")))


@pytest.mark.parametrize("settings", [*SETTINGS, DENSE], ids=str)
@pytest.mark.parametrize("target, source", SHAPES)
def test_nothing_changes_for_the_target_of_the_same_call(target, source, settings):
    layout = TokenLayout(target, source)
    given = inputs(target, source, batch=2)
    exact, kept = keep(*given, layout, settings)
    assert torch.equal(exact, attend(*given, layout, settings))
    again = attend(*of_target(layout, *given), layout, settings, kept=kept)[:, :, :target]
    torch.testing.assert_close(again, exact[:, :, :target], atol=2e-6, rtol=1e-6)


@pytest.mark.parametrize("target, source", SHAPES)
def test_another_target_beside_the_whole_source(target, source):
    settings, layout = {"sar": 0.25, "srr": 1.0, "flat_ratio": 0.5}, TokenLayout(target, source)
    before, after = inputs(target, source), inputs(target, source, seed=1)
    _, kept = keep(*before, layout, settings)
    mixed = [
        torch.cat([new.narrow(dim, 0, target), old.narrow(dim, target, source)], dim)
        for new, old, dim in zip(after, before, (2, 2, 2, 1), strict=True)
    ]
    exact = attend(*mixed, layout, settings)[:, :, :target]
    torch.testing.assert_close(
        attend(*of_target(layout, *after), layout, settings, kept=kept)[:, :, :target], exact, atol=2e-6, rtol=1e-6
    )


def test_heads_keep_what_they_kept():
    settings, layout = {"sar": 0.25, "srr": 0.25, "flat_ratio": 0.5}, TokenLayout(500, 700)
    _, kept = keep(*inputs(500, 700), layout, settings)
    seen = []
    attend(
        *of_target(layout, *inputs(500, 700, seed=1)),
        layout,
        settings,
        kept=kept,
        watch=lambda chosen, _: seen.append(chosen.sparse.kv_set[:, :, layout.num_target_kv_blocks :]),
    )
    assert torch.equal(seen[0], kept.blocks)
    _, other = keep(*inputs(500, 700, seed=1), layout, settings)
    assert not torch.equal(other.blocks, kept.blocks), "a test where retrieval would choose the same shows nothing"


def test_prompts_apart_and_together_again():
    layout = TokenLayout(300, 300)
    _, kept = keep(*inputs(300, 300, batch=2), layout, SETTINGS[1])
    apart = kept.apart(2)
    assert [each.keys.shape[0] for each in apart] == [1, 1]
    for one, both in zip(KeptSource.together(apart), kept, strict=True):
        assert torch.equal(one, both)


@pytest.mark.parametrize("target, source", [(300, 340), (320, 320)])
def test_its_size_is_foreseen(target, source):
    layout = TokenLayout(target, source)
    _, kept = keep(*inputs(target, source), layout, SETTINGS[1])
    foreseen = bytes_of_kept_source(layout, kept.blocks.shape[-1], num_heads=2, head_dim=64, size=4)
    assert foreseen == sum(x.nbytes for x in kept) - kept.blocks.nbytes
    assert all(x.untyped_storage().nbytes() == x.nbytes for x in kept), "no more than that is held"
