"""Time one self-attention call of the 14B model on this machine's GPU.

Dense kernels, and sparse attention on top of them.

Every number of one table comes from one run. Refuses to time a backend whose results are wrong. Before that, on any
device: how far sparse attention is from dense attention on what the small model's layers really compute.
"""

import argparse
import contextlib
import csv
import importlib.metadata
import statistics
import sys
import types
from pathlib import Path

import torch

ROOT = Path(__file__).resolve().parents[2]
if "liveditor" not in sys.modules:
    package = types.ModuleType("liveditor")
    package.__path__ = [str(ROOT)]
    sys.modules["liveditor"] = package
sys.path.append(str(ROOT / "tests" / "unit"))

import backend_checks  # noqa: E402

from liveditor.kernels import dense  # noqa: E402
from liveditor.kernels.dispatch import choose_backend, unavailable_reason  # noqa: E402
from liveditor.liveditor_core.attention import sparse_attention as method  # noqa: E402
from liveditor.liveditor_core.attention.config import SparseAttentionConfig  # noqa: E402
from liveditor.liveditor_core.attention.plan import Plan  # noqa: E402
from liveditor.liveditor_core.attention.token_layout import TokenLayout  # noqa: E402

DEVICE = torch.device("cuda")
ACCURACY_SETTINGS = (
    (0.0625, 0.125, 0.5),
    (0.0625, 0.25, 0.5),
    (0.125, 0.5, 0.5),
    (0.25, 1.0, 0.0),
    (0.25, 1.0, 0.5),
    (0.25, 1.0, 0.75),
)  # SAR, SRR, flat ratio


def relative_error(case, **settings):
    """|sparse - dense| / |dense| of one call's output, in fp32."""

    def attend(config):
        return method.in_context_sparse_attention(
            case.q,
            case.k,
            case.v,
            case.gate,
            layout=case.layout,
            config=config,
            dense_attention=torch.nn.functional.scaled_dot_product_attention,
        )

    dense = attend(SparseAttentionConfig(backend="dense"))
    return ((attend(SparseAttentionConfig(**settings, backend="pytorch")) - dense).norm() / dense.norm()).item()


def show_accuracy():
    """A row per recorded layer of the small model, and one for random numbers of the same shape."""
    print(
        "relative error of sparse against dense attention, recorded q, k, v of the small model, fp32 reference; "
        "SAR, SRR, flat ratio:"
    )
    print(
        "| | "
        + " | ".join(", ".join(f"{x:g}" for x in s) for s in ACCURACY_SETTINGS)
        + " |\n|"
        + "---|" * (len(ACCURACY_SETTINGS) + 1)
    )
    cases = {
        name.replace("step", "step ").replace(".layer", ", layer "): backend_checks.Case.recorded(
            name, torch.float32, "cpu"
        )
        for name in backend_checks.ACTIVATION_NAMES
    }
    like = next(iter(cases.values()))
    cases["random"] = backend_checks.Case(
        (like.layout.target, like.layout.source, *like.q.shape[:2], like.q.shape[3]), torch.float32, "cpu"
    )
    for name, case in cases.items():
        errors = (
            relative_error(case, exact_kv_ratio=sar, source_keep_ratio=srr, dense_query_ratio=flat)
            for sar, srr, flat in ACCURACY_SETTINGS
        )
        print(f"| {name} | " + " | ".join(f"{error:.3f}" for error in errors) + " |", flush=True)


def inputs(tokens, heads, dim):
    """q, k, v as the model hands them, and gates."""
    generator = torch.Generator(DEVICE).manual_seed(0)
    x = [
        torch.randn(1, tokens, heads, dim, device=DEVICE, dtype=torch.bfloat16, generator=generator).transpose(1, 2)
        for _ in range(3)
    ]
    return *x, 0.25 * torch.rand(1, tokens, device=DEVICE, generator=generator)


class Stopwatch:
    """Wraps functions to add up the GPU time spent in them, and remembers their last arguments."""

    def __init__(self):
        self.events, self.arguments = {}, {}

    def wrap(self, name, function):
        def timed(*args, **kwargs):
            start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
            start.record()
            out = function(*args, **kwargs)
            end.record()
            self.events.setdefault(name, []).append((start, end))
            self.arguments[name] = args, kwargs
            return out

        return timed

    def medians(self, runs):
        """Milliseconds per run of everything wrapped, median over equally long runs; forgets them."""
        torch.cuda.synchronize()
        times = {}
        for name, events in self.events.items():
            per_run = len(events) // runs
            times[name] = statistics.median(
                sum(a.elapsed_time(b) for a, b in events[i * per_run : (i + 1) * per_run]) for i in range(runs)
            )
        self.events = {}
        return times


def measure(call, repeats, watch=None):
    """Median milliseconds of `call`, of its parts, and its peak memory above what was there, in GiB.

    The calls follow each other as those of a model's blocks do, so that launches hide behind the work before.
    """
    watch = watch or Stopwatch()
    whole = watch.wrap("whole", call)
    call()
    whole()
    torch.cuda.synchronize()
    torch.cuda.empty_cache()
    torch.cuda.reset_peak_memory_stats()
    before = torch.cuda.memory_allocated()
    watch.events = {}
    for _ in range(repeats):
        whole()
    parts = watch.medians(repeats)
    memory = (torch.cuda.max_memory_allocated() - before) / 2**30
    return parts.pop("whole"), parts, memory


