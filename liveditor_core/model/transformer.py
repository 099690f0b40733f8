"""The transformer: ComfyUI's Wan with the source stream in context and an fp32 residual stream."""

import torch

import comfy.ldm.common_dit
from comfy.ldm.wan.model import WanModel, sinusoidal_embedding_1d

from ..attention.token_layout import TokenLayout
from . import finite
from .block import LIVEditorBlock
from .gpu_groups import group_of_call, is_watched, options_of_another
from .layers import cast_weights_to_input
from .neighbours import has_replaced_layers, refuse_replaced_forward, warn_of_replaced_attention
from .source_reuse import reuse_of_call


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
            cast_weights_to_input(module)

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
        refuse_replaced_forward(self)
        t, h, w = x.shape[2:]
        x = comfy.ldm.common_dit.pad_to_patch_size(x, self.patch_size)
        source = comfy.ldm.common_dit.pad_to_patch_size(liveditor_source.to(x), self.patch_size)
        freqs = self.rope_encode(t, h, w, device=x.device, dtype=torch.float32, transformer_options=transformer_options)
        freqs = torch.cat([freqs, freqs], dim=1)
        group = group_of_call(transformer_options, x)
        if group is not None and freqs.shape[1] // 2 < len(group.devices):
            group = None  # there is not a token for each
        if group is None or not self._is_private(transformer_options, timestep) or is_watched(transformer_options):
            out = self.forward_orig(
                x, timestep, context, freqs=freqs, transformer_options=transformer_options, source=source
            )
            return out[:, :, :t, :h, :w]

        def on_one(transformer, seat, device):
            options = options_of_another(transformer_options, device) if seat.rank else transformer_options
            x_there, time, text, rotations, source_there = (
                each.to(device) for each in (x, timestep, context, freqs, source)
            )
            return transformer.forward_orig(
                x_there,
                time,
                text,
                freqs=rotations,
                transformer_options=options,
                source=source_there,
                seat=seat,
            )

        tokens = torch.cat([part.to(x.device) for part in group.together(on_one)], dim=1)
        grid_sizes = (t, *(side // patch for side, patch in zip(x.shape[3:], self.patch_size[1:], strict=True)))
        return self.unpatchify(tokens, grid_sizes)[:, :, :t, :h, :w]

    def _is_private(self, transformer_options, t):
        """Whether nobody but the blocks sees what happens within a call.

        Other packs may keep what a block was given, graphs are compiled and trained without overwriting, and a time
        for every frame means a modulation for every token, which parts of the sequence would have to share out.
        """
        return not (
            t.dim() > 1
            and t.shape[1] > 1
            or transformer_options.get("patches")
            or transformer_options.get("patches_replace", {}).get("dit")
            or has_replaced_layers(self.blocks)
            or torch.compiler.is_compiling()
            or torch.is_grad_enabled()
        )

    def forward_orig(self, x, t, context, clip_fea=None, freqs=None, transformer_options=None, *, source, seat=None):
        """Predict the velocity of the target.

        Args:
            x, source: [B, 16, T, H, W] latents as the transformer sees them, H and W even.
            t: [B] model time, 0 to 1000; the model was trained on whole numbers, so it is floored.
            context: [B, L, 4096] text.
            freqs: [1, tokens of x and source, 1, D / 2, 2, 2] fp32.
            seat: `shared_tokens.Seat` of this GPU where several compute the call together.

        Returns:
            [B, 16, T, H, W] fp32; with `seat` what becomes of this GPU's part of the target, [B, tokens, 64].
        """
        transformer_options = {} if transformer_options is None else transformer_options
        x_input = x
        x = self.patch_embedding(x.float())
        grid_sizes = transformer_options["grid_sizes"] = x.shape[2:]
        x = x.flatten(2).transpose(1, 2)
        layout = TokenLayout(target=x.shape[1], source=freqs.shape[1] - x.shape[1])

        e = self.time_embedding(sinusoidal_embedding_1d(self.freq_dim, t.floor().flatten()))
        e = e.reshape(t.shape[0], -1, e.shape[-1])
        e0 = self.time_projection(e).unflatten(2, (6, self.dim))
        if e0.shape[1] > 1:  # a time for every frame, which the source's frames share
            e0 = torch.cat([e0, e0], dim=1)
        context = self.text_embedding(context)

        if _is_first_step(transformer_options):
            warn_of_replaced_attention(self.blocks)
        patches = transformer_options.get("patches", {})
        blocks_replace = transformer_options.get("patches_replace", {}).get("dit", {})
        transformer_options["total_blocks"] = len(self.blocks)
        transformer_options["block_type"] = "double"
        private = self._is_private(transformer_options, t)
        part = None if seat is None else seat.part(layout, self.num_heads, x.device)
        rank, own_target = (0, layout.target) if part is None else (part.rank, part.target)
        reuse = reuse_of_call(transformer_options, layout, x, len(self.blocks), rank) if private else None
        target_alone = reuse is not None and reuse.has_source
        if target_alone:
            freqs = freqs[:, : layout.target]
        else:
            source = self.source_video_embedding_more_memory(source.float())
            x = torch.cat([x, source.flatten(2).transpose(1, 2)], dim=1)
        del source
        if part is not None:
            x, freqs = part.of_both(x), part.of_both(freqs)
        x = x.contiguous()
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
                needed = own_target if target_alone or private and block is self.blocks[-1] else None
                x = block(
                    x,
                    e=e0,
                    freqs=freqs,
                    context=context,
                    layout=layout,
                    transformer_options=transformer_options,
                    in_place=private,
                    needed=needed,
                    kept=None if reuse is None else reuse.of_block(i),
                    **({} if part is None else {"part": part}),
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
            finite.note(transformer_options, x)

        x = self.head(x[:, :own_target], e)
        return x if part is not None else self.unpatchify(x, grid_sizes)


def _is_first_step(transformer_options):
    sigmas, current = transformer_options.get("sample_sigmas"), transformer_options.get("sigmas")
    return sigmas is not None and current is not None and bool(current[0] == sigmas[0])
