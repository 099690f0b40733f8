"""Small text encoders for small LIVEditor models: the host's T5 with few layers and a vocabulary of its own.

The file says so itself: its metadata holds the T5's configuration, its tensors the SentencePiece vocabulary. The output
is padded with zeros to Wan's width, so that the transformer and everything between see the usual conditioning.
"""

import json

import torch

import comfy.sd
import comfy.supported_models_base
import comfy.text_encoders.wan
import comfy.utils

from ..checkpoint.check import SMALL_TEXT_ENCODER

TEXT_DIM = 4096


class SmallWanTextEncoder(comfy.text_encoders.wan.WanT5Model):
    def encode_token_weights(self, token_weight_pairs):
        out, *rest = super().encode_token_weights(token_weight_pairs)
        return torch.nn.functional.pad(out, (0, TEXT_DIM - out.shape[-1])), *rest


def load_small_text_encoder(path, disable_dynamic=False):
    """Load a small text encoder.

    Args:
        path: safetensors file with the T5's configuration as JSON in its metadata and `spiece_model` among its tensors.

    Returns:
        The host's CLIP object.
    """
    state_dict, metadata = comfy.utils.load_torch_file(path, safe_load=True, return_metadata=True)
    tokenizer_data = {"spiece_model": state_dict.pop("spiece_model")}
    target = comfy.supported_models_base.ClipTarget(comfy.text_encoders.wan.WanT5Tokenizer, SmallWanTextEncoder)
    clip = comfy.sd.CLIP(
        target,
        tokenizer_data=tokenizer_data,
        state_dict=[state_dict],
        disable_dynamic=disable_dynamic,
        parameters=comfy.utils.calculate_parameters(state_dict),
        model_options={"umt5xxl_model_config": json.loads(metadata[SMALL_TEXT_ENCODER])},
    )
    clip.patcher.cached_patcher_init = (_load_patcher, (path,))
    return clip


def _load_patcher(path, disable_dynamic=False):
    return load_small_text_encoder(path, disable_dynamic).patcher
