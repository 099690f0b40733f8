"""Checks of the Triton token operations against the plain ones, for the interpreter and for a GPU."""

import torch
from backend_checks import close

from liveditor.kernels import token_ops

SHAPES = [(1, 70, 256, 128), (2, 33, 384, 64), (2, 5, 640, 128)]  # batch, tokens, channels, head dim


def tensors(shape, device, dtype, part):
    """A residual stream, an update and three vectors; with `part`, views of the middle of longer sequences."""
    batch, tokens, channels, _ = shape
    generator = torch.Generator().manual_seed(0)
    x = 3 * torch.randn(batch, tokens + 9, channels, generator=generator) + 1
    update = torch.randn(batch, tokens + 9, channels, generator=generator)
    if part:
        x, update = x.to(device)[:, 4:-5], update.to(device, dtype)[:, 4:-5]
    else:
        x, update = x[:, 9:].contiguous().to(device), update[:, 9:].contiguous().to(device, dtype)
    gate, scale, shift = torch.randn(3, batch, 1, channels, generator=generator).to(device)
    return x, update, gate, scale[:1], shift


def check_add_and_normalise(kernels, shape, device, dtype, tolerance):
    for part in (False, True):
        for with_update, with_gate, in_place in (
            (False, False, False),
            (True, True, False),
            (True, True, True),
            (True, False, True),
        ):
            x, update, gate, scale, shift = tensors(shape, device, dtype, part)
            update, gate = update if with_update else None, gate if with_gate else None
            expected = token_ops.add_and_normalise(
                x.double(), update, gate=gate, scale=scale, shift=shift, eps=1e-6, dtype=torch.float64
            )
            original = x.clone()
            total, out = kernels.add_and_normalise(
                x, update, gate=gate, scale=scale, shift=shift, eps=1e-6, dtype=dtype, in_place=in_place
            )
            close(total, expected[0], 1e-6)
            close(out, expected[1], tolerance)
            assert out.dtype == dtype and out.is_contiguous()
            assert (total.data_ptr() == x.data_ptr()) == (in_place or not with_update)
            assert in_place or torch.equal(x, original)


def check_add(kernels, shape, device, dtype):
    for part in (False, True):
        for with_gate in (False, True):
            for in_place in (False, True):
                x, update, gate, *_ = tensors(shape, device, dtype, part)
                gate = gate if with_gate else None
                expected = token_ops.add(x.double(), update, gate=gate)
                total = kernels.add(x, update, gate=gate, in_place=in_place)
                close(total, expected, 1e-6)
                assert (total.data_ptr() == x.data_ptr()) == in_place


def check_normalise_and_rotate(kernels, shape, device, dtype, tolerance):
    batch, tokens, channels, dim = shape
    generator = torch.Generator().manual_seed(1)
    angle = torch.randn(1, tokens, 1, dim // 2, generator=generator)
    rotations = (
        torch.stack([angle.cos(), -angle.sin(), angle.sin(), angle.cos()], dim=-1).unflatten(-1, (2, 2)).to(device)
    )
    weight = torch.randn(channels, generator=generator).to(device)
    x = (2 * torch.randn(batch, tokens, channels, generator=generator)).to(device, dtype)
    expected = token_ops.normalise_and_rotate(x.double(), weight=weight, rotations=rotations.double(), eps=1e-6)
    out = kernels.normalise_and_rotate(x, weight=weight, rotations=rotations, eps=1e-6)
    close(out.view(expected.shape), expected, tolerance)
