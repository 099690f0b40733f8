"""One edit: a latent is sampled from noise under a prompt, with the source in context; of any length, in windows."""

import os
from pathlib import Path
from typing import NamedTuple

import torch

import comfy.context_windows
import comfy.model_base
import comfy.patcher_extension
import comfy.sample
import comfy.samplers
import comfy.utils
import node_helpers

from ..attention.config import SparseAttentionConfig
from ..footage.errors import FootageError
from ..footage.regions import LATENT_KEY, latent_mask
from ..footage.source_video import SourceVideo
from ..model.fit import fit, this_machine
from ..model.kept_in_ram import ON_THE_GPU
from ..model.known_words import unknown_words
from ..model.registration import KEPT_KEY, SOURCE_KEY
from ..model.source_reuse import EVERY, REUSE_KEY, SourceReuse
from .cfg_until import describe_cfg, end_cfg, steps_with_cfg
from .edit_progress import EditProgress
from .failures import forget_frames
from .fingerprint import code_version, fingerprint
from .flow_unipc import sample_flow_unipc, wan_flow_sigmas
from .instructions import SPAN_KEY, TimelineError, frame_weights, require_within
from .part import Part, Redo, latents_to_redo
from .run_report import RunReport, report_run_into
from .unfinished import Keeper
from .window_handler import HANDLER, WindowHandler
from .windows import DEFAULT, WindowSize, describe_windows

LEFT_OF_RAM = 4 << 30  # bytes that a source kept there leaves
SERVERS = "LIVEDITOR_SERVERS"  # in the environment of a batch's servers: how many share the machine's RAM


class Keeping(NamedTuple):
    """Where and how often the state of a run is kept."""

    folder: Path
    seconds: float  # from one time to the next
    graph: object = None  # what the MODEL was made by, as plain values, for what cannot be told from the MODEL


