"""The sampler `flow_unipc` and the schedule `wan_flow`, for LIVEditor and for the host's own sampler menus.

UniPC of order 2, B(h) = bh2 (arXiv 2302.04867), in the flow parametrisation x = (1 - sigma) * x0 + sigma * noise with
lambda = log((1 - sigma) / sigma), predicting x0. It predicts with the first order at the first and last step and
corrects every step but the first.
"""

import torch
from tqdm.auto import tqdm

from .unfinished import DONE

SAMPLER = "flow_unipc"
SCHEDULE = "wan_flow"


def wan_flow_sigmas(shift: float, steps: int) -> torch.Tensor:
    """Noise levels of the Wan 2.2 flow schedule.

    Returns:
        [steps + 1] fp32: from just under 1, the last one 0.
    """
    u = torch.linspace(1 - 1 / 1000, 0, steps + 1, dtype=torch.float64)[:-1]
    sigmas = shift * u / (1 + (shift - 1) * u)
    return torch.cat([sigmas, sigmas.new_zeros(1)]).float()


def wan_flow_scheduler(model_sampling, steps: int) -> torch.Tensor:
    """`wan_flow` as the host calls it, with the shift of the connected model.

    Raises:
        ValueError: the model is no flow model with a shift.
    """
    import comfy.model_sampling

    if not isinstance(model_sampling, comfy.model_sampling.ModelSamplingDiscreteFlow):
        raise ValueError(
            "wan_flow: needs a flow model with a shift such as LIVEditor or Wan, got "
            f"{type(model_sampling).__name__}. Choose another scheduler."
        )
    return wan_flow_sigmas(model_sampling.shift, steps)


@torch.no_grad()
def sample_flow_unipc(model, x, sigmas, extra_args=None, callback=None, disable=None, keeper=None):
    """Sample with UniPC from noise to data.

    Args:
        model: callable (x, sigma [B], **extra_args) -> x0, as the host's k-diffusion samplers get it.
        x: start, scaled by the host to sigmas[0] * noise + (1 - sigmas[0]) * latent.
        sigmas: [steps + 1], falling.
        callback: called with the step's index, sigma, x and x0.
        keeper: a `Keeper` that gets the state after every step, and may have one to go on from; or None.

    Returns:
        The sample, shape of x.
    """
    extra_args = {} if extra_args is None else extra_args
    if len(sigmas) > 1 and not torch.any(model.latent_image):
        x = x / sigmas[0]  # an edit from nothing starts at the noise itself, as the model was trained
    one = x.new_ones([x.shape[0]])
    history = []  # the last two (sigma, x0)
    before_step, done = x, 0
    kept = None if keeper is None else keeper.tensors(x.device)
    if kept and DONE in kept:
        return kept[DONE]
    if kept:
        done, x, before_step, history = keeper.step, *_unpacked(kept)
    for i in tqdm(range(done, len(sigmas) - 1), initial=done, total=len(sigmas) - 1, disable=disable):
        sigma, sigma_next = sigmas[i], sigmas[i + 1]
        if sigma_next == sigma or (sigma_next > 0 and _lambda(sigma_next) == _lambda(sigma)):
            continue  # a step of no length has no direction; of 10,000 some are, in fp32
        x0 = model(x, sigma * one, **extra_args)
        if history:
            x = _correct(before_step, x0, history, sigma)
        if callback is not None:
            callback({"x": x, "i": i, "sigma": sigma, "sigma_hat": sigma, "denoised": x0})
        history = [*history[-1:], (sigma, x0)]
        before_step = x
        x = x0 if sigma_next == 0 else _predict(x, history, sigma_next, final=i == len(sigmas) - 2)
        if keeper is not None and i + 2 < len(sigmas):
            keeper.step_done(i + 1, _packed(x, before_step, history))
    if keeper is not None:
        keeper.sampled(x)
    return x


def _packed(x, before_step, history):
    tensors = {"x": x, "before_step": before_step}
    for age, (sigma, x0) in enumerate(reversed(history)):
        tensors |= {f"sigma_{age}": sigma, f"x0_{age}": x0}
    return tensors


def _unpacked(tensors):
    ages = [age for age in (1, 0) if f"x0_{age}" in tensors]
    return tensors["x"], tensors["before_step"], [(tensors[f"sigma_{age}"], tensors[f"x0_{age}"]) for age in ages]


def _lambda(sigma):
    return torch.log((1 - sigma) / sigma)


def _first_order(x, x0, sigma, sigma_next):
    """Step from sigma to sigma_next along a constant x0; returns the result and h = the step in lambda."""
    h = _lambda(sigma_next) - _lambda(sigma)
    return sigma_next / sigma * x - (1 - sigma_next) * torch.expm1(-h) * x0, h


def _predict(x, history, sigma_next, final):
    sigma, x0 = history[-1]
    x_next, h = _first_order(x, x0, sigma, sigma_next)
    if len(history) == 1 or final:
        return x_next
    sigma_before, x0_before = history[-2]
    slope = (x0 - x0_before) / ((_lambda(sigma) - _lambda(sigma_before)) / h)
    return x_next - (1 - sigma_next) * torch.expm1(-h) * 0.5 * slope


def _correct(x, x0_new, history, sigma_new):
    """Redo the step that led to sigma_new, now that x0 there is known."""
    sigma, x0 = history[-1]
    x_new, h = _first_order(x, x0, sigma, sigma_new)
    b = torch.expm1(-h)
    if len(history) == 1:
        return x_new - (1 - sigma_new) * b * 0.5 * (x0_new - x0)
    # Order 2: solve for the weights of both differences so that polynomials up to that order are exact.
    sigma_before, x0_before = history[-2]
    r = (_lambda(sigma_before) - _lambda(sigma)) / h
    phi_1 = b / -h - 1
    phi_2 = phi_1 / -h - 0.5
    a_1, a_2 = phi_1 / b, 2 * phi_2 / b
    rho_before = (a_1 - a_2) / (1 - r)
    rho_new = a_1 - rho_before
    correction = rho_before * (x0_before - x0) / r + rho_new * (x0_new - x0)
    return x_new - (1 - sigma_new) * b * correction


def register():
    """Offer `flow_unipc` and `wan_flow` in the host's menus; a second call changes nothing."""
    import comfy.k_diffusion.sampling
    import comfy.samplers

    setattr(comfy.k_diffusion.sampling, f"sample_{SAMPLER}", sample_flow_unipc)  # where the host looks a name up
    samplers = comfy.samplers.KSampler.SAMPLERS
    if SAMPLER not in samplers:
        samplers.append(SAMPLER)
    comfy.samplers.SCHEDULER_HANDLERS[SCHEDULE] = comfy.samplers.SchedulerHandler(wan_flow_scheduler)
    if SCHEDULE not in comfy.samplers.SCHEDULER_NAMES:
        comfy.samplers.SCHEDULER_NAMES.append(SCHEDULE)
