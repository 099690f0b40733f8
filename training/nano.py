"""The small models' architecture.

The project's own transformer class, and the host's T5 with a vocabulary of its own.
"""

import functools
import io
import random

import sentencepiece
import torch

import comfy.ops
import comfy.text_encoders.t5
from comfy.ldm.modules.attention import attention_pytorch
from liveditor.liveditor_core.attention.config import OPTIONS_KEY
from liveditor.liveditor_core.model import transformer
from liveditor.liveditor_core.model.text_encoder import TEXT_DIM

from .common import initialise  # before anything of ComfyUI
from .edits import PHRASES, ask

MODEL, TEXT_ENCODER, VAE = (f"liveditor_nano{part}.safetensors" for part in ("", "_text_encoder", "_vae"))
RECOMMENDED = {
    "size": [256, 112],
    "frames": 17,
    "steps": 10,
    "cfg": 1.0,
    "shift": 3.0,
    "ratios": [0.25, 1.0, 0.5],
}  # SAR, SRR, flat ratio
LORA = "liveditor_nano_few_steps.safetensors"
FEW_STEPS = {"steps": 1, "shift": 3.0}  # with it
TEXT_CONFIG = {"d_model": 128, "d_ff": 256, "d_kv": 32, "num_heads": 4, "num_layers": 2}
TEXT_TEMPLATE = {"dense_act_fn": "gelu_pytorch_tanh", "is_gated_act": True, "model_type": "umt5"}
VOCABULARY = 448
END = 1
LONGEST = 32  # tokens of an instruction


def vocabulary():
    """A SentencePiece model of the training's words, in lower case, that falls back to bytes for any other."""
    choose = random.Random(0).choice
    names = list(PHRASES)
    sentences = [text for phrases in PHRASES.values() for text in phrases] * 3 + [
        ask([choose(names)], choose) for _ in range(1000)
    ]
    model = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(sentences),
        model_writer=model,
        vocab_size=VOCABULARY + 256,
        byte_fallback=True,
        character_coverage=1.0,
        normalization_rule_name="nmt_nfkc_cf",
        pad_id=0,
        eos_id=END,
        unk_id=2,
        bos_id=-1,
        hard_vocab_limit=False,
        minloglevel=2,
    )
    return model.getvalue()


class TextEncoder(torch.nn.Module):
    """The host's T5, small, with its tokenizer; gives what the host's CLIP object gives, padded to Wan's width."""

    def __init__(self, pieces):
        super().__init__()
        self.pieces = pieces
        self.tokenizer = sentencepiece.SentencePieceProcessor(model_proto=pieces)
        self.config = TEXT_CONFIG | {"vocab_size": self.tokenizer.get_piece_size()}
        self.t5 = comfy.text_encoders.t5.T5(
            self.config | TEXT_TEMPLATE, torch.float32, "cpu", comfy.ops.disable_weight_init
        )
        initialise(self.t5)
        torch.nn.init.normal_(self.t5.shared.weight)
        for name, parameter in self.t5.named_parameters():
            if "layer_norm" in name:
                torch.nn.init.ones_(parameter)
            elif "relative_attention_bias" in name:
                torch.nn.init.zeros_(parameter)
            elif name.endswith("SelfAttention.q.weight"):  # T5 does not scale scores
                torch.nn.init.normal_(parameter, std=(TEXT_CONFIG["d_model"] * TEXT_CONFIG["d_kv"]) ** -0.5)

    def tokens(self, texts):
        """Token numbers, 0 after the end, [B, LONGEST] int64 on the host; what is longer is cut."""
        ids = [(self.tokenizer.encode(text) + [END])[:LONGEST] for text in texts]
        return torch.tensor([line + [0] * (LONGEST - len(line)) for line in ids])

    def forward(self, tokens, length):
        """[B, length, TEXT_DIM]"""
        mask = (tokens != 0).float()
        x = self.t5.shared(tokens, out_dtype=torch.float32)
        hidden = (1 - mask)[:, None, None].expand(-1, 1, x.shape[1], -1) * torch.finfo(torch.float32).min
        for block in self.t5.encoder.block:  # the host's own loop adds in place, which has no gradient
            attention, feed_forward = block.layer
            x = (
                x
                + attention.SelfAttention(attention.layer_norm(x), mask=hidden, optimized_attention=attention_pytorch)[
                    0
                ]
            )
            x = x + feed_forward.DenseReluDense(feed_forward.layer_norm(x))
        x = self.t5.encoder.final_layer_norm(x) * mask.unsqueeze(-1)
        return torch.nn.functional.pad(
            x, (0, TEXT_DIM - x.shape[-1], 0, length - x.shape[1])
        )  # as the host and the sampler pad it

    def host_weights(self):
        return {name: value.half() for name, value in self.t5.state_dict().items()} | {
            "spiece_model": torch.frombuffer(bytearray(self.pieces), dtype=torch.uint8)
        }


