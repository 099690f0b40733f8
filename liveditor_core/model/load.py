"""Load the files of one edit: LIVEditor, the text encoder of Wan and its VAE."""

import os

import comfy.sd
import comfy.utils
import folder_paths

from ..checkpoint.check import check_liveditor, check_safetensors
from ..checkpoint.weights import CheckpointError
from .registration import LIVEditor
from .text_encoder import is_small_text_encoder, load_small_text_encoder


def load_files(checkpoint, text_encoder, vae, model_options):
    """Load all three; every file is checked before the first is loaded.

    So a wrong one costs no minutes and leaves nothing half-loaded.

    Args:
        checkpoint, text_encoder, vae: paths of safetensors files.
        model_options: the host's, such as a weight type.

    Returns:
        The host's MODEL, CLIP and VAE.

    Raises:
        CheckpointError: a file is not what it should be.
    """
    check_liveditor(checkpoint)
    metadata = check_safetensors(text_encoder, "text encoder")["metadata"]
    check_safetensors(vae, "VAE")
    loaded_vae = _load_vae(vae)
    clip = load_small_text_encoder(text_encoder) if is_small_text_encoder(metadata) else _load_clip(text_encoder)
    if not hasattr(clip.cond_stage_model, "umt5xxl"):
        raise CheckpointError(
            f"{os.path.basename(text_encoder)}: needs the UMT5-XXL text encoder of Wan, got "
            f"{type(clip.cond_stage_model).__name__}. Choose a umt5_xxl file."
        )
    return _load_model(checkpoint, model_options), clip, loaded_vae


def _load_model(path, model_options):
    model = comfy.sd.load_diffusion_model(path, model_options=dict(model_options))  # sets cached_patcher_init
    if not isinstance(model.model, LIVEditor):
        raise CheckpointError(
            f"{os.path.basename(path)}: ComfyUI read it as {type(model.model).__name__}, not as LIVEditor. "
            "Convert the checkpoint again."
        )
    return model


def _load_clip(path):
    return comfy.sd.load_clip(
        ckpt_paths=[path],
        embedding_directory=folder_paths.get_folder_paths("embeddings"),
        clip_type=comfy.sd.CLIPType.WAN,
    )


def _load_vae(path):
    weights, metadata = comfy.utils.load_torch_file(path, return_metadata=True)
    vae = comfy.sd.VAE(sd=weights, metadata=metadata)
    vae.throw_exception_if_invalid()
    vae.patcher.cached_patcher_init = (comfy.sd.load_vae_patcher, (path, metadata, None))  # for copies on other GPUs
    if problem := wrong_vae(vae):
        raise CheckpointError(f"{os.path.basename(path)}: {problem}")
    return vae


def wrong_vae(vae):
    """Why a VAE cannot be used, or None: its latents must be those of Wan 2.1."""
    if vae.latent_channels == 16 and vae.latent_dim == 3:
        return None
    return (
        f"needs the Wan 2.1 VAE (16 channels, video), got one with {vae.latent_channels} channels for "
        f"{'video' if vae.latent_dim == 3 else 'images'}. Choose wan_2.1_vae.safetensors."
    )
