"""The pack's own socket types and the checks that several nodes share."""

from comfy_api.latest import io

from ..liveditor_core.model_config import LIVEditor

CATEGORY = "LIVEditor"
Source = io.Custom("LIVEDITOR_SOURCE")
Record = io.Custom("LIVEDITOR_RECORD")


def require_liveditor(model, node_name):
    """Refuse a MODEL of another kind."""
    if not isinstance(model.model, LIVEditor):
        raise ValueError(
            f"{node_name}: needs a LIVEditor model, got {type(model.model).__name__}. Load a LIVEditor "
            "checkpoint with Load LIVEditor."
        )


def require_wan_vae(vae, node_name):
    """Refuse a VAE whose latents are not those of Wan 2.1."""
    if vae.latent_channels != 16 or vae.latent_dim != 3:
        raise ValueError(
            f"{node_name}: needs the Wan 2.1 VAE (16 channels, video), got one with {vae.latent_channels} channels for "
            f"{'video' if vae.latent_dim == 3 else 'images'}. Choose wan_2.1_vae.safetensors."
        )
