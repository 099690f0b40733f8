"""What the settings of sparse attention mean on this machine, before anything runs."""

import torch

import comfy.model_management

from ..attention.config import SparseAttentionConfig
from ..attention.plan import compute_left, plan_attention, speed_of
from ..attention.token_layout import TokenLayout
from ..model.dense_attention import choose_dense_attention
from ..model.fit import describe, fit, this_machine
from .windows import DEFAULT, describe_windows, plan_windows


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
    dense = choose_dense_attention(model.model_options["transformer_options"], device, dtype)
    in_windows = len(windows) > 1
    return "\n".join(
        (
            f"attention: {'dense' if plan.dense_everywhere else plan.backend} on {device}, dense half by {dense.name}",
            *plan.reasons,
            f"compute: {compute_left(**where):.1%} of dense attention",
            f"tokens: {2 * tokens:,}{' in each window' * in_windows}, half of them the source",
            *([f"{describe_windows(windows)} (LIVEdit Sampler's own settings count)"] if in_windows else []),
            *describe(fit(model.model_size(), model.model.memory_of_call(1, 2 * tokens), this_machine())),
        )
    )


def speed_here(backend):
    """What is known of a backend's speed on the host's GPU, for the 14B as the host runs it there."""
    config = SparseAttentionConfig(backend=backend)
    device = comfy.model_management.get_torch_device()
    return speed_of(config=config, device=device, dtype=torch.bfloat16, head_dim=128)
