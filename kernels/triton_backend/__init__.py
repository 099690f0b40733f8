"""Every operation in Triton, for fp16 and bf16 on NVIDIA GPUs; what each means is said in `reference.py`.

Tensors are read where they lie, through strides and block indices. Sequence lengths are run-time arguments that Triton
must not specialise on, so a new clip length compiles nothing but, past the next power of two, the kernels that hold a
row of block scores. Sums and softmax are fp32. Offsets that can pass 2^31 are int64. The last stride of every tensor
is 1.
"""

from .attention import sparse_attention
from .gathers import gather_kv_set, gather_query_blocks, write_query_blocks
from .means import block_means
from .selection import choose_exact, softmax_with_top_sums, split_largest

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
