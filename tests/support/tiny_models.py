"""Tiny random models in the published layout: transformer, Wan 2.1 VAE and text encoder.

They show that everything runs; being random, they cannot edit anything.
"""

import io
import json
import os
import subprocess
import sys
from pathlib import Path

TRANSFORMER, TEXT_ENCODER, VAE = (
    "liveditor_tiny_random.safetensors",
    "liveditor_tiny_text.safetensors",
    "liveditor_tiny_vae.safetensors",
)
PLACES = {TRANSFORMER: "diffusion_models", TEXT_ENCODER: "text_encoders", VAE: "vae"}
THIN_VAE = "liveditor_thin_vae.safetensors"  # one channel where the tiny one has eight, for tests of large pictures
TEXT_CONFIG = {"d_model": 64, "d_ff": 128, "d_kv": 32, "num_heads": 2, "num_layers": 2}
DIM, FFN, LAYERS = 256, 512, 2


def make_in_subprocess():
    """Make the models if they are missing; in a process of its own, since ComfyUI must not be imported here."""
    models = Path(os.environ["LIVEDITOR_RUN"]) / "models"
    if all((models / folder / name).is_file() for name, folder in (PLACES | {THIN_VAE: "vae"}).items()):
        return
    subprocess.run([sys.executable, "-s", __file__, str(models)], check=True)


def transformer(dim=DIM, ffn=FFN, layers=LAYERS, device="cpu"):
    """A random LIVEditor transformer with every key of the published checkpoint, bf16."""
    import torch

    generator = torch.Generator(device).manual_seed(0)

    def random(*shape, scale=None):
        fan_in = torch.Size(shape[1:]).numel()
        return (torch.randn(shape, generator=generator, device=device) * (scale or fan_in**-0.5)).bfloat16()

    def ones():
        return torch.ones(dim, device=device).bfloat16()

    def linear(name, outputs, inputs):
        return {f"{name}.weight": random(outputs, inputs), f"{name}.bias": random(outputs, scale=0.02)}

    weights = {"head.modulation": random(1, 2, dim, scale=0.05)}
    for name in ("patch_embedding", "source_video_embedding_more_memory"):
        weights |= {f"{name}.weight": random(dim, 16, 1, 2, 2), f"{name}.bias": random(dim, scale=0.02)}
    weights |= linear("text_embedding.0", dim, 4096) | linear("text_embedding.2", dim, dim)
    weights |= (
        linear("time_embedding.0", dim, 256)
        | linear("time_embedding.2", dim, dim)
        | linear("time_projection.1", 6 * dim, dim)
    )
    weights |= linear("head.head", 64, dim)
    for i in range(layers):
        block = {
            "modulation": random(1, 6, dim, scale=0.05),
            "norm3.weight": ones(),
            "norm3.bias": random(dim, scale=0.02),
        }
        block |= linear("ffn.0", ffn, dim) | linear("ffn.2", dim, ffn)
        for attention in ("self_attn", "cross_attn"):
            for name in "qkvo":
                block |= linear(f"{attention}.{name}", dim, dim)
            for name in ("norm_q", "norm_k"):
                block[f"{attention}.{name}.weight"] = ones()
            for name in ("alpha_1", "alpha_2"):
                block[f"{attention}.{name}.weight"] = random(1, dim)
        weights |= {f"blocks.{i}.{key}": value for key, value in block.items()}
    return weights


def vocabulary():
    """A small SentencePiece model trained on the spot, with a fallback to bytes, so that it spells any word."""
    import sentencepiece

    sentences = [
        "make it a warm summer evening",
        "turn the clip into a watercolour painting",
        "remove the person on the left",
        "let it snow",
    ]
    model = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(sentences),
        model_writer=model,
        vocab_size=320,
        byte_fallback=True,
        character_coverage=1.0,
        pad_id=0,
        eos_id=1,
        unk_id=2,
        bos_id=-1,
        hard_vocab_limit=False,
        minloglevel=2,
    )
    return model.getvalue()


def random_vae(dim):
    """The weights of a Wan 2.1 VAE of `dim` channels at the size of the picture; the published one has 96."""
    import torch

    import comfy.ldm.wan.vae

    vae = comfy.ldm.wan.vae.WanVAE(
        dim=dim,
        z_dim=16,
        dim_mult=[1, 2, 4, 4],
        num_res_blocks=2,
        attn_scales=[],
        temperal_downsample=[False, True, True],
        image_channels=3,
        conv_out_channels=3,
        dropout=0.0,
    )
    return {
        key: torch.ones_like(w)
        if key.endswith("gamma")
        else torch.randn_like(w) * torch.tensor(w[0].numel() or 1).rsqrt()
        for key, w in vae.state_dict().items()
    }


def dark_grey(vae_weights):
    """The same VAE, whose pictures are like nothing that tests paint."""
    vae_weights["decoder.head.2.weight"] *= 0.1
    vae_weights["decoder.head.2.bias"].fill_(-0.4)
    return vae_weights


def save_all(folder):
    import comfy_library  # noqa: F401
    import torch
    from safetensors.torch import save_file

    import comfy.ops
    import comfy.text_encoders.t5

    torch.manual_seed(0)
    vae_weights = random_vae(dim=8)

    pieces = vocabulary()
    import sentencepiece

    config = TEXT_CONFIG | {"vocab_size": sentencepiece.SentencePieceProcessor(model_proto=pieces).get_piece_size()}
    template = {"dense_act_fn": "gelu_pytorch_tanh", "is_gated_act": True, "model_type": "umt5"}
    t5 = comfy.text_encoders.t5.T5(config | template, torch.float32, "cpu", comfy.ops.disable_weight_init)
    text_weights = {
        key: torch.ones_like(w) if "layer_norm" in key else torch.randn_like(w) * w.shape[-1] ** -0.5
        for key, w in t5.state_dict().items()
    }
    text_weights["spiece_model"] = torch.frombuffer(bytearray(pieces), dtype=torch.uint8)

    contents = {
        TRANSFORMER: (transformer(), {"liveditor": "tiny random weights, for tests"}),
        VAE: (vae_weights, {}),
        THIN_VAE: (dark_grey(random_vae(dim=1)), {}),
        TEXT_ENCODER: (text_weights, {"liveditor_text_encoder": json.dumps(config)}),
    }
    for name, (weights, metadata) in contents.items():
        path = Path(folder) / PLACES.get(name, "vae") / name
        path.parent.mkdir(parents=True, exist_ok=True)
        save_file({key: value.contiguous() for key, value in weights.items()}, path, metadata)


if __name__ == "__main__":
    save_all(sys.argv[1])
