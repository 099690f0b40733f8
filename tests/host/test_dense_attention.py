"""Which dense attention computes the dense half: the user's choice, else the fastest at hand; and what reports say."""

import functools

import pytest
import torch

import comfy.ldm.modules.attention as host_attention
import folder_paths
from comfy.cli_args import args
from comfy.ldm.modules.attention import attention_pytorch
from liveditor.kernels import dense_kernel
from liveditor.kernels.dense import Fastest
from liveditor.kernels.dense_timing import Timings
from liveditor.liveditor_core.attention.config import OPTIONS_KEY, SparseAttentionConfig
from liveditor.liveditor_core.attention.observers import RUN_KEY
from liveditor.liveditor_core.model import dense_attention, self_attention
from liveditor.liveditor_core.sampling import settings_report as settings_reports
from liveditor.liveditor_core.sampling.run_report import RunReport

GPU, CPU = torch.device("cuda", 0), torch.device("cpu")
HOPPER = Fastest("flash-attn-4", 16, Timings({"flash-attn-4": 1.0, "cudnn": 1.08, "flash-attn-2": 1.85}, {}))
TIMED = " (timed here: flash-attn-4 1.00, cudnn 1.08, flash-attn-2 1.85)"
UNKNOWN = Fastest("sdpa", 16, None)
EIGHT = Fastest("comfy-kitchen", 8, Timings({"comfy-kitchen": 2.0, "flash-attn-2": 5.0}, {"sage-attention-2": "no"}))
NOT_EIGHT = HOPPER._replace(reason="comfy-kitchen 1.40 times slower than flash-attn-4 here")


def attention_xformers(q, k, v, **kwargs):
    return q


def attention_sage(q, k, v, **kwargs):
    return q


@pytest.fixture
def choose(monkeypatch):
    """Choose on a GPU where this kernel is the fastest, the host by itself would use `default`, and whatever the user
    chose for it takes `slower` times as long.
    """

    def make(options=None, *, default=attention_pytorch, fastest=HOPPER, flag=None, slower=None, **asked):
        asked_of.clear()

        def fastest_dense(device, dtype, **kwargs):
            asked_of.append(kwargs)
            return fastest

        def times_as_fast(device, dtype, name, other, attend):
            asked_of.append((name, other, attend))
            return slower

        monkeypatch.setattr(dense_attention, "fastest_dense", fastest_dense)
        monkeypatch.setattr(dense_attention, "times_as_fast", times_as_fast)
        monkeypatch.setattr(dense_attention, "optimized_attention", default)
        if flag:
            monkeypatch.setattr(args, flag, True, raising=False)
        return dense_attention.choose_dense_attention(options or {}, GPU, torch.bfloat16, **asked)

    asked_of = make.asked = []
    return make


def test_what_is_merely_installed_is_no_choice(choose):
    for default in (attention_pytorch, attention_xformers):
        chosen = choose(default=default)
        assert chosen.name == "flash-attn-4" + TIMED
        assert chosen.attend is dense_kernel("flash-attn-4") and chosen.is_ours and chosen.without == ()


def test_what_was_timed_is_kept_in_the_user_s_folder(choose, monkeypatch, tmp_path):
    monkeypatch.setattr(folder_paths, "get_user_directory", lambda: str(tmp_path))
    choose(head_dim=64, bits=8)
    assert choose.asked == [{"head_dim": 64, "bits": 8, "folder": tmp_path / "liveditor"}]


def test_in_8_bit(choose):
    chosen = choose(fastest=EIGHT, bits=8)
    assert chosen.name == "comfy-kitchen in 8 bit (timed here: comfy-kitchen 1.00, flash-attn-2 2.50)"
    assert chosen.attend is dense_kernel("comfy-kitchen") and chosen.is_ours and chosen.without == ()


def test_why_not_in_8_bit(choose):
    chosen = choose(fastest=NOT_EIGHT, bits=8)
    assert chosen.name == "flash-attn-4" + TIMED and chosen.attend is dense_kernel("flash-attn-4")
    assert chosen.without == ("8 bit: comfy-kitchen 1.40 times slower than flash-attn-4 here",)


def test_a_choice_counts_before_8_bit(choose):
    chosen = choose(fastest=EIGHT, bits=8, flag="use_sage_attention", default=attention_sage, slower=1.32)
    assert not chosen.is_ours
    assert chosen.name == "attention_sage (chosen by --use-sage-attention); comfy-kitchen was timed 1.3 times as fast"
    assert chosen.without == ("8 bit: attention_sage was chosen by --use-sage-attention",)


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


