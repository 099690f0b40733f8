"""What several nodes refuse."""

from ..liveditor_core.model.load import wrong_vae
from ..liveditor_core.model.registration import LIVEditor


def require_liveditor(model, node_name):
    """Refuse a MODEL of another kind."""
    if not isinstance(model.model, LIVEditor):
        raise ValueError(
            f"{node_name}: needs a LIVEditor model, got {type(model.model).__name__}. Load a LIVEditor "
            "checkpoint with Load LIVEditor."
        )


def require_wan_vae(vae, node_name):
    """Refuse a VAE whose latents are not those of Wan 2.1."""
    if problem := wrong_vae(vae):
        raise ValueError(f"{node_name}: {problem}")
