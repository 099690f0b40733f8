"""Launches of kernels of ours, kept out of the host's record of allocations.

Hosts from 0.34 on can record what a model allocates and replay it ("malloc graph"). Ours fit no record: the attention
allocates by how many tokens each head happens to keep, and foreign kernels bring workspaces of their own. So the record
pauses around every launch, and around no more than that:
- what was allocated while it ran must not be freed in a pause, which therefore holds no work of the host's layers;
- a pause is a switch: leaving one starts the record again, so none may lie within another. (An attention of the host's
  that pauses by itself within ours ends it early. Harmless: what follows is then recorded, and freed, in one piece.)
"""

import contextlib
import functools

import torch

from ...kernels import token_ops

try:
    from comfy.model_prefetch import pause_malloc_graph
except ImportError:
    pause_malloc_graph = contextlib.nullcontext


def unrecorded(function):
    """The same function within a pause of the record. Its arguments live until the pause is over."""

    @functools.wraps(function)
    def launch(*args, **kwargs):
        if torch.compiler.is_compiling():  # plain operations then, which are part of the compiled graph
            return function(*args, **kwargs)
        with pause_malloc_graph():
            return function(*args, **kwargs)

    return launch


add = unrecorded(token_ops.add)
add_and_normalise = unrecorded(token_ops.add_and_normalise)
normalise_and_rotate = unrecorded(token_ops.normalise_and_rotate)
