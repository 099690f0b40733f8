"""Tiny random CLIP models of the host's own classes.

They show that everything runs and that the right numbers are taken; being random, they understand nothing.
"""

import torch

import comfy.clip_vision
import comfy.sd
import comfy.sd1_clip
from comfy.supported_models_base import ClipTarget

TEXT = {
    "num_hidden_layers": 2,
    "hidden_size": 32,
    "num_attention_heads": 2,
    "intermediate_size": 64,
    "hidden_act": "quick_gelu",
    "max_position_embeddings": 77,
    "eos_token_id": 49407,
}
VISION = {
    "num_hidden_layers": 2,
    "hidden_size": 48,
    "num_attention_heads": 2,
    "intermediate_size": 64,
    "hidden_act": "quick_gelu",
    "model_type": "clip_vision_model",
    "num_channels": 3,
    "patch_size": 16,
    "image_size": 64,
}


def random(*shape, seed):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed)) * shape[-1] ** -0.5


def text_weights(width=TEXT["hidden_size"], seed=1):
    """As they are published: of CLIP-L by its keys."""
    model = "text_model"
    weights = {
        f"{model}.embeddings.token_embedding.weight": random(49408, width, seed=seed),
        f"{model}.embeddings.position_embedding.weight": random(77, width, seed=seed + 1),
        f"{model}.final_layer_norm.weight": torch.ones(width),
        f"{model}.final_layer_norm.bias": torch.zeros(width),
        "text_projection.weight": random(width, width, seed=seed + 2),
    }
    return weights | _layers(f"{model}.encoder", TEXT, width, seed)


def _layers(prefix, config, width, seed):
    weights = {}
    for i in range(config["num_hidden_layers"]):
        for number, name in enumerate(("q_proj", "k_proj", "v_proj", "out_proj")):
            weights |= _linear(f"{prefix}.layers.{i}.self_attn.{name}", width, width, seed + 10 * i + number)
        weights |= _linear(f"{prefix}.layers.{i}.mlp.fc1", config["intermediate_size"], width, seed + 20 + i)
        weights |= _linear(f"{prefix}.layers.{i}.mlp.fc2", width, config["intermediate_size"], seed + 30 + i)
        for name in ("layer_norm1", "layer_norm2"):
            weights[f"{prefix}.layers.{i}.{name}.weight"] = torch.ones(width)
            weights[f"{prefix}.layers.{i}.{name}.bias"] = torch.zeros(width)
    return weights


def _linear(name, outputs, inputs, seed):
    return {f"{name}.weight": random(outputs, inputs, seed=seed), f"{name}.bias": random(outputs, seed=seed + 500)}


def clip(weights=None):
    """CLIP as Load CLIP of type stable_diffusion gives it."""
    weights = text_weights() if weights is None else weights
    target = ClipTarget(comfy.sd1_clip.SD1Tokenizer, comfy.sd1_clip.SD1ClipModel)
    return comfy.sd.CLIP(target, state_dict=[weights], model_options={"clip_l_model_config": TEXT})


def clip_vision(projection=TEXT["hidden_size"], seed=3):
    """CLIP_VISION; `projection` is how wide its embeddings are."""
    made = comfy.clip_vision.ClipVisionModel(VISION | {"projection_dim": projection})
    weights = {
        name: random(*value.shape, seed=seed + i) if value.dim() > 1 else torch.full_like(value, float("norm" in name))
        for i, (name, value) in enumerate(made.get_sd().items())
    }
    made.load_sd(weights)
    return made
