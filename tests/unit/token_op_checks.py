"""Checks of the Triton token operations against the plain ones, for the interpreter and for a GPU."""

import os

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


def check_add_and_quantise(kernels, shape, device, dtype):
    """To one step of fp8: another order of a sum may round to the neighbouring number."""
    for part in (False, True):
        for with_update, in_place in ((False, False), (True, True)):
            x, update, gate, scale, shift = tensors(shape, device, dtype, part)
            update, gate = (update, gate) if with_update else (None, None)
            scale = 200 * scale  # far beyond what fp8 holds
            probe = torch.randn(shape[2], generator=torch.Generator().manual_seed(2)).to(device)
            divisor = torch.tensor(2.5, device=device)
            how = {"gate": gate, "scale": scale, "shift": shift, "eps": 1e-6, "divisor": divisor, "probe": probe}
            expected = token_ops.add_and_quantise(x.double(), update, **how)
            total, out, dots = kernels.add_and_quantise(x, update, in_place=in_place, **how)
            close(total, expected[0], 1e-6)
            assert out.dtype == torch.float8_e4m3fn and out.is_contiguous()
            assert_fp8_close(out, expected[1])
            close(dots, expected[2], 1e-5)
            assert (total.data_ptr() == x.data_ptr()) == (in_place or not with_update)
            without = kernels.add_and_quantise(x, None, in_place=False, **how | {"probe": None, "gate": None})
            assert without[2] is None


def check_gelu_and_quantise(kernels, shape, device, dtype):
    x = 300 * torch.randn(shape[:3], generator=torch.Generator().manual_seed(3))
    x[0, :3] /= 300  # where it bends
    x = x.to(device, dtype)
    divisor = torch.tensor(1.5, device=device)
    out = kernels.gelu_and_quantise(x, divisor=divisor)
    assert out.dtype == torch.float8_e4m3fn and out.shape == x.shape
    assert out.float().isfinite().all() and out.float().max() == 448
    assert_fp8_close(out, token_ops.gelu_and_quantise(x.double(), divisor=divisor))


def assert_fp8_close(ours, expected):
    ours, expected = ours.float(), expected.float()
    if os.environ.get("TRITON_INTERPRET") == "1":  # it halves what it rounds up to a power of two
        ours = torch.where((expected.frexp()[0].abs() == 0.5) & (2 * ours == expected), expected, ours)
    apart = (ours - expected).abs()
    assert (apart <= torch.maximum(expected.abs() / 8, torch.tensor(2.0**-9, device=apart.device))).all()
    assert (apart > 0).float().mean() < 0.01


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
