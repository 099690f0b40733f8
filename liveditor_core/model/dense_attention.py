"""Which dense attention computes the dense half and the attention to the text."""

from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import folder_paths
from comfy.cli_args import args
from comfy.ldm.modules.attention import optimized_attention

from ...kernels import dense_kernel, fastest_dense, times_as_fast

OVERRIDE = "optimized_attention_override"
SLOWER = 1.03  # times as long from which on the user's choice is said to cost something


class DenseAttention(NamedTuple):
    """A dense attention."""

    name: str  # for reports, with whose choice it was and how fast it and others were here
    attend: Callable  # (q, k, v) -> out on [B, H, tokens, D]
    is_ours: bool  # or the host's
    without: tuple = ()  # what was asked for and is not done, with why


def choose_dense_attention(transformer_options, device, dtype, *, head_dim=128, bits=16) -> DenseAttention:
    """What computes the dense half: the attention that the user chose for the host, else the fastest at hand.

    A package that is merely installed, such as xformers, is no choice. Where no kernel is known to be faster, the host
    decides.

    Args:
        bits: 16, or 8 where quantised q, k and v will do; the user's choice counts before it.

    Raises:
        torch.cuda.OutOfMemoryError, torch.AcceleratorError: the GPU was too full to time what is at hand.
    """
    override = transformer_options.get(OVERRIDE)
    chooser = _flag() if override is None else "a node"
    fastest = fastest_dense(device, dtype, head_dim=head_dim, bits=bits, folder=_folder())
    without = () if fastest.reason is None else (f"8 bit: {fastest.reason}",)
    timed = f" (timed here: {fastest.timings.compared()})" if fastest.timings else ""
    if chooser is None and fastest.name != "sdpa":
        name = fastest.name + (" in 8 bit" if fastest.bits == 8 else "") + timed
        return DenseAttention(name, dense_kernel(fastest.name), True, without)

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

    function = optimized_attention if override is None else _called_by(override)
    name = getattr(function, "__name__", type(function).__name__)
    if chooser is not None:
        without = (f"8 bit: {name} was chosen by {chooser}",) if bits == 8 else ()
        # Another pack's override may count its calls, or differ by block: only the host's functions are tried.
        cost = _cost(fastest, name, function, device, dtype) if function is not override else ""
        return DenseAttention(f"{name} (chosen by {chooser}){cost}", attend, False, without)
    return DenseAttention(name + (timed if name == "attention_pytorch" else ""), attend, False, without)


def _cost(fastest, name, function, device, dtype):
    """What the user's choice costs, in words, where that can be timed and it is the slower one."""

    def attend(q, k, v):
        return function(q, k, v, heads=q.shape[1], skip_reshape=True, skip_output_reshape=True)

    times = times_as_fast(device, dtype, fastest.name, name, attend)
    return f"; {fastest.name} was timed {times:.1f} times as fast" if times is not None and times > SLOWER else ""


def _folder():
    """Where timings are kept."""
    return Path(folder_paths.get_user_directory(), "liveditor")


def _flag():
    """The attention that ComfyUI was started with, as it was typed; None where the host chose by itself."""
    flags = (name for name, value in vars(args).items() if value and name.startswith("use_"))
    return next((f"--{name.replace('_', '-')}" for name in flags if name.endswith("_attention")), None)


def _called_by(override):
    """The attention behind an override, which the host's own node keeps in a closure; else the override itself."""
    code, cells = getattr(override, "__code__", None), getattr(override, "__closure__", None)
    found = dict(zip(code.co_freevars, cells, strict=True)) if code and cells else {}
    return found["optimized_attention"].cell_contents if "optimized_attention" in found else override
