"""The source computed in every other step: which calls compute it, what the others give, and what is kept for them."""

import gc
import weakref

import host
import pytest
import torch
from sampling import FRAMES, HEIGHT, WIDTH, Calls, source_video

import comfy.model_management
import comfy.patcher_extension
from comfy.model_management import InterruptProcessingException
from comfy_extras.nodes_easycache import EasyCacheNode
from liveditor.batch.server import SERVERS
from liveditor.liveditor_core.attention import kept_source
from liveditor.liveditor_core.attention.config import OPTIONS_KEY, SparseAttentionConfig
from liveditor.liveditor_core.model import kept_in_ram
from liveditor.liveditor_core.model.fit import Machine
from liveditor.liveditor_core.model.registration import SOURCE_KEY
from liveditor.liveditor_core.model.self_attention import LIVEditorSelfAttention
from liveditor.liveditor_core.model.source_reuse import REUSE_KEY, SourceReuse
from liveditor.liveditor_core.sampling import edit as edits
from liveditor.liveditor_core.sampling.edit import Keeping, edit
from liveditor.liveditor_core.sampling.instructions import SPAN_KEY, Span
from liveditor.liveditor_core.sampling.windows import WindowSize
from liveditor.nodes.record_attention import RecordAttention

STEPS = 6


@pytest.fixture
def texts():
    return [[[each, {}]] for each in torch.randn(3, 1, 77, 4096, generator=torch.Generator().manual_seed(2))]


@pytest.fixture
def run(latent, texts):
    def run(model, reuse=True, **options):
        defaults = {"positive": texts[0], "negative": texts[1], "source": source_video(latent), "seed": 7}
        defaults |= {"steps": STEPS, "cfg": 2.5, "shift": 6.0, "reuse_source": reuse}
        out, report = edit(model, **defaults | options)
        return out["samples"], report

    return run


@pytest.fixture
def tokens(monkeypatch):
    """How many tokens every call of the first block's self-attention computed."""
    seen, forward = [], LIVEditorSelfAttention.forward

    def counting(self, x, freqs, layout, transformer_options, **kwargs):
        if transformer_options["block_index"] == 0:
            seen.append(freqs.shape[1])
        return forward(self, x, freqs, layout, transformer_options, **kwargs)

    monkeypatch.setattr(LIVEditorSelfAttention, "forward", counting)
    return seen


TARGET = FRAMES * HEIGHT // 2 * WIDTH // 2
BOTH = 2 * TARGET


def difference(got, wanted):
    return ((got - wanted).norm() / wanted.norm()).item()


@pytest.mark.parametrize(("steps", "wanted"), [(6, [BOTH, TARGET] * 3), (5, [BOTH, TARGET] * 2 + [BOTH]), (1, [BOTH])])
def test_every_other_step_has_the_target_alone(run, tiny_model, tokens, steps, wanted):
    without, report = run(tiny_model, steps=steps)
    assert tokens == wanted
    tokens.clear()
    exact, plain = run(tiny_model, reuse=False, steps=steps)
    assert tokens == [BOTH] * steps and "source" not in plain
    if steps > 1:
        assert f"source: not computed in {steps // 2} of {steps} model calls" in report
        assert 1e-4 < difference(without, exact) < 0.2
    else:
        assert torch.equal(without, exact) and "source: computed in every step after all" in report


@pytest.mark.parametrize("backend", ["pytorch", "dense"])
@pytest.mark.parametrize("prompts", [1, 2])
def test_a_call_with_nothing_changed_answers_the_same(tiny_model, latent, backend, prompts):
    """The noise level of both steps is one and the same to the transformer, so that nothing is stale."""
    comfy.model_management.load_models_gpu([tiny_model])
    reuse, sigmas = SourceReuse(), torch.tensor([0.9, 0.8, 0.0])
    text = torch.randn(prompts, 512, 4096, generator=torch.Generator().manual_seed(3))
    x = torch.randn(prompts, *latent.shape[1:], generator=torch.Generator().manual_seed(4))

    def call(step):
        options = {"sample_sigmas": sigmas, "sigmas": sigmas[step].expand(prompts), "uuids": list(range(prompts))}
        options |= {REUSE_KEY: reuse, OPTIONS_KEY: SparseAttentionConfig(backend=backend).to_options()}
        sources = {SOURCE_KEY: latent.expand_as(x)}
        return tiny_model.model.apply_model(
            x, torch.full((prompts,), 0.8), c_crossattn=text, transformer_options=options, **sources
        )

    exact = call(0)
    assert reuse.without == 0
    again = call(1)
    assert reuse.without == 1
    torch.testing.assert_close(again, exact, atol=1e-5, rtol=1e-4)


