"""The sparse Triton kernel compiled for cards that are not there, as its launcher would: no GPU needed.

    python tasks.py python tests/support/compiled_for_cards.py TABLE.json

writes what the compiler made of every variant of `VARIANTS`. Triton's interpreter must be off.
"""

import contextlib
import dataclasses
import importlib
import json
import re
import subprocess
import sys
import tempfile
import types
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from unittest import mock

import torch
import triton
from triton.backends.compiler import GPUTarget
from triton.runtime import driver

ROOT = Path(__file__).resolve().parents[2]
if "liveditor" not in sys.modules:
    package = types.ModuleType("liveditor")
    package.__path__ = [str(ROOT)]
    sys.modules["liveditor"] = package
attention = importlib.import_module("liveditor.kernels.triton_backend.attention")

KIB = 1024
HEADS = 40
REGISTERS = 65_536  # of a multiprocessor, in every card below
INSTRUCTIONS = {"2": "mma.sync", "3": "wgmma"}  # of tensor cores, by how Triton numbers them


@dataclasses.dataclass(frozen=True)
class Card:
    """What a multiprocessor has, by NVIDIA's CUDA C++ Programming Guide, table of compute capabilities."""

    names: str
    shared: int  # KiB
    warps: int


CARDS = {
    80: Card("A100", 164, 64),
    86: Card("RTX 30", 100, 48),
    89: Card("RTX 40", 100, 48),
    90: Card("H100, H200", 228, 64),
    100: Card("B200", 228, 64),
    120: Card("RTX 50", 100, 48),
}
# arch, head dim, whether blocks are cut, dtype
VARIANTS = [
    *((arch, dim, tails, "bfloat16") for arch in CARDS for dim in (128, 64) for tails in (True, False)),
    *((120, 128, tails, "float16") for tails in (True, False)),
]


@dataclasses.dataclass(frozen=True)
class Compiled:
    """What the compiler made of a kernel for a card."""

    arch: int
    dim: int
    tails: bool
    dtype: str
    stages: int
    registers: int  # of a thread
    spilled: int  # loads and stores of registers in local memory
    stack: int  # bytes of a thread
    shared: int  # bytes of a program
    tensor_cores: str  # their instruction, and how warps are laid out over rows and channels
    programs: int  # that fit on a multiprocessor


class Elsewhere:
    """What Triton asks its driver about the card that it compiles for."""

    def __init__(self, arch):
        self.arch = arch

    def get_current_device(self):
        return f"sm_{self.arch}"

    def get_current_stream(self, device):
        return 0

    def get_current_target(self):
        return GPUTarget("cuda", self.arch, 32)


class CompileOnly:
    """Takes a kernel's place: a launch compiles it for another card and keeps what it was launched with."""

    def __init__(self, kernel, arch):
        self.kernel, self.arch = kernel, arch

    def __getitem__(self, grid):
        def launch(*arguments, **options):
            driver.set_active(Elsewhere(self.arch))
            try:
                self.compiled = self.kernel.warmup(*arguments, grid=grid, **options)
            finally:
                if torch.cuda.is_available():
                    driver.reset_active()
            self.grid, self.arguments = grid, dict(zip(self.kernel.arg_names, arguments, strict=False))

        return launch


@contextlib.contextmanager
def launched_for(arch, **form):
    """Let `sparse_attention` compile for a card and not run. `form`: what is to differ from the launcher's choice.

    Yields:
        CompileOnly.
    """
    kernel = CompileOnly(attention._sparse_attention, arch)
    choose = attention.form_for
    with (
        mock.patch.object(attention, "_capability", lambda device: divmod(arch, 10)),
        mock.patch.object(attention, "form_for", lambda *arguments, **options: choose(*arguments, **options) | form),
        mock.patch.object(attention, "_sparse_attention", kernel),
    ):
        yield kernel


def compile_sparse(arch, dim, tails, dtype, **form):
    """The compiled kernel of a launch at the 14B's heads; a few tokens are enough, since lengths compile nothing."""
    target, source = (150, 201) if tails else (192, 192)
    tokens, blocks = target + source, -(-target // 64) + -(-source // 64)
    q, k, v, out = (torch.zeros(1, tokens, HEADS, dim, dtype=dtype).transpose(1, 2) for _ in range(4))
    query_blocks, kv_set, exact_blocks, is_exact = (
        torch.zeros(1, HEADS, *shape, dtype=torch.int32) for shape in ((3,), (blocks,), (3, 2), (3, 2))
    )
    means = torch.zeros(1, HEADS, blocks, dim)
    with launched_for(arch, **form) as kernel, mock.patch.object(attention, "_pad_means", mock.MagicMock()):
        attention.sparse_attention(
            q,
            k,
            v,
            k_mean=means,
            v_mean=means,
            blocks=(query_blocks, kv_set, exact_blocks, is_exact),
            residual=means,
            gate=torch.zeros(1, tokens),
            target=target,
            out=out,
        )
    return kernel.compiled


def usage(cubin):
    """Registers and bytes of stack of a thread, and how often it loads or stores local memory."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "kernel.cubin"
        path.write_bytes(cubin)
        used, code = (
            subprocess.run(
                [triton.knobs.nvidia.cuobjdump.path, option, path], capture_output=True, text=True, check=True
            ).stdout
            for option in ("-res-usage", "-sass")
        )
    registers, stack = map(int, re.search(r"REG:(\d+) STACK:(\d+)", used).groups())
    return registers, stack, len(re.findall(r"\b(?:LDL|STL)\b", code))


def tensor_cores(ttgir):
    """Which instruction multiplies, and how it lays warps out; every product of a kernel the same way."""
    found = set(re.findall(r"nvidia_mma<\{versionMajor = (\d).*?warpsPerCTA = (\[\d, \d\])", ttgir))
    return ", ".join(f"{INSTRUCTIONS[version]} {warps}" for version, warps in sorted(found)) or "tcgen05"


def examine(arch, dim, tails, dtype, **form):
    """Compile a variant, see `VARIANTS`, and read what came of it. Returns Compiled."""
    compiled = compile_sparse(arch, dim, tails, getattr(torch, dtype), **form)
    registers, stack, spilled = usage(compiled.asm["cubin"])
    card, warps, shared = CARDS[arch], compiled.metadata.num_warps, compiled.metadata.shared
    by_registers = REGISTERS // (-(-registers // 8) * 8 * 32 * warps)
    by_shared = card.shared * KIB // (shared + KIB)  # a KiB of each is the system's
    return Compiled(
        arch,
        dim,
        tails,
        dtype,
        compiled.metadata.num_stages,
        registers,
        spilled,
        stack,
        shared,
        tensor_cores(compiled.asm["ttgir"]),
        min(by_registers, by_shared, card.warps // warps),
    )


if __name__ == "__main__":
    with ProcessPoolExecutor(2) as pool:
        table = [dataclasses.asdict(row) for row in pool.map(examine, *zip(*VARIANTS, strict=True))]
    Path(sys.argv[1]).write_text(json.dumps(table))
