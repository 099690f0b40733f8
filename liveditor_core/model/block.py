"""A block of the transformer: self-attention, attention to the text, feed-forward layer.

The residual stream is fp32.
"""

from typing import NamedTuple

import torch

import comfy.model_management
from comfy.ldm.wan.model import WanAttentionBlock, repeat_e

from . import foreign_launches, fp8_inputs
from .feed_forward import FeedForward
from .layers import affine
from .self_attention import LIVEditorCrossAttention, LIVEditorSelfAttention

# What follows the self-attention is done for so many tokens at a time: the feed-forward layer widens each of them 2.7
# times.
# Fewer would have layers that the host keeps off the GPU copied there more often than their products hide.
TOKENS_AT_ONCE = 32_768


class Modulation(NamedTuple):
    """How the time modulates one block: what its norms' answers and its updates are shifted and multiplied by.

    All [B, 1 or N, C] fp32.
    """

    attention_shift: torch.Tensor
    attention_scale: torch.Tensor
    attention_gate: torch.Tensor
    feed_forward_shift: torch.Tensor
    feed_forward_scale: torch.Tensor
    feed_forward_gate: torch.Tensor


class LIVEditorBlock(WanAttentionBlock):
    """A Wan block whose residual stream and modulation are fp32 and whose matrix products run in the compute dtype."""

    def __init__(
        self,
        cross_attn_type,
        dim,
        ffn_dim,
        num_heads,
        window_size=(-1, -1),
        qk_norm=True,
        cross_attn_norm=False,
        eps=1e-6,
        *,
        operation_settings,
    ):
        super().__init__(
            cross_attn_type,
            dim,
            ffn_dim,
            num_heads,
            window_size,
            qk_norm,
            cross_attn_norm,
            eps,
            operation_settings=operation_settings,
        )
        self.self_attn = LIVEditorSelfAttention(
            dim, num_heads, window_size, qk_norm, eps, operation_settings=operation_settings
        )
        self.cross_attn = LIVEditorCrossAttention(
            dim, num_heads, (-1, -1), qk_norm, eps, operation_settings=operation_settings
        )
        self.ffn = FeedForward(*self.ffn)
        self.modulation = torch.nn.Parameter(
            torch.empty(1, 6, dim, device=operation_settings["device"], dtype=torch.float32)
        )

    def forward(
        self, x, e, freqs, context, layout, transformer_options, in_place=False, needed=None, kept=None, part=None
    ):
        """Update the residual stream.

        Args:
            x: [B, N, C] fp32, target tokens before source tokens; the target's alone where `kept` has the source, and
                with `part` of that part alone.
            e: [B, 1, 6, C] fp32 time modulation.
            freqs, layout: as in the self-attention.
            context: [B, 512, C] text in the compute dtype.
            in_place: the result may be written over x.
            needed: how many tokens the caller will read, all if None; only they are given back.
            kept, part: as in the self-attention.

        Returns:
            [B, needed, C] fp32.
        """
        dtype = context.dtype
        e = comfy.model_management.cast_to(self.modulation, torch.float32, x.device).unsqueeze(0) + e
        time = Modulation(*(repeat_e(vector, x) for vector in e.unbind(2)))
        attention = self.self_attn
        how = {"scale": 1 + time.attention_scale, "shift": time.attention_shift, "eps": self.eps, "dtype": dtype}
        if in_place and fp8_inputs.accept(x, attention.q, attention.k, attention.v):
            y = [fp8_inputs.add_and_normalise(x, **how, dot_with=attention.alpha_1)[1]]
        else:
            y = [foreign_launches.add_and_normalise(x, **how)[1]]
        only = {"needed": needed, "kept": kept, "part": part}
        only = {name: value for name, value in only.items() if value is not None}
        update = attention(
            y if in_place else y[0], freqs, layout=layout, transformer_options=transformer_options, **only
        )
        x = x[:, :needed]
        del y

        if not in_place:
            return self._after_self_attention(x, update, time, context, transformer_options, in_place=False)
        for some, its_update in zip(x.split(TOKENS_AT_ONCE, dim=1), update.split(TOKENS_AT_ONCE, dim=1), strict=True):
            self._after_self_attention(some, its_update, time, context, transformer_options, in_place=True)
        return x

    def _after_self_attention(self, x, update, time, context, transformer_options, in_place):
        """All that concerns each token alone.

        The update by the self-attention, attention to the text, the feed-forward layer.
        """
        dtype = context.dtype

        def normalise_for(layer):
            return (fp8_inputs if in_place and fp8_inputs.accept(x, layer) else foreign_launches).add_and_normalise

        with affine(self.norm3, x.device) as (scale, shift):
            x, y = normalise_for(self.cross_attn.q)(
                x,
                update,
                gate=time.attention_gate,
                scale=scale.view(1, 1, -1),
                shift=shift.view(1, 1, -1),
                eps=self.norm3.eps,
                dtype=dtype,
                in_place=in_place,
            )
        update = self.cross_attn(y, context, transformer_options=transformer_options)
        patches = transformer_options.get("patches", {}).get("attn2_patch", [])
        if patches:
            x, update = foreign_launches.add(x, update), None
        for patch in patches:
            x = patch({"x": x, "transformer_options": transformer_options})
        x, y = normalise_for(self.ffn[0])(
            x,
            update,
            scale=1 + time.feed_forward_scale,
            shift=time.feed_forward_shift,
            eps=self.eps,
            dtype=dtype,
            in_place=in_place,
        )
        del update
        return foreign_launches.add(x, self.ffn(y), gate=time.feed_forward_gate, in_place=in_place)