@torch.no_grad()
def look_at_own_place(attention):
    """Let the first head begin by attending to tokens at its own position, of which the source has one.

    Query and key are constant in the fastest rotary pairs of time, height and width, so that their product falls with
    the distance. Most edits need just that, and it takes long to find: README.md.
    """
    height, width = 44, 86  # where their pairs begin, of 128; time's are first
    for first, count in ((0, 6), (height, 8), (width, 8)):
        pairs = slice(first, first + count)
        for layer, norm in ((attention.q, attention.norm_q), (attention.k, attention.norm_k)):
            layer.weight[pairs] *= 0.3
            layer.bias[pairs] = torch.tensor([4.0, 0.0]).repeat(count // 2)
            norm.weight[pairs] = 1.5


def liveditor(dim, layers, ffn):
    model = transformer.LIVEditorModel(
        model_type="t2v",
        dim=dim,
        ffn_dim=ffn,
        num_heads=dim // 128,
        num_layers=layers,
        cross_attn_norm=True,
        device="cpu",
        dtype=torch.float32,
        operations=comfy.ops.disable_weight_init,
    )
    initialise(model)
    for block in model.blocks:
        for name, value in (("norm3.weight", 1.0), ("norm3.bias", 0.0)):
            torch.nn.init.constant_(block.get_parameter(name), value)
        torch.nn.init.normal_(block.modulation, std=0.02)
        torch.nn.init.zeros_(block.self_attn.alpha_1.weight)
        for attention in (block.self_attn, block.cross_attn):
            torch.nn.init.ones_(attention.norm_q.weight)
            torch.nn.init.ones_(attention.norm_k.weight)
            torch.nn.init.normal_(attention.o.weight, std=0.02)
        torch.nn.init.normal_(block.ffn[2].weight, std=0.02)
        look_at_own_place(block.self_attn)
    torch.nn.init.zeros_(model.time_projection[1].weight)
    model.time_projection[1].bias.data = torch.tensor([0.0, 0, 1, 0, 0, 1]).repeat_interleave(
        dim
    )  # no shift, no scale, open gates
    torch.nn.init.zeros_(model.head.head.weight)
    torch.nn.init.zeros_(model.head.modulation)
    return model


def _time_embedding(dim, position):
    """The host's, with its frequencies made on the device.

    A copy from the host's memory cannot be recorded in a CUDA graph.
    """
    frequencies = torch.pow(10000, -torch.arange(dim // 2, dtype=torch.float32, device=position.device).div(dim // 2))
    angles = torch.outer(position.float(), frequencies)
    return torch.cat([angles.cos(), angles.sin()], dim=1)


transformer.sinusoidal_embedding_1d = _time_embedding


def _embed_text(embedding, length, context):
    """The same rows as from a context padded with zeros to Wan's length, without computing what is the same for all
    of them.
    """
    width = TEXT_CONFIG["d_model"]
    first = torch.nn.functional.linear(context[..., :width], embedding[0].weight[:, :width], embedding[0].bias)
    rows = embedding[2](embedding[1](first))
    return torch.cat([rows, rows[:, -1:].expand(-1, length - rows.shape[1], -1)], dim=1)


class Editor(torch.nn.Module):
    """Transformer and text encoder: velocity of noisy latents, given the source's latents and instructions."""

    def __init__(self, dim, layers, ffn, pieces):
        super().__init__()
        self.model = liveditor(dim, layers, ffn)
        self.text = TextEncoder(pieces)

        embedding = self.model.text_embedding
        embedding.forward = functools.partial(_embed_text, embedding, self.model.text_len)

    def forward(self, x, sigma, source, tokens, config):
        """Velocity, [B, 16, T, H, W], of latents x at noise levels sigma [B], with `TextEncoder.tokens` of the
        instructions.
        """
        context = self.text(tokens, LONGEST + 1)
        return self.model(
            x, sigma * 1000, context, liveditor_source=source, transformer_options={OPTIONS_KEY: config.to_options()}
        )