def edit(
    model,
    positive,
    negative,
    source: SourceVideo,
    *,
    seed,
    steps,
    cfg,
    shift,
    mask=None,
    size=DEFAULT,
    redo: Redo | None = None,
    keeping: Keeping | None = None,
    say=lambda line: None,
    cfg_until=1.0,
    reuse_source=False,
):
    """Edit a source video; the same as the host's KSampler with `flow_unipc` and `wan_flow` where one window holds it.

    Args:
        model: the host's MODEL, a LIVEditor. Where it has context windows of the host's, these are used.
        positive, negative: the host's CONDITIONING, without a source.
        shift: of the noise schedule.
        mask: [M, H, W] in 0..1 of where to edit, everywhere if None.
        size: of the windows.
        redo: edit only a range of an earlier edit; all else stays as it was.
        keeping: keep the state, and go on from it if this very run was stopped; None for neither.
        say: gets a line now and then on how far the edit is, for the node at work, and in the end what is to be
            known of it, "" for nothing.
        cfg_until: share of the steps that run with cfg, rounded up; the others run with the positive prompt alone.
        reuse_source: compute the source in every other step alone, where one window holds the clip.

    Returns:
        The host's LATENT, which remembers the mask; and the report of the run.

    Raises:
        FootageError: the source has changed since it was encoded, or windows, range or times do not fit.
    """
    source.clip.require_unchanged()  # before hours of work that could not be put back in its place
    foreign_windows = model.model_options.get(HANDLER)
    frames = source.latent.shape[2]
    first, last = (0, frames) if redo is None else latents_to_redo(redo, source)
    around = 0 if redo is None else max(1, size.least_overlap)  # frames of the earlier edit that the model sees
    part = Part(
        max(0, first - around),
        min(frames, last + around),
        size if foreign_windows is None else WindowSize(frames * 4, 0),
    )
    in_windows = len(part.windows) > 1 or part.start > 0
    if foreign_windows is not None and (in_windows or _spans(positive) or _spans(negative)):
        raise FootageError(
            "must cut a clip into its own windows where a timeline or a range is edited, got a MODEL with Context "
            "Windows. Remove that node; windows come by themselves."
        )

    report = RunReport()
    model = clone_for_a_run(model)
    _set_shift(model, shift)
    report_run_into(model, report)
    sigmas = wan_flow_sigmas(shift, steps)
    guided = steps if cfg == 1 else steps_with_cfg(cfg_until, steps)
    if guided < steps:
        end_cfg(model, sigmas, guided)
        report.notes.append(describe_cfg(cfg, guided, steps))
    latent, cells = _start(source, mask, redo)
    source_latent = part.source_latent(source)
    # What a mask keeps of windows' own first frames are pictures of their own, as in the source.
    start = source_latent if mask is not None and redo is None else part.of(latent["samples"])
    noise_mask = _noise_mask(part, cells, None if redo is None else (first, last), start.shape[3:])
    of_prompts = {SOURCE_KEY: source_latent}
    if reuse_source and (in_windows or foreign_windows is not None):
        reuse_source = False
        report.notes.append("source: computed in every step, since every window would have to keep its own")
    elif reuse_source:
        report.kept, in_ram = _place_to_keep(model, source_latent, len(positive) + (len(negative) if cfg != 1 else 0))
        of_prompts[KEPT_KEY] = report.kept
    asked, unwanted = (_conditioning(each, source, part, of_prompts, in_windows) for each in (positive, negative))
    keeper = report.keeper = _keeper(
        keeping,
        model,
        seed,
        report.notes.append,
        every=EVERY if reuse_source else 1,
        settings=[steps, cfg, shift, guided, reuse_source],
        conditionings=[positive, negative],
        tensors=[source_latent, start, noise_mask],
        windows=[window[:3] for window in part.windows],
    )
    done = 0 if keeper is None else keeper.step * len(part.windows) + keeper.window
    progress = EditProgress(model, steps, len(part.windows), done, say, double=guided)
    if reuse_source:
        report.reuse = model.model_options["transformer_options"][REUSE_KEY] = SourceReuse(in_ram)
    if in_windows:
        report.notes.append(describe_windows(part.windows))
        model.model_options[HANDLER] = WindowHandler(part.windows, progress.window_done, keeper)
        comfy.context_windows.create_prepare_sampling_wrapper(model)  # memory of one window
    try:
        samples = comfy.sample.sample_custom(
            model,
            part.of(comfy.sample.prepare_noise(source.latent, seed)),
            cfg,
            comfy.samplers.KSAMPLER(sample_flow_unipc, extra_options={"keeper": keeper}),
            sigmas,
            asked,
            unwanted,
            start,
            noise_mask=noise_mask,
            callback=None if in_windows else progress.step_done,
            disable_pbar=not comfy.utils.PROGRESS_BAR_ENABLED,
            seed=seed,
        )
    except BaseException as error:
        try:
            kept = keeper is not None and keeper.stopped()
            say(f"stopped in step {keeper.step + 1} of {steps}; run the same again to go on from there" if kept else "")
        finally:
            forget_frames(error)
        raise
    finally:
        del model
        if report.reuse is not None:
            report.reuse.clear()
    if keeper is not None:
        keeper.finished()
    unknown = unknown_words(values for _, values in positive)
    say(f"the small model does not know: {', '.join(unknown)}" if unknown else "")
    samples = part.sampled(samples)
    if redo is not None:
        whole = latent["samples"].clone()
        new = samples[:, :, first - part.start : last - part.start].to(whole)
        if cells is not None:
            new = torch.where(cells[:, :, first:last].to(whole) > 0, new, whole[:, :, first:last])
        whole[:, :, first:last] = new
        samples = whole
    return latent | {"samples": samples}, report.text


def clone_for_a_run(model):
    """A clone of a MODEL that may die when a run is over, with its copies on other GPUs.

    The host follows a clone that is gone back to its parent, to know whose weights lie on a GPU; where there is none
    any more it warns of a leak after every prompt and never evicts them. So there is one clone and none between; and
    as *MultiGPU CFG Split* makes the copies on other GPUs anew in every run, as children of the clone that runs, they
    get the copies of the lasting MODEL for parents.
    """
    copies = {id(copy.model): copy for copy in model.get_additional_models_with_key("multigpu")}

    def adopt(_, child):
        child.parent = copies.get(id(child.model), child.parent)

    clone = model.clone()
    clone.add_callback_with_key(comfy.patcher_extension.CallbacksMP.ON_CLONE, "liveditor_parents", adopt)
    return clone


def _start(source, mask, redo):
    """The LATENT that an edit begins with, and where its cells may change: [1, 1, T, H, W] or None for everywhere."""
    cells = None if mask is None else latent_mask(mask, source)
    if redo is not None:
        return redo.earlier, cells  # what is outside a mask stays as it was edited before, and so does its own mask
    if mask is None:
        return {"samples": source.latent.new_zeros(source.latent.shape)}, None
    return {"samples": source.latent, "noise_mask": cells, LATENT_KEY: mask}, cells


