"""The sparse Triton kernel for cards that are not there.

    python tests/benchmarks/other_cards.py              on a Hopper card: its code for A100, run and timed there
    python tests/benchmarks/other_cards.py --compile    without a GPU: what it occupies on every kind of card

Hopper also runs mma.sync, which is what A100 and RTX 30, 40 and 50 multiply with. So code for sm_80 runs there from its
PTX, beside the card's own, and is checked against that: a stand-in that says which form is faster, not how fast it is
on those cards, whose memory, clocks and shared memory are others. Needs torch and Triton.
"""

import argparse
import ctypes
import statistics
import sys
from pathlib import Path
from unittest import mock

import torch
import triton

ROOT = Path(__file__).resolve().parents[2]
sys.path.append(str(ROOT / "tests" / "support"))

from compiled_for_cards import CARDS, KIB, attention, examine, launched_for, tensor_cores  # noqa: E402

from liveditor.kernels import triton_backend  # noqa: E402
from liveditor.liveditor_core.attention.block_selection import select_blocks, take_blocks  # noqa: E402
from liveditor.liveditor_core.attention.config import SparseAttentionConfig  # noqa: E402
from liveditor.liveditor_core.attention.token_layout import TokenLayout  # noqa: E402

STAND_IN = 80
TOLERANCE = 1e-3  # relative, between two forms of one kernel
DYNAMIC_SHARED_MEMORY = 8  # CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES
EARLIER = {  # what the launcher chose for a card when all cards had one form
    arch: {"HALVES": False, "num_stages": 2} | ({"DESCRIPTORS": True, "maxnreg": 168} if arch == 120 else {})
    for arch in (80, 86, 89, 120)
}


def show_compiled(dim):
    """Prints a row for every card: cut blocks, bf16, the launcher's choice and before it what was chosen earlier."""
    print(f"Triton {triton.__version__}, D {dim}, bf16, blocks cut, 4 warps")
    print("| card | form | stages | shared, KiB | registers | spilled | tensor cores, warps | programs |")
    print("|---|---|---|---|---|---|---|---|")
    for arch, card in CARDS.items():
        forms = {"earlier": EARLIER[arch]} if dim == 128 and arch in EARLIER else {}
        for name, form in (forms | {"chosen": {}}).items():
            row = examine(arch, dim, True, "bfloat16", **form)
            print(
                f"| sm_{arch}: {card.names} | {name} | {row.stages} | {row.shared / KIB:.1f} | {row.registers} | "
                f"{row.spilled} | {row.tensor_cores} | {row.programs} |",
                flush=True,
            )


class Driver:
    """The few calls of NVIDIA's driver that load a kernel from its PTX and launch it."""

    def __init__(self):
        self._cuda = ctypes.CDLL("libcuda.so.1")

    def _call(self, name, *arguments):
        code = getattr(self._cuda, name)(*arguments)
        if code:
            raise RuntimeError(f"other_cards: {name} failed with CUDA error {code}.")

    def load(self, compiled):
        """The function of a kernel that Triton compiled for a card, translated for this one."""
        module, function = ctypes.c_void_p(), ctypes.c_void_p()
        self._call("cuModuleLoadData", ctypes.byref(module), compiled.asm["ptx"].encode() + b"\0")
        self._call("cuModuleGetFunction", ctypes.byref(function), module, compiled.metadata.name.encode())
        self._call("cuFuncSetAttribute", function, DYNAMIC_SHARED_MEMORY, compiled.metadata.shared)
        return function

    def launch(self, function, grid, threads, shared, values):
        """Launch on PyTorch's stream. `values`: numbers of ctypes, those of the kernel's parameters."""
        places = (ctypes.c_void_p * len(values))(*(ctypes.addressof(value) for value in values))
        stream = ctypes.c_void_p(torch.cuda.current_stream().cuda_stream)
        self._call("cuLaunchKernel", function, *grid, 1, threads, 1, 1, shared, stream, places, None)


def parameters(kernel):
    """What a launch gave a kernel, as the driver takes it: without constants, and with the two scratch buffers that
    Triton adds, which this kernel leaves alone.
    """
    types = {"i32": ctypes.c_int32, "i64": ctypes.c_int64, "fp32": ctypes.c_float}
    values = []
    for name, kind in kernel.compiled.src.signature.items():
        if kind.startswith("*"):
            values.append(ctypes.c_uint64(kernel.arguments[name].data_ptr()))
        elif kind != "constexpr":
            values.append(types[kind](kernel.arguments[name]))
    return [*values, ctypes.c_uint64(0), ctypes.c_uint64(0)]


