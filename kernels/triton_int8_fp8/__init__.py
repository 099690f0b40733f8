"""Dense attention for Hopper with scores in int8 and values in fp8.

q, k and v are rotated and quantised once (`quantise`), then one kernel with a producer and two consumers attends
(`attention`).
"""

import torch

from .quantise import quantise


def int8_fp8_attention(q, k, v):
    """Attention of every query to every key on a Hopper GPU, scores in int8, weights and values in fp8.

    Args:
        q: [B, H, Q, D] fp16 or bf16, D 64 or 128; k, v: [B, H, K, D], any lengths and strides.

    Returns:
        [B, H, Q, D], dtype of q, the heads of a token side by side.

    Raises:
        RuntimeError: not a Hopper GPU.
        ModuleNotFoundError: a Triton without Gluon, its language for kernels in this detail.
    """
    if torch.cuda.get_device_capability(q.device)[0] != 9:
        raise RuntimeError("needs a Hopper GPU")
    from .attention import attend

    q, k, v = (x if x.stride(-1) == 1 else x.contiguous() for x in (q, k, v))
    batch, heads, queries, dim = q.shape
    out = torch.empty(batch, queries, heads, dim, dtype=q.dtype, device=q.device).transpose(1, 2)
    attend(*quantise(q, k, v), out, keys=k.shape[2])
    return out


__all__ = ["int8_fp8_attention"]
