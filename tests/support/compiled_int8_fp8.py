"""Our dense 8-bit kernel compiled for Hopper without a card, as its launcher would.

    python tasks.py python tests/support/compiled_int8_fp8.py TABLE.json

writes registers, spills, shared memory and products by head dim and dtype. Triton's interpreter must be off.
"""

import dataclasses
import importlib
import json
import re
import sys
from pathlib import Path
from unittest import mock

import torch
from compiled_for_cards import CompileOnly, usage

attention = importlib.import_module("liveditor.kernels.triton_int8_fp8.attention")
quantise = importlib.import_module("liveditor.kernels.triton_int8_fp8.quantise")


@dataclasses.dataclass(frozen=True)
class Compiled:
    """What the compiler made of the kernel."""

    dim: int
    dtype: str
    registers: int  # of a thread, before the groups share them out
    spilled: int
    stack: int
    shared: int
    products: list  # the tensor cores' instructions
    waits: list  # how many products may still run at each wait


def examine(dim, dtype, heads=3, queries=100, keys=300):
    """The kernel of a launch; lengths compile nothing."""
    rows, padded = -(-queries // quantise.ROWS) * quantise.ROWS, -(-keys // quantise.KEYS) * quantise.KEYS
    kernel = CompileOnly(attention._attend, 90)
    with mock.patch.object(attention, "_attend", kernel):
        attention.attend(
            torch.zeros(heads, rows, dim, dtype=torch.int8),
            torch.zeros(heads, padded, dim, dtype=torch.int8),
            torch.zeros(heads, dim, padded, dtype=torch.float8_e4m3fn),
            torch.zeros(heads, rows),
            torch.zeros(heads, padded // quantise.KEYS),
            torch.zeros(heads, dim),
            torch.zeros(1, queries, heads, dim, dtype=getattr(torch, dtype)).transpose(1, 2),
            keys=keys,
        )
    registers, stack, spilled = usage(kernel.compiled.asm["cubin"])
    ptx = kernel.compiled.asm["ptx"]
    products = sorted(set(re.findall(r"wgmma\.mma_async\S+", ptx)))
    waits = sorted(set(map(int, re.findall(r"wgmma\.wait_group\.sync\.aligned (\d)", ptx))))
    return Compiled(dim, dtype, registers, spilled, stack, kernel.compiled.metadata.shared, products, waits)


if __name__ == "__main__":
    table = [dataclasses.asdict(examine(dim, dtype)) for dim in (64, 128) for dtype in ("bfloat16", "float16")]
    Path(sys.argv[1]).write_text(json.dumps(table))
