"""Which dense attentions are right on the card at hand, and how fast: tried and timed once, then remembered.

Published orders of these kernels disagree, even on one kind of card, so that none is written down here.
"""

import contextlib
import functools
import hashlib
import importlib.metadata
import json
import logging
import math
import os
import statistics
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import torch

from .dispatch import raise_out_of_memory

FILE = "dense_attention.json"
TIE = 1.03  # times that lie closer together say nothing: a fixed order decides
ROUNDS = 5
SECONDS = 0.012  # within which rounds begin; one is always run
LONG = 20.0  # milliseconds of a call beside which its launches are nothing
WEEK = 7 * 24 * 3600  # seconds after which what failed is tried again
ROWS = slice(None, None, 241)  # of the queries, in every place within a tile: those that are checked
PACKAGES = (
    "triton",
    "triton-windows",
    "tilelang",
    "flash-attn",
    "flash-attn-3",
    "flash-attn-4",
    "nvidia-cutlass-dsl",
    "comfy-kitchen",
    "sageattention",
)


class Shape(NamedTuple):
    """Of the attention that is timed."""

    heads: int
    queries: int
    keys: int
    dim: int


# Long enough that the order is that of a clip: at a third of it cuDNN beat FlashAttention-4 on an H100, which is 16 %
# faster at 85,680 tokens, and quantising did not hide behind the work. The last tile is as full as there (48,152 keys).
SHAPE = Shape(8, 24_576, 24_536, 128)


class Candidate(NamedTuple):
    """A dense attention that may be used."""

    attend: Callable  # (q, k, v) -> out on [B, H, tokens, D]
    tolerance: float  # of its relative error on random numbers


class Timings(NamedTuple):
    """What was found on a card."""

    ms: dict  # milliseconds of a call by name, fastest first
    out: dict  # by name, why it cannot be used

    def compared(self):
        """In words: every time as a multiple of the first."""
        first = next(iter(self.ms.values()), 1.0)
        return ", ".join(f"{name} {ms / first:.2f}" for name, ms in self.ms.items())


_found = {}  # Timings by device and names, in this process
_one_at_a_time = threading.Lock()


def _time_of(call, device):
    """Milliseconds of a call. The launch of a short one hides behind the call before it, as in a model."""
    start, middle, end = (torch.cuda.Event(enable_timing=True) for _ in range(3))
    start.record()
    call()
    middle.record()
    middle.synchronize()
    alone = start.elapsed_time(middle)
    if alone > LONG:
        return alone
    call()
    middle.record()
    call()
    call()
    end.record()
    end.synchronize()
    return middle.elapsed_time(end) / 2


def timed(candidates, device, *, dtype=torch.bfloat16, folder=None, shape=SHAPE, time_of=_time_of) -> Timings | None:
    """Try and time dense attentions on a device; the first time only.

    Args:
        candidates: Candidate by name; of those that are about as fast the first comes first.
        folder: where to keep what was found for other processes; None to keep it in this one alone.
        time_of: (call, device) -> milliseconds.

    Returns:
        Timings; None where they are not known and cannot be taken now, within a CUDA graph that is being recorded or a
        model that is being compiled.

    Raises:
        torch.cuda.OutOfMemoryError, torch.AcceleratorError: the GPU is full. Nothing is remembered of it.
    """
    key = device, tuple(candidates)
    if key not in _found:
        if torch.compiler.is_compiling() or device.type == "cuda" and torch.cuda.is_current_stream_capturing():
            return None
        with _one_at_a_time:  # two GPUs' threads, and threads that share one
            if key not in _found:
                _found[key] = _read(candidates, device, folder) or _time(
                    candidates, device, dtype, folder, shape, time_of
                )
    return _found[key]


def forget():
    """Forget what was found in this process."""
    _found.clear()


def _time(candidates, device, dtype, folder, shape, time_of):
    with torch.no_grad(), torch.cuda.device(device) if device.type == "cuda" else contextlib.nullcontext():
        timings, failed = _measure(candidates, device, dtype, shape, time_of)
    logging.info(f"LIVEditor: dense attention timed on {device}: {timings.compared()}")
    _write(timings, candidates, device, folder, failed)
    return timings


