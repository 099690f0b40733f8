"""The Triton token operations on a GPU."""

import pytest
import token_op_checks
import torch
from token_op_checks import SHAPES

from liveditor.kernels import token_ops

pytestmark = pytest.mark.gpu
DEVICE = torch.device("cuda")
TOLERANCE = {torch.float16: 1e-3, torch.bfloat16: 4e-3}


@pytest.mark.parametrize("dtype", TOLERANCE, ids=str)
@pytest.mark.parametrize("shape", [*SHAPES, (1, 3001, 5120, 128), (2, 700, 1536, 128)], ids=str)
def test_against_the_plain_ones(shape, dtype):
    from liveditor.kernels.triton_backend import token_ops as triton_token_ops

    token_op_checks.check_add_and_normalise(triton_token_ops, shape, DEVICE, dtype, TOLERANCE[dtype])
    token_op_checks.check_add(triton_token_ops, shape, DEVICE, dtype)
    token_op_checks.check_normalise_and_rotate(triton_token_ops, shape, DEVICE, dtype, TOLERANCE[dtype])
    token_op_checks.check_add_and_quantise(triton_token_ops, shape, DEVICE, dtype)
    token_op_checks.check_gelu_and_quantise(triton_token_ops, shape, DEVICE, dtype)


def test_what_they_are_used_for():
    x, update, gate, scale, shift = token_op_checks.tensors(SHAPES[0], DEVICE, torch.bfloat16, part=False)
    with torch.inference_mode():
        assert token_ops._kernels(x, update) is not None
        assert token_ops._kernels(x.double(), update) is None
        assert token_ops.add(x, update, gate=gate, in_place=True).data_ptr() == x.data_ptr()
        per_token = torch.randn(1, x.shape[1], x.shape[2], device=DEVICE)
        total, out = token_ops.add_and_normalise(
            x, update, gate=per_token, scale=scale, shift=shift, eps=1e-6, dtype=torch.bfloat16
        )
        torch.testing.assert_close(total, x + update * per_token)
    assert token_ops._kernels(x, update) is None, "training needs gradients"


def test_offsets_past_2_to_the_31():
    """B * N * C > 2^31: the last token must be right."""
    tokens, channels = 450_000, 5120
    x = torch.zeros(1, tokens, channels, dtype=torch.float32, device=DEVICE)
    x[0, -1] = 3.0
    update = torch.ones(1, tokens, channels, dtype=torch.bfloat16, device=DEVICE)
    assert x.numel() > 2**31
    with torch.inference_mode():
        token_ops.add(x, update, in_place=True)
    assert x[0, -1].eq(4).all() and x[0, -2].eq(1).all()
