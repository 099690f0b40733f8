"""One check per operation: a backend's module against the plain reference, on the shapes where tails matter."""

from pathlib import Path

import torch
from safetensors.torch import load_file

from liveditor.kernels import reference
from liveditor.liveditor_core.attention.block_selection import select_blocks, take_blocks
from liveditor.liveditor_core.attention.config import SparseAttentionConfig
from liveditor.liveditor_core.attention.token_layout import TokenLayout

# target, source, batch, heads, head dim
SHAPES = [
    (128, 128, 1, 2, 64),  # whole blocks
    (150, 170, 2, 2, 64),  # a block over the border, a whole last one
    (150, 201, 1, 2, 128),  # a block over the border and a short last one
    (192, 100, 1, 2, 128),  # no block over the border, a short last one
    (65, 1, 1, 2, 64),  # a source of one token
    (100, 300, 1, 3, 64),  # more source than target
]
CONFIG = SparseAttentionConfig(exact_kv_ratio=0.3, source_keep_ratio=0.5, dense_query_ratio=0.4)


ACTIVATIONS = load_file(
    Path(__file__).resolve().parents[1] / "activations" / "nano.safetensors"
)  # by training/activations.py
ACTIVATION_NAMES = sorted({name.rpartition(".")[0] for name in ACTIVATIONS})


class Case:
    """Inputs of every operation for one shape, chosen blocks included, from the reference."""

    def __init__(self, shape, dtype, device, seed=0):
        target, source, batch, heads, dim = shape
        n = target + source
        generator = torch.Generator().manual_seed(seed)
        level = torch.randn(3, batch, -(-n // 64), heads, dim, generator=generator).repeat_interleave(64, dim=2)[
            :, :, :n
        ]
        x = (level + torch.randn(3, batch, n, heads, dim, generator=generator)).to(device, dtype)
        self._fill(x, (0.5 * (torch.rand(batch, n, generator=generator) - 0.5)).to(device), target)

    @classmethod
    def recorded(cls, name, dtype, device):
        """Of the small model at work: `name` is one of ACTIVATION_NAMES."""
        case = cls.__new__(cls)
        x = torch.stack([ACTIVATIONS[f"{name}.{part}"] for part in "qkv"]).to(device, dtype)
        case._fill(x, ACTIVATIONS[f"{name}.gate"].to(device), x.shape[2] // 2)
        return case

    def _fill(self, x, gate, target):
        self.q, self.k, self.v = x.transpose(2, 3)  # [B, N, H, D] seen as [B, H, N, D], as ComfyUI hands them
        self.gate, self.layout = gate, TokenLayout(target, x.shape[2] - target)
        self.cut = {"target": target, "block_size": 64}
        self.means = [reference.block_means(t, **self.cut) for t in (self.q, self.k, self.v)]
        self.chosen, self.residual = select_blocks(*self.means, layout=self.layout, config=CONFIG, kernels=reference)
        self.source_blocks = self.chosen.sparse.kv_set[:, :, self.layout.num_target_kv_blocks :].contiguous()
        self.set_means = [take_blocks(x, self.chosen.sparse.kv_set) for x in self.means[1:]]

    def sparse_arguments(self):
        return {
            "k_mean": self.set_means[0],
            "v_mean": self.set_means[1],
            "blocks": self.chosen.sparse,
            "residual": self.residual,
            "gate": self.gate,
        } | self.cut

    def heads(self):
        return torch.arange(self.q.shape[0] * self.q.shape[1], dtype=torch.int32, device=self.q.device)


def close(out, expected, tolerance):
    assert out.shape == expected.shape and torch.isfinite(out.float()).all()
    error = (out.float() - expected.float()).norm() / expected.float().norm().clamp_min(1e-9)
    assert error <= tolerance, f"relative error {error:.2e}"


def check_means(backend, case):
    for x, mean in zip((case.q, case.k, case.v), case.means, strict=True):
        close(backend.block_means(x, **case.cut), mean, 1e-5)


def check_selection(backend, case):
    chosen, residual = select_blocks(*case.means, layout=case.layout, config=CONFIG, kernels=backend)
    names = ("dense_blocks", *chosen.sparse._fields, "sharpness")
    ours_all, expected_all = ((x.dense_blocks, *x.sparse, x.sharpness) for x in (chosen, case.chosen))
    for name, ours, expected in zip(names, ours_all, expected_all, strict=True):
        assert ours.dtype == expected.dtype
        if ours.is_floating_point():
            close(ours, expected, 1e-5)
        else:
            assert torch.equal(ours, expected), name
    close(residual, case.residual, 1e-5)


def check_split_largest(backend, device):
    generator = torch.Generator().manual_seed(1)
    for rows, size in ((5, 1), (7, 13), (3, 64), (4, 700)):
        values = torch.randn(rows, size, generator=generator)
        values[0] = 0.5  # all equal
        values[1 % rows, ::2] = -0.25  # many equal, negative
        values = values.to(device)
        for count in {0, 1, size // 2, size}:
            for ours, expected in zip(
                backend.split_largest(values, count=count), reference.split_largest(values, count=count), strict=True
            ):
                assert torch.equal(ours, expected), (rows, size, count)


def check_gathers(backend, case):
    where = {"head_index": case.heads(), "block_size": 64}
    dense = {"query_blocks": case.chosen.dense_blocks} | where
    ours, expected = (m.gather_query_blocks(case.q, **dense) for m in (backend, reference))
    assert torch.equal(ours, expected)
    for head in case.heads().tolist():
        b, h = divmod(head, case.q.shape[1])
        ends = [case.layout.kv_block(j) for j in case.source_blocks[b, h].tolist()]
        where = {
            "head_index": case.heads()[head : head + 1],
            "source_blocks": case.source_blocks,
            "length": case.layout.target + sum(end - start for start, end in ends),
        } | case.cut
        ours, expected = (m.gather_kv_set(case.k, **where) for m in (backend, reference))
        assert torch.equal(ours, expected), head


def written(case):
    return torch.full_like(case.q, float("nan"))


def check_write(backend, case):
    outs = []
    values = reference.gather_query_blocks(case.v, head_index=case.heads(), query_blocks=case.chosen.dense_blocks)
    for module in (backend, reference):
        out = written(case)
        module.write_query_blocks(
            values,
            head_index=case.heads(),
            query_blocks=case.chosen.dense_blocks,
            residual=case.residual,
            gate=case.gate,
            out=out,
        )
        outs.append(out)
    assert torch.equal(outs[0].isnan(), outs[1].isnan()), "other rows were written"
    close(outs[0].nan_to_num(), outs[1].nan_to_num(), 1e-3)


def check_sparse(backend, case, tolerance):
    outs = []
    for module in (backend, reference):
        out = written(case)
        module.sparse_attention(case.q, case.k, case.v, out=out, **case.sparse_arguments())
        outs.append(out)
    assert torch.equal(outs[0].isnan(), outs[1].isnan()), "other rows were written"
    close(outs[0].nan_to_num(), outs[1].nan_to_num(), tolerance)


def check_all(backend, case, tolerance):
    check_means(backend, case)
    check_selection(backend, case)
    check_gathers(backend, case)
    check_write(backend, case)
    check_sparse(backend, case, tolerance)