def dense_kernels(options, dtype):
    """Names of the dense kernels that are right here: all, and those to put under sparse attention, fastest first."""
    all_names, under = [], []
    for bits in options.bits:
        timings = dense.fastest_dense(DEVICE, dtype, bits=bits).timings
        names = [
            name
            for name in timings.ms
            if name != "sdpa" and (bits == 8) == (name in dense.EIGHT_BIT) and name in (options.dense or [name])
        ]
        print(f"{bits} bit: {timings.compared()}", flush=True)
        for name, reason in timings.out.items():
            if (bits == 8) == (name in dense.EIGHT_BIT):
                print(f"  without {name}: {reason}")
        all_names += names
        under += names[: options.dense_kernels]
    return all_names, under


def bench(tokens, options):
    q, k, v, gate = inputs(tokens, options.heads, options.dim)
    out_bytes = q.numel() * q.element_size() / 2**30
    layout = TokenLayout(tokens // 2, tokens - tokens // 2)
    rows = []
    dense_names, under = dense_kernels(options, q.dtype)
    for name in dense_names:
        ms, _, memory = measure(lambda: dense.dense_kernel(name)(q, k, v), options.repeats)
        rows.append(
            {"tokens": tokens, "attention": "dense", "dense kernel": name, "ms": ms, "extra GiB": memory - out_bytes}
        )

    def attend_by(backend, name, config, watch, everywhere=False):
        """Time the whole attention by a backend over a dense kernel; `everywhere` as where `auto` computes densely."""
        timed = types.SimpleNamespace(
            **{n: watch.wrap(n, f) for n, f in vars(module).items() if callable(f) and not n.startswith("_")}
        )
        method.plan_attention = lambda **_: Plan(backend, timed, everywhere, ())
        attend = watch.wrap("dense half", dense.dense_kernel(name))
        return measure(
            lambda: method.in_context_sparse_attention(
                q, k, v, gate, layout=layout, config=config, dense_attention=attend
            ),
            options.repeats,
            watch,
        )

    for backend in options.backends:
        module = choose_backend(backend, DEVICE, q.dtype, options.dim).module
        for name in under:
            ms, _, memory = attend_by(backend, name, SparseAttentionConfig(), Stopwatch(), everywhere=True)
            row = {"tokens": tokens, "attention": "dense", "dense kernel": f"{name}, residual by {backend}"}
            rows.append(row | {"ms": ms, "extra GiB": memory - out_bytes})
            first = tokens == max(options.tokens) and (backend, name) == (options.backends[0], under[0])
            for sar, srr, flat in (map(float, s.split(",")) for s in options.settings[: None if first else 1]):
                config = SparseAttentionConfig(sar, srr, flat, backend=backend)
                watch = Stopwatch()
                ms, parts, memory = attend_by(backend, name, config, watch)
                dense_half, sparse_half = parts.pop("dense half", 0.0), parts.pop("sparse_attention", 0.0)
                args, kwargs = watch.arguments.get("sparse_attention", ((), {}))
                alone = measure(lambda: module.sparse_attention(*args, **kwargs), options.repeats)[0] if args else 0.0
                rows.append(
                    {
                        "tokens": tokens,
                        "attention": backend,
                        "dense kernel": name,
                        "SAR": sar,
                        "SRR": srr,
                        "flat": flat,
                        "ms": ms,
                        "dense half": dense_half,
                        "sparse half": sparse_half,
                        "sparse alone": alone,
                        "other": ms - dense_half - sparse_half,
                        "extra GiB": memory - out_bytes,
                        "FLOPs of dense": config.dense_fraction(layout),
                        "x dense": next(
                            r["ms"] for r in rows if r["attention"] == "dense" and r["dense kernel"] == name
                        )
                        / ms,
                    }
                )
                if options.parts:
                    print("   ", backend, name, {n: round(t, 3) for n, t in parts.items()}, flush=True)
    return rows


def show(rows):
    columns = [
        "tokens",
        "attention",
        "dense kernel",
        "SAR",
        "SRR",
        "flat",
        "ms",
        "x dense",
        "dense half",
        "sparse half",
        "sparse alone",
        "other",
        "extra GiB",
        "FLOPs of dense",
    ]
    print("| " + " | ".join(columns) + " |\n|" + "---|" * len(columns))
    for row in rows:
        print(
            "| "
            + " | ".join(
                f"{row.get(c, ''):.3g}"
                if isinstance(row.get(c), float) and c != "ms"
                else f"{row[c]:.1f}"
                if c == "ms"
                else str(row.get(c, ""))
                for c in columns
            )
            + " |"
        )


def show_to_paste(rows, options):
    """A line for every length, of what the card is best at: ready for an issue and for the README's table of cards."""
    first = tuple(map(float, options.settings[0].split(",")))  # every length is measured with these

    def best(tokens, attention, eight):
        found = [
            row
            for row in rows
            if (row["tokens"], row["attention"]) == (tokens, attention)
            and "residual" not in row["dense kernel"]
            and (row["dense kernel"] in dense.EIGHT_BIT) == eight
            and (attention == "dense" or (row["SAR"], row["SRR"], row["flat"]) == first)
        ]
        return min(found, key=lambda row: row["ms"], default=None)

    def said(row, base):
        times = "" if row is None or row is base else f", {base['ms'] / row['ms']:.2f}"
        return "" if row is None else f"{row['ms']:.1f} ({row['dense kernel']}{times})"

    print("\nReady to paste; milliseconds, dense kernel and times as fast as dense attention in 16 bit:\n")
    print("| card | torch, Triton | tokens | dense | sparse, 16 bit | sparse, 8 bit | GiB beside q, k, v |")
    print("|" + "---|" * 7)
    for tokens in options.tokens:
        base = best(tokens, "dense", False)
        if base is None:
            continue
        for backend in options.backends:
            sixteen, eight = (best(tokens, backend, bits == 8) for bits in (16, 8))
            memory = max((row["extra GiB"] for row in (sixteen, eight) if row), default=0.0)
            versions = f"{torch.__version__}, {version('triton') or version('triton-windows') or 'none'}"
            print(
                f"| {torch.cuda.get_device_name()} | {versions} | {tokens:,} | {said(base, base)} | "
                f"{backend}: {said(sixteen, base)} | {said(eight, base)} | {memory:.1f} |"
            )


def check_gpu():
    if not torch.cuda.is_available() or not torch.version.cuda:
        sys.exit(
            "bench: needs an NVIDIA GPU and a PyTorch built for CUDA; found "
            + (f"torch {torch.__version__} without a GPU." if torch.version.cuda else f"torch {torch.__version__}.")
        )


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--tokens", type=int, nargs="+", default=[4096, 8192, 16_384, 32_768, 65_536, 85_680])
    parser.add_argument("--heads", type=int, default=40)
    parser.add_argument("--dim", type=int, default=128)
    parser.add_argument(
        "--backends", nargs="+", help="triton, tilelang, pytorch (default: the first two, where they run)"
    )
    parser.add_argument("--dense", nargs="+", help="dense kernels (default: all that are installed)")
    parser.add_argument("--bits", type=int, nargs="+", choices=(16, 8), default=(16, 8), help="of the dense kernels")
    parser.add_argument(
        "--dense-kernels", type=int, default=2, help="how many of either, fastest first, to put under sparse attention"
    )
    parser.add_argument(
        "--settings",
        nargs="+",
        default=[
            "0.0625,0.125,0.5",
            "0.0625,0.125,0",
            "0.0625,0.125,0.25",
            "0.0625,0.125,0.75",
            "0.0625,0.25,0.5",
            "0.125,0.125,0.5",
        ],
        help="SAR,SRR,flat ratio; all but the first only at the longest, with the first backend and dense kernel",
    )
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--parts", action="store_true", help="print the time of every operation")
    parser.add_argument("--accuracy", action="store_true", help="only the table of errors, which needs no GPU")
    parser.add_argument("--csv", type=Path, help="write every number there")
    options = parser.parse_args()
    show_accuracy()
    if options.accuracy:
        return
    check_gpu()
    options.backends = options.backends or [n for n in ("triton", "tilelang") if unavailable_reason(n, DEVICE) is None]
    print(
        f"tests/benchmarks/attention.py {' '.join(sys.argv[1:])}\n{torch.cuda.get_device_name()}, torch "
        f"{torch.__version__}, cuDNN {torch.backends.cudnn.version()}, {packages()}, B 1, H {options.heads}, D "
        f"{options.dim}, bf16, median of {options.repeats}",
        flush=True,
    )
    for name in options.backends:  # a wrong kernel has no speed
        backend_checks.check_all(
            choose_backend(name, DEVICE, torch.bfloat16, options.dim).module,
            backend_checks.Case((2040, 2040, 1, 2, options.dim), torch.bfloat16, DEVICE),
            1e-2,
        )
    rows = [row for tokens in options.tokens for row in bench(tokens, options)]
    show(rows)
    show_to_paste(rows, options)
    if options.csv:
        options.csv.parent.mkdir(parents=True, exist_ok=True)
        with options.csv.open("w", newline="") as file:
            writer = csv.DictWriter(file, fieldnames=list(dict.fromkeys(name for row in rows for name in row)))
            writer.writeheader()
            writer.writerows(rows)
        print(f"numbers: {options.csv}")


def version(package):
    """None for one that is not installed."""
    with contextlib.suppress(importlib.metadata.PackageNotFoundError):
        return importlib.metadata.version(package)
    return None


def packages():
    names = ("triton", "tilelang", "flash-attn-4", "comfy-kitchen", "sageattention")
    return ", ".join(f"{name} {found}" for name in names if (found := version(name)))


if __name__ == "__main__":
    main()