@pytest.mark.parametrize(
    "slower, said",
    [(1.32, "; flash-attn-4 was timed 1.3 times as fast"), (1.02, ""), (0.7, ""), (None, "")],
    ids=["slower", "as fast", "faster", "not timed"],
)
def test_what_a_choice_costs_is_said_where_it_was_timed(choose, slower, said):
    chosen = choose(flag="use_pytorch_cross_attention", slower=slower)
    assert chosen.name == f"attention_pytorch (chosen by --use-pytorch-cross-attention){said}"


def test_the_host_s_function_itself_is_timed(choose):
    seen = []

    def attention(q, k, v, **options):
        seen.append(options)
        return q

    override = functools.partial(attention_override_of_a_pack)
    for options, flag, timed in (({}, "use_sage_attention", 1), ({"optimized_attention_override": override}, None, 0)):
        choose(options, flag=flag, default=attention)
        assert len(choose.asked) == 1 + timed, "another pack's function may count its calls"
    choose({"optimized_attention_override": host_override(attention)})
    name, other, attend = choose.asked[1]
    attend(*torch.zeros(3, 1, 2, 8, 64))
    assert (name, other) == ("flash-attn-4", "attention")
    assert seen == [{"heads": 2, "skip_reshape": True, "skip_output_reshape": True}]


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
        (host_override(attention_pytorch), "attention_pytorch (chosen by a node)"),
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


def test_where_no_kernel_is_known_to_be_faster_the_host_decides(choose):
    """In fp32, and on GPUs where nothing can be timed: there the host knows which attention fits."""
    chosen = choose(default=host_attention.attention_sub_quad, fastest=UNKNOWN)
    assert chosen.name == "attention_sub_quad" and not chosen.is_ours
    timed = Fastest("sdpa", 16, Timings({"sdpa": 2.0, "cudnn": 3.0}, {}))
    assert choose(fastest=timed).name == "attention_pytorch (timed here: sdpa 1.00, cudnn 1.50)"
    assert choose(default=attention_xformers, fastest=timed).name == "attention_xformers"


def test_on_the_cpu_the_host_decides():
    for bits in (16, 8):
        chosen = dense_attention.choose_dense_attention({}, CPU, torch.bfloat16, bits=bits)
        assert chosen.name == host_attention.optimized_attention.__name__ and not chosen.is_ours
    assert chosen.without[0].startswith("8 bit: needs an NVIDIA GPU")


@pytest.fixture
def played(monkeypatch):
    """PyTorch's attention plays a kernel; bits and head dims that were asked for."""
    asked = []

    def choose(transformer_options, device, dtype, *, head_dim=None, bits=16):
        asked.append((bits, head_dim))
        attend = torch.nn.functional.scaled_dot_product_attention
        return dense_attention.DenseAttention("kernel", attend, True, ("8 bit: too slow",))

    monkeypatch.setattr(self_attention, "choose_dense_attention", choose)
    return asked


def test_only_self_attention_is_computed_in_8_bit(tiny_model, played):
    model = tiny_model.model.diffusion_model
    latent, text = torch.randn(1, 16, 5, 20, 28), torch.randn(1, 512, 4096)
    report = RunReport()
    options = {OPTIONS_KEY: SparseAttentionConfig(attention_bits=8).to_options(), RUN_KEY: report}
    with report.run(tiny_model, tiny_model.model_options, 1, []):
        model(latent, torch.full((1,), 800.0), text, liveditor_source=latent, transformer_options=options)
    dim = model.dim // model.num_heads
    assert played == [(8, dim), (16, None)] * len(model.blocks)
    assert "dense half by kernel, " in report.text and report.text.endswith("; 8 bit: too slow")


def test_the_reports_say_why_not(tiny_model, monkeypatch):
    chosen = dense_attention.DenseAttention("kernel", None, True, ("8 bit: too slow",))
    monkeypatch.setattr(
        settings_reports, "choose_dense_attention", lambda *_, **asked: chosen._replace(name=str(asked))
    )
    config = SparseAttentionConfig(attention_bits=8)
    lines = settings_reports.settings_report(tiny_model, config, (5, 20, 28)).splitlines()
    assert "dense half by {'head_dim'" in lines[0] and "'bits': 8}" in lines[0] and "8 bit: too slow" in lines


@pytest.mark.parametrize("error", [torch.cuda.OutOfMemoryError, torch.AcceleratorError])
def test_a_full_gpu_spoils_no_settings_report(tiny_model, monkeypatch, error):
    def full(*_, **__):
        raise error("CUDA error: out of memory")

    monkeypatch.setattr(settings_reports, "choose_dense_attention", full)
    text = settings_reports.settings_report(tiny_model, SparseAttentionConfig(), (5, 20, 28))
    assert "dense half by the fastest, which is timed when there is room" in text
