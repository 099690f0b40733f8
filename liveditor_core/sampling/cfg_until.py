"""CFG in the first steps of a run alone; the others run with the positive prompt, one call of the model for two.

The host leaves the negative prompt out wherever its guider's cfg is 1, with windows, areas and several GPUs as well. So
the later steps are given that cfg, as the host's own *CFG Override* gives one to a range of noise levels.
"""

import math

import torch

import comfy.patcher_extension

KEY = "liveditor_cfg_until"


def steps_with_cfg(share: float, steps: int) -> int:
    """How many of so many steps run with CFG, the first ones: rounded up, so that every share but 0 begins with it."""
    return math.ceil(round(share * steps, 6))  # 0.07 * 100 is a little more than 7


def end_cfg(model, sigmas: torch.Tensor, steps: int) -> None:
    """Let a run of a MODEL go on with cfg 1 after its first steps; the MODEL passed in is changed.

    Args:
        model: the host's MODEL.
        sigmas: [all steps + 1] fp32, falling: those of the run.
        steps: that keep the run's own cfg, fewer than all.
    """
    first_without = sigmas[steps].item()

    def predict(executor, x, sigma, *args, **kwargs):
        if sigma.flatten()[0].item() > first_without:
            return executor(x, sigma, *args, **kwargs)
        guider = executor.class_obj
        cfg = guider.cfg
        guider.cfg = 1.0
        try:
            return executor(x, sigma, *args, **kwargs)
        finally:
            guider.cfg = cfg

    model.add_wrapper_with_key(comfy.patcher_extension.WrappersMP.PREDICT_NOISE, KEY, predict)


def describe_cfg(cfg: float, steps: int, of: int) -> str:
    """For the report of a run."""
    if steps == 0:
        return "cfg: 1 in all steps"
    return f"cfg: {cfg:g} in the first {steps} of {of} steps, then 1"
