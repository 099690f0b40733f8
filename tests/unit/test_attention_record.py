"""What an AttentionRecord notes and shows, against attention worked out by hand."""

import pytest
import torch

from liveditor.liveditor_core.attention.config import SparseAttentionConfig
from liveditor.liveditor_core.attention.sparse_attention import in_context_sparse_attention
from liveditor.liveditor_core.attention.token_layout import TokenLayout
from liveditor.liveditor_core.inspection import plots as attention_plots
from liveditor.liveditor_core.inspection.record import AttentionRecord, check_numbers, numbers_in, source_heat, summary

GRID = (3, 10, 20)
TOKENS = 600
SIGMAS = torch.tensor([1.0, 0.7, 0.3, 0.0])
CONFIG = SparseAttentionConfig(exact_kv_ratio=0.2, source_keep_ratio=0.3, dense_query_ratio=0.4, backend="pytorch")


@pytest.mark.parametrize(
    "text, first, count, expected",
    [
        ("all", 0, 3, {0, 1, 2}),
        ("1, last", 1, 32, {1, 32}),
        ("8-10,2", 1, 9, {2, 8, 9}),
        ("7", 0, 4, set()),
        (" last ", 0, 40, {39}),
    ],
)
def test_numbers(text, first, count, expected):
    check_numbers(text)
    assert numbers_in(text, first, count) == expected


@pytest.mark.parametrize("text", ["", "one", "1;2", "-3", "2-", "1,,2", "all, 3", "12-8"])
def test_what_is_no_list_of_numbers_is_refused(text):
    with pytest.raises(ValueError, match="got"):
        check_numbers(text)


def options(step, block, cond_or_uncond=(0,)):
    return {
        "sample_sigmas": SIGMAS,
        "sigmas": SIGMAS[step - 1 : step],
        "block_index": block,
        "total_blocks": 4,
        "cond_or_uncond": list(cond_or_uncond),
        "grid_sizes": GRID,
    }


def attend(record, at, batch=1, config=CONFIG, seed=0):
    q, k, v = torch.randn(3, batch, 2, 2 * TOKENS, 32, generator=torch.Generator().manual_seed(seed)) * 2
    layout = TokenLayout(TOKENS, TOKENS)
    out = in_context_sparse_attention(
        q,
        k,
        v,
        torch.zeros(batch, 2 * TOKENS),
        layout=layout,
        config=config,
        watch=record.watch(at, layout) if record else None,
        dense_attention=torch.nn.functional.scaled_dot_product_attention,
    )
    return out, q, k, layout


def test_it_notes_what_was_chosen_and_changes_nothing():
    record = AttentionRecord("all", "all")
    out, q, k, layout = attend(record, options(2, 3))
    assert torch.equal(out, attend(None, None)[0])
    choice = record.choices[2, 3]

    # Attention between means of query blocks and of keys, over the whole sequence.
    bounds = [layout.query_block(i) for i in range(layout.num_blocks)]
    means = [torch.stack([x[0, :, a:b].mean(dim=1) for a, b in bounds], dim=1) for x in (q, k)]
    attention = (means[0] @ means[1].transpose(1, 2) * 32**-0.5).softmax(-1)
    counts, targets = CONFIG.counts(layout), layout.num_target_blocks
    for head in range(2):
        kept = attention[head, :targets, targets:].sum(0).topk(counts.kept_source).indices
        assert set(choice.retrieved[head].nonzero().flatten().tolist()) == set(kept.tolist())
        sharpness = attention[head, :, :targets].topk(counts.sharpness_top, dim=-1).values.sum(-1)
        assert torch.allclose(choice.sharpness[head], sharpness, atol=1e-5)
        assert set(choice.dense[head].nonzero().flatten().tolist()) == set(
            sharpness.topk(counts.dense_queries).indices.tolist()
        )
    text = summary(record, [2])
    assert f"step 2, block 3: each head reads {counts.kept_source} source blocks" in text
    assert summary(record, [1]).count("\n") == 0


