"""The feed-forward layer of a block."""

import torch

import comfy.ops

from . import fp8_inputs
from .neighbours import is_replaced


class FeedForward(torch.nn.Sequential):
    """The host's linear layer, GELU and linear layer, with the GELU at the end of the first product where cuBLAS does
    it, and in one pass with rounding its answer where both layers are fp8.
    """

    def forward(self, x):
        """Args: x: [B, N, C] in the compute dtype, or Rounded."""
        first, gelu, last = self
        if isinstance(x, fp8_inputs.Rounded):
            wide = fp8_inputs.product(first, x)
            wide = fp8_inputs.gelu(wide) if fp8_inputs.accept(wide, last) else gelu(wide)
            return fp8_inputs.product(last, wide)
        # Quantised weights are other types of tensor, and only their own layer knows how to multiply by them.
        plain = (
            type(first.weight) in (torch.Tensor, torch.nn.Parameter)
            and first.weight.dtype == x.dtype
            and not is_replaced(first, "forward")
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