def _measure(candidates, device, dtype, shape, time_of):
    """Timings, and names of what is installed but failed."""
    generator = torch.Generator(device).manual_seed(0)
    q, k, v = (
        torch.randn(1, shape.heads, tokens, shape.dim, dtype=dtype, device=device, generator=generator)
        for tokens in (shape.queries, shape.keys, shape.keys)
    )
    some = q[:, :, ROWS].float() * shape.dim**-0.5
    exact = torch.softmax(some @ k.float().transpose(-1, -2), dim=-1) @ v.float()
    out, failed = {}, []

    def refuse(name, reason, missing=False):
        out[name] = reason.partition("\n")[0]
        if not missing:
            failed.append(name)
            logging.info(f"LIVEditor: {name} is installed but cannot be used here: {reason}")

    def tried(name, function, *args):
        try:
            return function(*args)
        except Exception as error:  # whatever a foreign package raises when it does not fit its surroundings
            raise_out_of_memory(error)
            missing = isinstance(error, ModuleNotFoundError)
            refuse(name, str(error) if missing else f"{type(error).__name__}: {error}", missing)

    calls = {name: functools.partial(attend, q, k, v) for name, (attend, _) in candidates.items()}
    for name, call in calls.items():  # which compiles what has to be compiled
        if fault := tried(name, _fault, call, q, exact, candidates[name].tolerance):
            refuse(name, fault)
    taken, began = {name: [] for name in calls}, time.perf_counter()
    for i in range(ROUNDS):
        if i > 0 and time.perf_counter() - began > SECONDS:
            break
        for name, call in calls.items():
            if name not in out:
                taken[name].append(tried(name, time_of, call, device))
    return Timings(_ranked({n: statistics.median(t) for n, t in taken.items() if n not in out}), out), failed


def _fault(call, q, exact, tolerance):
    """What is wrong with the answer of a call, or None."""
    answer = call()
    if answer.shape != q.shape or answer.dtype != q.dtype:
        return f"gives {tuple(answer.shape)} in {answer.dtype} for {tuple(q.shape)} in {q.dtype}"
    if not answer.isfinite().all():
        return "gives NaN or infinity"
    error = ((answer[:, :, ROWS].float() - exact).norm() / exact.norm()).item()
    return f"errs by {error:.1%}, more than {tolerance:.0%}" if error > tolerance else None


def _ranked(ms):
    """By time; of those that are about as fast as the fastest the one that stands first."""
    left, ranked = dict(ms), {}
    while left:
        fastest = min(left.values())
        name = next(name for name, each in left.items() if each <= TIE * fastest)
        ranked[name] = left.pop(name)
    return ranked


def _read(candidates, device, folder):
    """What another process found on such a card with the same packages, or None."""
    try:
        entry = json.loads(Path(folder, FILE).read_text(encoding="utf-8"))[_card(device)]
        found = entry["timed"][_key(candidates)]
        ms, out = ({name: found[part][name] for name in candidates if name in found[part]} for part in ("ms", "out"))
        trusted = (
            entry["versions"] == _versions()
            and ms.keys() | out.keys() == candidates.keys()
            and len(ms) + len(out) == len(candidates)
            and all(type(each) is float and 0 < each < math.inf for each in ms.values())
            and all(isinstance(each, str) for each in out.values())
            and (not found["failed"] or 0 <= time.time() - found["at"] < WEEK)
        )
    except (OSError, ValueError, KeyError, TypeError, AttributeError):  # none yet, damaged, or of another version
        return None
    return Timings(_ranked(ms), out) if trusted else None


def _write(timings, candidates, device, folder, failed):
    """Keep what was found for other processes, where that can be; what was kept for other versions goes."""
    if folder is None:
        return
    file = Path(folder, FILE)
    try:
        cards = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        cards = {}
    cards = cards if isinstance(cards, dict) else {}
    entry = cards.get(_card(device))
    same = isinstance(entry, dict) and entry.get("versions") == _versions() and isinstance(entry.get("timed"), dict)
    others = entry["timed"] if same else {}
    found = {"ms": timings.ms, "out": timings.out, "failed": failed, "at": time.time()}
    cards[_card(device)] = {"versions": _versions(), "timed": others | {_key(candidates): found}}
    part = file.with_name(f"{FILE}.{os.getpid()}")
    with contextlib.suppress(OSError):
        file.parent.mkdir(parents=True, exist_ok=True)
        part.write_text(json.dumps(cards, indent=1), encoding="utf-8")
        os.replace(part, file)
    with contextlib.suppress(OSError):
        part.unlink(missing_ok=True)


def _key(candidates):
    return ", ".join(candidates)


def _card(device):
    if device.type != "cuda":
        return device.type
    return "{}, {}.{}".format(torch.cuda.get_device_name(device), *torch.cuda.get_device_capability(device))


@functools.cache
def _versions():
    """Of everything that decides how fast a candidate is on a card, the pack's kernels among it."""
    digest = hashlib.sha256()
    here = Path(__file__).parent
    for file in sorted(here.rglob("*.py")):
        digest.update(file.read_bytes())
    driver = getattr(torch._C, "_cuda_getDriverVersion", lambda: None)  # the newest CUDA that it runs
    found = {
        "liveditor": digest.hexdigest()[:16],
        "torch": torch.__version__,
        "cuda": torch.version.cuda,
        "cudnn": torch.backends.cudnn.version(),
        "driver": driver() if torch.version.cuda else None,
    }
    for name in PACKAGES:
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            found[name] = importlib.metadata.version(name)
    return found
