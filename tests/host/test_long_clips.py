"""Clips longer than a window: windows, timelines, ranges of an earlier edit, and runs that were stopped."""

import errno
import os

import pytest
import torch
from safetensors.torch import load_file, save_file
from sampling import Calls, Quick, source_video

import comfy.model_management
import comfy.samplers
import comfy_extras.nodes_easycache as easycache
from comfy.model_management import InterruptProcessingException
from liveditor.liveditor_core.footage.errors import FootageError
from liveditor.liveditor_core.footage.regions import LATENT_KEY
from liveditor.liveditor_core.model.registration import SOURCE_KEY
from liveditor.liveditor_core.sampling import unfinished
from liveditor.liveditor_core.sampling.edit import Keeping, edit
from liveditor.liveditor_core.sampling.instructions import SPAN_KEY, Span, TimelineError
from liveditor.liveditor_core.sampling.part import Redo
from liveditor.liveditor_core.sampling.windows import WindowSize
from liveditor.liveditor_core.vae.first_frames import encode_first_frames

T, H, W, STEPS = 14, 4, 6, 3
SIZE = WindowSize(25, 8)  # 7 latent frames, of which 2 are shared: three windows


@pytest.fixture
def source(tiny_vae):
    luck = torch.Generator().manual_seed(1)
    frames = torch.rand(4 * T - 3, 8 * H, 8 * W, 3, generator=luck)
    return source_video(tiny_vae.encode(frames), frames, tiny_vae)


@pytest.fixture
def texts():
    return [[[each, {}]] for each in torch.randn(3, 1, 77, 4096, generator=torch.Generator().manual_seed(2))]


@pytest.fixture
def run(tiny_model, source, texts):
    """`edit` of the source, with defaults that may be replaced."""

    def run(**options):
        positional = [options.pop(name, texts[i]) for i, name in enumerate(("positive", "negative"))]
        model = options.pop("model", tiny_model)
        defaults = {"seed": 7, "steps": STEPS, "cfg": 2.5, "shift": 6.0, "size": SIZE}
        return edit(model, *positional, options.pop("source", source), **defaults | options)

    return run


def test_a_window_is_all_that_the_model_sees(run, tiny_model, source):
    calls = Calls(tiny_model)
    latent, report = run(model=calls.model)
    assert latent["samples"].shape == source.latent.shape
    assert "windows: 3 of 25 frames, overlapping by 8 or more" in report
    assert len(calls) == 3 * STEPS  # positive and negative in one call
    assert {x.shape[2] for x, _ in calls.of} == {7}
    inside = tiny_model.model.process_latent_in
    first, second, third = (source_seen[:1] for _, source_seen in calls.of[:3])
    assert torch.equal(first, inside(source.latent[:, :, :7]).to(first))
    assert torch.equal(second[:, :, 1:], inside(source.latent[:, :, 5:11]).to(second))
    assert torch.equal(third[:, :, 1:], inside(source.latent[:, :, 8:]).to(third))


def test_windows_begin_with_a_first_frame_of_their_own(run, tiny_model, source):
    calls = Calls(tiny_model)
    run(model=calls.model, steps=1)
    frames = torch.stack(list(source.clip.frames_at([source.start + (i + 0.5) / 16 for i in (16, 28)])))
    for frame, (_, seen) in zip(frames, calls.of[1:], strict=True):
        expected = tiny_model.model.process_latent_in(source.vae.encode(frame[None]))
        torch.testing.assert_close(seen[:1, :, :1], expected.to(seen), rtol=0, atol=1e-5)
    assert torch.equal(encode_first_frames(source, [5, 8])[:, :, :1], encode_first_frames(source, [5]))


def test_what_one_window_holds_is_sampled_as_before(run):
    whole = run(size=WindowSize(81, 16))[0]["samples"]
    assert torch.equal(whole, run(size=WindowSize(53, 4))[0]["samples"])
    assert not torch.equal(whole, run()[0]["samples"])


