"""Blocks, counts and settings."""

import math

import pytest

from liveditor.kernels import reference
from liveditor.liveditor_core.attention.config import SparseAttentionConfig
from liveditor.liveditor_core.attention.token_layout import TokenLayout

RECORD = TokenLayout(target=42_840, source=42_840)  # 960x544, 81 frames


@pytest.mark.parametrize("target", [1, 2, 63, 64, 65, 127, 128, 200])
@pytest.mark.parametrize("source", [1, 2, 63, 64, 65, 130])
@pytest.mark.parametrize("block_size", [16, 64])
def test_kv_blocks_cover_every_token_once_and_none_holds_both_streams(target, source, block_size):
    layout = TokenLayout(target, source, block_size)
    blocks = [layout.kv_block(j) for j in range(layout.num_kv_blocks)]
    assert [t for start, end in blocks for t in range(start, end)] == list(range(target + source))
    for j, (start, end) in enumerate(blocks):
        assert 0 < end - start <= block_size
        assert (end <= target) == (j < layout.num_target_kv_blocks)
    starts = reference.kv_block_starts(
        tokens=layout.tokens, target=target, block_size=block_size, device="cpu"
    ).tolist()
    assert starts == [start for start, _ in blocks] + [layout.tokens]
    assert layout.has_tails == any(end - start < block_size for start, end in blocks)
    assert (
        layout.num_target_blocks + layout.num_source_blocks
        == layout.num_blocks
        == math.ceil(layout.tokens / block_size)
    )
    assert layout.query_block(layout.num_blocks - 1)[1] == layout.tokens


def test_counts_at_the_shape_of_record():
    counts = SparseAttentionConfig().counts(RECORD)
    assert (RECORD.num_blocks, RECORD.num_target_blocks, RECORD.num_source_blocks, RECORD.num_target_kv_blocks) == (
        1339,
        669,
        670,
        670,
    )
    assert (counts.kept_source, counts.sharpness_top, counts.dense_queries, counts.exact_kv) == (83, 41, 669, 47)


def test_counts_at_the_ends():
    layout = TokenLayout(640, 640)
    none = SparseAttentionConfig(0.0, 0.0, 0.0).counts(layout)
    assert (none.kept_source, none.sharpness_top, none.dense_queries, none.exact_kv) == (0, 1, 0, 1)
    everything = SparseAttentionConfig(1.0, 1.0, 1.0).counts(layout)
    assert (everything.kept_source, everything.sharpness_top, everything.dense_queries, everything.exact_kv) == (
        10,
        10,
        20,
        20,
    )
    assert SparseAttentionConfig(source_keep_ratio=0.01).counts(layout).kept_source == 1


def test_share_of_dense_attention():
    assert SparseAttentionConfig().dense_fraction(RECORD) == pytest.approx(0.303, abs=1e-3)
    assert SparseAttentionConfig(backend="dense").dense_fraction(RECORD) == 1.0
    assert SparseAttentionConfig(1.0, 1.0, 1.0).dense_fraction(RECORD) == pytest.approx(1.0, abs=1e-3)
    assert SparseAttentionConfig().dense_fraction(TokenLayout(30, 30)) == 1.0


@pytest.mark.parametrize(
    "field, label", [("exact_kv_ratio", "SAR"), ("source_keep_ratio", "SRR"), ("dense_query_ratio", "flat ratio")]
)
@pytest.mark.parametrize("value", [-0.01, 1.01, math.nan])
def test_ratios_outside_0_to_1_are_refused(field, label, value):
    with pytest.raises(ValueError, match=f"{label} must lie between 0 and 1, got"):
        SparseAttentionConfig(**{field: value})


def test_unknown_names_are_refused():
    with pytest.raises(ValueError, match="backend must be one of auto, triton"):
        SparseAttentionConfig(backend="cuda")
    with pytest.raises(ValueError, match="sharpest, flattest"):
        SparseAttentionConfig(dense_first="roundest")
    for bits in (4, "8", None):
        with pytest.raises(ValueError, match=f"precision must be 16 or 8 bit, got {bits!r}"):
            SparseAttentionConfig(attention_bits=bits)
    with pytest.raises(ValueError, match="source must be at least 1, got 0"):
        TokenLayout(64, 0)


def test_settings_travel_as_scalars():
    config = SparseAttentionConfig.from_settings(
        sar=0.1, srr=0.2, flat_ratio=0.3, dense_half="flattest", backend="pytorch", bits=8
    )
    options = config.to_options()
    assert all(isinstance(value, (str, float, int)) for value in options.values())
    assert SparseAttentionConfig.from_options({"liveditor": options}) == config
    assert config.attention_bits == 8
    assert SparseAttentionConfig.from_options({}) == SparseAttentionConfig()
    assert SparseAttentionConfig.from_options({"liveditor": {"backend": "dense"}}).attention_bits == 16
