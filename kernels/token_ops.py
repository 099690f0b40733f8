"""What happens to every token alone between the matrix products: residual sums, norms, rotations.

Each is one pass over the tokens where Triton runs, instead of one per operation; the plain PyTorch here says what
they mean.
"""

import torch

from .dispatch import HALF, unavailable_reason

WIDEST = 16_384  # a row is held in registers
LARGEST_FP8 = torch.finfo(torch.float8_e4m3fn).max


def _kernels(x, *others):
    """The Triton kernels, where they can run on these tensors; they are no part of compiled graphs or of training."""
    if x.device.type != "cuda" or torch.compiler.is_compiling() or torch.is_grad_enabled() or x.shape[-1] > WIDEST:
        return None
    dtypes = {tensor.dtype for tensor in (x, *others) if tensor is not None}
    if not dtypes <= {torch.float32, *HALF} or unavailable_reason("triton", x.device) is not None:
        return None
    from .triton_backend import token_ops

    return token_ops


def add_and_normalise(x, update=None, *, gate=None, scale, shift, eps, dtype, in_place=False):
    """Add an update to the residual stream and give its LayerNorm, scaled and shifted, to the next layer.

    Args:
        x: [B, N, C] fp32.
        update: [B, N, C] of any float type, or None.
        gate: [B or 1, 1 or N, C] fp32 that the update is multiplied by, or None.
        scale, shift: [B or 1, 1 or N, C] fp32.
        eps: of the norm.
        dtype: of the second result.
        in_place: write the sum over x.

    Returns:
        x + gate * update, and its LayerNorm * scale + shift in `dtype`; both [B, N, C].
    """
    kernels = _kernels(x, update)
    if kernels is not None and all(t is None or t.shape[1] == 1 for t in (gate, scale, shift)):
        return kernels.add_and_normalise(
            x, update, gate=gate, scale=scale, shift=shift, eps=eps, dtype=dtype, in_place=in_place
        )
    if update is not None:
        x = add(x, update, gate=gate, in_place=in_place)
    return x, torch.addcmul(shift, torch.nn.functional.layer_norm(x, x.shape[-1:], eps=eps), scale).to(dtype)


def add(x, update, *, gate=None, in_place=False):
    """The first result of `add_and_normalise` alone.  # [B, N, C]"""
    kernels = _kernels(x, update)
    if kernels is not None and (gate is None or gate.shape[1] == 1):
        return kernels.add(x, update, gate=gate, in_place=in_place)
    if in_place:
        return x.add_(update) if gate is None else x.addcmul_(update, gate)
    return x + update if gate is None else torch.addcmul(x, update, gate)


def can_quantise(device) -> bool:
    """Whether `add_and_quantise` and `gelu_and_quantise` are one pass over the tokens there, at inference."""
    return (
        device.type == "cuda"
        and unavailable_reason("triton", device) is None
        and torch.cuda.get_device_capability(device) >= (8, 9)
    )


def add_and_quantise(x, update=None, *, gate=None, scale, shift, eps, divisor, probe=None, in_place=False):
    """`add_and_normalise` with its second result in fp8.

    Args:
        divisor: scalar, fp32, that the second result is divided by before it is rounded.
        probe: [C] fp32 whose product with each token is the third result, or None for none.

    Returns:
        [B, N, C] fp32, [B, N, C] float8_e4m3fn, and [B, N] fp32 or None.
    """
    kernels = _kernels(x, update)
    if kernels is not None and all(t is None or t.shape[1] == 1 for t in (gate, scale, shift)):
        return kernels.add_and_quantise(
            x, update, gate=gate, scale=scale, shift=shift, eps=eps, divisor=divisor, probe=probe, in_place=in_place
        )
    x, y = add_and_normalise(x, update, gate=gate, scale=scale, shift=shift, eps=eps, dtype=x.dtype, in_place=in_place)
    return x, _fp8(y / divisor), None if probe is None else y @ probe.to(y)


def gelu_and_quantise(x, *, divisor):
    """The tanh GELU in fp8.

    Args:
        x: [..., C], contiguous.
        divisor: scalar, fp32, that it is divided by before it is rounded.

    Returns:
        float8_e4m3fn of the same shape.
    """
    kernels = _kernels(x[..., :1])
    if kernels is not None:
        return kernels.gelu_and_quantise(x, divisor=divisor)
    return _fp8(torch.nn.functional.gelu(x.float(), approximate="tanh") / divisor)


def _fp8(x):
    return x.clamp(-LARGEST_FP8, LARGEST_FP8).to(torch.float8_e4m3fn)


def normalise_and_rotate(x, *, weight, rotations, eps):
    """RMSNorm over the channels of all heads, then rotary position embedding of every head. May write over x.

    Args:
        x: [B, N, H * D].
        weight: [H * D], of the norm.
        rotations: [1, N, 1, D / 2, 2, 2] fp32, a rotation of every pair of neighbouring channels.
        eps: of the norm.

    Returns:
        [B, N, H, D], dtype of x.
    """
    pairs = rotations.shape[3]
    kernels = _kernels(x)
    if kernels is not None and rotations.shape[0] == 1:
        return kernels.normalise_and_rotate(x, weight=weight, rotations=rotations, eps=eps).unflatten(
            -1, (-1, 2 * pairs)
        )
    x = torch.nn.functional.rms_norm(x, x.shape[-1:], weight.to(x.dtype), eps)
    a, b = x.unflatten(-1, (-1, pairs, 2)).to(rotations.dtype).unbind(-1)
    return (
        torch.stack(
            [a * rotations[..., 0, 0] + b * rotations[..., 0, 1], a * rotations[..., 1, 0] + b * rotations[..., 1, 1]],
            dim=-1,
        )
        .flatten(-2)
        .to(x.dtype)
    )