def test_only_chosen_steps_and_blocks_of_the_positive_prompt():
    record = AttentionRecord("1, last", "0-1")
    for step in (1, 2, 3):
        for block in range(4):
            attend(record, options(step, block, cond_or_uncond=[1]), seed=9)  # the negative prompt
            attend(record, options(step, block), seed=10 * step + block)
    assert set(record.choices) == {(1, 0), (1, 1), (3, 0), (3, 1)}
    both = AttentionRecord("all", "all")
    attend(both, options(1, 0, cond_or_uncond=[1, 0]), batch=2)
    _, q, k, layout = attend(None, None, batch=2)
    alone = AttentionRecord("all", "all")
    in_context_sparse_attention(
        q[1:],
        k[1:],
        k[1:],
        torch.zeros(1, 2 * TOKENS),
        layout=layout,
        config=CONFIG,
        watch=alone.watch(options(1, 0), layout),
        dense_attention=torch.nn.functional.scaled_dot_product_attention,
    )
    assert torch.equal(both.choices[1, 0].retrieved, alone.choices[1, 0].retrieved)
    assert record.run(lambda: q) is q
    assert record.choices == {} and record.layout is None and torch.equal(record.result, q)


def test_dense_runs_are_known_and_the_last_call_of_a_step_is_kept():
    record = AttentionRecord("all", "all")
    attend(record, options(1, 0), config=SparseAttentionConfig(backend="dense"))
    assert record.choices == {} and "dense" in record.dense_because
    attend(record, options(1, 0))
    first = record.choices[1, 0]
    attend(record, options(1, 0), seed=5)
    assert len(record.choices) == 1 and not torch.equal(record.choices[1, 0].sharpness, first.sharpness)


def test_heat_lies_where_the_blocks_are():
    layout = TokenLayout(TOKENS, TOKENS)  # 600 is no multiple of 64: the first source block is short
    values = torch.zeros(layout.num_source_blocks)
    values[0], values[2] = 1.0, 0.5
    heat = source_heat(values, layout, GRID)
    assert heat.shape == GRID
    first, (start, end) = 10 * 64 - 600, (11 * 64 - 600, 12 * 64 - 600)
    flat = heat.flatten()
    assert flat[:first].eq(1).all() and flat[start:end].eq(0.5).all() and flat.count_nonzero() == first + end - start

    frames = torch.full((9, 160, 312, 3), 0.5)  # 312 is half a token short of 20
    out = attention_plots.over_frames(frames, heat, 1.0)
    hot, cold = attention_plots.colours(torch.tensor([1.0, 0.0]))
    assert torch.equal(out[0, 0, 0], hot) and torch.equal(out[0, 31, 311], hot) and torch.equal(out[0, 32, 0], cold)
    assert torch.equal(out[1], out[4]) and not torch.equal(out[0], out[1])
    assert torch.equal(attention_plots.over_frames(frames, heat, 0.0), frames)


def test_colours_grow_lighter():
    lightness = attention_plots.colours(torch.linspace(0, 1, 50)) @ torch.tensor([0.2126, 0.7152, 0.0722])
    assert (lightness.diff() > 0).all()


@pytest.mark.parametrize("blocks", [1, 40])
def test_plots_have_a_row_per_block(blocks):
    record = AttentionRecord("all", "all")
    at = options(1, 0) | {"total_blocks": blocks}
    for block in range(blocks):
        attend(record, at | {"block_index": block}, seed=block)
    picture = attention_plots.plots(record, 1)
    assert picture.shape[0] == 1 and picture.shape[3] == 3 and picture.isfinite().all()
    heat = attention_plots.heat_of(record, 1, None, None)
    one_head = attention_plots.heat_of(record, 1, 0, 1)
    assert heat.shape == GRID and set(one_head.unique().tolist()) == {0.0, 1.0}
    assert heat.mean() == pytest.approx(one_head.mean(), abs=0.1)
