"""The operations of in-context sparse attention, each in several backends of one signature.

`dispatch` chooses; `reference` defines what every operation means; `dense` finds the fastest dense attention;
`token_ops` is what the transformer does to every token alone around it.
"""

from . import token_ops
from .dense import available as available_dense_attention
from .dense import dense_attention
from .dispatch import BackendUnavailable, choose_backend, is_measured, sparse_from_tokens
from .reference import SparseBlocks

__all__ = [
    "BackendUnavailable",
    "SparseBlocks",
    "available_dense_attention",
    "choose_backend",
    "dense_attention",
    "is_measured",
    "sparse_from_tokens",
    "token_ops",
]