def test_windows_agree_where_all_see_the_same(run, tiny_model, source):
    """With a model whose answer for a frame depends on that frame alone, windows change nothing."""
    model = tiny_model.clone()
    model.set_model_unet_function_wrapper(lambda _, args: (args["input"] * 0.9 + args["c"][SOURCE_KEY] * 0.1).float())
    whole, cut = (run(model=model, size=size)[0]["samples"] for size in (WindowSize(81, 16), SIZE))
    torch.testing.assert_close(cut, whole, rtol=0, atol=1e-5)


def test_what_cannot_be_cut_into_windows_is_refused_by_name(run, texts):
    area = [[texts[0][0][0], {"area": ("percentage", 0.5, 1.0, 1.0, 0.5, 0.0, 0.0)}]]
    with pytest.raises(FootageError, match="an area in time into windows. Use one mask"):
        run(positive=area)
    every = [[texts[0][0][0], {"mask": torch.ones(T, H, W)}]]
    with pytest.raises(FootageError, match="a mask for every frame"):
        run(positive=every)


def test_areas_and_masks_of_the_picture_hold_in_windows(run, texts):
    left = torch.zeros(1, 8 * H, 8 * W)
    left[:, :, : 4 * W] = 1
    regional = [[texts[0][0][0], {"mask": left}], [texts[2][0][0], {"mask": 1 - left}]]
    both, first = run(positive=regional)[0]["samples"], run(positive=texts[0])[0]["samples"]
    other = run(positive=texts[2])[0]["samples"]
    half = W // 2
    assert (both - first)[..., :half].std() < (both - other)[..., :half].std()
    assert (both - other)[..., half:].std() < (both - first)[..., half:].std()


def test_a_mask_holds_in_every_window(run, source):
    mask = torch.zeros(1, 8 * H, 8 * W)
    mask[:, :16, :16] = 1
    latent = run(mask=mask)[0]
    outside = (latent["noise_mask"] == 0).expand_as(source.latent)
    torch.testing.assert_close(latent["samples"][outside], source.latent[outside], rtol=0, atol=1e-5)
    assert not torch.allclose(latent["samples"][~outside], source.latent[~outside], atol=1e-2)


def test_easy_cache_keeps_what_each_window_needs(run, tiny_model):
    def error(size):
        """That comes of skipping, and how many calls are left of all."""
        exact, skipping = (
            Calls(model)
            for model in (tiny_model, easycache.EasyCacheNode.execute(tiny_model, 2.0, 0.1, 0.95, False).result[0])
        )
        wanted, got = (run(model=calls.model, size=size, steps=8)[0]["samples"] for calls in (exact, skipping))
        return (got - wanted).std() / wanted.std(), len(skipping) / len(exact)

    (whole, left_of_whole), (cut, left) = error(WindowSize(81, 16)), error(SIZE)
    assert left_of_whole < 0.8 and left < 0.8  # a cache of the first window alone would leave 11 of 12
    assert cut < 1.5 * whole


def test_the_host_s_own_context_windows_are_left_alone(run, tiny_model):
    from comfy_extras.nodes_context_windows import ContextWindowsManualNode

    calls = Calls(tiny_model)
    model = ContextWindowsManualNode.execute(
        calls.model, 5, 2, "standard_static", 1, False, "pyramid", 2, False, causal_window_fix=False
    ).result[0]
    report = run(model=model, steps=1)[1]
    assert {x.shape[2] for x, _ in calls.of} == {5} and "windows:" not in report
    with pytest.raises(FootageError, match="got a MODEL with Context Windows. Remove that node"):
        run(model=model, positive=timed([[[torch.zeros(1, 77, 4096), {}]]], [0]))


def timed(texts, starts, transition=0.0):
    """A timeline."""
    ends = [*starts[1:], None]
    return [
        [text[0][0], {SPAN_KEY: Span(start, end, transition)}]
        for text, start, end in zip(texts, starts, ends, strict=True)
    ]


