"""One edit: a latent is sampled from noise under a prompt, with the source in context."""

import comfy.model_base
import comfy.patcher_extension
import comfy.sample
import comfy.samplers
import comfy.utils
import node_helpers

from ..footage.regions import LATENT_KEY, latent_mask
from ..footage.source_video import SourceVideo
from ..model.registration import SOURCE_KEY
from .failures import forget_frames
from .flow_unipc import sample_flow_unipc, wan_flow_sigmas
from .run_report import RunReport, report_run_into


def edit(model, positive, negative, source: SourceVideo, *, seed, steps, cfg, shift, mask=None):
    """Edit a source video; the same as the host's KSampler with `flow_unipc` and `wan_flow`.

    Args:
        model: the host's MODEL, a LIVEditor.
        positive, negative: the host's CONDITIONING, without a source.
        shift: of the noise schedule.
        mask: [M, H, W] in 0..1 of where to edit, everywhere if None.

    Returns:
        The host's LATENT, which remembers the mask; and the report of the run.

    Raises:
        FootageError: the source has changed since it was encoded.
    """
    source.clip.require_unchanged()  # before hours of work that could not be put back in its place
    report = RunReport()
    model = clone_for_a_run(model)
    _set_shift(model, shift)
    report_run_into(model, report)
    positive, negative = (
        node_helpers.conditioning_set_values(c, {SOURCE_KEY: source.latent}) for c in (positive, negative)
    )
    if mask is None:
        latent = {"samples": source.latent.new_zeros(source.latent.shape)}
    else:
        latent = {"samples": source.latent, "noise_mask": latent_mask(mask, source), LATENT_KEY: mask}
    start = latent["samples"]
    try:
        samples = comfy.sample.sample_custom(
            model,
            comfy.sample.prepare_noise(start, seed),
            cfg,
            comfy.samplers.KSAMPLER(sample_flow_unipc),
            wan_flow_sigmas(shift, steps),
            positive,
            negative,
            start,
            noise_mask=latent.get("noise_mask"),
            callback=_previews(model, steps),
            disable_pbar=not comfy.utils.PROGRESS_BAR_ENABLED,
            seed=seed,
        )
    except BaseException as error:
        forget_frames(error)
        raise
    finally:
        del model
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


def _previews(model, steps):
    """The host's progress and previews; none in a version that has them elsewhere, where the edit is the same."""
    try:
        from latent_preview import prepare_callback
    except ImportError:
        return None
    return prepare_callback(model, steps)


def _set_shift(model, shift):
    """Sample a MODEL with another shift of its noise schedule; the MODEL passed in is changed."""
    sampling = comfy.model_base.model_sampling(model.model.model_config, comfy.model_base.ModelType.FLOW)
    sampling.set_parameters(shift=shift, multiplier=1000)
    model.add_object_patch("model_sampling", sampling)
