"""What the settings of sparse attention mean on this machine, before anything runs."""

import torch

import comfy.model_management

from ..attention.config import SparseAttentionConfig
from ..attention.plan import compute_left, plan_attention, speed_of
from ..attention.token_layout import TokenLayout
from ..model.dense_attention import choose_dense_attention
from ..model.fit import describe, fit, this_machine
from .windows import DEFAULT, describe_windows, plan_windows

OUT_OF_MEMORY = tuple(getattr(torch, name) for name in ("OutOfMemoryError", "AcceleratorError") if hasattr(torch, name))


def settings_report(model, config, latent_size):
    """In a few lines, for one window where the clip takes several.

    Args:
        latent_size: frames, height, width of the latent.
    """
    frames, height, width = latent_size
    windows = plan_windows(0, frames, DEFAULT)
    longest = max(len(window.indices) for window in windows)
    tokens = longest * -(-height // 2) * -(-width // 2)
    layout = TokenLayout(target=tokens, source=tokens)
    device = comfy.model_management.get_torch_device()
    diffusion_model = model.model.diffusion_model
    dtype = model.model.manual_cast_dtype or model.model.get_dtype()
    where = {
        "layout": layout,
        "config": config,
        "device": device,
        "dtype": dtype,
        "head_dim": diffusion_model.dim // diffusion_model.num_heads,
    }
    plan = plan_attention(**where)
    dense_kernel, without = _dense_half(model, config, device, dtype, where["head_dim"])
    in_windows = len(windows) > 1
    backend = "dense" if plan.dense_everywhere else plan.backend
    return "\n".join(
        (
            f"attention: {backend} on {device}, dense half by {dense_kernel}",
            *plan.reasons,
            *without,
            f"compute: {compute_left(**where):.1%} of dense attention",
            f"tokens: {2 * tokens:,}{' in each window' * in_windows}, half of them the source",
            *([f"{describe_windows(windows)} (LIVEdit Sampler's own settings count)"] if in_windows else []),
            *describe(fit(model.model_size(), model.model.memory_of_call(1, 2 * tokens), this_machine())),
        )
    )


def _dense_half(model, config, device, dtype, head_dim):
    """What computes the dense half, and what it does without."""
    options = model.model_options["transformer_options"]
    try:
        dense = choose_dense_attention(options, device, dtype, head_dim=head_dim, bits=config.attention_bits)
    except OUT_OF_MEMORY:  # of what ran before: there will be room when this model runs
        return "the fastest, which is timed when there is room on the GPU", ()
    return dense.name, dense.without


def speed_here(backend):
    """What is known of a backend's speed on the host's GPU, for the 14B as the host runs it there."""
    config = SparseAttentionConfig(backend=backend)
    device = comfy.model_management.get_torch_device()
    return speed_of(config=config, device=device, dtype=torch.bfloat16, head_dim=128)
