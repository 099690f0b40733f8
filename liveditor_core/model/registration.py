"""How ComfyUI recognises a LIVEditor checkpoint and what it builds from it.

Registered once, before Wan's own T2V, so that every stock loader finds it.
"""

import functools
import math

import torch

import comfy.conds
import comfy.model_base
import comfy.model_management
import comfy.supported_models

from ..attention.kept_source import bytes_of_kept_source
from ..attention.plan import plan_attention
from ..attention.token_layout import TokenLayout
from ..checkpoint.weights import SOURCE_EMBEDDING, UNUSED_WEIGHTS
from . import finite, make_room
from .gpu_groups import group_of_call
from .memory_estimate import memory_of_call, widths_of
from .neighbours import refuse_foreign_conditionings, refuse_times
from .transformer import LIVEditorModel

SOURCE_KEY = "liveditor_source"
KEPT_KEY = "liveditor_kept"  # in a conditioning: bytes that stay on the GPU for it from one call to the next


class _Bytes(comfy.conds.CONDConstant):
    """A number of bytes, which the host's estimates see as the size of a tensor."""

    def size(self):
        return [self.cond]


class LIVEditor(comfy.model_base.WAN21):
    """The host's Wan with a source latent per conditioning."""

    def __init__(self, model_config, device=None):
        super(comfy.model_base.WAN21, self).__init__(
            model_config, comfy.model_base.ModelType.FLOW, device=device, unet_model=LIVEditorModel
        )
        self.image_to_video = False

    def _apply_model(self, x, t, c_concat=None, c_crossattn=None, control=None, transformer_options=None, **kwargs):
        transformer_options = {} if transformer_options is None else transformer_options
        call = functools.partial(super()._apply_model, x, t, c_concat, c_crossattn, control, **kwargs)
        group = group_of_call(transformer_options, x)
        patchers = [self.current_patcher] if group is None else group.patchers
        answer = make_room.call_again(
            [each for each in patchers if each is not None], functools.partial(call, transformer_options)
        )
        if not torch.is_grad_enabled():
            finite.refuse(answer, x, transformer_options, call)
        return answer

    def extra_conds(self, **kwargs):
        refuse_foreign_conditionings(kwargs)
        refuse_times(kwargs)
        out = super().extra_conds(**kwargs)
        cross_attn = kwargs.get("cross_attn")
        if cross_attn is not None:
            missing = self.diffusion_model.text_len - cross_attn.shape[1]
            out["c_crossattn"] = comfy.conds.CONDRegular(
                torch.nn.functional.pad(cross_attn, (0, 0, 0, max(0, missing)))
            )
        out[SOURCE_KEY] = comfy.conds.CONDNoiseShape(self.process_latent_in(self._source(kwargs)))
        if KEPT_KEY in kwargs:
            out[KEPT_KEY] = _Bytes(kwargs[KEPT_KEY])
        return out

    def extra_conds_shapes(self, **kwargs):
        kept = {KEPT_KEY: [kwargs[KEPT_KEY]]} if KEPT_KEY in kwargs else {}
        return super().extra_conds_shapes(**kwargs) | kept

    def _source(self, kwargs):
        """The source of one conditioning, checked against the latent to sample."""
        name, noise, source = kwargs.get("prompt_type", "the"), kwargs["noise"], kwargs.get(SOURCE_KEY)
        if source is None:
            raise ValueError(
                f"LIVEditor: the {name} conditioning carries no source video. Pass both positive and negative through "
                "Encode Source Video, or sample with LIVEdit Sampler."
            )
        if source.shape[1:] != noise.shape[1:]:
            raise ValueError(
                f"LIVEditor: the source of the {name} conditioning must be of the same size as the latent, got "
                f"{_size(source)} against {_size(noise)}. Sample the latent that Encode Source Video gives out."
            )
        return source

    def memory_required(self, input_shape, cond_shapes=None):
        """Bytes that one call needs beside the weights, for the host to decide what stays on the GPU.

        The source is always there and as large as the latent.

        Args:
            input_shape: [B, 16, T, H, W].
            cond_shapes: of the conditionings, by their keys.
        """
        kept = sum(math.prod(each) for each in (cond_shapes or {}).get(KEPT_KEY, ()))
        tokens = self.layout_of(input_shape).tokens
        return self.memory_of_call(input_shape[0], tokens) + make_room.BETWEEN_BLOCKS + kept

    def memory_of_call(self, batch, tokens):
        """The same for so many tokens of target and source together."""
        dtype = self.get_dtype_inference()
        return memory_of_call(widths_of(self.diffusion_model, dtype), batch, tokens, dtype=dtype)

    def memory_of_kept_source(self, shape, config, device):
        """Bytes that stay on a device for each prompt where the source is not computed in every step.

        Args:
            shape: of the latent, [B, 16, T, H, W].
            config: SparseAttentionConfig.

        Raises:
            BackendUnavailable: the backend that the settings name cannot run there.
        """
        transformer, layout, dtype = self.diffusion_model, self.layout_of(shape), self.get_dtype_inference()
        head_dim = transformer.dim // transformer.num_heads
        plan = plan_attention(layout=layout, config=config, device=device, dtype=dtype, head_dim=head_dim)
        kept = layout.num_source_blocks if plan.dense_everywhere else config.counts(layout).kept_source
        size = comfy.model_management.dtype_size(dtype)
        return len(transformer.blocks) * bytes_of_kept_source(
            layout, kept, num_heads=transformer.num_heads, head_dim=head_dim, size=size
        )

    def layout_of(self, shape) -> TokenLayout:
        """Of a latent, [B, 16, T, H, W], and its source."""
        _, _, frames, height, width = shape
        _, patch_height, patch_width = self.diffusion_model.patch_size
        target = frames * -(-height // patch_height) * -(-width // patch_width)
        return TokenLayout(target, source=target)


class LIVEditorT2V(comfy.supported_models.WAN21_T2V):
    """A Wan 2.1 T2V state dict that embeds a source video as well."""

    sampling_settings = {"shift": 6.0}
    supported_inference_dtypes = [torch.bfloat16, torch.float16, torch.float32]

    @classmethod
    def matches(cls, unet_config, state_dict=None, unet_key_prefix=""):
        return (
            super().matches(unet_config, state_dict, unet_key_prefix)
            and state_dict is not None
            and any(key.endswith(f"{SOURCE_EMBEDDING}.weight") for key in state_dict)
        )

    def get_model(self, state_dict, prefix="", device=None):
        return LIVEditor(self, device=device)

    def process_unet_state_dict(self, state_dict):
        return {key: value for key, value in state_dict.items() if not key.endswith(UNUSED_WEIGHTS)}


def _size(latent):
    channels, frames, height, width = latent.shape[1:]
    return f"{width}x{height}x{frames} ({channels} channels)"


def register():
    """Put LIVEditor before the first Wan T2V among the models that the host knows; a second call changes nothing."""
    models = comfy.supported_models.models
    if not any(m.__name__ == LIVEditorT2V.__name__ and m.__module__ == LIVEditorT2V.__module__ for m in models):
        models.insert(models.index(comfy.supported_models.WAN21_T2V), LIVEditorT2V)
