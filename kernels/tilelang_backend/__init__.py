"""Every operation in TileLang, for fp16 and bf16 on NVIDIA GPUs; what each means is said in `reference.py`.

Kernels are compiled per number of heads, head dim and dtype, and in steps of a third to a half for rows that lie in
registers, never per length. Tensors are read as [B, N, H, D]: views of that layout as they are, any other after a copy.
TileLang widens offsets to 64 bits wherever a length is not known to it.
"""

import logging

logging.getLogger("tilelang.env").setLevel(logging.ERROR)  # it warns of a library that only AMD GPUs need

from .attention import sparse_attention  # noqa: E402
from .gathers import gather_kv_set, gather_query_blocks, write_query_blocks  # noqa: E402
from .means import block_means  # noqa: E402
from .selection import choose_exact, softmax_with_top_sums, split_largest  # noqa: E402

__all__ = [
    "block_means",
    "choose_exact",
    "gather_kv_set",
    "gather_query_blocks",
    "softmax_with_top_sums",
    "sparse_attention",
    "split_largest",
    "write_query_blocks",
]
