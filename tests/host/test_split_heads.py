"""One prompt on several GPUs: CPUs that have numbers are other devices to the host."""

import contextlib
import gc
import threading
import weakref
from types import SimpleNamespace

import pytest
import torch
from sampling import source_video

import comfy.model_management
import comfy.multigpu
from comfy.model_management import InterruptProcessingException
from comfy_extras.nodes_multigpu import MultiGPUCFGSplitNode
from liveditor.liveditor_core.attention.config import OPTIONS_KEY, SparseAttentionConfig
from liveditor.liveditor_core.attention.token_layout import TokenLayout
from liveditor.liveditor_core.model import gpus, make_room, self_attention
from liveditor.liveditor_core.model.gpu_groups import Group
from liveditor.liveditor_core.model.shared_tokens import Meeting, Seat
from liveditor.liveditor_core.sampling.edit import edit
from liveditor.nodes.record_attention import RecordAttention
from liveditor.nodes.split_heads import SplitHeads

STEPS = 4


@pytest.fixture
def devices(monkeypatch):
    """So many devices of this machine, as the host sees them."""

    def have(count):
        numbered = [torch.device("cpu", i) for i in range(count - 1)]
        found = [torch.device("cpu"), *numbered]
        monkeypatch.setattr(comfy.model_management, "get_all_torch_devices", lambda exclude_current=False: found)
        return found

    return have


@pytest.fixture
def run(latent):
    def run(model, cfg=1.0, latent=latent, **options):
        texts = [[[each, {}]] for each in torch.randn(2, 1, 77, 4096, generator=torch.Generator().manual_seed(2))]
        settings = {"seed": 7, "steps": STEPS, "cfg": cfg, "shift": 6.0} | options
        out, report = edit(model, texts[0], texts[1], source_video(latent), **settings)
        return out["samples"], report

    return run


@pytest.fixture
def heads(monkeypatch):
    """Of every call of the self-attention: its thread, and how many heads and tokens it attended to."""
    seen, attend = [], self_attention.in_context_sparse_attention

    def watched(q, *args, **kwargs):
        seen.append((threading.get_ident(), *q.shape[1:3]))
        return attend(q, *args, **kwargs)

    monkeypatch.setattr(self_attention, "in_context_sparse_attention", watched)
    return seen


def sparse(model):
    model = model.clone()
    config = SparseAttentionConfig(exact_kv_ratio=0.25, source_keep_ratio=0.5, dense_query_ratio=0.5)
    model.model_options["transformer_options"][OPTIONS_KEY] = config.to_options()
    return model


def tensors_in(x):
    if isinstance(x, torch.Tensor):
        return 1
    return sum(map(tensors_in, x.values() if isinstance(x, dict) else x)) if isinstance(x, (dict, list, tuple)) else 0


