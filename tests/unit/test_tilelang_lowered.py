"""The TileLang backend without a GPU: every kernel becomes CUDA source, and machine code where nvcc is there."""

import re
import shutil
import subprocess
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import torch

tilelang = pytest.importorskip("tilelang", reason="TileLang has no wheel for this system")

from liveditor.kernels import tilelang_backend  # noqa: E402
from liveditor.kernels.tilelang_backend import attention, compiling, gathers, means, selection  # noqa: E402

HOPPER = (9, 0)
KERNELS = {
    "_block_means": [(40, 128, 64, "bfloat16"), (3, 64, 64, "float16")],
    "_softmax_with_top_sums": [(1536, 768), (64, 64)],
    "_split_largest": [(1024,), (192,)],
    "_choose_exact": [(768,), (64,)],
    "_gather_query_blocks": [(40, 128, 64, "bfloat16")],
    "_gather_kv_set": [(40, 128, 64, "bfloat16")],
    "_write_query_blocks": [(40, 128, 64, "bfloat16")],
    "_prepare": [(40, 128, 64, "bfloat16")],
    "_sparse_attention": [
        (40, 128, 64, "bfloat16", True, *attention.form_for(HOPPER, 128)),
        (40, 128, 64, "float16", False, *attention.form_for(HOPPER, 128)),
        (3, 64, 64, "bfloat16", True, *attention.form_for(HOPPER, 64)),
    ],
}
BUILDERS = {
    name: value
    for module in (attention, gathers, means, selection)
    for name, value in vars(module).items()
    if hasattr(value, "build")
}
PACKAGE = Path(tilelang.__file__).parent


def lower(capability, name, arguments):
    """CUDA source of a kernel for a card."""
    target = f"cuda -arch=sm_{arch(capability)}"
    with tilelang.tvm.transform.PassContext(config=compiling.OPTIONS), tilelang.tvm.target.Target(target):
        return tilelang.lower(BUILDERS[name].build(*arguments), target=target).kernel_source


def arch(capability):
    return f"{10 * capability[0] + capability[1]}{'a' if capability[0] >= 9 else ''}"


@pytest.fixture(scope="module")
def sources():
    kernels = [(name, arguments) for name, variants in KERNELS.items() for arguments in variants]
    with ThreadPoolExecutor(2) as pool:
        lowered = pool.map(lambda kernel: lower(HOPPER, *kernel), kernels)
        return {f"{name}{arguments}": source for (name, arguments), source in zip(kernels, lowered, strict=True)}


def test_every_kernel_is_listed():
    assert set(KERNELS) == set(BUILDERS)


def test_rows_hold_every_word_of_bits():
    for size in range(1, 3000):
        assert 32 * 2 * -(-size // 64) <= selection._capacity(size)


@pytest.mark.parametrize("count", [0, 5])
def test_all_or_none_are_laid_out_like_any_others(count):
    for part in tilelang_backend.split_largest(torch.randn(2, 3, 5), count=count):
        assert part.is_contiguous()


def test_matrix_products_run_on_the_tensor_cores(sources):
    for name, source in sources.items():
        assert "__global__" in source, name
        assert ("wgmma" in source and "cp_async" in source) == name.startswith("_sparse"), name


def in_one_file(sources):
    """Several sources as one: the headers, which take longest, are read once. A kernel's name says which it is."""
    headers, bodies = {}, []
    for number, source in enumerate(sources):
        lines = source.splitlines()
        first = next(i for i, line in enumerate(lines) if line.startswith('extern "C"'))
        headers |= dict.fromkeys(line for line in lines[:first] if line.startswith("#include"))
        bodies.append(re.sub(r"\b(\w+_kernel)\b", rf"\1_{number}", "\n".join(lines[first:])))
    return "\n".join([*headers, *bodies])


def nvcc(capability, source, path):
    """Compile a source for a card to `path`. Returns what the assembler says of every kernel."""
    path.with_suffix(".cu").write_text(source)
    command = [
        "nvcc",
        "-std=c++17",
        f"-gencode=arch=compute_{arch(capability)},code=sm_{arch(capability)}",
        "-DENABLE_BF16",
        "-use_fast_math",
        f"-I{PACKAGE / 'src'}",
        f"-I{PACKAGE / '3rdparty' / 'cutlass' / 'include'}",
        "-Xptxas=-v",
        "-cubin",
        "-o",
        path,
        path.with_suffix(".cu"),
    ]
    run = subprocess.run(command, capture_output=True, text=True)
    assert run.returncode == 0, run.stderr[-4000:]
    return run.stderr


@pytest.mark.skipif(shutil.which("nvcc") is None, reason="needs nvcc")
def test_nvcc_compiles_them(sources, tmp_path):
    def compile(half):
        path = tmp_path / f"{half}.cubin"
        part = list(sources.values())[half::2]
        nvcc(HOPPER, in_one_file(part), path)
        return path.read_bytes().count(b".nv.info."), len(part)

    with ThreadPoolExecutor() as pool:
        for compiled, asked in pool.map(compile, range(2)):
            assert compiled >= asked


@pytest.mark.skipif(shutil.which("nvcc") is None, reason="needs nvcc")
def test_nothing_spills_without_wgmma(tmp_path):
    """Heads of 128 channels on A100, RTX 30 and RTX 50; those of 64 need no more than 168 registers anywhere."""
    # TileLang writes one source for all cards of compute capability 8, and takes seconds for it.
    assert len({attention.form_for((8, minor), 128) for minor in (0, 6, 9)}) == 1

    def spilled(card, others):
        arguments = (40, 128, 64, "bfloat16", True, *attention.form_for(card, 128))
        source = lower(card, "_sparse_attention", arguments)
        for other in (card, *others):
            said = nvcc(other, source, tmp_path / f"{arch(other)}.cubin")
            yield from re.findall(r"(\d+) bytes stack frame, (\d+) bytes spill stores, (\d+) bytes spill loads", said)

    jobs = [((8, 0), [(8, 6)]), ((12, 0), [])]
    with ThreadPoolExecutor(2) as pool:
        for (card, others), found in zip(jobs, pool.map(lambda job: list(spilled(*job)), jobs), strict=True):
            assert found == [("0", "0", "0")] * (1 + len(others)), card