def test_each_instruction_of_a_timeline_is_asked_on_its_own_frames(run, tiny_model, texts):
    seen = []

    def record(executor, x, t, context, *args, **kwargs):
        seen.append((x.shape[2], [float(each) for each in context[:, 0, 0]]))
        return executor(x, t, context, *args, **kwargs)

    import comfy.patcher_extension

    model = tiny_model.clone()
    model.add_wrapper(comfy.patcher_extension.WrappersMP.DIFFUSION_MODEL, record)
    run(model=model, positive=timed([texts[0], texts[2]], [0, 0.8]), cfg=1.0, steps=1)  # from latent frame 4 on
    first, second = (float(text[0][0][0, 0, 0]) for text in (texts[0], texts[2]))
    asked = [sorted(words for _, group in seen[a:b] for words in group) for a, b in ((0, 1), (1, 2), (2, 3))]
    assert asked == [sorted([first, second]), [second], [second]]


def test_a_timeline_is_its_instructions_put_together(run, texts):
    """Frames far from a border, in windows that know one instruction only, are those of that instruction's edit."""
    whole = run(positive=timed([texts[0], texts[2]], [0, 1.6], 0.5))[0]["samples"]
    first, second = (run(positive=text)[0]["samples"] for text in (texts[0], texts[2]))
    assert not torch.allclose(first, second, atol=1e-2)
    torch.testing.assert_close(whole[:, :, -3:], second[:, :, -3:], rtol=0, atol=2e-2)
    assert (whole[:, :, :4] - first[:, :, :4]).std() < (whole[:, :, :4] - second[:, :, :4]).std() / 3


def test_a_timeline_in_one_window(run, texts):
    whole = run(positive=timed([texts[0], texts[2]], [0, 1.6]), size=WindowSize(81, 16))[0]["samples"]
    first, second = (run(positive=t, size=WindowSize(81, 16))[0]["samples"] for t in (texts[0], texts[2]))
    assert (whole[:, :, 10:] - second[:, :, 10:]).std() < (whole[:, :, 10:] - first[:, :, 10:]).std()


def test_an_instruction_that_never_holds_is_named(run, texts):
    with pytest.raises(TimelineError, match="must hold for a quarter of a second at least"):
        run(positive=timed(texts, [0, 1.0, 1.01]))


