"""Sums, norms and rotations.

The plain ones against the host-independent definition, the Triton ones against the plain ones.
"""

import types

import pytest
import token_op_checks
import torch
from token_op_checks import SHAPES

from liveditor.kernels import token_ops

triton = pytest.importorskip("triton", reason="Triton has no wheel for this system")

from liveditor.kernels.triton_backend import token_ops as triton_token_ops  # noqa: E402


def test_the_triton_kernels_are_found_where_they_can_run(monkeypatch):
    """As far as this can be seen without a GPU: a tensor that says it lies on one."""
    monkeypatch.setattr(token_ops, "unavailable_reason", lambda name, device: None)
    x = types.SimpleNamespace(device=torch.device("cuda", 0), shape=(1, 70, 256), dtype=torch.float32)
    with torch.inference_mode():
        assert token_ops._kernels(x) is triton_token_ops
    assert token_ops._kernels(x) is None, "training needs gradients"


def test_the_plain_operations():
    x, update, gate, scale, shift = token_op_checks.tensors(SHAPES[1], "cpu", torch.float32, part=True)
    total, out = token_ops.add_and_normalise(
        x, update, gate=gate, scale=scale, shift=shift, eps=1e-6, dtype=torch.float32
    )
    wanted = x + update * gate
    torch.testing.assert_close(total, wanted)
    normal = (wanted - wanted.mean(-1, keepdim=True)) / (wanted.var(-1, keepdim=True, unbiased=False) + 1e-6).sqrt()
    torch.testing.assert_close(out, normal * scale + shift, atol=1e-5, rtol=1e-5)
    # A rotation of every pair: as complex numbers of length one.
    angle = torch.randn(1, 7, 1, 32)
    rotations = torch.stack([angle.cos(), -angle.sin(), angle.sin(), angle.cos()], dim=-1).unflatten(-1, (2, 2))
    x, weight = torch.randn(2, 7, 128), torch.randn(128)
    out = token_ops.normalise_and_rotate(x, weight=weight, rotations=rotations, eps=1e-6)
    normal = (x * weight / (x.square().mean(-1, keepdim=True) + 1e-6).sqrt()).view(2, 7, 2, 32, 2)
    wanted = torch.view_as_real(torch.view_as_complex(normal) * torch.polar(torch.ones_like(angle), angle)).flatten(-2)
    torch.testing.assert_close(out, wanted, atol=1e-5, rtol=1e-5)


def test_the_plain_ones_in_fp8():
    """Divided, kept within what fp8 holds, rounded to three bits."""
    x = torch.tensor([[[1.0, -1.0, 3.0, -3.0]]])
    one, none = torch.ones(1, 1, 4), torch.zeros(1, 1, 4)
    total, out, dot = token_ops.add_and_quantise(
        x, scale=1000 * one, shift=none, eps=0.0, divisor=torch.tensor(2.0), probe=torch.tensor([1.0, 0, 0, 0])
    )
    assert torch.equal(total, x)
    assert out.float().tolist() == [[[224.0, -224.0, 448.0, -448.0]]]  # 223.6 and 670.8
    assert dot.item() == pytest.approx(1000 / 5**0.5)
    out = token_ops.gelu_and_quantise(torch.tensor([[[-20.0, 1.0, 40.0, 4000.0]]]), divisor=torch.tensor(4.0))
    assert out.float().tolist() == [[[0.0, 0.203125, 10.0, 448.0]]]


@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_the_triton_kernels_interpreted(shape):
    assert triton.knobs.runtime.interpret
    token_op_checks.check_add_and_normalise(triton_token_ops, shape, "cpu", torch.float16, tolerance=1e-3)
    token_op_checks.check_add(triton_token_ops, shape, "cpu", torch.float16)
    token_op_checks.check_normalise_and_rotate(triton_token_ops, shape, "cpu", torch.float16, tolerance=1e-3)
    token_op_checks.check_add_and_quantise(triton_token_ops, shape, "cpu", torch.float16)
    token_op_checks.check_gelu_and_quantise(triton_token_ops, shape, "cpu", torch.float16)
