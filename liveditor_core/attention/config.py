"""The settings of in-context sparse attention: what users turn, what the code reads, and what travels with a model."""

from dataclasses import asdict, dataclass

from .token_layout import TokenLayout

OPTIONS_KEY = "liveditor"
BACKENDS = ("auto", "triton", "tilelang", "pytorch", "dense")
DENSE_FIRST = ("sharpest", "flattest")
ATTENTION_BITS = (16, 8)


@dataclass(frozen=True)
class BlockCounts:
    """How many blocks each rule of the method picks for one sequence."""

    kept_source: int
    sharpness_top: int
    dense_queries: int
    exact_kv: int


@dataclass(frozen=True)
class SparseAttentionConfig:
    """Settings of in-context sparse attention; the defaults are those LIVEditor-14B was released with.

    Args:
        exact_kv_ratio: share of the KV blocks that a sparse query block attends exactly (users see SAR).
        source_keep_ratio: share of the source blocks that every head keeps (users see SRR).
        dense_query_ratio: share of the query blocks that attend densely (users see flat ratio).
        dense_first: which end of the sharpness order attends densely, `sharpest` or `flattest`.
        backend: `auto`, `triton`, `tilelang`, `pytorch`, or `dense` for attention of everything to everything.
        attention_bits: 16, or 8 where q, k and v of the dense half may be quantised if that is faster.

    Raises:
        ValueError: a ratio outside 0..1, an unknown name or number of bits.
    """

    exact_kv_ratio: float = 0.0625
    source_keep_ratio: float = 0.125
    dense_query_ratio: float = 0.5
    dense_first: str = "sharpest"
    backend: str = "auto"
    attention_bits: int = 16

    def __post_init__(self):
        for name, label in (
            ("exact_kv_ratio", "SAR"),
            ("source_keep_ratio", "SRR"),
            ("dense_query_ratio", "flat ratio"),
        ):
            value = getattr(self, name)
            if not 0.0 <= value <= 1.0:  # also refuses NaN
                raise ValueError(f"Sparse attention: {label} must lie between 0 and 1, got {value}.")
        if self.dense_first not in DENSE_FIRST:
            raise ValueError(
                f"Sparse attention: the dense half must be one of {', '.join(DENSE_FIRST)}, got {self.dense_first!r}."
            )
        if self.backend not in BACKENDS:
            raise ValueError(f"Sparse attention: backend must be one of {', '.join(BACKENDS)}, got {self.backend!r}.")
        if self.attention_bits not in ATTENTION_BITS:
            raise ValueError(f"Sparse attention: precision must be 16 or 8 bit, got {self.attention_bits!r}.")

    @classmethod
    def from_settings(
        cls, *, sar: float, srr: float, flat_ratio: float, dense_half: str, backend: str, bits: int = 16
    ) -> "SparseAttentionConfig":
        """The one place where the words that users see become the names that the code uses."""
        return cls(
            exact_kv_ratio=sar,
            source_keep_ratio=srr,
            dense_query_ratio=flat_ratio,
            dense_first=dense_half,
            backend=backend,
            attention_bits=bits,
        )

    @classmethod
    def from_options(cls, transformer_options: dict) -> "SparseAttentionConfig":
        """Read the settings that a model carries in `transformer_options`; the released ones if it carries none."""
        return cls(**transformer_options.get(OPTIONS_KEY, {}))

    def to_options(self) -> dict:
        """A flat dict of scalars for `transformer_options[OPTIONS_KEY]`."""
        return asdict(self)

    def counts(self, layout: TokenLayout) -> BlockCounts:
        """Turn the ratios into block counts for one sequence; nothing else rounds a ratio."""
        kept = 0
        if self.source_keep_ratio > 0:
            kept = max(1, int(layout.num_source_blocks * self.source_keep_ratio))
        return BlockCounts(
            kept_source=kept,
            sharpness_top=max(1, int(layout.num_target_blocks * self.exact_kv_ratio)),
            dense_queries=int(layout.num_blocks * self.dense_query_ratio),
            exact_kv=max(1, int((layout.num_target_kv_blocks + kept) * self.exact_kv_ratio)),
        )

    def dense_fraction(self, layout: TokenLayout) -> float:
        """Share of dense attention's multiply-adds that these settings leave, counted in whole blocks."""
        if self.backend == "dense" or layout.num_target_blocks == 0:
            return 1.0
        counts = self.counts(layout)
        kv_blocks = layout.num_target_kv_blocks + counts.kept_source
        sparse_queries = layout.num_blocks - counts.dense_queries
        mean_blocks = (kv_blocks - counts.exact_kv) / layout.block_size
        work = counts.dense_queries * kv_blocks + sparse_queries * (counts.exact_kv + mean_blocks)
        return min(1.0, work / layout.num_blocks**2)
