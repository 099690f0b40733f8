"""LoRA files in the spellings of their trainers, as ComfyUI names the layers."""

import pytest

from liveditor.liveditor_core.model.lora_keys import rename

LAYERS = {f"blocks.1.{a}.{x}" for a in ("self_attn", "cross_attn") for x in "qkvo"} | {
    "blocks.1.ffn.0",
    "blocks.1.ffn.2",
}
OURS = "diffusion_model.blocks.1.self_attn.q"


@pytest.mark.parametrize(
    "theirs, ours",
    [
        ("diffusion_model.blocks.1.self_attn.q.lora_A.weight", f"{OURS}.lora_A.weight"),
        ("lora_unet_blocks_1_self_attn_q.lora_down.weight", f"{OURS}.lora_down.weight"),
        ("lora_unet__blocks_1_self_attn_q.alpha", f"{OURS}.alpha"),
        ("lycoris_blocks_1_self_attn_q.lokr_w1", f"{OURS}.lokr_w1"),
        ("pipe.dit.blocks.1.self_attn.q.lora_A.default.weight", f"{OURS}.lora_A.weight"),
        ("base_model.model.blocks.1.self_attn.q.lora_B.weight", f"{OURS}.lora_B.weight"),
        ("blocks.1.self_attn.q.lora_up.weight", f"{OURS}.lora_up.weight"),
        ("transformer.blocks.1.attn1.to_q.lora_A.weight", f"{OURS}.lora_A.weight"),
        ("transformer.blocks.1.attn2.to_out.0.lora_A.weight", "diffusion_model.blocks.1.cross_attn.o.lora_A.weight"),
        ("blocks.1.ffn.net.0.proj.lora_A.weight", "diffusion_model.blocks.1.ffn.0.lora_A.weight"),
        ("blocks.1.ffn.net.2.lora_B.weight", "diffusion_model.blocks.1.ffn.2.lora_B.weight"),
        (
            "base_model.model.blocks.1.ffn.2.lora_magnitude_vector.weight",
            "diffusion_model.blocks.1.ffn.2.lora_magnitude_vector.weight",
        ),
        ("diffusion_model.blocks.1.cross_attn.k_img.lora_A.weight", None),
        ("unet.down.0.lora_A.weight", None),
    ],
)
def test_spellings(theirs, ours):
    renamed = rename({theirs: 1}, LAYERS)
    assert renamed == (({theirs: 1}, 0, [theirs]) if ours is None else ({ours: 1}, 1, []))
