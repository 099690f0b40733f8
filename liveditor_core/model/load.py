"""Load the files of one edit: LIVEditor, the text encoder of Wan and its VAE."""

import os

import comfy.sd
import comfy.utils
import folder_paths

from ..checkpoint.check import SMALL_TEXT_ENCODER, check_liveditor, check_safetensors, check_text_encoder
from ..checkpoint.weights import CheckpointError
from .gguf import gguf_loader, load_gguf
from .registration import LIVEditor
from .text_encoder import load_small_text_encoder


def load_files(checkpoint, text_encoder, vae, model_options):
    """Load all three; every file is checked before the first is loaded.

    So a wrong one costs no minutes and leaves nothing half-loaded.

    Args:
        checkpoint, text_encoder, vae: paths of safetensors files; the first may be a GGUF file.
        model_options: the host's, such as a weight type.

    Returns:
        The host's MODEL, CLIP and VAE.

    Raises:
        CheckpointError: a file is not what it should be.
    """
    if checkpoint.lower().endswith(".gguf"):
        gguf_loader(os.path.basename(checkpoint))
    check_liveditor(checkpoint)
    metadata = check_text_encoder(text_encoder)["metadata"]
    check_safetensors(vae, "VAE")
    loaded_vae = _load_vae(vae)
    clip = load_small_text_encoder(text_encoder) if SMALL_TEXT_ENCODER in metadata else _load_clip(text_encoder)
    return _load_model(checkpoint, model_options), clip, loaded_vae


def _load_model(path, model_options):
    if path.lower().endswith(".gguf"):
        model = load_gguf(path)
    else:
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
    try:
        vae = comfy.sd.VAE(sd=weights, metadata=metadata)
        vae.throw_exception_if_invalid()
    except Exception as error:  # of a file that is no VAE the host raises whatever it stumbles over
        raise CheckpointError(
            f"{os.path.basename(path)}: must be a VAE, ComfyUI cannot read it as one ({error}). Choose "
            "wan_2.1_vae.safetensors."
        ) from error
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
