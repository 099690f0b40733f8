"""CFG in the first steps alone: the negative prompt is left out of the later ones, and nothing else changes."""

import host
import pytest
import torch
from sampling import Calls, Quick, source_video

import comfy.model_management
import comfy_extras.nodes_custom_sampler as custom_sampler
import comfy_extras.nodes_easycache as easycache
from comfy.model_management import InterruptProcessingException
from liveditor.liveditor_core.sampling import edit_progress
from liveditor.liveditor_core.sampling.cfg_until import steps_with_cfg
from liveditor.liveditor_core.sampling.edit import Keeping, edit
from liveditor.liveditor_core.sampling.flow_unipc import wan_flow_sigmas
from liveditor.liveditor_core.sampling.instructions import SPAN_KEY, Span
from liveditor.liveditor_core.sampling.part import Redo
from liveditor.liveditor_core.sampling.windows import WindowSize

T, H, W, STEPS, CFG, SHIFT = 14, 4, 6, 4, 2.5, 6.0
ONE, THREE = WindowSize(81, 16), WindowSize(25, 8)  # one window, and three that share two latent frames


@pytest.fixture
def source(tiny_vae):
    frames = torch.rand(4 * T - 3, 8 * H, 8 * W, 3, generator=torch.Generator().manual_seed(1))
    return source_video(tiny_vae.encode(frames), frames, tiny_vae)


@pytest.fixture
def texts():
    return [[[each, {}]] for each in torch.randn(3, 1, 77, 4096, generator=torch.Generator().manual_seed(2))]


@pytest.fixture
def run(source, texts):
    def run(model, positive=texts[0], **options):
        defaults = {"seed": 7, "steps": STEPS, "cfg": CFG, "shift": SHIFT, "size": ONE}
        latent, report = edit(model, positive, texts[1], source, **defaults | options)
        return latent["samples"], report

    return run


def prompts_of(calls):
    """How many prompts every call had."""
    return [x.shape[0] for x, _ in calls.of]


def both_prompts_always(model, steps):
    """A MODEL that computes both prompts in every step, and forgets the negative one's after some steps."""
    first_without = wan_flow_sigmas(SHIFT, STEPS)[steps]

    def cfg_function(args):
        scale = CFG if args["sigma"][0] > first_without else 1.0
        return args["uncond"] + (args["cond"] - args["uncond"]) * scale

    model = model.clone()
    model.set_model_sampler_cfg_function(cfg_function)
    return model


@pytest.mark.parametrize(
    ("share", "steps", "wanted"),
    [(1, 32, 32), (0, 32, 0), (0.7, 10, 7), (0.5, 10, 5), (0.5, 5, 3), (0.01, 10, 1), (0.07, 100, 7), (0.3, 10, 3)],
)
def test_steps_are_rounded_up(share, steps, wanted):
    assert steps_with_cfg(share, steps) == wanted


@pytest.mark.parametrize(("share", "with_both"), [(1.0, 4), (0.75, 3), (0.5, 2), (0.3, 2), (0.0, 0)])
@pytest.mark.parametrize(("size", "windows"), [(ONE, 1), (THREE, 3)], ids=["one window", "three windows"])
def test_later_steps_have_the_positive_prompt_alone(run, tiny_model, share, with_both, size, windows):
    calls = Quick(tiny_model)
    got = run(calls.model, cfg_until=share, size=size)[0]
    assert prompts_of(calls) == windows * with_both * [2] + windows * (STEPS - with_both) * [1]
    wanted = run(both_prompts_always(Quick(tiny_model).model, with_both), size=size)[0]
    torch.testing.assert_close(got, wanted, rtol=1e-5, atol=2e-5)
    if 0 < with_both < STEPS:
        for other in (1.0, 0.0):
            assert (got - run(Quick(tiny_model).model, cfg_until=other, size=size)[0]).abs().max() > 1e-4


def test_all_steps_are_as_released_and_none_as_cfg_1(run, tiny_model):
    assert torch.equal(run(tiny_model)[0], run(tiny_model, cfg_until=1.0)[0])
    assert torch.equal(run(tiny_model, cfg=1.0)[0], run(tiny_model, cfg_until=0.0)[0])
    assert torch.equal(run(tiny_model, cfg=1.0)[0], run(tiny_model, cfg=1.0, cfg_until=0.5)[0])


@pytest.mark.parametrize("size", [ONE, THREE], ids=["one window", "three windows"])
@pytest.mark.parametrize("what", ["a mask", "a timeline", "a part to redo"])
def test_with(run, tiny_model, source, texts, what, size):
    mask = torch.zeros(1, 8 * H, 8 * W)
    mask[:, :16, :16] = 1
    spans = [Span(0.0, 1.5, 0.25), Span(1.5, None, 0.25)]
    timeline = [[texts[i][0][0], {SPAN_KEY: span}] for i, span in zip((0, 2), spans, strict=True)]
    options = {
        "a mask": {"mask": mask},
        "a timeline": {"positive": timeline},
        "a part to redo": {"redo": Redo({"samples": source.latent}, 1.0, 1.5)},
    }[what] | {"size": size}
    calls = Quick(tiny_model)
    got = run(calls.model, cfg_until=0.5, **options)[0]
    wanted = run(both_prompts_always(Quick(tiny_model).model, 2), **options)[0]
    torch.testing.assert_close(got, wanted, rtol=1e-5, atol=2e-5)
    every = Quick(tiny_model)
    run(every.model, **options)
    assert sum(prompts_of(calls)) < sum(prompts_of(every))


