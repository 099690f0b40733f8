"""Kernels of ours run while the host's record of allocations pauses.

The hosts that keep such a record (0.34 and later) cannot run here, and our kernels need a GPU: both are played.
"""

import types

import pytest
import torch

from liveditor.kernels import reference, token_ops
from liveditor.kernels.dense import Fastest
from liveditor.kernels.dispatch import Choice
from liveditor.liveditor_core.attention import plan
from liveditor.liveditor_core.model import dense_attention, foreign_launches

OPERATIONS = (
    "block_means",
    "choose_exact",
    "gather_kv_set",
    "gather_query_blocks",
    "softmax_with_top_sums",
    "sparse_attention",
    "split_largest",
    "write_query_blocks",
)
TOKEN_OPERATIONS = ("add", "add_and_normalise", "normalise_and_rotate")


class Record:
    """The host's record, as far as a pause of it goes: a switch, so leaving one within another ends both."""

    def __init__(self):
        self.paused, self.pauses, self.launched = False, 0, []

    def __enter__(self):
        assert not self.paused, "leaving this pause would end the one around it"
        self.paused = True
        self.pauses += 1

    def __exit__(self, *_):
        self.paused = False

    def launch(self, name, function):
        def launched(*args, **kwargs):
            self.launched.append((name, self.paused))
            return function(*args, **kwargs)

        return launched


@pytest.fixture
def record(monkeypatch):
    record = Record()
    monkeypatch.setattr(foreign_launches, "pause_malloc_graph", lambda: record)
    return record


@pytest.fixture
def kernels(record, monkeypatch):
    """All kernels of ours, played by the plain operations."""
    played = types.SimpleNamespace(**{name: record.launch(name, getattr(reference, name)) for name in OPERATIONS})
    monkeypatch.setattr(plan, "choose_backend", lambda *_: Choice("triton", played, {}))

    def plain(name):
        def operation(*args, **kwargs):
            with monkeypatch.context() as context:
                context.setattr(token_ops, "_kernels", lambda *_: None)
                out = getattr(token_ops, name)(*args, **kwargs)
            return out.flatten(2) if name == "normalise_and_rotate" else out

        return operation

    token_kernels = types.SimpleNamespace(**{name: record.launch(name, plain(name)) for name in TOKEN_OPERATIONS})
    monkeypatch.setattr(token_ops, "_kernels", lambda *_: token_kernels)
    fastest = record.launch("timing", lambda *_, **__: Fastest("flash-attn-4", 16, None))
    monkeypatch.setattr(dense_attention, "fastest_dense", fastest)
    dense = record.launch("dense", torch.nn.functional.scaled_dot_product_attention)
    monkeypatch.setattr(dense_attention, "dense_kernel", lambda name: dense)


@pytest.fixture
def call(tiny_model):
    """One call of the transformer."""
    generator = torch.Generator().manual_seed(1)
    latent = torch.randn(1, 16, 5, 20, 28, generator=generator)
    text = torch.randn(1, 512, 4096, generator=generator)

    def make(**transformer_options):
        return tiny_model.model.diffusion_model(
            latent, torch.full((1,), 800.0), text, liveditor_source=latent, transformer_options=transformer_options
        )

    return make


def test_every_kernel_of_ours_runs_in_a_pause(kernels, record, call):
    assert call().isfinite().all()
    assert {name for name, _ in record.launched} == {*OPERATIONS, *TOKEN_OPERATIONS, "dense", "timing"}
    assert [name for name, paused in record.launched if not paused] == []
    assert not record.paused


def test_the_attention_to_the_text_by_the_host_stays_in_its_record(kernels, record, call):
    """A pause is for what is ours; within our sparse attention the host's attention shares it."""
    call(optimized_attention_override=record.launch("host", lambda function, q, k, v, **_: q))
    assert {paused for name, paused in record.launched if name == "host"} == {True, False}
    assert {paused for name, paused in record.launched if name != "host"} == {True}


def test_compiled_graphs_hold_no_pause(record, monkeypatch):
    monkeypatch.setattr(torch.compiler, "is_compiling", lambda: True)
    x, update = torch.randn(2, 1, 4, 8)
    assert torch.equal(foreign_launches.add(x, update), x + update) and record.pauses == 0
