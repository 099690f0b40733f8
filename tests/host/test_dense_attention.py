"""Which dense attention computes the dense half: the user's choice, else the fastest at hand; and what reports say."""

import functools

import pytest
import torch

import comfy.ldm.modules.attention as host_attention
from comfy.cli_args import args
from comfy.ldm.modules.attention import attention_pytorch
from liveditor.kernels import dense_attention as fastest_attention
from liveditor.liveditor_core.model import dense_attention

GPU, CPU = torch.device("cuda", 0), torch.device("cpu")
HOPPER = ("flash-attn-4", "cudnn", "flash-attn-2", "sdpa")


def attention_xformers(q, k, v, **kwargs):
    return q


def attention_sage(q, k, v, **kwargs):
    return q


@pytest.fixture
def choose(monkeypatch):
    """Choose on a GPU with these dense kernels, where the host by itself would use `default`."""

    def make(options=None, *, default=attention_pytorch, kernels=HOPPER, flag=None, dtype=torch.bfloat16):
        monkeypatch.setattr(dense_attention, "available_dense_attention", lambda device: kernels)
        monkeypatch.setattr(dense_attention, "optimized_attention", default)
        if flag:
            monkeypatch.setattr(args, flag, True, raising=False)
        return dense_attention.choose_dense_attention(options or {}, GPU, dtype)

    return make


def test_what_is_merely_installed_is_no_choice(choose):
    for default in (attention_pytorch, attention_xformers):
        chosen = choose(default=default)
        assert chosen.name == "flash-attn-4" and chosen.attend is fastest_attention and chosen.is_ours


@pytest.mark.parametrize(
    "flag, default",
    [
        ("use_sage_attention", attention_sage),
        ("use_flash_attention", host_attention.attention_flash),
        ("use_split_cross_attention", host_attention.attention_split),
        ("use_quad_cross_attention", host_attention.attention_sub_quad),
        ("use_split_cross_attention", attention_xformers),  # which the host prefers where it is installed
        ("use_ck_attention", attention_sage),  # a flag of newer hosts
    ],
)
def test_a_choice_at_the_start_counts_and_is_named(choose, flag, default):
    chosen = choose(default=default, flag=flag)
    assert chosen.name == f"{default.__name__} (chosen by --{flag.replace('_', '-')})" and not chosen.is_ours


def test_pytorch_attention_as_a_choice_says_what_it_costs(choose):
    flag = "use_pytorch_cross_attention"
    assert choose(flag=flag).name == (
        "attention_pytorch (chosen by --use-pytorch-cross-attention, in place of flash-attn-4)"
    )
    # There it is what would be taken anyway.
    assert choose(flag=flag, kernels=("flash-attn-2", "sdpa")).name.endswith("-cross-attention)")


def host_override(optimized_attention):
    """As the host's node makes it: `ModelPatcher.set_model_optimized_attention`."""

    def optimized_attention_override(_, *args, **kwargs):
        return optimized_attention(*args, **kwargs)

    return optimized_attention_override


def attention_override_of_a_pack(function, *args, **kwargs):
    return function(*args, **kwargs)


class Override:
    def __call__(self, function, *args, **kwargs):
        return function(*args, **kwargs)


@pytest.mark.parametrize(
    "override, name",
    [
        (host_override(attention_sage), "attention_sage (chosen by a node)"),
        (
            host_override(attention_pytorch),
            "attention_pytorch (chosen by a node, in place of flash-attn-4)",
        ),
        (attention_override_of_a_pack, "attention_override_of_a_pack (chosen by a node)"),
        (functools.partial(attention_override_of_a_pack), "partial (chosen by a node)"),
        (Override(), "Override (chosen by a node)"),
    ],
)
def test_a_node_s_choice_counts_before_all_others(choose, override, name):
    chosen = choose({"optimized_attention_override": override}, flag="use_sage_attention")
    assert chosen.name == name and not chosen.is_ours


def test_the_choice_is_what_computes(choose):
    seen = []

    def override(function, q, k, v, **kwargs):
        seen.append(kwargs["heads"])
        return v

    chosen = choose({"optimized_attention_override": override}, default=attention_pytorch)
    q, k, v = torch.randn(3, 1, 2, 8, 64)
    assert torch.equal(chosen.attend(q, k, v), v) and seen == [2]


@pytest.mark.parametrize("kernels, dtype", [(HOPPER, torch.float32), (("sdpa",), torch.bfloat16)], ids=str)
def test_where_no_kernel_is_known_to_be_faster_the_host_decides(choose, kernels, dtype):
    """In fp32, and on GPUs for which nothing was measured: there the host knows which attention fits."""
    chosen = choose(default=host_attention.attention_sub_quad, kernels=kernels, dtype=dtype)
    assert chosen.name == "attention_sub_quad" and not chosen.is_ours


def test_on_the_cpu_the_host_decides():
    chosen = dense_attention.choose_dense_attention({}, CPU, torch.bfloat16)
    assert chosen.name == host_attention.optimized_attention.__name__ and not chosen.is_ours
