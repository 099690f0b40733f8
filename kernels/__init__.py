"""The operations of in-context sparse attention, each in several backends of one signature.

`dispatch` chooses; `reference` defines what every operation means; `dense` finds the fastest dense attention, as
`dense_timing` timed it on the card at hand; `token_ops` is what the transformer does to every token alone around it.
"""

from . import token_ops
from .dense import dense_kernel, fastest_dense, times_as_fast
from .dispatch import BackendUnavailable, choose_backend, is_measured, sparse_from_tokens
from .reference import SparseBlocks

__all__ = [
    "BackendUnavailable",
    "SparseBlocks",
    "choose_backend",
    "dense_kernel",
    "fastest_dense",
    "is_measured",
    "sparse_from_tokens",
    "times_as_fast",
    "token_ops",
]
