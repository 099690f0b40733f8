"""Other ways to edit a clip in windows, to compare with: the host's context windows, and one after the other."""

import torch

import comfy.context_windows as host
import comfy.sample
import comfy.samplers
import node_helpers
from liveditor.liveditor_core.model.registration import SOURCE_KEY
from liveditor.liveditor_core.sampling.edit import _set_shift
from liveditor.liveditor_core.sampling.flow_unipc import sample_flow_unipc, wan_flow_sigmas
from liveditor.liveditor_core.sampling.windows import plan_windows
from liveditor.liveditor_core.vae.first_frames import encode_first_frames


def by_the_host(size, schedule="standard_static", fuse="overlap-linear", overlap=None, **options):
    """A function that puts the host's context windows on a MODEL.

    Args:
        size: WindowSize.
        options: as the host's handler takes them.
    """

    def put(model):
        model = model.clone()
        model.model_options["context_handler"] = host.IndexListContextHandler(
            host.get_matching_context_schedule(schedule),
            host.get_matching_fuse_method(fuse),
            size.length - options.get("causal_window_fix", False),  # its extra frame counts, as our own first ones do
            size.least_overlap if overlap is None else overlap,
            dim=2,
            **{"causal_window_fix": False} | options,
        )
        if options.get("freenoise"):
            host.create_sampler_sample_wrapper(model)
        return model

    return put


def one_after_the_other(model, conditioning, source, size, seed, steps, cfg, shift):
    """Every window to its end, with what it shares with the one before held to that one's result.

    Returns:
        Latent of the edit.
    """
    model = model.clone()
    _set_shift(model, shift)
    noise = comfy.sample.prepare_noise(source.latent, seed)
    out, done = torch.zeros_like(source.latent), 0
    for window in plan_windows(0, source.latent.shape[2], size):
        frames = slice(window.start, window.stop)
        parts = [source.latent[:, :, frames], noise[:, :, frames], out[:, :, frames]]
        pinned = torch.arange(window.start, window.stop) < done
        own = int(window.own_first is not None)
        if own:
            before = slice(window.start - 1, window.start)
            first = encode_first_frames(source, [window.start])
            parts = [
                torch.cat(pair, 2)
                for pair in zip((first, noise[:, :, before], out[:, :, before] * 0), parts, strict=True)
            ]
            pinned = torch.cat([torch.tensor([False]), pinned])
        latent, start_noise, start = parts
        mask = (~pinned).float().view(1, 1, -1, 1, 1).expand(1, 1, -1, *latent.shape[3:])
        asked = node_helpers.conditioning_set_values(conditioning, {SOURCE_KEY: latent})
        samples = comfy.sample.sample_custom(
            model,
            start_noise,
            cfg,
            comfy.samplers.KSAMPLER(sample_flow_unipc),
            wan_flow_sigmas(shift, steps),
            asked,
            asked,
            start,
            noise_mask=mask if pinned.any() else None,
            disable_pbar=True,
            seed=seed,
        )[:, :, own:]
        out[:, :, max(done, window.start) : window.stop] = samples[:, :, max(0, done - window.start) :]
        done = window.stop
    return out
