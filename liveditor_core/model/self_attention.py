"""Attention within a block: over target and source tokens with the pooled residual, and to the text."""

import torch

from comfy.ldm.wan.model import WanSelfAttention, WanT2VCrossAttention

from ..attention.config import SparseAttentionConfig
from ..attention.kept_source import with_room
from ..attention.observers import RECORD_KEY, followed
from ..attention.sparse_attention import in_context_sparse_attention
from .dense_attention import choose_dense_attention
from .foreign_launches import normalise_and_rotate, unrecorded
from .fp8_inputs import Rounded, product
from .layers import affine, cast_weights_to_input


def _rotated(x, norm, freqs):
    with affine(norm, x.device) as (weight, _):
        return normalise_and_rotate(x, weight=weight, rotations=freqs, eps=norm.eps)


class LIVEditorSelfAttention(WanSelfAttention):
    """Self-attention over target and source tokens; `alpha_1` weighs the pooled residual of every token."""

    def __init__(self, dim, num_heads, window_size=(-1, -1), qk_norm=True, eps=1e-6, *, operation_settings):
        super().__init__(dim, num_heads, window_size, qk_norm, eps, operation_settings=operation_settings)
        # fp32 whatever the weight type: half a kilobyte of weights decides how much of the residual each token gets.
        self.alpha_1 = cast_weights_to_input(
            operation_settings["operations"].Linear(
                dim, 1, bias=False, device=operation_settings["device"], dtype=torch.float32
            )
        )

    def forward(self, x, freqs, layout, transformer_options, needed=None, kept=None, part=None):
        """Attend.

        Args:
            x: [B, N, C] modulated input in the compute dtype, or Rounded with the answer of `alpha_1`; or a list that
                holds nothing else, which is emptied, so that its memory is free again during attention.
            freqs: [1, N, 1, D / 2, 2, 2] fp32 rotations.
            layout: TokenLayout of the N tokens; where `kept` has the source, x and freqs are of the target's alone,
                and with `part` of that part alone.
            needed: how many of the first tokens the caller will read, all if None; only they are given back.
            kept: `source_reuse.OfBlock`, that takes or has the source; None for neither.
            part: `shared_tokens.Part` of this GPU, where others have the other tokens; None where it has all.

        Returns:
            [B, needed, C].
        """
        x = x.pop() if isinstance(x, list) else x
        weight = x.dot if isinstance(x, Rounded) else self.alpha_1(x).squeeze(-1).float()
        gate = 0.5 * (torch.sigmoid(weight) - 0.5)

        has_source = kept is not None and kept.source is not None

        def whole(tokens):  # one after the other, so that the parts are gone before the next
            return with_room(tokens, layout) if has_source else tokens

        def own_heads(tokens):
            return whole(tokens) if part is None else part.own_heads_of_all(tokens)

        gate = whole(gate) if part is None else part.all_tokens(gate)
        q, k = (
            own_heads(_rotated(product(layer, x), norm, freqs))
            for layer, norm in ((self.q, self.norm_q), (self.k, self.norm_k))
        )
        v = own_heads(product(self.v, x).view(*x.shape[:2], self.num_heads, self.head_dim))
        del x
        answered = None
        if part is not None:
            part.arrive()
            q, k, v, gate = map(whole, (q, k, v, gate))
            needed = needed if needed is None else layout.target
            answered = part.answered(q[:, :needed])

        patches = transformer_options.get("patches", {}).get("attn1_patch", [])
        x = _attend(
            q.transpose(1, 2),
            k.transpose(1, 2),
            v.transpose(1, 2),
            gate,
            layout,
            transformer_options,
            keep_q=bool(patches),
            needed=needed,
            kept=kept,
            answered=answered,
        )
        x = x.transpose(1, 2)
        if part is not None:
            x = part.own_tokens_of_all(x[:, :needed])
        x = x.flatten(2)[:, :needed]
        for patch in patches:
            x = patch({"x": x, "q": q, "k": k, "transformer_options": transformer_options})
        del q, k, v
        return self.o(x)


class LIVEditorCrossAttention(WanT2VCrossAttention):
    """The host's attention to the text, on the dense attention that the self-attention uses."""

    def forward(self, x, context, transformer_options, **kwargs):
        if torch.compiler.is_compiling() or torch.is_grad_enabled():
            return super().forward(x, context, transformer_options=transformer_options, **kwargs)
        q, k, v = self.norm_q(product(self.q, x)), self.norm_k(self.k(context)), self.v(context)
        dense = unrecorded(choose_dense_attention)(transformer_options, q.device, q.dtype)
        q, k, v = (t.unflatten(-1, (self.num_heads, self.head_dim)).transpose(1, 2) for t in (q, k, v))
        attend = unrecorded(dense.attend) if dense.is_ours else dense.attend
        return self.o(attend(q, k, v).transpose(1, 2).flatten(2))


@torch.compiler.disable
@unrecorded
def _attend(q, k, v, gate, layout, transformer_options, keep_q, needed, kept=None, answered=None):
    """Outside compiled graphs: they drop guards on transformer_options, so a changed setting would not reach them."""
    config = SparseAttentionConfig.from_options(transformer_options)
    dense = choose_dense_attention(
        transformer_options, q.device, q.dtype, head_dim=q.shape[-1], bits=config.attention_bits
    )
    record = transformer_options.get(RECORD_KEY)
    watch = None if record is None else record.watch(transformer_options, layout)
    with torch.cuda.device_of(q), followed(transformer_options, q, layout, config, dense.name, dense.without):
        return in_context_sparse_attention(
            q,
            k,
            v,
            gate,
            layout=layout,
            config=config,
            dense_attention=dense.attend,
            out=None if keep_q else q,
            needed=needed,
            watch=watch,
            keep=None if kept is None or kept.source is not None else kept.keep,
            kept=None if kept is None else kept.source,
            answered=answered,
        )
