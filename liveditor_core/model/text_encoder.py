"""Small text encoders for small LIVEditor models: the host's T5 with few layers and a vocabulary of its own.

The file says so itself: its metadata holds the T5's configuration and the words of its training, its tensors the
SentencePiece vocabulary. The output
is padded with zeros to Wan's width, so that the transformer and everything between see the usual conditioning.
"""

import json

import torch

import comfy.sd
import comfy.supported_models_base
import comfy.text_encoders.wan
import comfy.utils

from ..checkpoint.check import SMALL_TEXT_ENCODER
from .known_words import METADATA_KEY, UNKNOWN_KEY, words_of

TEXT_DIM = 4096


class SmallWanTokenizer(comfy.text_encoders.wan.WanT5Tokenizer):
    """Notes which words of a text were not among those of the training."""

    def __init__(self, embedding_directory=None, tokenizer_data=None):
        self._known = set(tokenizer_data[METADATA_KEY].split())
        super().__init__(embedding_directory, tokenizer_data)

    def tokenize_with_weights(self, text, return_word_ids=False, **kwargs):
        unknown = [word for word in words_of(text) if word not in self._known] if self._known else []
        return super().tokenize_with_weights(text, return_word_ids, **kwargs) | {UNKNOWN_KEY: unknown}


class SmallWanTextEncoder(comfy.text_encoders.wan.WanT5Model):
    def encode_token_weights(self, token_weight_pairs):
        out, pooled, *rest = super().encode_token_weights(token_weight_pairs)
        values = {UNKNOWN_KEY: token_weight_pairs.get(UNKNOWN_KEY, [])}  # the host puts these into the conditioning
        for each in rest:
            values |= each
        return torch.nn.functional.pad(out, (0, TEXT_DIM - out.shape[-1])), pooled, values


def load_small_text_encoder(path, disable_dynamic=False):
    """Load a small text encoder.

    Args:
        path: safetensors file with the T5's configuration as JSON in its metadata and `spiece_model` among its tensors.

    Returns:
        The host's CLIP object.
    """
    state_dict, metadata = comfy.utils.load_torch_file(path, safe_load=True, return_metadata=True)
    tokenizer_data = {"spiece_model": state_dict.pop("spiece_model"), METADATA_KEY: metadata.get(METADATA_KEY, "")}
    target = comfy.supported_models_base.ClipTarget(SmallWanTokenizer, SmallWanTextEncoder)
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
