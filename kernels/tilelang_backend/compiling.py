"""Compiling kernels, and the words that all of them share: where KV blocks lie, and tensors as they are read."""

import functools
import logging

import tilelang
import tilelang.language as T
import torch

LOG2E = 1.4426950408889634


OPTIONS = {
    "tl.disable_warp_specialized": True,  # three small programs on a multiprocessor hide more than one with a producer
    "tl.enable_fast_math": True,
    "tl.disable_safe_memory_legalize": True,  # every index below is inside by construction
    "tl.disable_out_of_bound_warning": True,
}


def compiled(build):
    """Compile what a builder of kernels returns, once per process, kind of GPU and arguments.

    TileLang keeps its own cache on disk.
    """

    @functools.cache
    def compile_for(target, *arguments):
        logging.info(
            f"LIVEditor: TileLang prepares {build.__name__.strip('_')}{arguments}, which takes seconds the first "
            "time on a machine"
        )
        return tilelang.compile(build(*arguments), target=target, pass_configs=OPTIONS)

    def kernel(*arguments):
        return compile_for(_target(), *arguments)

    kernel.build = build
    return kernel


def _target():
    """Of the current device, which the caller has made that of the tensors."""
    major, minor = torch.cuda.get_device_capability()
    return f"cuda -arch=sm_{major}{minor}{'a' if major >= 9 else ''}"


def kv_start(j, target, block):
    """First token of KV block j; `TokenLayout.kv_block` says the rule."""
    of_target = (target + block - 1) // block
    return T.if_then_else(j < of_target, j * block, T.max((target // block + j - of_target) * block, target))


def kv_end(j, tokens, target, block):
    of_target = (target + block - 1) // block
    return T.if_then_else(
        j < of_target, T.min((j + 1) * block, target), T.min((target // block + j - of_target + 1) * block, tokens)
    )


def kv_blocks(tokens, target, block):
    return -(-target // block) + -(-tokens // block) - target // block


def token_first(x):
    """[B, H, N, D] seen as contiguous [B, N, H, D]."""
    return x.transpose(1, 2).contiguous()


def dtype_name(x):
    return str(x.dtype).removeprefix("torch.")


def write_back(rows, out):
    """What was written goes to `out`, if that was not written itself."""
    if rows.data_ptr() != out.data_ptr():
        out.copy_(rows.transpose(1, 2))
