"""Layers of a block, and how the host's weights are read: offloaded, patched or quantised alike."""

import contextlib

import torch

import comfy.ops

from .neighbours import is_replaced


@contextlib.contextmanager
def affine(norm, device):
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


def cast_weights_to_input(module):
    """Let a layer take inputs of another precision than its weights, as the host does for layers it offloads."""
    module.comfy_cast_weights = True
    return module


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