def sparse_half(tokens, heads, dim):
    """A call of `sparse_attention` without `out`, as the method makes it at released settings, on random numbers."""
    layout = TokenLayout(tokens // 2, tokens - tokens // 2)
    generator = torch.Generator("cuda").manual_seed(0)
    q, k, v = (
        torch.randn(1, tokens, heads, dim, device="cuda", dtype=torch.bfloat16, generator=generator).transpose(1, 2)
        for _ in range(3)
    )
    means = [triton_backend.block_means(x, target=layout.target) for x in (q, k, v)]
    chosen, residual = select_blocks(*means, layout=layout, config=SparseAttentionConfig(), kernels=triton_backend)
    return lambda out: triton_backend.sparse_attention(
        q,
        k,
        v,
        k_mean=take_blocks(means[1], chosen.sparse.kv_set),
        v_mean=take_blocks(means[2], chosen.sparse.kv_set),
        blocks=chosen.sparse,
        residual=residual,
        gate=0.25 * torch.rand(1, tokens, device="cuda", generator=generator.manual_seed(1)),
        target=layout.target,
        out=out,
    )


def median_ms(launch, repeats):
    """Of the kernel alone, after a first launch that is not counted."""
    times = []
    for _ in range(repeats + 1):
        start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        start.record()
        launch()
        end.record()
        end.synchronize()
        times.append(start.elapsed_time(end))
    return statistics.median(times[1:])


class KeepLaunch:
    """Takes a kernel's place: launches it, and remembers how."""

    def __init__(self, kernel):
        self._kernel = kernel

    def __getitem__(self, grid):
        def launch(*arguments, **options):
            self.again = lambda: self._kernel[grid](*arguments, **options)
            self.again()

        return launch


def run(options):
    """Prints a line for the card's own kernel and for each form for `STAND_IN`. Raises if one of these is wrong."""
    print(
        f"{torch.cuda.get_device_name()}, torch {torch.__version__}, Triton {triton.__version__}, {options.tokens} "
        f"tokens, H {options.heads}, D {options.dim}, bf16, median of {options.repeats}",
        flush=True,
    )
    call = sparse_half(options.tokens, options.heads, options.dim)
    own = torch.zeros(1, options.tokens, options.heads, options.dim, device="cuda", dtype=torch.bfloat16)
    out = torch.zeros_like(own)
    with mock.patch.object(attention, "_sparse_attention", KeepLaunch(attention._sparse_attention)) as kept:
        call(own.transpose(1, 2))
    print(f"for this card: {median_ms(kept.again, options.repeats):.2f} ms", flush=True)
    driver = Driver()
    forms = {
        "in one piece, 2 stages": EARLIER[STAND_IN],
        "in halves, 2 stages": {"num_stages": 2},
        "as chosen": {},
    }
    for name, form in forms.items():
        with launched_for(STAND_IN, **form) as kernel:
            call(out.zero_().transpose(1, 2))
        function, metadata, values = driver.load(kernel.compiled), kernel.compiled.metadata, parameters(kernel)

        def launch():
            driver.launch(function, kernel.grid, 32 * metadata.num_warps, metadata.shared, values)

        launch()
        error = ((out.float() - own.float()).norm() / own.float().norm()).item()
        if not error <= TOLERANCE:
            raise RuntimeError(f"other_cards: {name} is wrong: relative error {error:.1e}, at most {TOLERANCE}.")
        print(
            f"for sm_{STAND_IN}, {name}: {median_ms(launch, options.repeats):.2f} ms; {metadata.num_stages} stages, "
            f"{metadata.shared / KIB:.1f} KiB, {tensor_cores(kernel.compiled.asm['ttgir'])}, relative error "
            f"{error:.1e}",
            flush=True,
        )


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--compile", action="store_true", help="only the table of what is compiled, which needs no GPU")
    parser.add_argument("--tokens", type=int, default=85_680)
    parser.add_argument("--heads", type=int, default=40)
    parser.add_argument("--dim", type=int, default=128)
    parser.add_argument("--repeats", type=int, default=7)
    options = parser.parse_args()
    if options.compile:
        return show_compiled(options.dim)
    if not torch.cuda.is_available() or torch.cuda.get_device_capability()[0] != 9:
        sys.exit("other_cards: needs a Hopper card, found none. --compile needs no GPU.")
    run(options)


if __name__ == "__main__":
    main()
