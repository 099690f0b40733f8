"""The transformer: ComfyUI's Wan with the source stream in context, the gated pooled residual and an fp32 residual stream."""

import contextlib
import logging

import torch

import comfy.ldm.common_dit
import comfy.model_management
from comfy.ldm.flux.math import apply_rope1
from comfy.ldm.modules.attention import attention_pytorch, optimized_attention
from comfy.ldm.wan.model import WanAttentionBlock, WanModel, WanSelfAttention, repeat_e, sinusoidal_embedding_1d

from ..kernels import available_dense_attention, dense_attention
from .config import SparseAttentionConfig
from .run_report import timed
from .sparse_attention import in_context_sparse_attention
from .token_layout import TokenLayout

try:  # newer hosts record allocations into a graph, which launches of foreign kernels must stay out of
    from comfy.model_prefetch import pause_malloc_graph
except ImportError:
    pause_malloc_graph = contextlib.nullcontext


def dense_half(transformer_options, device, dtype):
    """What computes the dense half: the attention that the user chose for the host, else the fastest at hand.

    Returns:
        Its name, and a callable (q, k, v) -> out on [B, H, tokens, D].
    """
    chosen = "optimized_attention_override" in transformer_options or optimized_attention is not attention_pytorch
    if chosen or dtype not in (torch.float16, torch.bfloat16) or device.type != "cuda":
        def attend(q, k, v):
            return optimized_attention(q, k, v, heads=q.shape[1], skip_reshape=True, skip_output_reshape=True, transformer_options=transformer_options)
        return "an override" if "optimized_attention_override" in transformer_options else getattr(optimized_attention, "__name__", "the host's"), attend
    return available_dense_attention(device)[0], dense_attention


def _cast_weights_to_input(module):
    """Let a layer take inputs of another precision than its weights, as the host does for layers it offloads."""
    module.comfy_cast_weights = True
    return module


class LIVEditorSelfAttention(WanSelfAttention):
    """Self-attention over target and source tokens; `alpha_1` weighs the pooled residual of every token."""

    def __init__(self, dim, num_heads, window_size=(-1, -1), qk_norm=True, eps=1e-6, operation_settings={}):
        super().__init__(dim, num_heads, window_size, qk_norm, eps, operation_settings=operation_settings)
        # fp32 whatever the weight type: half a kilobyte of weights decides how much of the residual each token gets.
        self.alpha_1 = _cast_weights_to_input(operation_settings["operations"].Linear(
            dim, 1, bias=False, device=operation_settings["device"], dtype=torch.float32))

    def forward(self, x, freqs, layout, transformer_options={}):
        """Attend.

        Args:
            x: [B, N, C] modulated input in the compute dtype.
            freqs: [1, N, 1, D / 2, 2, 2] fp32 rotations.
            layout: TokenLayout of the N tokens.

        Returns:
            [B, N, C].
        """
        b, n = x.shape[:2]
        heads = (b, n, self.num_heads, self.head_dim)
        gate = 0.5 * (torch.sigmoid(self.alpha_1(x).squeeze(-1).float()) - 0.5)
        q = apply_rope1(self.norm_q(self.q(x)).view(heads), freqs)
        k = apply_rope1(self.norm_k(self.k(x)).view(heads), freqs)
        v = self.v(x).view(heads)

        x = _attend(q.transpose(1, 2), k.transpose(1, 2), v.transpose(1, 2), gate, layout, transformer_options)
        x = x.transpose(1, 2).reshape(b, n, -1)
        for patch in transformer_options.get("patches", {}).get("attn1_patch", []):
            x = patch({"x": x, "q": q, "k": k, "transformer_options": transformer_options})
        return self.o(x)


@torch.compiler.disable
def _attend(q, k, v, gate, layout, transformer_options):
    """Outside compiled graphs: they drop guards on transformer_options, so a changed setting would not reach them."""
    config = SparseAttentionConfig.from_options(transformer_options)
    _, dense = dense_half(transformer_options, q.device, q.dtype)
    with pause_malloc_graph(), torch.cuda.device_of(q), timed(transformer_options, q, layout, config):
        return in_context_sparse_attention(q, k, v, gate, layout=layout, config=config, dense_attention=dense)


class LIVEditorBlock(WanAttentionBlock):
    """A Wan block whose residual stream and modulation are fp32 and whose matrix products run in the compute dtype."""

    def __init__(self, cross_attn_type, dim, ffn_dim, num_heads, window_size=(-1, -1), qk_norm=True, cross_attn_norm=False, eps=1e-6, operation_settings={}):
        super().__init__(cross_attn_type, dim, ffn_dim, num_heads, window_size, qk_norm, cross_attn_norm, eps, operation_settings=operation_settings)
        self.self_attn = LIVEditorSelfAttention(dim, num_heads, window_size, qk_norm, eps, operation_settings=operation_settings)
        self.modulation = torch.nn.Parameter(torch.empty(1, 6, dim, device=operation_settings["device"], dtype=torch.float32))

    def forward(self, x, e, freqs, context, layout, transformer_options={}):
        """Update the residual stream.

        Args:
            x: [B, N, C] fp32, target tokens before source tokens.
            e: [B, 1, 6, C] fp32 time modulation.
            freqs, layout: as in the self-attention.
            context: [B, 512, C] text in the compute dtype.

        Returns:
            [B, N, C] fp32.
        """
        dtype = context.dtype
        shift_1, scale_1, gate_1, shift_2, scale_2, gate_2 = (
            repeat_e(m, x) for m in (comfy.model_management.cast_to(self.modulation, torch.float32, x.device).unsqueeze(0) + e).unbind(2))
        y = torch.addcmul(shift_1, self.norm1(x), 1 + scale_1).to(dtype)
        x = torch.addcmul(x, self.self_attn(y, freqs, layout=layout, transformer_options=transformer_options), gate_1)
        x = x + self.cross_attn(self.norm3(x).to(dtype), context, transformer_options=transformer_options)
        for patch in transformer_options.get("patches", {}).get("attn2_patch", []):
            x = patch({"x": x, "transformer_options": transformer_options})
        y = torch.addcmul(shift_2, self.norm2(x), 1 + scale_2).to(dtype)
        return torch.addcmul(x, self.ffn(y), gate_2)


