"""What computes the attention of one sequence, and whether sparse attention is worth it there."""

from typing import NamedTuple

from ...kernels import BackendUnavailable, choose_backend, is_measured, sparse_from_tokens
from ...kernels.dispatch import HALF
from .config import SparseAttentionConfig
from .token_layout import TokenLayout


class Plan(NamedTuple):
    """What computes the attention of one sequence, and why."""

    backend: str
    kernels: object
    dense_everywhere: bool
    reasons: tuple


def plan_attention(*, layout: TokenLayout, config: SparseAttentionConfig, device, dtype, head_dim) -> Plan:
    """Choose a backend, and whether sparse attention is worth it at all.

    Raises:
        BackendUnavailable: the backend that the settings name cannot run here.
    """
    choice = choose_backend("auto" if config.backend == "dense" else config.backend, device, dtype, head_dim)
    reasons = [f"{name}: {reason}" for name, reason in choice.reasons.items()]
    dense_because = None
    if config.backend == "dense":
        dense_because = "the settings ask for dense attention"
    elif layout.num_target_blocks == 0:
        dense_because = f"the clip has fewer than {layout.block_size} target tokens"
    elif config.backend == "auto":
        dense_because = _no_gain(choice.name, layout.tokens, device, dtype)
    return Plan(
        choice.name,
        choice.module,
        dense_because is not None,
        (dense_because, *reasons) if dense_because else tuple(reasons),
    )


def _no_gain(backend, tokens, device, dtype):
    """Why sparse attention by a backend is not worth it for so many tokens, or None."""
    first = sparse_from_tokens(device, backend)
    if first is not None:
        return f"below {first:,} tokens dense attention is faster on this GPU" if tokens < first else None
    # Plain PyTorch computes the sparse half in fp32, without the tensor cores that dense attention has for 16 bits.
    if device.type == "cuda" and dtype in HALF:
        return (
            "neither Triton nor TileLang runs here (for Windows there is the package triton-windows); plain PyTorch "
            "took 2 to 3 times as long as dense attention"
        )
    return None


class Speed(NamedTuple):
    """What the name of a backend stands for on a device, and what is known of its speed there."""

    computes: str | None  # a backend, or dense; None where the one that was named cannot run
    faster_from: int | None  # tokens from which on it is faster than dense attention; None where it was not seen to be
    measured: bool  # whether on a GPU of this family


def speed_of(*, config: SparseAttentionConfig, device, dtype, head_dim) -> Speed:
    """What is known of the speed of settings before there is a clip."""
    long = TokenLayout(1 << 20, 1 << 20)  # past every length that decides
    try:
        plan = plan_attention(layout=long, config=config, device=device, dtype=dtype, head_dim=head_dim)
    except BackendUnavailable:
        return Speed(None, None, is_measured(device))
    if plan.dense_everywhere:
        return Speed("dense", None, is_measured(device))
    return Speed(plan.backend, sparse_from_tokens(device, plan.backend), is_measured(device))


def compute_left(*, layout: TokenLayout, config: SparseAttentionConfig, device, dtype, head_dim) -> float:
    """Share of dense attention's multiply-adds that is really computed for one sequence."""
    plan = plan_attention(layout=layout, config=config, device=device, dtype=dtype, head_dim=head_dim)
    return 1.0 if plan.dense_everywhere else config.dense_fraction(layout)