def _noise_mask(part, cells, anew, size):
    """Where the sampler may change the frames of a part; None for everywhere.

    Args:
        anew: first and last latent frame, exclusive, of the range to redo, None for all.
        size: height and width of the latent.
    """
    if anew is None:
        return None if cells is None else part.of(cells)
    inside = torch.zeros(1, 1, part.stop, *size)
    inside[:, :, anew[0] : anew[1]] = 1
    sampled = part.of(inside if cells is None else inside * cells[:, :, : part.stop])
    sampled[:, :, part.stop - part.start :] = 1  # windows' own first frames, of which the earlier edit has none
    return sampled


def _spans(conditioning):
    """Of a timeline, in order; clip hooks give an instruction several entries."""
    return list(dict.fromkeys(entry[1][SPAN_KEY] for entry in conditioning if SPAN_KEY in entry[1]))


def _conditioning(conditioning, source, part, of_prompts, in_windows):
    """With what all prompts share, the source above all, and each instruction of a timeline on its own frames."""
    spans = _spans(conditioning)
    require_within(spans, float(source.frames / source.fps))
    weights = dict(zip(spans, frame_weights(spans, source.latent_times()), strict=True)) if spans else {}
    for span, shares in weights.items():
        if not shares.any():
            raise TimelineError(
                f'line {span.line}: must hold for a quarter of a second at least, got "{span.text}" for less. Give it '
                "or the next line another time."
            )
    out = []
    for text, values in node_helpers.conditioning_set_values(conditioning, of_prompts):
        mask, area = values.get("mask"), values.get("area")
        if in_windows and (mask is not None and mask.shape[0] > 1 and mask.dim() == 3 or len(area or ()) > 4 + 1):
            raise FootageError(
                "cannot cut a conditioning with a mask for every frame or an area in time into windows. Use one mask "
                "for all frames, or a window as long as the clip."
            )
        if SPAN_KEY in values:
            shares = part.of(weights[values.pop(SPAN_KEY)].view(1, 1, -1, 1, 1))[0]  # [1, frames, 1, 1]
            if not shares.any():
                continue  # of a range to redo
            size = of_prompts[SOURCE_KEY].shape[3:]
            if mask is not None:
                spatial = torch.nn.functional.interpolate(mask.reshape(-1, 1, *mask.shape[-2:])[:1], size)
                shares = shares.to(spatial) * spatial
            values["mask"] = shares.expand(-1, -1, *size)
        out.append([text, values])
    return out


def _place_to_keep(model, source_latent, prompts):
    """Bytes of GPU memory that the source of each prompt takes until the next step, and whether it is kept in RAM.

    It is where it would push weights off the GPU: those are read twice where two prompts go one after the other, and
    slower.
    """
    options, shape, device = model.model_options["transformer_options"], source_latent.shape, model.load_device
    kept = model.model.memory_of_kept_source(shape, SparseAttentionConfig.from_options(options), device)
    machine, everything = this_machine(), prompts * kept
    call = model.model.memory_of_call(1, model.model.layout_of(shape).tokens)
    found = fit(model.model_size(), call + everything, machine)
    of_all_servers = everything * int(os.environ.get(SERVERS, 1))  # those that start together see the same RAM free
    in_ram = device.type == "cuda" and bool(found.in_ram) and machine.ram > of_all_servers + LEFT_OF_RAM
    blocks = len(model.model.diffusion_model.blocks)
    return kept * min(ON_THE_GPU, blocks) // blocks if in_ram else kept, in_ram


def _keeper(keeping, model, seed, say, every, **parts):
    """The Keeper of a run, None where none is wanted or the run cannot be told from others."""
    if keeping is None:
        return None
    if "easycache" in model.model_options["transformer_options"]:
        say("its state is not kept: what EasyCache remembers cannot be")
        return None
    try:
        key = fingerprint(model, code=code_version(), graph=keeping.graph, **parts)
    except Exception as error:  # weights of a kind that is not known: that must not cost the run
        say(f"its state is not kept: what decides the result cannot be told ({error})")
        return None
    return Keeper(keeping.folder, key, seed, keeping.seconds, say, every)


def _set_shift(model, shift):
    """Sample a MODEL with another shift of its noise schedule; the MODEL passed in is changed."""
    sampling = comfy.model_base.model_sampling(model.model.model_config, comfy.model_base.ModelType.FLOW)
    sampling.set_parameters(shift=shift, multiplier=1000)
    model.add_object_patch("model_sampling", sampling)
