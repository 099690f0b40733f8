"""Whether an edit fits this machine: what it needs, what is free, and what ComfyUI then leaves in RAM."""

import os
from typing import NamedTuple

import torch

import comfy.model_management

from ..checkpoint.sizes import size_of
from .make_room import BETWEEN_BLOCKS
from .memory_estimate import Widths, memory_of_call, size_of_inputs

GIB = 2**30
HEAD_DIM = 128
# Seconds a call for a GiB of weights in RAM, H100: 0.15 to 0.26 with GGUF, whose loader fetches one weight after the
# other. The host's own types are fetched while it computes: 0.01 (tests/benchmarks/weight_types.py).
FETCH_GGUF = 0.2


# Bytes beside a call and the reserves, below which cards emulated with 8 GiB ran out of memory all the same: 1.6 GiB
# were too little, 2.1 enough (832x480, 81 and 960x544, 49 frames, fp8).
SAFE = 2 << 30


class Machine(NamedTuple):
    """Bytes: of GPU memory what other programs leave, None without a GPU; of RAM what is available, and all of it."""

    gpu: int | None
    ram: int
    all_ram: int


class Fit(NamedTuple):
    """Bytes. call: what one needs beside the weights, at its size. in_ram: of the weights, fetched in every call;
    None without a GPU. fits: whether a call does. tight: it may run out of memory all the same."""

    weights: int
    call: int
    text_encoder: int
    vae: int
    machine: Machine
    in_ram: int | None
    fits: bool
    tight: bool
    packed: bool


def this_machine() -> Machine:
    """What models of the host hold counts as free: it makes room for those that are at work."""
    device, cpu = comfy.model_management.get_torch_device(), torch.device("cpu")
    gpu = None
    if device.type != "cpu":
        held = sum(
            each.model_loaded_memory() for each in comfy.model_management.current_loaded_models if each.device == device
        )
        gpu = int(comfy.model_management.get_free_memory(device) + held)
    return Machine(
        gpu, int(comfy.model_management.get_free_memory(cpu)), int(comfy.model_management.get_total_memory(cpu))
    )


def fit(weights, call, machine, *, text_encoder=0, vae=0, packed=False) -> Fit:
    """As the host divides GPU memory: a call and a reserve first, then as much of the weights as there is room for."""
    if machine.gpu is None:
        return Fit(weights, call, text_encoder, vae, machine, None, True, False, packed)
    beside = max(
        comfy.model_management.minimum_inference_memory(),
        call + BETWEEN_BLOCKS + comfy.model_management.extra_reserved_memory(),
    )
    room = machine.gpu - beside
    in_ram = int(max(0, weights - max(0, room)))
    return Fit(weights, call, text_encoder, vae, machine, in_ram, room > 0, in_ram > 0 and room < SAFE, packed)


def fit_of_files(checkpoint, text_encoder, vae, tokens, bytes_per_weight=None) -> Fit:
    """The same before anything is loaded.

    Args:
        checkpoint, text_encoder, vae: paths; the last two may be None.
        tokens: of target and source in one call.
        bytes_per_weight: as in `size_of`.

    Raises:
        CheckpointError: the checkpoint is none.
    """
    size = size_of(checkpoint, bytes_per_weight)
    machine = this_machine()
    cast = size.rounds_to is not None or size.packed or bytes_per_weight is not None
    widths = Widths(size.dim, size.ffn_dim, size.dim // HEAD_DIM, size_of_inputs(size.rounds_to), cast)
    call = memory_of_call(widths, 1, tokens, dtype=torch.float32 if machine.gpu is None else torch.bfloat16)
    others = [os.path.getsize(path) if path and os.path.isfile(path) else 0 for path in (text_encoder, vae)]
    return fit(size.weights, call, machine, text_encoder=others[0], vae=others[1], packed=size.packed)


def describe(found: Fit) -> list[str]:
    """In a line or two."""
    needs = [f"weights {_size(found.weights)}", f"a call {_size(found.call)}"]
    needs += [f"text encoder {_size(found.text_encoder)}"] if found.text_encoder else []
    needs += [f"VAE {_size(found.vae)}"] if found.vae else []
    machine, lines = found.machine, []
    free = f"{_size(machine.gpu)} of GPU memory" if machine.gpu is not None else f"{_size(machine.ram)} of RAM"
    lines.append(f"memory: {', '.join(needs)}; {free} free")
    if not found.fits:
        lines.append("too little GPU memory for a call: take a smaller size or window")
    elif found.tight:
        lines.append("little GPU memory: it may run out; a smaller size or window is safer")
    elif found.in_ram:
        cost = f", about {FETCH_GGUF * found.in_ram / GIB:.1f} s a call" if found.packed else " while it computes"
        lines.append(f"{_size(found.in_ram)} of the weights stay in RAM and are fetched{cost}")
    if lacks_ram(found):
        lines.append(
            f"RAM: {_size(machine.all_ram)} cannot hold the weights, which are read from disk again and again: take a "
            "smaller weight type"
        )
    return lines


def lacks_ram(found: Fit) -> bool:
    """Whether what is not on the GPU, with the text encoder, is more than all RAM."""
    in_ram = found.weights if found.in_ram is None else found.in_ram
    return max(in_ram, found.text_encoder) > found.machine.all_ram


def _size(size):
    return f"{size / GIB:.1f} GiB" if size >= GIB / 10 else f"{-(-size // 2**20)} MiB"
