"""The transformer: ComfyUI's Wan with the source stream in context, the gated pooled residual and an fp32 residual
stream.
"""

import contextlib
import logging

import torch

import comfy.ldm.common_dit
import comfy.model_management
import comfy.ops
from comfy.ldm.modules.attention import attention_pytorch, optimized_attention
from comfy.ldm.wan.model import (
    WanAttentionBlock,
    WanModel,
    WanSelfAttention,
    WanT2VCrossAttention,
    repeat_e,
    sinusoidal_embedding_1d,
)

from ..kernels import available_dense_attention, dense_attention, token_ops
from . import attention_record
from .config import SparseAttentionConfig
from .run_report import followed
from .sparse_attention import in_context_sparse_attention
from .token_layout import TokenLayout

try:  # newer hosts record allocations into a graph, which launches of foreign kernels must stay out of
    from comfy.model_prefetch import pause_malloc_graph
except ImportError:
    pause_malloc_graph = contextlib.nullcontext

# What follows the self-attention is done for so many tokens at a time: the feed-forward layer widens each of them 2.7
# times.
# Fewer would have layers that the host keeps off the GPU copied there more often than their products hide.
TOKENS_AT_ONCE = 32_768


def dense_half(transformer_options, device, dtype):
    """What computes the dense half: the attention that the user chose for the host, else the fastest at hand.

    Returns:
        Its name, and a callable (q, k, v) -> out on [B, H, tokens, D].
    """
    chosen = "optimized_attention_override" in transformer_options or optimized_attention is not attention_pytorch
    if chosen or dtype not in (torch.float16, torch.bfloat16) or device.type != "cuda":

        def attend(q, k, v):
            return optimized_attention(
                q,
                k,
                v,
                heads=q.shape[1],
                skip_reshape=True,
                skip_output_reshape=True,
                transformer_options=transformer_options,
            )

        return "an override" if "optimized_attention_override" in transformer_options else getattr(
            optimized_attention, "__name__", "the host's"
        ), attend
    return available_dense_attention(device)[0], dense_attention


@contextlib.contextmanager
def _affine(norm, device):
    """Weight and bias of a norm in fp32 on a device, by the host's own way there.

    Offloaded, patched or quantised alike.
    """
    weight, bias, stream = comfy.ops.cast_bias_weight(
        norm, dtype=torch.float32, device=device, bias_dtype=torch.float32, offloadable=True
    )
    try:
        yield weight, bias
    finally:
        comfy.ops.uncast_bias_weight(norm, weight, bias, stream)


def _rotated(x, norm, freqs):
    with _affine(norm, x.device) as (weight, _):
        return token_ops.normalise_and_rotate(x, weight=weight, rotations=freqs, eps=norm.eps)


def _cast_weights_to_input(module):
    """Let a layer take inputs of another precision than its weights, as the host does for layers it offloads."""
    module.comfy_cast_weights = True
    return module


class LIVEditorSelfAttention(WanSelfAttention):
    """Self-attention over target and source tokens; `alpha_1` weighs the pooled residual of every token."""

    def __init__(self, dim, num_heads, window_size=(-1, -1), qk_norm=True, eps=1e-6, *, operation_settings):
        super().__init__(dim, num_heads, window_size, qk_norm, eps, operation_settings=operation_settings)
        # fp32 whatever the weight type: half a kilobyte of weights decides how much of the residual each token gets.
        self.alpha_1 = _cast_weights_to_input(
            operation_settings["operations"].Linear(
                dim, 1, bias=False, device=operation_settings["device"], dtype=torch.float32
            )
        )

    def forward(self, x, freqs, layout, transformer_options, needed=None):
        """Attend.

        Args:
            x: [B, N, C] modulated input in the compute dtype; or a list that holds nothing else, which is emptied, so
                that its memory is free again during attention.
            freqs: [1, N, 1, D / 2, 2, 2] fp32 rotations.
            layout: TokenLayout of the N tokens.
            needed: how many of the first tokens the caller will read, all if None; only they are given back.

        Returns:
            [B, needed, C].
        """
        x = x.pop() if isinstance(x, list) else x
        gate = 0.5 * (torch.sigmoid(self.alpha_1(x).squeeze(-1).float()) - 0.5)
        q, k = _rotated(self.q(x), self.norm_q, freqs), _rotated(self.k(x), self.norm_k, freqs)
        v = self.v(x).view(q.shape)
        del x

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
        )
        x = x.transpose(1, 2).flatten(2)[:, :needed]
        for patch in patches:
            x = patch({"x": x, "q": q, "k": k, "transformer_options": transformer_options})
        del q, k, v
        return self.o(x)


