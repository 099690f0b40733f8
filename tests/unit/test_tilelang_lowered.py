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

TARGET = "cuda -arch=sm_90a"
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
        (40, 128, 64, "bfloat16", True),
        (40, 128, 64, "float16", False),
        (3, 64, 64, "bfloat16", True),
    ],
}
BUILDERS = {
    name: value
    for module in (attention, gathers, means, selection)
    for name, value in vars(module).items()
    if hasattr(value, "build")
}
PACKAGE = Path(tilelang.__file__).parent


@pytest.fixture(scope="module")
def sources():
    lowered = {}
    for name, variants in KERNELS.items():
        for arguments in variants:
            with (
                tilelang.tvm.transform.PassContext(config=compiling.OPTIONS),
                tilelang.tvm.target.Target(TARGET),
            ):
                lowered[f"{name}{arguments}"] = tilelang.lower(
                    BUILDERS[name].build(*arguments), target=TARGET
                ).kernel_source
    return lowered


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


@pytest.mark.skipif(shutil.which("nvcc") is None, reason="needs nvcc")
def test_nvcc_compiles_them(sources, tmp_path):
    def compile(half):
        path = tmp_path / f"{half}.cu"
        part = list(sources.values())[half::2]
        path.write_text(in_one_file(part))
        command = [
            "nvcc",
            "-std=c++17",
            "-gencode=arch=compute_90a,code=sm_90a",
            "-DENABLE_BF16",
            "-use_fast_math",
            f"-I{PACKAGE / 'src'}",
            f"-I{PACKAGE / '3rdparty' / 'cutlass' / 'include'}",
            "-cubin",
            "-o",
            path.with_suffix(".cubin"),
            path,
        ]
        run = subprocess.run(command, capture_output=True, text=True)
        assert run.returncode == 0, run.stderr[-4000:]
        return path.with_suffix(".cubin").read_bytes().count(b".nv.info."), len(part)

    with ThreadPoolExecutor() as pool:
        for compiled, asked in pool.map(compile, range(2)):
            assert compiled >= asked
