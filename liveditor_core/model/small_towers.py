"""The small text-image encoder as the host's CLIP and CLIP_VISION: two towers in CLIP's layout, in one file.

It knows the ten edits of the small model and nothing else, and is there to try and to test what uses CLIP models.
The file says what it is: its metadata holds the configurations of both towers, its tensors the SentencePiece
vocabulary beside the weights.
"""

import json
import os

import comfy.clip_model
import comfy.clip_vision
import comfy.sd
import comfy.sd1_clip
import comfy.supported_models_base
import comfy.text_encoders.spiece_tokenizer
import comfy.utils

from ..checkpoint.check import check_safetensors
from ..checkpoint.weights import CheckpointError

CONFIGURATION = "liveditor_text_image_encoder"  # in the file's metadata: both towers' as JSON
PIECES = "spiece_model"  # among its tensors: the vocabulary
WHAT = "small text-image encoder"
NAME = "small_towers"  # of the text tower within the host's objects
TEXT, VISION = "text_", ("vision_", "visual_")  # how names of weights begin
END, PAD = 1, 0  # tokens


class SmallTextTower(comfy.clip_model.CLIPTextModel):
    """The host's, which has as many tokens as CLIP has, with those of its own vocabulary."""

    def __init__(self, config_dict, dtype, device, operations):
        super().__init__(config_dict, dtype, device, operations)
        size = config_dict["vocab_size"], config_dict["hidden_size"]
        self.set_input_embeddings(operations.Embedding(*size, dtype=dtype, device=device))


class _Tokens(comfy.sd1_clip.SDTokenizer):
    """Of one length, as CLIP's; what is longer is cut into several, of which the first counts."""

    def __init__(self, embedding_directory=None, tokenizer_data=None):
        super().__init__(
            tokenizer_data[PIECES],
            max_length=tokenizer_data["length"],
            pad_with_end=False,
            embedding_key=NAME,
            tokenizer_class=comfy.text_encoders.spiece_tokenizer.SPieceTokenizer,
            has_start_token=False,
            pad_token=PAD,
        )


class SmallTowersTokenizer(comfy.sd1_clip.SD1Tokenizer):
    def __init__(self, embedding_directory=None, tokenizer_data=None):
        super().__init__(embedding_directory, tokenizer_data, name=NAME, tokenizer=_Tokens)


class _TextEncoder(comfy.sd1_clip.SDClipModel):
    def __init__(self, device="cpu", dtype=None, model_options=None):
        super().__init__(
            device=device,
            dtype=dtype,
            max_length=model_options[CONFIGURATION]["max_position_embeddings"],
            textmodel_json_config=model_options[CONFIGURATION],
            model_class=SmallTextTower,
            special_tokens={"end": END, "pad": PAD},
            model_options=model_options,
        )


class SmallTowersTextEncoder(comfy.sd1_clip.SD1ClipModel):
    def __init__(self, device="cpu", dtype=None, model_options=None):
        super().__init__(device=device, dtype=dtype, model_options=model_options, name=NAME, clip_model=_TextEncoder)


def load_small_towers(path):
    """Load both towers.

    Args:
        path: of the safetensors file.

    Returns:
        The host's CLIP, whose pooled output is a text's projected embedding, [1, D], and its CLIP_VISION, whose
        image_embeds are those of pictures, [N, D].

    Raises:
        CheckpointError: the file is not such an encoder, lacks weights, or is damaged.
    """
    header = check_safetensors(path, WHAT)
    if CONFIGURATION not in header["metadata"]:
        raise CheckpointError(
            f"{os.path.basename(path)}: must be a {WHAT}, got a file that does not say it is one. Choose "
            "liveditor_nano_text_image_encoder.safetensors; load other CLIP models with Load CLIP and Load CLIP Vision."
        )
    clip, vision = _load_text_tower(path), _load_image_tower(path)
    tower = getattr(clip.cond_stage_model, clip.cond_stage_model.clip).transformer
    if missing := ({*tower.state_dict(), *vision.get_sd()} - set(header["keys"])):
        raise CheckpointError(
            f"{os.path.basename(path)}: must have all weights, {len(missing)} are missing: "
            f"{', '.join(sorted(missing)[:5])}{', ...' if len(missing) > 5 else ''}. Download it again."
        )
    return clip, vision


def _load_text_tower(path, disable_dynamic=False):
    weights, configuration = _read(path, "text")
    own = {name: value for name, value in weights.items() if name.startswith(TEXT)}
    clip = comfy.sd.CLIP(
        comfy.supported_models_base.ClipTarget(SmallTowersTokenizer, SmallTowersTextEncoder),
        tokenizer_data={PIECES: weights[PIECES], "length": configuration["max_position_embeddings"]},
        state_dict=[own],
        parameters=comfy.utils.calculate_parameters(own),
        model_options={CONFIGURATION: configuration},
        disable_dynamic=disable_dynamic,
    )
    clip.patcher.cached_patcher_init = (_load_patcher, (path,))  # for copies on other GPUs
    return clip


def _load_patcher(path, disable_dynamic=False):
    return _load_text_tower(path, disable_dynamic).patcher


def _load_image_tower(path):
    weights, configuration = _read(path, "vision")
    vision = comfy.clip_vision.ClipVisionModel(configuration)
    vision.load_sd({name: value for name, value in weights.items() if name.startswith(VISION)})
    return vision


def _read(path, tower):
    """The weights of both towers, and the configuration of one."""
    weights, metadata = comfy.utils.load_torch_file(path, safe_load=True, return_metadata=True)
    return weights, json.loads(metadata[CONFIGURATION])[tower]