class LIVEditorCrossAttention(WanT2VCrossAttention):
    """The host's attention to the text, on the dense attention that the self-attention uses."""

    def forward(self, x, context, transformer_options, **kwargs):
        if torch.compiler.is_compiling() or torch.is_grad_enabled():
            return super().forward(x, context, transformer_options=transformer_options, **kwargs)
        q, k, v = self.norm_q(self.q(x)), self.norm_k(self.k(context)), self.v(context)
        _, attend = dense_half(transformer_options, q.device, q.dtype)
        q, k, v = (t.unflatten(-1, (self.num_heads, self.head_dim)).transpose(1, 2) for t in (q, k, v))
        return self.o(attend(q, k, v).transpose(1, 2).flatten(2))


@torch.compiler.disable
def _attend(q, k, v, gate, layout, transformer_options, keep_q, needed):
    """Outside compiled graphs: they drop guards on transformer_options, so a changed setting would not reach them."""
    config = SparseAttentionConfig.from_options(transformer_options)
    dense_kernel, dense = dense_half(transformer_options, q.device, q.dtype)
    record = transformer_options.get(attention_record.KEY)
    watch = None if record is None else record.watch(transformer_options, layout)
    with pause_malloc_graph(), torch.cuda.device_of(q), followed(transformer_options, q, layout, config, dense_kernel):
        return in_context_sparse_attention(
            q,
            k,
            v,
            gate,
            layout=layout,
            config=config,
            dense_attention=dense,
            out=None if keep_q else q,
            needed=needed,
            watch=watch,
        )


class FeedForward(torch.nn.Sequential):
    """The host's linear layer, GELU and linear layer, with the GELU at the end of the first product where cuBLAS does
    it.
    """

    def forward(self, x):
        first, _, last = self
        # Quantised weights are other types of tensor, and only their own layer knows how to multiply by them.
        plain = (
            type(first.weight) in (torch.Tensor, torch.nn.Parameter)
            and first.weight.dtype == x.dtype
            and "forward" not in vars(first)
        )
        if (
            not plain
            or x.device.type != "cuda"
            or x.dtype == torch.float32
            or torch.compiler.is_compiling()
            or torch.is_grad_enabled()
        ):
            return super().forward(x)
        weight, bias, stream = comfy.ops.cast_bias_weight(first, x, offloadable=True)
        try:
            wide = torch._addmm_activation(bias, x.flatten(0, 1), weight.t(), use_gelu=True).unflatten(
                0, x.shape[:2]
            )  # its GELU is the tanh one, as Wan's
        finally:
            comfy.ops.uncast_bias_weight(first, weight, bias, stream)
        return last(wide)


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

    def forward(self, x, e, freqs, context, layout, transformer_options, in_place=False, needed=None):
        """Update the residual stream.

        Args:
            x: [B, N, C] fp32, target tokens before source tokens.
            e: [B, 1, 6, C] fp32 time modulation.
            freqs, layout: as in the self-attention.
            context: [B, 512, C] text in the compute dtype.
            in_place: the result may be written over x.
            needed: how many tokens the caller will read, all if None; only they are given back.

        Returns:
            [B, needed, C] fp32.
        """
        dtype = context.dtype
        shift_1, scale_1, gate_1, shift_2, scale_2, gate_2 = (
            repeat_e(m, x)
            for m in (comfy.model_management.cast_to(self.modulation, torch.float32, x.device).unsqueeze(0) + e).unbind(
                2
            )
        )
        y = [token_ops.add_and_normalise(x, scale=1 + scale_1, shift=shift_1, eps=self.eps, dtype=dtype)[1]]
        only = {} if needed is None else {"needed": needed}
        update = self.self_attn(
            y if in_place else y[0], freqs, layout=layout, transformer_options=transformer_options, **only
        )
        x = x[:, :needed]
        del y

        if not in_place:
            return self._after_self_attention(
                x, update, gate_1, scale_2, shift_2, gate_2, context, transformer_options, in_place=False
            )
        for part, its_update in zip(x.split(TOKENS_AT_ONCE, dim=1), update.split(TOKENS_AT_ONCE, dim=1), strict=True):
            self._after_self_attention(
                part, its_update, gate_1, scale_2, shift_2, gate_2, context, transformer_options, in_place=True
            )
        return x

    def _after_self_attention(
        self, x, update, gate_1, scale_2, shift_2, gate_2, context, transformer_options, in_place
    ):
        """All that concerns each token alone.

        The update by the self-attention, attention to the text, the feed-forward layer.
        """
        dtype = context.dtype
        with _affine(self.norm3, x.device) as (scale, shift):
            x, y = token_ops.add_and_normalise(
                x,
                update,
                gate=gate_1,
                scale=scale.view(1, 1, -1),
                shift=shift.view(1, 1, -1),
                eps=self.norm3.eps,
                dtype=dtype,
                in_place=in_place,
            )
        update = self.cross_attn(y, context, transformer_options=transformer_options)
        patches = transformer_options.get("patches", {}).get("attn2_patch", [])
        if patches:
            x, update = token_ops.add(x, update), None
        for patch in patches:
            x = patch({"x": x, "transformer_options": transformer_options})
        x, y = token_ops.add_and_normalise(
            x, update, scale=1 + scale_2, shift=shift_2, eps=self.eps, dtype=dtype, in_place=in_place
        )
        del update
        return token_ops.add(x, self.ffn(y), gate=gate_2, in_place=in_place)