def assert_same(got, wanted):
    torch.testing.assert_close(got, wanted, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("reuse", [False, True])
@pytest.mark.parametrize("cfg", [1.0, 2.5])
def test_two_gpus_give_what_one_gives(run, tiny_model, devices, heads, cfg, reuse):
    model = sparse(tiny_model)
    wanted, _ = run(model, cfg, reuse_source=reuse)
    assert {each[1] for each in heads} == {2}
    calls = len(heads)
    heads.clear()
    devices(2)
    got, report = run(SplitHeads.execute(model, 2).result[0], cfg, reuse_source=reuse)
    assert_same(got, wanted)
    assert {each[1] for each in heads} == {1} and len(heads) == 2 * calls
    assert len({each[0] for each in heads}) == 2
    assert "GPUs: cpu, cpu:0; each prompt on 2 of them together" in report
    if reuse:
        assert "source: not computed in" in report


@pytest.mark.parametrize("split_first", [True, False])
def test_four_gpus_share_two_prompts(run, tiny_model, devices, heads, split_first):
    wanted, _ = run(tiny_model, 2.5)
    heads.clear()
    devices(4)
    model = tiny_model
    for node in (MultiGPUCFGSplitNode, SplitHeads) if split_first else (SplitHeads, MultiGPUCFGSplitNode):
        model = node.execute(model, 4 if node is MultiGPUCFGSplitNode else 2).result[0]
    got, report = run(model, 2.5)
    assert_same(got, wanted)
    assert {each[1] for each in heads} == {1} and len({each[0] for each in heads}) == 4
    assert "GPUs: cpu, cpu:0, cpu:1, cpu:2; each prompt on 2 of them together" in report


def test_cfg_split_alone_is_named_in_the_report(run, tiny_model, devices, heads):
    wanted, _ = run(tiny_model, 2.5)
    heads.clear()
    devices(2)
    got, report = run(MultiGPUCFGSplitNode.execute(tiny_model, 2).result[0], 2.5)
    assert_same(got, wanted)
    assert {each[1] for each in heads} == {2} and len({each[0] for each in heads}) == 2
    assert "GPUs: cpu, cpu:0; each prompt on one of them" in report


def test_what_wants_to_see_all_heads_gets_them_on_one_gpu(run, tiny_model, devices, heads):
    wanted, _ = run(tiny_model)
    heads.clear()
    devices(2)
    model, record = RecordAttention.execute(SplitHeads.execute(tiny_model, 2).result[0], "1", "all").result
    got, report = run(model)
    assert torch.equal(got, wanted) and {each[1] for each in heads} == {2}
    assert "each prompt on one of them, since another node patches or records the model" in report


def test_a_picture_with_fewer_tokens_than_gpus(run, tiny_model, devices, heads, latent):
    small = latent[:, :, :1, :2, :2]
    wanted, _ = run(tiny_model, latent=small)
    heads.clear()
    devices(2)
    got, _ = run(SplitHeads.execute(tiny_model, 2).result[0], latent=small)
    assert torch.equal(got, wanted) and {each[1:] for each in heads} == {(2, 2)}


def test_on_one_gpu_it_changes_nothing(run, tiny_model, devices):
    devices(1)
    model, text = SplitHeads.execute(tiny_model, 2).result
    assert text.startswith("cpu: no other GPU to split heads with")
    assert torch.equal(run(model)[0], run(tiny_model)[0])


@pytest.mark.parametrize("failing_rank", [0, 1])
@pytest.mark.parametrize("error", [ValueError("broken"), InterruptProcessingException()])
def test_a_failure_on_one_gpu_ends_the_run_on_all(run, tiny_model, devices, monkeypatch, failing_rank, error):
    devices(2)
    model = SplitHeads.execute(tiny_model, 2).result[0]
    here = threading.get_ident()
    attend = self_attention.in_context_sparse_attention

    def failing(*args, **kwargs):
        if (threading.get_ident() == here) == (failing_rank == 0):
            raise error
        return attend(*args, **kwargs)

    with monkeypatch.context() as patched:
        patched.setattr(self_attention, "in_context_sparse_attention", failing)
        with pytest.raises(type(error)):
            run(model)
    assert_same(run(model)[0], run(tiny_model)[0])


@pytest.mark.parametrize("failing_rank", [0, 1])
def test_a_failed_call_leaves_no_tensors(failing_rank):
    """Else there is no room for the second try that follows."""
    tensors, devices = [], (torch.device("cpu"), torch.device("cpu", 0))
    pool = comfy.multigpu.MultiGPUThreadPool(devices[1:])

    def call(transformer, seat, device):
        x = torch.ones(2)
        tensors.append(weakref.ref(x))
        if seat.rank == failing_rank:
            raise ValueError("no room")
        return seat.swap(x)

    class patcher:
        class model:
            diffusion_model = None

    gc.disable()
    try:
        with contextlib.suppress(ValueError):  # pytest.raises would keep the error, and with it the frames
            Group(devices, (patcher, patcher), pool).together(call)
            raise AssertionError("it did not fail")
        assert [tensor() for tensor in tensors] == [None, None]
    finally:
        gc.enable()
        pool.shutdown()


def test_a_gpu_that_cannot_be_taken_is_not_waited_for(monkeypatch):
    devices = tuple(torch.device("cpu", i) for i in range(3))

    def set_torch_device(device):
        if device == devices[1]:
            raise RuntimeError("CUDA error: device is busy")

    monkeypatch.setattr(comfy.model_management, "set_torch_device", set_torch_device)
    pool = comfy.multigpu.MultiGPUThreadPool(devices[1:])
    patcher = SimpleNamespace(model=SimpleNamespace(diffusion_model=None))
    raised = []

    def call():
        try:
            Group(devices, (patcher,) * 3, pool).together(lambda transformer, seat, device: seat.swap(1))
        except RuntimeError as error:
            raised.append(str(error))

    thread = threading.Thread(target=call, daemon=True)
    thread.start()
    thread.join(20)
    assert raised == ["CUDA error: device is busy"]
    pool.shutdown()


def test_weights_make_room_on_every_gpu_of_the_group(run, tiny_model, devices, monkeypatch):
    seen, call_again = [], make_room.call_again

    def watched(patchers, call):
        seen.append([str(each.load_device) for each in patchers])
        return call_again(patchers, call)

    monkeypatch.setattr(make_room, "call_again", watched)
    devices(2)
    run(SplitHeads.execute(tiny_model, 2).result[0])
    assert seen == [["cpu", "cpu:0"]] * STEPS


def test_gpus_that_cannot_compute_together_are_refused(tiny_model, devices, monkeypatch):
    with pytest.raises(ValueError, match="Split Heads over GPUs: GPUs for each prompt must be at most the model's 2"):
        SplitHeads.execute(tiny_model, 3)
    cards = [torch.device("cuda", i) for i in range(2)]
    monkeypatch.setattr(gpus, "_in_order", lambda model: cards)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda device: f"card {device.index}")
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: (8 + device.index, 0))
    with pytest.raises(ValueError, match=r"one generation, got cuda:0 \(card 0\) and cuda:1 \(card 1\)\. Choose"):
        SplitHeads.execute(tiny_model, 2)
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: (9, 0))
    monkeypatch.setattr(torch.cuda, "can_device_access_peer", lambda one, other: one.index < other.index)
    with pytest.raises(ValueError, match="must reach each other's memory"):
        SplitHeads.execute(tiny_model, 2)


