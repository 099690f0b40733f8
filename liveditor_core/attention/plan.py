"""What computes the attention of one sequence, and whether sparse attention is worth it there."""

from typing import NamedTuple

from ...kernels import choose_backend, sparse_from_tokens
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
    elif config.backend == "auto" and layout.tokens < sparse_from_tokens(device):
        dense_because = f"below {sparse_from_tokens(device):,} tokens dense attention is faster on this GPU"
    return Plan(
        choice.name,
        choice.module,
        dense_because is not None,
        (dense_because, *reasons) if dense_because else tuple(reasons),
    )


def compute_left(*, layout: TokenLayout, config: SparseAttentionConfig, device, dtype, head_dim) -> float:
    """Share of dense attention's multiply-adds that is really computed for one sequence."""
    plan = plan_attention(layout=layout, config=config, device=device, dtype=dtype, head_dim=head_dim)
    return 1.0 if plan.dense_everywhere else config.dense_fraction(layout)