def test_a_mask_and_a_time_both_count(run, texts):
    left = torch.zeros(1, H, W)
    left[:, :, : W // 2] = 1
    masked = [[text, values | {"mask": left}] for text, values in timed([texts[0], texts[2]], [0, 1.6])]
    rest = [[texts[1][0][0], {"mask": 1 - left}]]
    both, plain = run(positive=[*masked, *rest])[0]["samples"], run(positive=texts[1])[0]["samples"]
    assert (both - plain)[..., W // 2 :].std() < (both - plain)[..., : W // 2].std()


def test_times_past_the_end_are_refused_by_line(run, texts):
    with pytest.raises(TimelineError, match="must begin before the edit ends, at 0:03.31, got 0:05.00"):
        run(positive=timed([texts[0], texts[2]], [0, 5]))


def test_only_a_range_of_an_earlier_edit_is_done_anew(run, tiny_model, texts):
    earlier = run()[0] | {"note": "kept"}
    calls = Calls(tiny_model)
    latent, _ = run(model=calls.model, positive=texts[2], seed=8, redo=Redo(earlier, 1.0, 1.5))
    # Frames 16 to 23 are latent frames 4 to 6; two more on each side are seen, and a first frame of their own.
    assert {x.shape[2] for x, _ in calls.of} == {6} and len(calls) == 2 * STEPS
    new, old = latent["samples"], earlier["samples"]
    assert torch.equal(new[:, :, :4], old[:, :, :4]) and torch.equal(new[:, :, 7:], old[:, :, 7:])
    assert all(not torch.allclose(new[:, :, i], old[:, :, i], atol=1e-2) for i in (4, 5, 6))
    assert latent["note"] == "kept"


def test_a_range_to_redo_sees_the_earlier_edit_around_it(run, tiny_model):
    earlier = run()[0]
    calls = Calls(tiny_model)
    run(model=calls.model, redo=Redo(earlier, 1.0, 1.5), size=WindowSize(81, 8), steps=10, shift=1.0)
    x, _ = calls.of[-1]  # at the last step there is little noise left
    old = tiny_model.model.process_latent_in(earlier["samples"])
    seen = x[:1, :, 1:]  # after its own first frame
    assert seen.shape[2] == 7
    around = (seen[:, :, [0, 1, 5, 6]] - old[:, :, [2, 3, 7, 8]]).std()
    assert around < 0.8 * (seen[:, :, [2, 3, 4]] - old[:, :, [4, 5, 6]]).std()


def test_a_mask_within_a_range_keeps_the_earlier_edit_outside(run, source):
    mask = torch.zeros(1, 8 * H, 8 * W)
    mask[:, :, : 8 * W // 2] = 1
    earlier = run()[0]
    latent, _ = run(redo=Redo(earlier, 1.0, 1.5), mask=mask, seed=9)
    changed = latent["samples"] != earlier["samples"]
    assert changed[:, :, 4:7, :, : W // 2].any() and not changed[:, :, 4:7, :, W // 2 :].any()
    assert LATENT_KEY not in latent  # all of it is an edit still


@pytest.mark.parametrize(
    ("start", "end", "words"),
    [(1.0, 1.0, "redo to must be after redo from"), (3.4, 9.0, "before the edit ends at 3.31 s, got 3.4 to 9 s")],
)
def test_a_range_of_nothing_is_refused(run, source, start, end, words):
    with pytest.raises(FootageError, match=words):
        run(redo=Redo({"samples": source.latent}, start, end))


def test_an_edit_of_another_source_is_refused(run):
    with pytest.raises(FootageError, match="earlier must be an edit of this source"):
        run(redo=Redo({"samples": torch.zeros(1, 16, 3, H, W)}, 0.0, 1.0))


def test_a_range_may_reach_to_the_end(run, source):
    earlier = {"samples": source.latent}
    latent, _ = run(redo=Redo(earlier, 3.0, 60.0))
    assert torch.equal(latent["samples"][:, :, :12], source.latent[:, :, :12])
    assert not torch.equal(latent["samples"][:, :, 12:], source.latent[:, :, 12:])


@pytest.fixture
def keeping(tmp_path):
    return Keeping(tmp_path / "unfinished", 0.0)


def states(keeping):
    return sorted(keeping.folder.glob("*")) if keeping.folder.exists() else []


@pytest.mark.parametrize(
    ("size", "after"),
    [*((SIZE, after) for after in range(1, 12)), *((WindowSize(81, 16), after) for after in (1, 2, 3))],
    ids=lambda value: str(value) if isinstance(value, int) else f"windows of {value.frames}",
)
@pytest.mark.parametrize("cfg", [2.5, 1.0])
def test_a_stopped_run_goes_on_where_it_was(run, tiny_model, keeping, size, cfg, after):
    steps = 4
    calls = Quick(tiny_model)
    exact = run(model=calls.model, size=size, cfg=cfg, steps=steps)[0]["samples"]
    every, calls = len(calls), Quick(tiny_model, stop_after=after)
    with pytest.raises(InterruptProcessingException):
        run(model=calls.model, size=size, cfg=cfg, steps=steps, keeping=keeping)
    assert len(states(keeping)) == 1
    calls = Quick(tiny_model)
    latent, _ = run(model=calls.model, size=size, cfg=cfg, steps=steps, keeping=keeping)
    assert torch.equal(latent["samples"], exact)
    assert len(calls) == every - after  # nothing is computed twice
    assert number_of_calls(run, tiny_model, keeping, size=size, cfg=cfg, steps=steps) == 0  # and the result is kept
    assert len(states(keeping)) == 1


def test_the_transformer_s_own_run_goes_on_and_says_so(run, tiny_model, keeping):
    exact = run()[0]["samples"]
    with pytest.raises(InterruptProcessingException):
        run(model=Calls(tiny_model, stop_after=4).model, keeping=keeping)
    latent, report = run(keeping=keeping)
    assert torch.equal(latent["samples"], exact)
    assert "went on at step 2, window 2, where the same run was stopped before" in report
    assert "3 steps, 5 model calls" in report


def stopped(run, tiny_model, keeping, after=5, **options):
    with pytest.raises(InterruptProcessingException):
        run(model=Quick(tiny_model, stop_after=after).model, keeping=keeping, **options)
    (path,) = states(keeping)
    return path


def number_of_calls(run, tiny_model, keeping, **options):
    calls = Quick(tiny_model)
    run(model=calls.model, keeping=keeping, **options)
    return len(calls)


@pytest.mark.parametrize(
    "other",
    [
        {"seed": 8},
        {"steps": 4},
        {"cfg": 2.6},
        {"shift": 5.0},
        {"size": WindowSize(25, 4)},
        {"mask": torch.ones(1, 32, 48)},
    ],
    ids=lambda other: next(iter(other)),
)
def test_a_state_of_other_settings_is_not_taken(run, tiny_model, keeping, other):
    stopped(run, tiny_model, keeping)
    fresh = number_of_calls(run, tiny_model, None, **other)
    assert number_of_calls(run, tiny_model, keeping, **other) == fresh
    assert number_of_calls(run, tiny_model, keeping) < 3 * STEPS  # its own is still there


def test_a_run_with_another_seed_is_told_of_the_one_that_was_stopped(run, tiny_model, keeping):
    with pytest.raises(InterruptProcessingException):
        run(model=Calls(tiny_model, stop_after=4).model, keeping=keeping, seed=7)
    words = "was stopped at step 2: set seed to 7 and control after generate to fixed"
    assert words in run(keeping=keeping, seed=8)[1]
    assert words not in run(keeping=keeping, seed=8, cfg=3.0)[1]


def test_what_a_killed_process_left_half_written_is_removed(run, tiny_model, keeping):
    keeping.folder.mkdir()
    stale, fresh = keeping.folder / "a.1.part", keeping.folder / "b.2.part"
    for file in (stale, fresh):
        file.write_bytes(b"half")
    os.utime(stale, (1, 1))
    run(model=Quick(tiny_model).model, keeping=keeping)
    assert not stale.exists() and fresh.exists()


def test_a_state_of_another_instruction_source_or_graph_is_not_taken(run, tiny_model, keeping, texts, source):
    stopped(run, tiny_model, keeping)
    every = 3 * STEPS
    assert number_of_calls(run, tiny_model, keeping, positive=texts[2]) == every
    other = source_video(source.latent + 1e-6, torch.zeros(4 * T - 3, 8 * H, 8 * W, 3), source.vae)
    assert number_of_calls(run, tiny_model, keeping, source=other) == every
    assert number_of_calls(run, tiny_model, keeping._replace(graph=[[0], [["Some node", 0, {}]]])) == every


def test_a_state_of_another_model_version_or_lora_is_not_taken(
    run, tiny_model, tiny_model_path, keeping, monkeypatch, tmp_path
):
    import comfy.sd

    stopped(run, tiny_model, keeping)
    every = 3 * STEPS
    weights = load_file(tiny_model_path)
    weights["blocks.1.ffn.0.weight"] += 1e-6
    save_file(weights, tmp_path / "other.safetensors")
    other = comfy.sd.load_diffusion_model(str(tmp_path / "other.safetensors"), {"dtype": torch.float32})
    assert number_of_calls(run, other, keeping) == every
    patched = tiny_model.clone()
    patched.add_patches({"diffusion_model.blocks.0.ffn.0.bias": ("diff", (torch.ones(1),))}, 0.5)
    assert number_of_calls(run, patched, keeping) == every
    from liveditor.liveditor_core.sampling import edit as module

    with monkeypatch.context() as patch:
        patch.setattr(module, "code_version", lambda: "another")
        assert number_of_calls(run, tiny_model, keeping) == every
    assert number_of_calls(run, tiny_model, keeping) < every


def test_weights_count_without_the_patches_that_lie_on_them(tiny_model):
    from liveditor.liveditor_core.sampling.fingerprint import fingerprint

    model = tiny_model.clone()
    model.add_patches({"diffusion_model.blocks.0.ffn.0.bias": ("diff", (torch.ones(1),))}, 0.5)
    before = fingerprint(model)
    comfy.model_management.load_models_gpu([model])
    assert fingerprint(model) == before != fingerprint(tiny_model)


def test_a_full_disk_costs_the_state_and_a_line(run, tiny_model, keeping, monkeypatch):
    def full(*_):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    exact = run()[0]["samples"]
    monkeypatch.setattr(unfinished, "save_file", full)
    latent, report = run(keeping=keeping)
    assert torch.equal(latent["samples"], exact)
    assert report.count("its state could not be saved") == 1 and "No space left on device" in report
    assert not states(keeping)


def test_the_result_of_a_long_run_is_kept_until_another_s(run, tiny_model, keeping):
    exact, report = run(model=Quick(tiny_model).model, keeping=keeping)
    again, report = run(model=Quick(tiny_model).model, keeping=keeping)
    assert torch.equal(again["samples"], exact["samples"]) and "nothing was computed anew" in report
    (first,) = states(keeping)
    run(model=Quick(tiny_model).model, keeping=keeping, seed=8)
    assert len(states(keeping)) == 1 and not first.exists()
    seldom = keeping._replace(seconds=3600)
    run(model=Quick(tiny_model).model, keeping=seldom, seed=9)  # was over before it was saved once
    assert len(states(keeping)) == 1


def test_a_model_that_is_called_twice_a_step_is_kept_right(run, tiny_model, keeping):
    def twice(args):
        model, cond = args["model"], args["cond"]
        again = comfy.samplers.calc_cond_batch(model, [cond], args["input"], args["sigma"], args["model_options"])[0]
        return args["denoised"] + (args["cond_denoised"] - again) * 3.0

    def guided(model):
        model = model.clone()
        model.set_model_sampler_post_cfg_function(twice)
        return model

    exact = run(model=guided(Quick(tiny_model).model))[0]["samples"]
    assert torch.equal(run(model=guided(Quick(tiny_model).model), keeping=keeping, seed=7)[0]["samples"], exact)
    for file in states(keeping):
        file.unlink()
    for after in range(2, 18):
        with pytest.raises(InterruptProcessingException):
            run(model=guided(Quick(tiny_model, stop_after=after).model), keeping=keeping)
        assert torch.equal(run(model=guided(Quick(tiny_model).model), keeping=keeping)[0]["samples"], exact)
        for file in states(keeping):
            file.unlink()


def test_what_easy_cache_remembers_is_not_kept(run, tiny_model, keeping):
    model = easycache.EasyCacheNode.execute(tiny_model, 0.2, 0.15, 0.95, False).result[0]
    assert "its state is not kept: what EasyCache remembers cannot be" in run(model=model, keeping=keeping)[1]
    assert not states(keeping)


def test_weights_that_cannot_be_told_cost_the_state_alone(run, tiny_model, keeping, monkeypatch):
    from liveditor.liveditor_core.sampling import fingerprint as module

    monkeypatch.setattr(module, "_add_sample", lambda *_: (_ for _ in ()).throw(RuntimeError("meta")))
    assert "its state is not kept: what decides the result cannot be told (meta)" in run(keeping=keeping)[1]


def test_an_unreadable_folder_costs_the_state_alone(run, keeping, monkeypatch):
    def refuse(*_):
        raise PermissionError("no")

    monkeypatch.setattr(unfinished.Path, "is_file", refuse)
    monkeypatch.setattr(unfinished.Path, "mkdir", refuse)
    assert "its state could not be saved" in run(keeping=keeping)[1]


def test_space_is_left_on_the_disk(run, keeping, monkeypatch):
    monkeypatch.setattr(unfinished, "LEFT_FREE", 1 << 60)
    assert "MiB are free on the disk" in run(keeping=keeping)[1]
    assert not states(keeping)


def test_a_state_that_is_larger_than_all_may_be_is_not_kept(run, keeping, monkeypatch):
    monkeypatch.setattr(unfinished, "MOST_BYTES", 1000)
    assert "and no more than 0 GiB are kept" in run(keeping=keeping)[1]
    assert not states(keeping)


def test_a_broken_state_is_not_taken(run, tiny_model, keeping):
    path = stopped(run, tiny_model, keeping)
    path.write_bytes(path.read_bytes()[:-100])
    assert number_of_calls(run, tiny_model, keeping) == 3 * STEPS


def test_states_are_bounded_in_size_and_age(run, tiny_model, keeping, monkeypatch):
    first = stopped(run, tiny_model, keeping, seed=1)
    for seed in (2, 3):
        with pytest.raises(InterruptProcessingException):
            run(model=Quick(tiny_model, stop_after=5).model, keeping=keeping, seed=seed)
    assert len(states(keeping)) == 3
    monkeypatch.setattr(unfinished, "MOST_BYTES", 2 * first.stat().st_size + 1)
    os.utime(first, (1, 1))
    with pytest.raises(InterruptProcessingException):
        run(model=Quick(tiny_model, stop_after=5).model, keeping=keeping, seed=4)
    assert len(states(keeping)) == 2 and not first.exists()
    old = states(keeping)[0]
    monkeypatch.setattr(unfinished, "MOST_BYTES", 1 << 40)
    os.utime(old, (1, 1))
    with pytest.raises(InterruptProcessingException):
        run(model=Quick(tiny_model, stop_after=5).model, keeping=keeping, seed=5)
    assert not old.exists()


def test_out_of_memory_says_what_is_kept(run, tiny_model, keeping):
    def fail(executor, *args, **kwargs):
        raise comfy.model_management.OOM_EXCEPTION("out of memory")

    import comfy.patcher_extension

    model = tiny_model.clone()
    count = iter(range(100))
    model.add_wrapper(
        comfy.patcher_extension.WrappersMP.DIFFUSION_MODEL,
        lambda executor, *a, **k: fail(executor) if next(count) == 5 else executor(*a, **k),
    )
    with pytest.raises(comfy.model_management.OOM_EXCEPTION, match="in step 2 of 3.*What was computed is kept"):
        run(model=model, keeping=keeping)
    assert "went on at step 2, window 3" in run(keeping=keeping)[1]


def test_a_part_in_one_window_counts_each_call_once(run, source, monkeypatch):
    from liveditor.liveditor_core.sampling import edit_progress

    shown = []
    monkeypatch.setattr(edit_progress, "_host_s", lambda model, calls: lambda done, *_: shown.append((done, calls)))
    run(redo=Redo({"samples": source.latent}, 1.0, 1.2), size=WindowSize(81, 4))
    assert shown == [(i, STEPS) for i in range(STEPS)]


def test_how_far_it_is_and_how_long_it_takes_is_said(run, monkeypatch):
    from liveditor.liveditor_core.sampling import edit_progress

    monkeypatch.setattr(edit_progress, "SAY_EVERY", 0)
    lines = []
    run(say=lines.append)
    assert lines.pop() == "", "in the end there is nothing to say"
    assert len(lines) == 3 * STEPS - 2  # after the first call nothing can be said, and after the last nothing is left
    assert lines[0].startswith("step 1 of 3, window 3 of 3, about ") and lines[0].endswith(" s left")
    assert lines[-1].startswith("step 3 of 3, window 3 of 3, about ")
