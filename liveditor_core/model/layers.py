"""Layers of a block, and how the host's weights are read: offloaded, patched or quantised alike."""

import contextlib

import torch

import comfy.ops


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
