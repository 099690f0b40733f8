"""Our dense attention in 8 bits on a Hopper GPU, against fp32: needs torch, Triton and pytest, not ComfyUI."""

import pytest
import torch
from backend_checks import ACTIVATION_NAMES, Case

from liveditor.kernels.triton_int8_fp8 import int8_fp8_attention

DEVICE = torch.device("cuda")
pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(torch.cuda.get_device_capability()[0] != 9, reason="needs a Hopper GPU"),
]


def error(q, k, v):
    out = int8_fp8_attention(q, k, v)
    exact = torch.softmax(q.float() @ k.float().transpose(-1, -2) * q.shape[-1] ** -0.5, -1) @ v.float()
    assert out.shape == q.shape and out.dtype == q.dtype and out.isfinite().all()
    return ((out.float() - exact).norm() / exact.norm()).item()


def random(batch, heads, queries, keys, dim, dtype=torch.bfloat16, seed=0):
    generator = torch.Generator(DEVICE).manual_seed(seed)
    return (
        torch.randn(batch, n, heads, dim, device=DEVICE, generator=generator).to(dtype).transpose(1, 2)
        for n in (queries, keys, keys)
    )


@pytest.mark.parametrize("dim", [64, 128])
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=str)
@pytest.mark.parametrize(
    "queries, keys",
    [
        (1, 1),
        (65, 64),
        (64, 128),
        (1, 129),
        (63, 255),
        (64, 256),
        (65, 257),
        (127, 300),
        (128, 384),
        (129, 385),
        (1000, 1513),
    ],
)
def test_any_lengths(queries, keys, dtype, dim):
    assert error(*random(2, 3, queries, keys, dim, dtype)) < 0.045


@pytest.mark.parametrize("dim", [64, 128])
def test_sharp_scores(dim):
    """One key takes nearly all: the answer is its value, as exact as fp8 holds it."""
    q, k, v = random(1, 4, 500, 700, dim)
    assert error(8 * q, k, v) < 0.05


@pytest.mark.parametrize("dim", [64, 128])
def test_keys_with_a_mean_and_channels_that_stand_out(dim):
    q, k, v = random(1, 4, 500, 700, dim)
    k, q, v = k + 4, q.clone(), v.clone()
    q[..., 3] *= 20
    k[..., 7] *= 20
    v[..., 5] *= 1000
    assert error(q, k, v) < 0.06


def test_keys_that_are_all_the_same():
    q, k, v = random(1, 2, 200, 300, 128)
    assert error(q, k[:, :, :1].expand_as(k), v) < 0.045


def test_nothing_is_read_past_the_end():
    """Padding of the last tile has no weight, whatever lies there."""
    q, k, v = random(1, 2, 200, 512, 128)
    assert error(q, k[:, :, :300], v[:, :, :300]) < 0.045
    k[:, :, 300:], v[:, :, 300:] = float("nan"), float("nan")
    assert error(q, k[:, :, :300], v[:, :, :300]) < 0.045


@pytest.mark.parametrize("name", ACTIVATION_NAMES)
def test_on_what_the_small_model_computes(name):
    case = Case.recorded(name, torch.bfloat16, DEVICE)
    found = error(case.q, case.k, case.v)
    print(f"{name}: {found:.4f}")
    assert found < 0.035


def test_the_same_again():
    q, k, v = random(1, 8, 2048, 4096, 128)
    first = int8_fp8_attention(q, k, v)
    assert all(torch.equal(first, int8_fp8_attention(q, k, v)) for _ in range(5))
