"""Where the target's and the source's tokens lie in the sequence, and how it is cut into blocks."""

from dataclasses import dataclass


@dataclass(frozen=True)
class TokenLayout:
    """The sequence `[target tokens | source tokens]`, cut into blocks of consecutive tokens.

    Query blocks are cut every `block_size` tokens over the whole sequence; the last may be short.
    Where `target` is no multiple of `block_size`, the query block over the border counts as a source block.
    KV blocks are cut at the border as well, so that every token belongs to exactly one of them and none
    holds tokens of both streams (`Boundary rule` of the method: exact tails).

    Args:
        target: number of target tokens, at least 1.
        source: number of source tokens, at least 1.
        block_size: tokens per block.

    Raises:
        ValueError: a count is below 1.
    """

    target: int
    source: int
    block_size: int = 64

    def __post_init__(self):
        for name in ("target", "source", "block_size"):
            if getattr(self, name) < 1:
                raise ValueError(f"TokenLayout: {name} must be at least 1, got {getattr(self, name)}.")

    @property
    def tokens(self) -> int:
        return self.target + self.source

    @property
    def num_blocks(self) -> int:
        return -(-self.tokens // self.block_size)

    @property
    def num_target_blocks(self) -> int:
        """Query blocks that hold target tokens only."""
        return self.target // self.block_size

    @property
    def num_source_blocks(self) -> int:
        """All other query blocks, the one over the border included."""
        return self.num_blocks - self.num_target_blocks

    @property
    def num_target_kv_blocks(self) -> int:
        return -(-self.target // self.block_size)

    @property
    def num_kv_blocks(self) -> int:
        return self.num_target_kv_blocks + self.num_source_blocks

    @property
    def has_tails(self) -> bool:
        """Whether any KV block is shorter than `block_size`."""
        return self.target % self.block_size > 0 or self.tokens % self.block_size > 0

    def query_block(self, index: int) -> tuple[int, int]:
        """First token and one past the last of a query block."""
        start = index * self.block_size
        return start, min(start + self.block_size, self.tokens)

    def kv_block(self, index: int) -> tuple[int, int]:
        """First token and one past the last of a KV block: target blocks first, then source blocks."""
        if index < self.num_target_kv_blocks:
            start = index * self.block_size
            return start, min(start + self.block_size, self.target)
        start = (self.num_target_blocks + index - self.num_target_kv_blocks) * self.block_size
        return max(start, self.target), min(start + self.block_size, self.tokens)