class LIVEditorModel(WanModel):
    """Wan T2V that reads a source video in context: `[target tokens | source tokens]`, both at the same positions."""

    def __init__(self, *, patch_size=(1, 2, 2), in_dim=16, dim=2048, device=None, dtype=None, operations=None, **config):
        super().__init__(patch_size=patch_size, in_dim=in_dim, dim=dim, device=device, dtype=dtype, operations=operations,
                         wan_attn_block_class=LIVEditorBlock, **config)
        self.source_video_embedding_more_memory = operations.Conv3d(
            in_dim, dim, kernel_size=patch_size, stride=patch_size, device=device, dtype=torch.float32)
        for module in (self.patch_embedding, self.source_video_embedding_more_memory, self.head.head, *self._fp32_inputs()):
            _cast_weights_to_input(module)

    def _fp32_inputs(self):
        return [self.time_embedding[0], self.time_embedding[2], self.time_projection[1], *(block.norm3 for block in self.blocks)]

    def _forward(self, x, timestep, context, clip_fea=None, time_dim_concat=None, transformer_options={}, liveditor_source=None, **kwargs):
        t, h, w = x.shape[2:]
        x = comfy.ldm.common_dit.pad_to_patch_size(x, self.patch_size)
        source = comfy.ldm.common_dit.pad_to_patch_size(liveditor_source.to(x), self.patch_size)
        freqs = self.rope_encode(t, h, w, device=x.device, dtype=torch.float32, transformer_options=transformer_options)
        out = self.forward_orig(x, timestep, context, freqs=torch.cat([freqs, freqs], dim=1), transformer_options=transformer_options, source=source)
        return out[:, :, :t, :h, :w]

    def forward_orig(self, x, t, context, clip_fea=None, freqs=None, transformer_options={}, *, source):
        """Predict the velocity of the target.

        Args:
            x, source: [B, 16, T, H, W] latents as the transformer sees them, H and W even.
            t: [B] model time, 0 to 1000; the model was trained on whole numbers, so it is floored.
            context: [B, L, 4096] text.
            freqs: [1, 2 * tokens of x, 1, D / 2, 2, 2] fp32.

        Returns:
            [B, 16, T, H, W] fp32.
        """
        dtype = context.dtype
        x_input = x
        x = self.patch_embedding(x.float())
        grid_sizes = transformer_options["grid_sizes"] = x.shape[2:]
        source = self.source_video_embedding_more_memory(source.float())
        x, source = x.flatten(2).transpose(1, 2), source.flatten(2).transpose(1, 2)
        layout = TokenLayout(target=x.shape[1], source=source.shape[1])
        x = torch.cat([x, source], dim=1)

        e = self.time_embedding(sinusoidal_embedding_1d(self.freq_dim, t.floor().flatten()))
        e = e.reshape(t.shape[0], -1, e.shape[-1])
        e0 = self.time_projection(e).unflatten(2, (6, self.dim))
        context = self.text_embedding(context)

        check_finite = _is_first_step(transformer_options)
        if check_finite:
            self._warn_of_replaced_attention()
        patches = transformer_options.get("patches", {})
        blocks_replace = transformer_options.get("patches_replace", {}).get("dit", {})
        transformer_options["total_blocks"] = len(self.blocks)
        transformer_options["block_type"] = "double"
        for i, block in enumerate(self.blocks):
            transformer_options["block_index"] = i
            if ("double_block", i) in blocks_replace:
                def block_wrap(args, block=block):
                    return {"img": block(args["img"], e=args["vec"], freqs=args["pe"], context=args["txt"], layout=layout,
                                         transformer_options=args["transformer_options"])}
                x = blocks_replace["double_block", i]({"img": x, "txt": context, "vec": e0, "pe": freqs, "transformer_options": transformer_options},
                                                      {"original_block": block_wrap})["img"]
            else:
                x = block(x, e=e0, freqs=freqs, context=context, layout=layout, transformer_options=transformer_options)
            for patch in patches.get("double_block", []):
                x = patch({"img": x, "x": x_input, "vec": e, "block_index": i, "img_offset": 0, "transformer_options": transformer_options})["img"]
            if check_finite and not torch.isfinite(x).all():
                raise ValueError(f"LIVEditor: the first step gave NaN or infinity in block {i} of {len(self.blocks)}. The checkpoint is damaged "
                                 "or its weight type too coarse; convert it again, or load it with weight type bf16.")

        x = self.head(x[:, :layout.target], e)
        return self.unpatchify(x, grid_sizes)

    def _warn_of_replaced_attention(self):
        replaced = [i for i, block in enumerate(self.blocks) if "forward" in vars(block.self_attn)]
        if replaced:
            logging.warning(f"LIVEditor: another node replaced the self-attention of {len(replaced)} blocks, so SAR, SRR and flat ratio have no effect there.")


def _is_first_step(transformer_options):
    sigmas, current = transformer_options.get("sample_sigmas"), transformer_options.get("sigmas")
    return sigmas is not None and current is not None and bool(current[0] == sigmas[0])
