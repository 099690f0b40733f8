"""CLIP, CLIP_VISION and OPTICAL_FLOW of the host as what the metrics ask: plain functions."""

import torch

import comfy.model_management

from ..footage.errors import FootageError
from .measure import Models

CORRELATION_BYTES = 4 * 3 * 4 / 3  # of RAFT, for each pair of 8x8 squares: single precision, three flows, a pyramid


def image_embeddings(clip_vision):
    """[N, H, W, 3] in 0..1 to embeddings [N, D], of the middle square, as CLIP was made.

    The projected ones, which texts are compared with. SigLIP gives one for each patch in place of that: their mean.
    """

    def embed(pictures):
        found = clip_vision.encode_image(pictures)["image_embeds"].float()
        return found.mean(dim=1) if found.dim() == 3 else found

    return embed


def text_embeddings(clip):
    """A list of texts to [number, D]: what comes out of the text projection, of the first 75 tokens.

    CLIP-L of Stable Diffusion gives it only where it is asked for; its `encode_from_tokens` gives what goes in.

    Raises:
        FootageError: a text encoder that has none, as T5.
    """

    def embed(texts):
        return torch.cat([_projected(clip, text) for text in texts])

    return embed


def _projected(clip, text):
    tokens, model, device = clip.tokenize(text, disable_weights=True), clip.patcher.model, clip.patcher.load_device
    comfy.model_management.load_models_gpu([clip.patcher])
    model.reset_clip_options()  # as the host does before each text, so that nothing of this is left for others
    model.set_clip_options({"projected_pooled": True, "execution_device": device})
    with comfy.model_management.cuda_device_context(device):
        pooled = model.encode_token_weights(tokens)[1]
    if pooled is None:
        raise FootageError(
            f"CLIP must be a text encoder of a CLIP model, got {type(model).__name__}, which embeds no text as a "
            "whole. Load CLIP-L, CLIP-H or CLIP-G with Load CLIP."
        )
    return pooled.float()


def flow_of(optical_flow):
    """`estimate` of Flow, by the host's OPTICAL_FLOW: RAFT as torchvision has it, in single precision.

    RAFT takes pictures in -1..1 and gives its flow again and again, the last time at its best.
    """

    def estimate(first, second):
        squares = first.shape[1] * first.shape[2] / 64
        comfy.model_management.load_models_gpu([optical_flow], memory_required=CORRELATION_BYTES * squares**2)
        pictures = (
            frames.to(optical_flow.load_device, torch.float32).movedim(-1, 1) * 2 - 1 for frames in (first, second)
        )
        return optical_flow.model(*pictures)[-1]

    return estimate


def models_of(clip=None, clip_vision=None, optical_flow=None, files=()) -> Models:
    """The host's models as those that judge; None for what is not connected.

    Args:
        files: ModelFiles that they came from.

    Raises:
        FootageError: texts without pictures to compare them with.
    """
    if clip is not None and clip_vision is None:
        raise FootageError(
            "CLIP needs CLIP_VISION of the same model beside it, got CLIP alone. Connect Load CLIP Vision, or no CLIP."
        )
    return Models(
        images=clip_vision and image_embeddings(clip_vision),
        texts=clip and text_embeddings(clip),
        flow=optical_flow and flow_of(optical_flow),
        files=tuple(files),
    )