class LIVEditorModel(WanModel):
    """Wan T2V that reads a source video in context: `[target tokens | source tokens]`, both at the same positions."""

    def __init__(
        self, *, patch_size=(1, 2, 2), in_dim=16, dim=2048, device=None, dtype=None, operations=None, **config
    ):
        super().__init__(
            patch_size=patch_size,
            in_dim=in_dim,
            dim=dim,
            device=device,
            dtype=dtype,
            operations=operations,
            wan_attn_block_class=LIVEditorBlock,
            **config,
        )
        self.source_video_embedding_more_memory = operations.Conv3d(
            in_dim, dim, kernel_size=patch_size, stride=patch_size, device=device, dtype=torch.float32
        )
        for module in (
            self.patch_embedding,
            self.source_video_embedding_more_memory,
            self.head.head,
            self.time_embedding[0],
            self.time_embedding[2],
            self.time_projection[1],
        ):
            _cast_weights_to_input(module)

    def _forward(
        self,
        x,
        timestep,
        context,
        clip_fea=None,
        time_dim_concat=None,
        transformer_options={},  # noqa: B006 (the host's signature)
        liveditor_source=None,
        **kwargs,
    ):
        t, h, w = x.shape[2:]
        x = comfy.ldm.common_dit.pad_to_patch_size(x, self.patch_size)
        source = comfy.ldm.common_dit.pad_to_patch_size(liveditor_source.to(x), self.patch_size)
        freqs = self.rope_encode(t, h, w, device=x.device, dtype=torch.float32, transformer_options=transformer_options)
        out = self.forward_orig(
            x,
            timestep,
            context,
            freqs=torch.cat([freqs, freqs], dim=1),
            transformer_options=transformer_options,
            source=source,
        )
        return out[:, :, :t, :h, :w]

    def forward_orig(self, x, t, context, clip_fea=None, freqs=None, transformer_options=None, *, source):
        """Predict the velocity of the target.

        Args:
            x, source: [B, 16, T, H, W] latents as the transformer sees them, H and W even.
            t: [B] model time, 0 to 1000; the model was trained on whole numbers, so it is floored.
            context: [B, L, 4096] text.
            freqs: [1, 2 * tokens of x, 1, D / 2, 2, 2] fp32.

        Returns:
            [B, 16, T, H, W] fp32.
        """
        transformer_options = {} if transformer_options is None else transformer_options
        x_input = x
        x = self.patch_embedding(x.float())
        grid_sizes = transformer_options["grid_sizes"] = x.shape[2:]
        source = self.source_video_embedding_more_memory(source.float())
        x, source = x.flatten(2).transpose(1, 2), source.flatten(2).transpose(1, 2)
        layout = TokenLayout(target=x.shape[1], source=source.shape[1])
        x = torch.cat([x, source], dim=1)
        del source

        e = self.time_embedding(sinusoidal_embedding_1d(self.freq_dim, t.floor().flatten()))
        e = e.reshape(t.shape[0], -1, e.shape[-1])
        e0 = self.time_projection(e).unflatten(2, (6, self.dim))
        if e0.shape[1] > 1:  # a time for every frame, which the source's frames share
            e0 = torch.cat([e0, e0], dim=1)
        context = self.text_embedding(context)

        first_step = _is_first_step(transformer_options)
        if first_step:
            self._warn_of_replaced_attention()
        sums = []
        patches = transformer_options.get("patches", {})
        blocks_replace = transformer_options.get("patches_replace", {}).get("dit", {})
        transformer_options["total_blocks"] = len(self.blocks)
        transformer_options["block_type"] = "double"
        # Other packs may keep what a block was given, graphs are compiled and trained without overwriting,
        # and a time for
        # every frame means a modulation for every token, which parts of the sequence would have to share out.
        private = not (
            e0.shape[1] > 1
            or patches
            or blocks_replace
            or self._has_replaced_layers()
            or torch.compiler.is_compiling()
            or torch.is_grad_enabled()
        )
        for i, block in enumerate(self.blocks):
            transformer_options["block_index"] = i
            if ("double_block", i) in blocks_replace:

                def block_wrap(args, block=block):
                    return {
                        "img": block(
                            args["img"],
                            e=args["vec"],
                            freqs=args["pe"],
                            context=args["txt"],
                            layout=layout,
                            transformer_options=args["transformer_options"],
                        )
                    }

                x = blocks_replace["double_block", i](
                    {"img": x, "txt": context, "vec": e0, "pe": freqs, "transformer_options": transformer_options},
                    {"original_block": block_wrap},
                )["img"]
            else:
                needed = layout.target if private and block is self.blocks[-1] else None
                x = block(
                    x,
                    e=e0,
                    freqs=freqs,
                    context=context,
                    layout=layout,
                    transformer_options=transformer_options,
                    in_place=private,
                    needed=needed,
                )
            for patch in patches.get("double_block", []):
                x = patch(
                    {
                        "img": x,
                        "x": x_input,
                        "vec": e,
                        "block_index": i,
                        "img_offset": 0,
                        "transformer_options": transformer_options,
                    }
                )["img"]
            if first_step:
                sums.append(x.sum())
        if first_step:
            _refuse_nan(sums)

        x = self.head(x[:, : layout.target], e)
        return self.unpatchify(x, grid_sizes)

    def _has_replaced_layers(self):
        """Whether other packs compute anything within a block, and may want all of the sequence at once."""
        return any("forward" in vars(module) for block in self.blocks for module in block.modules())

    def _warn_of_replaced_attention(self):
        if replaced := sum("forward" in vars(block.self_attn) for block in self.blocks):
            logging.warning(
                f"LIVEditor: another node replaced the self-attention of {replaced} blocks, so SAR, SRR and flat "
                "ratio have no effect there."
            )


def _refuse_nan(sums):
    """Say where NaN began. A sum over all of a block's answer is NaN or infinite if any number in it is."""
    broken = torch.stack(sums).isfinite().logical_not().nonzero().flatten().tolist()
    if broken:
        raise ValueError(
            f"LIVEditor: the first step gave NaN or infinity in block {broken[0]} of {len(sums)}. The checkpoint "
            "is damaged "
            "or its weight type too coarse; convert it again, or load it with weight type bf16."
        )


def _is_first_step(transformer_options):
    sigmas, current = transformer_options.get("sample_sigmas"), transformer_options.get("sigmas")
    return sigmas is not None and current is not None and bool(current[0] == sigmas[0])