def test_prompts_may_go_together_in_one_step_and_apart_in_the_next(run, tiny_model, monkeypatch, tokens):
    wanted, _ = run(tiny_model)
    free, calls = comfy.model_management.get_free_memory, []

    def together_and_apart(*args):
        calls.append(args)
        return free(*args) if args[1:] or len(tokens) % 3 == 0 else 0

    tokens.clear()
    monkeypatch.setattr(comfy.model_management, "get_free_memory", together_and_apart)
    got, report = run(tiny_model)
    assert tokens == [BOTH, TARGET, TARGET] * 3
    assert "not computed in 6 of 9 model calls" in report
    torch.testing.assert_close(got, wanted, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("after", range(1, STEPS))
def test_a_stopped_run_goes_on_where_the_source_is_computed(run, tiny_model, tmp_path, after):
    exact, _ = run(tiny_model)
    keeping, said = Keeping(tmp_path, 0.0), []
    with pytest.raises(InterruptProcessingException):
        run(Calls(tiny_model, stop_after=after).model, keeping=keeping, say=said.append)
    first = after - after % 2
    assert said[-1] == (f"stopped in step {first + 1} of 6; run the same again to go on from there" if first else "")
    calls = Calls(tiny_model)
    got, report = run(calls.model, keeping=keeping)
    assert torch.equal(got, exact) and len(calls) == STEPS - first
    assert first == 0 or f"went on at step {first + 1}" in report
    every = Calls(tiny_model)
    run(every.model, reuse=False, keeping=keeping)
    assert len(every) == STEPS, "the state is that of another edit"


def test_a_failure_names_the_step_that_failed(run, tiny_model, tmp_path):
    calls = Calls(tiny_model)

    def fail(executor, *args, **kwargs):
        if len(calls) == 4:  # the recorder above has counted the call already
            raise torch.cuda.OutOfMemoryError("full")
        return executor(*args, **kwargs)

    calls.model.add_wrapper(comfy.patcher_extension.WrappersMP.DIFFUSION_MODEL, fail)
    said = []
    with pytest.raises(torch.cuda.OutOfMemoryError, match="in step 4 of 6.*the same run goes on"):
        run(calls.model, keeping=Keeping(tmp_path, 0.0), say=said.append)
    assert said[-1].startswith("stopped in step 3 of 6")


def test_windows_compute_it_in_every_step(run, tiny_model, tiny_vae, tokens):
    frames = torch.rand(33, HEIGHT * 8, WIDTH * 8, 3, generator=torch.Generator().manual_seed(1))
    options = {"source": source_video(tiny_vae.encode(frames), frames, tiny_vae), "size": WindowSize(17, 8), "steps": 2}
    got, report = run(tiny_model, **options)
    assert "source: computed in every step, since every window would have to keep its own" in report
    assert len(set(tokens)) == 1 and torch.equal(got, run(tiny_model, reuse=False, **options)[0])


def test_nodes_that_look_into_blocks_get_the_source_in_every_step(run, tiny_model, tokens):
    exact, _ = run(tiny_model, reuse=False)
    recorded, _ = RecordAttention.execute(tiny_model, "1, last", "all").result
    patched = tiny_model.clone()
    patched.set_model_attn1_patch(lambda args: args["x"])
    for model in (recorded, patched):
        tokens.clear()
        got, report = run(model)
        assert set(tokens) == {BOTH} and "source: computed in every step after all" in report
        torch.testing.assert_close(got, exact, rtol=1e-4, atol=1e-4)


def test_skipped_steps_leave_no_stale_source(run, tiny_model, tokens):
    model = EasyCacheNode.execute(tiny_model, 2.0, 0.3, 0.95, False).result[0]
    run(model, reuse=False, steps=10)
    of_all = list(tokens)
    tokens.clear()
    run(model, steps=10)
    assert len(of_all) < 10 and TARGET in tokens and tokens.count(BOTH) > 1


def test_with_a_timeline_a_mask_and_cfg_in_the_first_steps_alone(run, tiny_model, texts, tokens):
    spans = Span(0.0, 0.5, 0.25), Span(0.5, None, 0.25)
    timeline = [[texts[i][0][0], {SPAN_KEY: span}] for i, span in zip((0, 2), spans, strict=True)]
    mask = torch.zeros(1, 8 * HEIGHT, 8 * WIDTH)
    mask[:, :80] = 1
    options = {"positive": timeline, "mask": mask, "cfg_until": 0.5}
    got, report = run(tiny_model, **options)
    assert tokens == [BOTH, TARGET] * 3
    assert 1e-5 < difference(got, run(tiny_model, reuse=False, **options)[0]) < 0.2


def test_two_devices_keep_their_own(run, tiny_model, tokens):
    """As *MultiGPU CFG Split* leaves a MODEL; a CPU that has a number is another device to the host."""
    wanted, _ = run(tiny_model)
    copy = tiny_model.deepclone_multigpu(new_load_device=torch.device("cpu", 0))
    copy.is_multigpu_base_clone = True
    model = tiny_model.clone()
    model.set_additional_models("multigpu", [copy])
    model.match_multigpu_clones()
    tokens.clear()
    got, _ = run(model)
    assert tokens == [BOTH, BOTH, TARGET, TARGET] * 3
    torch.testing.assert_close(got, wanted, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("stop_after", [None, 3])
def test_what_is_kept_is_foreseen_and_gone_after_the_run(run, tiny_model, latent, monkeypatch, stop_after):
    kept, required, of = [], [], kept_source.KeptSource.of

    def watched(*args):
        found = of(*args)
        kept.append((weakref.ref(found.keys), sum(x.nbytes for x in found) - found.blocks.nbytes))
        return found

    monkeypatch.setattr(kept_source.KeptSource, "of", watched)
    model_class = type(tiny_model.model)
    original = model_class.memory_required

    def asked(self, *args, **kwargs):
        required.append(original(self, *args, **kwargs))
        return required[-1]

    monkeypatch.setattr(model_class, "memory_required", asked)
    if stop_after is None:
        run(tiny_model)
    else:
        with pytest.raises(InterruptProcessingException):
            run(Calls(tiny_model, stop_after).model)
    with_source = required[0]
    gc.collect()
    assert not any(ref() is not None for ref, _ in kept)
    size = sum(nbytes for _, nbytes in kept[: len(tiny_model.model.diffusion_model.blocks)])  # of both prompts
    required.clear()
    run(tiny_model, reuse=False, steps=1)
    assert with_source - required[0] == size
    shape = latent.shape
    of_one = tiny_model.model.memory_of_kept_source(shape, SparseAttentionConfig(), torch.device("cpu"))
    assert 2 * of_one == size


@pytest.mark.parametrize("stop_after", [None, 3])
def test_kept_in_ram_is_the_same_and_gone_after_the_run(run, tiny_model, monkeypatch, stop_after):
    exact, _ = run(tiny_model)
    monkeypatch.setattr(edits, "_place_to_keep", lambda *_: (0, True))
    made, make = [], kept_in_ram.KeptInRam._make_place

    def watched(self, source):
        make(self, source)
        made.append(weakref.ref(self._buffers[-1][0]))

    monkeypatch.setattr(kept_in_ram.KeptInRam, "_make_place", watched)
    if stop_after is None:
        got, report = run(tiny_model)
        assert torch.equal(got, exact) and "not computed in 3 of 6 model calls, kept in RAM" in report
        assert len(made) == 2 * len(tiny_model.model.diffusion_model.blocks), "the same RAM serves every step"
    else:
        with pytest.raises(InterruptProcessingException):
            run(Calls(tiny_model, stop_after).model)
        assert made
    gc.collect()
    assert not any(ref() is not None for ref in made)


@pytest.mark.parametrize(
    ("gpu", "ram", "device", "servers", "wanted"),
    [
        (80, 64, "cuda", 1, False),  # weights and what is kept fit
        (24, 64, "cuda", 1, True),
        (24, 12, "cuda", 1, False),  # in neither: the host moves weights
        (24, 64, "cuda", 5, True),  # of a batch
        (24, 64, "cuda", 6, False),
        (None, 64, "cpu", 1, False),
    ],
)
def test_where_it_is_kept(tiny_model, monkeypatch, gpu, ram, device, servers, wanted):
    """By the numbers of the 14B in fp8 at 960x544, 81 frames, two prompts."""
    model, gib = tiny_model.clone(), 2**30
    model.load_device = torch.device(device)
    monkeypatch.setattr(model, "model_size", lambda: int(13.5 * gib), raising=False)
    monkeypatch.setattr(model.model, "memory_of_call", lambda *_: int(4.94 * gib))
    monkeypatch.setattr(model.model, "memory_of_kept_source", lambda *_: int(5.59 * gib))
    machine = Machine(gpu and gpu * gib, ram * gib, 64 * gib)
    monkeypatch.setattr(edits, "this_machine", lambda: machine)
    monkeypatch.setenv(SERVERS, str(servers))
    on_gpu, in_ram = edits._place_to_keep(model, torch.zeros(1, 16, 5, 20, 28), 2)
    assert in_ram == wanted and on_gpu == int(5.59 * gib)  # with two blocks all of it may lie there at once


def test_in_a_graph(client, edit_prompt):
    sampler = host.key_of(edit_prompt, "LIVEditSampler")
    edit_prompt["show"] = {"class_type": "PreviewAny", "inputs": {"source": [sampler, 1]}}
    host.set_inputs(edit_prompt, "LIVEditSampler", source_computed="in every other step")
    assert "source: not computed in 1 of 2 model calls" in client.run(edit_prompt)["show"]["text"][0]
    host.set_inputs(edit_prompt, "LIVEditSampler", source_computed="never")
    with pytest.raises(host.WorkflowFailed, match="source_computed"):
        client.run(edit_prompt)