@pytest.mark.parametrize("after", [1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11])
def test_a_stopped_run_goes_on_where_it_was(run, tiny_model, tmp_path, after):
    options = {"cfg_until": 0.5, "size": THREE}
    exact = run(Quick(tiny_model).model, **options)[0]
    keeping = Keeping(tmp_path, 0.0)
    with pytest.raises(InterruptProcessingException):
        run(Quick(tiny_model, stop_after=after).model, keeping=keeping, **options)
    other = Quick(tiny_model)
    assert not torch.equal(run(other.model, keeping=keeping, size=THREE, cfg_until=0.75)[0], exact)
    assert len(other) == 12  # the state is that of another edit
    calls = Quick(tiny_model)
    assert torch.equal(run(calls.model, keeping=keeping, **options)[0], exact)
    assert len(calls) == 12 - after


def test_the_report_says_what_ran(run, tiny_model):
    calls = Calls(tiny_model)
    report = run(calls.model, cfg_until=0.5)[1]
    assert "4 steps, 4 model calls" in report and "cfg: 2.5 in the first 2 of 4 steps, then 1" in report
    assert "cfg: 1 in all steps" in run(tiny_model, cfg_until=0.0)[1]
    for options in ({}, {"cfg": 1.0, "cfg_until": 0.5}):
        assert "cfg:" not in run(tiny_model, **options)[1]


def test_the_time_left_counts_calls_of_two_prompts_twice(run, tiny_model, monkeypatch):
    calls = Quick(tiny_model)
    # Every prompt takes a second: the clock stands at how many were computed.
    monkeypatch.setattr(edit_progress.time, "monotonic", lambda: sum(prompts_of(calls)))
    lines = []
    run(calls.model, cfg_until=0.5, say=lines.append, steps=8)
    assert [line.rpartition("about ")[2] for line in lines] == [*(f"{left} s left" for left in (8, 6, 4, 3, 2, 1)), ""]


@pytest.mark.parametrize("apart", [False, True], ids=["both prompts at once", "one after the other"])
def test_easy_cache_never_takes_one_prompt_s_for_the_other_s(run, tiny_model, monkeypatch, apart):
    """Where both go through the model at once it measures changes by the negative one, and skips none without it."""
    if apart:
        free = comfy.model_management.get_free_memory
        monkeypatch.setattr(comfy.model_management, "get_free_memory", lambda *args: free(*args) if args[1:] else 0)

    def skipping(threshold):
        return easycache.EasyCacheNode.execute(tiny_model, threshold, 0.1, 0.95, False).result[0]

    never = run(skipping(1e-9), cfg_until=0.5, steps=8)[0]
    assert torch.equal(never, run(tiny_model, cfg_until=0.5, steps=8)[0])
    calls = Calls(skipping(2.0))
    latent = run(calls.model, cfg_until=0.5, steps=8)[0]
    errors = {
        share: (run(skipping(2.0), cfg_until=share, steps=8)[0] - run(tiny_model, cfg_until=share, steps=8)[0]).norm()
        for share in (0.0, 1.0)
    }
    assert len(calls) < (12 if apart else 8)
    assert (latent - never).norm() < 1.5 * max(errors.values())


def test_a_node_that_wants_both_prompts_gets_them(run, tiny_model):
    """The host's own word for it, which NAG and others say: the negative prompt is computed, with cfg 1."""
    calls = Quick(tiny_model)
    model = calls.model.clone()
    model.disable_model_cfg1_optimization()
    got = run(model, cfg_until=0.5)[0]
    assert prompts_of(calls) == [2, 2, 2, 2]
    torch.testing.assert_close(got, run(Quick(tiny_model).model, cfg_until=0.5)[0], rtol=1e-5, atol=2e-5)


def test_cfg_override_of_the_host_holds_before_it(run, tiny_model):
    calls = Quick(tiny_model)
    model = custom_sampler.CFGOverride.execute(calls.model, 4.0, 0.0, 1.0).result[0]
    got = run(model, cfg_until=0.5)[0]
    assert prompts_of(calls) == [2, 2, 1, 1]
    assert torch.equal(got, run(Quick(tiny_model).model, cfg=4.0, cfg_until=0.5)[0])


def test_two_devices_share_the_prompts_while_there_are_two(run, tiny_model):
    """As *MultiGPU CFG Split* leaves a MODEL; a CPU that has a number is another device to the host."""
    copy = tiny_model.deepclone_multigpu(new_load_device=torch.device("cpu", 0))
    copy.is_multigpu_base_clone = True
    calls = Calls(tiny_model)
    wanted = run(tiny_model, cfg_until=0.5)[0]
    calls.model.set_additional_models("multigpu", [copy])
    calls.model.match_multigpu_clones()
    got = run(calls.model, cfg_until=0.5)[0]
    torch.testing.assert_close(got, wanted, rtol=1e-5, atol=2e-5)
    assert prompts_of(calls) == [1] * 6  # two steps with one prompt on each device, two with one on the first


def test_in_a_graph(client, edit_prompt):
    sampler = host.key_of(edit_prompt, "LIVEditSampler")
    edit_prompt["show"] = {"class_type": "PreviewAny", "inputs": {"source": [sampler, 1]}}
    host.set_inputs(edit_prompt, "LIVEditSampler", cfg_until=0.5)
    assert "cfg: 2.5 in the first 1 of 2 steps, then 1" in client.run(edit_prompt)["show"]["text"][0]
    host.set_inputs(edit_prompt, "LIVEditSampler", cfg_until=1.5)
    with pytest.raises(host.WorkflowFailed, match="cfg_until"):
        client.run(edit_prompt)