@pytest.mark.parametrize("prompts", [1, 2])
@pytest.mark.parametrize("parties", [1, 2, 3, 5])
@pytest.mark.parametrize("with_source", [True, False])
def test_tokens_and_heads_come_to_their_places(parties, with_source, prompts):
    """Shares that are not equal: 7 and 5 tokens, 6 heads; of one prompt they are sent in the order of their answers."""
    layout, heads = TokenLayout(7, 5, 4), 6
    tokens = layout.tokens if with_source else layout.target
    x = torch.arange(prompts * tokens * heads * 3).view(prompts, tokens, heads, 3)
    meeting, answers, failures, left = Meeting(parties), [None] * parties, [], []
    together = threading.Barrier(parties)

    def one(rank):
        try:
            part = Seat(rank, parties, meeting).part(layout, heads, x.device)
            own = part.of_both(x)
            whole = part.own_heads_of_all(own)
            per_token = part.all_tokens(own[..., 0, 0])
            part.arrive()
            together.wait()
            left.append(tensors_in(meeting._brought))
            together.wait()
            answered, half_done = part.answered(whole), torch.full_like(whole, -1)
            numbers = list(range(whole.shape[2]))
            for some in (numbers[1::2], numbers[::2]):
                half_done[:, :, some] = whole[:, :, some]
                if answered is not None and some:
                    answered(half_done.transpose(1, 2), some)
            answers[rank] = whole, per_token, part.own_tokens_of_all(half_done), own
        except BaseException as error:
            failures.append(error)
            together.abort()
            meeting.give_up()

    threads = [threading.Thread(target=one, args=(rank,)) for rank in range(parties)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failures
    assert left == [0] * parties  # pieces take as much memory as q, k and v
    assert torch.equal(torch.cat([answer[0] for answer in answers], dim=2), x)
    for _, per_token, back, own in answers:
        assert torch.equal(per_token, x[..., 0, 0]) and torch.equal(back, own)
