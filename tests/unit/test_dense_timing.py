"""Dense attentions are tried and timed once: what is right comes first when it is fast, and what was found is kept."""

import json
import threading
import time
import types

import pytest
import torch
from full_gpu import FULL, MAKES_ROOM, full_once

from liveditor.kernels import dense, dense_timing, fastest_dense, times_as_fast
from liveditor.kernels.dense_timing import FILE, ROWS, WEEK, Candidate, Shape, Timings, timed

CPU = torch.device("cpu")
SMALL = Shape(2, ROWS.step + 9, 61, 16)  # two of the rows that are compared
sdpa = torch.nn.functional.scaled_dot_product_attention


class Clock:
    """Stands still but for kernels, which take as long as they say."""

    def __init__(self):
        self.now, self.calls = 0.0, []

    def kernel(self, name, ms, attend=sdpa):
        def kernel(q, k, v):
            self.calls.append(name)
            self.now += ms
            return attend(q, k, v)

        return kernel

    def candidates(self, **ms):
        return {name: Candidate(self.kernel(name, each), 0.02) for name, each in ms.items()}

    def time_of(self, call, device):
        before = self.now
        call()
        return self.now - before

    def timed(self, candidates, device=CPU, **options):
        options = {"dtype": torch.float32, "shape": SMALL, "time_of": self.time_of} | options
        return timed(candidates, device, **options)


@pytest.fixture
def clock():
    dense_timing.forget()
    yield Clock()
    dense_timing.forget()


def test_the_fastest_comes_first(clock, caplog):
    caplog.set_level("INFO")
    found = clock.timed(clock.candidates(a=2.16, b=3.7, c=2.0))
    assert list(found.ms) == ["c", "a", "b"] and found.ms["b"] == pytest.approx(3.7) and found.out == {}
    assert found.compared() == "c 1.00, a 1.08, b 1.85"
    assert "dense attention timed on cpu: c 1.00, a 1.08, b 1.85" in caplog.text


@pytest.mark.parametrize(
    "ms, order",
    [
        ({"a": 1.02, "b": 1.0}, "ab"),
        ({"a": 1.04, "b": 1.0}, "ba"),
        ({"a": 1.05, "b": 1.02, "c": 1.0}, "bca"),  # a is as fast as b, but not as c
        ({"a": 1.0, "b": 1.0, "c": 0.99}, "abc"),
    ],
)
def test_of_those_about_as_fast_the_first_comes_first(clock, ms, order):
    assert "".join(clock.timed(clock.candidates(**ms)).ms) == order


def test_a_slow_call_between_does_not_count(clock):
    """The median of the rounds, which go through all candidates in turn."""
    slow = iter([0, 0, 0, 50, 0, 0, 0])

    def sometimes_slow(q, k, v):
        clock.now += next(slow)
        return sdpa(q, k, v)

    candidates = {"a": Candidate(clock.kernel("a", 1.0, sometimes_slow), 0.02)} | clock.candidates(b=2.0)
    assert list(clock.timed(candidates).ms) == ["a", "b"]
    assert clock.calls == ["a", "b"] * 6, "one to try, five to time"


def test_long_calls_are_timed_once(clock, monkeypatch):
    seconds = iter(range(100))
    monkeypatch.setattr(dense_timing.time, "perf_counter", lambda: next(seconds))
    assert list(clock.timed(clock.candidates(a=2.0, b=1.0)).ms) == ["b", "a"]
    assert clock.calls == ["a", "b"] * 2


def raises(error):
    def attend(q, k, v):
        raise error

    return attend


def spoil(place, value):
    def attend(q, k, v):
        out = sdpa(q, k, v)
        out[place] = value
        return out

    return attend


WRONG = {
    "NaN in a row that is not compared": (spoil((0, 1, -1, 15), float("nan")), "gives NaN or infinity"),
    "infinity": (spoil((0, 0, 0, 0), float("inf")), "gives NaN or infinity"),
    "another value": (spoil((0, 0, ROWS.step), 9.0), "errs by"),
    "3 % off": (lambda q, k, v: 1.03 * sdpa(q, k, v), "errs by 3.0%, more than 2%"),
    "the last key left out": (lambda q, k, v: sdpa(q, k[:, :, :-1], v[:, :, :-1]), "errs by"),
    "another shape": (lambda q, k, v: sdpa(q, k, v)[:, :, :-1], f"gives (1, 2, {SMALL.queries - 1}, 16)"),
    "another dtype": (lambda q, k, v: sdpa(q, k, v).double(), f"gives (1, 2, {SMALL.queries}, 16) in torch.float64"),
    "nothing": (lambda q, k, v: None, "AttributeError"),
    "an error": (raises(RuntimeError("no kernel image\nis available")), "RuntimeError: no kernel image"),
}


@pytest.mark.parametrize("attend, reason", WRONG.values(), ids=WRONG)
def test_what_is_wrong_is_out_with_a_note(clock, caplog, attend, reason):
    caplog.set_level("INFO")
    found = clock.timed({"a": Candidate(clock.kernel("a", 0.1, attend), 0.02)} | clock.candidates(b=1.0))
    assert list(found.ms) == ["b"] and found.out["a"].startswith(reason) and "\n" not in found.out["a"]
    assert f"a is installed but cannot be used here: {reason}" in caplog.text
    assert clock.calls.count("a") == 1, "what is out is not timed"


def test_what_fails_while_it_is_timed_is_out(clock):
    calls = iter([None])

    def once(q, k, v):
        if next(calls, "later") == "later":
            raise RuntimeError("illegal")
        return sdpa(q, k, v)

    found = clock.timed({"a": Candidate(once, 0.02)} | clock.candidates(b=1.0))
    assert list(found.ms) == ["b"] and found.out == {"a": "RuntimeError: illegal"}


def test_what_is_not_installed_is_no_news(clock, caplog):
    caplog.set_level("INFO")
    missing = raises(ModuleNotFoundError("No module named 'flash_attn'"))
    found = clock.timed({"a": Candidate(missing, 0.02)} | clock.candidates(b=1.0))
    assert found.out == {"a": "No module named 'flash_attn'"} and "cannot be used" not in caplog.text


def test_nothing_runs_where_nothing_works(clock):
    found = clock.timed({"a": Candidate(raises(RuntimeError("no")), 0.02)})
    assert found.ms == {} and found.compared() == ""


def test_timing_leaves_random_numbers_and_gradients_alone(clock):
    torch.manual_seed(3)
    before = torch.get_rng_state()

    def attend(q, k, v):
        assert not torch.is_grad_enabled()
        return sdpa(q, k, v)

    assert "a" in clock.timed({"a": Candidate(clock.kernel("a", 1.0, attend), 0.02)}).ms
    assert torch.equal(torch.get_rng_state(), before) and torch.is_grad_enabled()


def test_what_is_asked_again_is_not_timed_again(clock):
    candidates = clock.candidates(a=1.0, b=2.0)
    found, calls = clock.timed(candidates), len(clock.calls)
    assert clock.timed(candidates) is found and len(clock.calls) == calls
    assert clock.timed(clock.candidates(a=1.0)) is not found, "others are others"


@pytest.mark.parametrize("error", FULL.values(), ids=FULL)
def test_a_full_gpu_is_not_remembered(clock, tmp_path, error):
    candidates = {"a": Candidate(full_once(error, clock.kernel("a", 1.0)), 0.02)} | clock.candidates(b=2.0)
    with pytest.raises(MAKES_ROOM):
        clock.timed(candidates, folder=tmp_path)
    assert not list(tmp_path.iterdir())
    assert list(clock.timed(candidates, folder=tmp_path).ms) == ["a", "b"]


def test_nothing_is_timed_while_a_graph_is_recorded(clock, monkeypatch):
    gpu = torch.device("cuda", 0)
    monkeypatch.setattr(torch.cuda, "is_current_stream_capturing", lambda: True)
    assert clock.timed(clock.candidates(a=1.0), gpu) is None and clock.calls == []
    monkeypatch.setattr(torch.compiler, "is_compiling", lambda: True)
    assert clock.timed(clock.candidates(a=1.0)) is None and clock.calls == []
    monkeypatch.undo()
    assert clock.timed(clock.candidates(a=1.0)).ms == {"a": 1.0}, "and that is not remembered"
    monkeypatch.setattr(torch.compiler, "is_compiling", lambda: True)
    assert clock.timed(clock.candidates(a=1.0)).ms == {"a": 1.0}, "what is known is known there too"


@pytest.mark.parametrize("devices", [(CPU, CPU), (CPU, torch.device("cpu", 0))], ids=["one", "two"])
def test_threads_time_one_after_the_other(clock, monkeypatch, devices):
    monkeypatch.setattr(dense_timing, "SECONDS", 60)
    running, most, found = [], [], []

    def attend(q, k, v):
        running.append(None)
        most.append(len(running))
        time.sleep(0.01)
        running.pop()
        return sdpa(q, k, v)

    candidates = {"a": Candidate(clock.kernel("a", 1.0, attend), 0.02)}
    threads = [threading.Thread(target=lambda d=d: found.append(clock.timed(candidates, d))) for d in devices]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert max(most) == 1 and [each.ms for each in found] == [{"a": 1.0}] * 2
    assert len(most) == 6 * len(set(devices))


@pytest.fixture
def kept(clock, tmp_path):
    """The folder in which a process kept what it found: a 2 ms, b 1 ms."""
    folder = tmp_path / "user" / "liveditor"
    clock.timed(clock.candidates(a=2.0, b=1.0), folder=folder)
    clock.calls.clear()
    dense_timing.forget()
    return folder


def entry_of(folder):
    file = folder / FILE
    cards = json.loads(file.read_text(encoding="utf-8"))
    return file, cards, cards["cpu"]["timed"]["a, b"]


def again(clock, folder, **ms):
    """What another process finds, and whether it timed."""
    found = clock.timed(clock.candidates(**ms or {"a": 1.0, "b": 2.0}), folder=folder)
    return list(found.ms), bool(clock.calls)


def test_another_process_reads_it(clock, kept):
    assert again(clock, kept) == (["b", "a"], False)
    assert [file.name for file in kept.iterdir()] == [FILE]


def test_other_candidates_are_timed_and_kept_beside_it(clock, kept):
    assert again(clock, kept, a=2.0, b=1.0, c=0.5) == (["c", "b", "a"], True)
    for names in ("ab", "abc"):
        dense_timing.forget()
        clock.calls.clear()
        assert not again(clock, kept, **dict.fromkeys(names, 1.0))[1]


def test_another_card_is_timed_and_kept_beside_it(clock, kept, monkeypatch):
    monkeypatch.setattr(dense_timing, "_card", lambda device: "another")
    assert again(clock, kept) == (["a", "b"], True)
    monkeypatch.undo()
    dense_timing.forget()
    clock.calls.clear()
    assert again(clock, kept) == (["b", "a"], False)


@pytest.mark.parametrize("name", ["liveditor", "torch", "cuda", "cudnn", "driver", "triton", "sageattention"])
def test_another_version_is_timed_and_replaces_it(clock, kept, monkeypatch, name):
    versions = dense_timing._versions() | {name: "another"}
    monkeypatch.setattr(dense_timing, "_versions", lambda: versions)
    again(clock, kept, c=1.0)
    dense_timing.forget()
    assert again(clock, kept) == (["a", "b"], True)
    dense_timing.forget()
    monkeypatch.undo()
    clock.calls.clear()
    assert again(clock, kept) == (["a", "b"], True), "what was kept for the other version is gone"


def test_versions_are_those_of_what_can_change_a_time():
    versions = dense_timing._versions()
    assert {"liveditor", "torch", "cuda", "cudnn", "driver", "triton", "tilelang", "comfy-kitchen"} <= versions.keys()
    assert json.loads(json.dumps(versions)) == versions


DAMAGES = {
    "nothing": lambda cards, found: "",
    "cut off": lambda cards, found: json.dumps(cards)[:-9],
    "no text": lambda cards, found: b"\xff\xfe\x00",
    "a list": lambda cards, found: "[1]",
    "a number": lambda cards, found: "7",
    "a card that is none": lambda cards, found: '{"cpu": 3}',
    "no versions": lambda cards, found: cards["cpu"].pop("versions"),
    "timed is none": lambda cards, found: cards["cpu"].update(timed=[]),
    "no times": lambda cards, found: found.pop("ms"),
    "times are none": lambda cards, found: found.update(ms=3),
    "a name too few": lambda cards, found: found["ms"].pop("a"),
    "in and out": lambda cards, found: found["out"].update(a="no"),
    "one twice and one never": lambda cards, found: (found["ms"].pop("b"), found["out"].update(a="no")),
    "a time of nothing": lambda cards, found: found["ms"].update(a=0.0),
    "no number": lambda cards, found: found["ms"].update(a="1"),
    "NaN": lambda cards, found: found["ms"].update(a=float("nan")),
    "endless": lambda cards, found: found["ms"].update(a=float("inf")),
    "a reason that is none": lambda cards, found: (found["ms"].pop("a"), found["out"].update(a=1)),
    "no time of failures": lambda cards, found: (found.update(failed=["a"]), found.pop("at")),
}


@pytest.mark.parametrize("damage", DAMAGES.values(), ids=DAMAGES)
def test_a_damaged_file_is_ignored_and_written_anew(clock, kept, damage):
    file, cards, found = entry_of(kept)
    content = damage(cards, found)
    content = content if isinstance(content, (str, bytes)) and file else json.dumps(cards)
    file.write_bytes(content if isinstance(content, bytes) else content.encode())
    assert again(clock, kept) == (["a", "b"], True)
    dense_timing.forget()
    clock.calls.clear()
    assert again(clock, kept) == (["a", "b"], False)


def test_the_order_is_that_of_the_times(clock, kept):
    file, cards, found = entry_of(kept)
    found["ms"] = {"a": 2.0, "b": 1.0}
    file.write_text(json.dumps(cards))
    assert again(clock, kept) == (["b", "a"], False)


def test_a_folder_that_cannot_be_written_is_no_error(clock, tmp_path):
    (tmp_path / "file").write_text("in the way")
    (tmp_path / "folder" / FILE).mkdir(parents=True)
    for folder in (tmp_path / "file", tmp_path / "file" / "below", tmp_path / "folder"):
        dense_timing.forget()
        assert again(clock, folder) == (["a", "b"], True)
    assert sorted(path.name for path in tmp_path.rglob("*")) == [FILE, "file", "folder"]


@pytest.mark.parametrize(
    "past, order", [(0, "b"), (WEEK - 60, "b"), (WEEK + 60, "ab"), (-60, "ab")], ids=["now", "days", "a week", "before"]
)
def test_what_failed_is_tried_again_after_a_week(clock, tmp_path, monkeypatch, past, order):
    now = time.time()
    monkeypatch.setattr(dense_timing.time, "time", lambda: now)
    fails = {"a": Candidate(raises(RuntimeError("no compiler")), 0.02)}
    assert list(clock.timed(fails | clock.candidates(b=2.0), folder=tmp_path).ms) == ["b"]
    dense_timing.forget()
    monkeypatch.setattr(dense_timing.time, "time", lambda: now + past)
    assert "".join(clock.timed(clock.candidates(a=1.0, b=2.0), folder=tmp_path).ms) == order


def test_times_stay_so_that_results_do(clock, kept, monkeypatch):
    monkeypatch.setattr(dense_timing.time, "time", lambda: 1e12)
    assert again(clock, kept) == (["b", "a"], False)


def test_what_is_not_installed_is_not_tried_again(clock, tmp_path, monkeypatch):
    missing = {"a": Candidate(raises(ModuleNotFoundError("no a")), 0.02)} | clock.candidates(b=2.0)
    clock.timed(missing, folder=tmp_path)
    dense_timing.forget()
    monkeypatch.setattr(dense_timing.time, "time", lambda: 1e12)
    assert list(clock.timed(clock.candidates(a=1.0, b=2.0), folder=tmp_path).ms) == ["b"]


# What is chosen by it.


@pytest.fixture
def machine(clock, monkeypatch):
    """A card on which kernels take so many ms; None: not installed; a string: fails so."""

    def make(sixteen, eight=()):
        def kernels(times):
            return {
                name: clock.kernel(name, ms)
                if isinstance(ms, float)
                else raises(ModuleNotFoundError(f"No module named '{name}'") if ms is None else RuntimeError(ms))
                for name, ms in dict(times).items()
            }

        for name, value in {
            "_can_time": lambda device, dtype: dtype != torch.float64,
            "_dtype": lambda device: torch.float32,
            "STRICT": {},
            "SIXTEEN_BIT": kernels(sixteen),
            "EIGHT_BIT": kernels(eight),
            "timed": clock.timed,
        }.items():
            monkeypatch.setattr(dense, name, value)
        return lambda **asked: fastest_dense(CPU, asked.pop("dtype", torch.float32), **asked)

    return make


def test_the_fastest_in_16_bit(clock, machine, tmp_path):
    fastest = machine({"cudnn": 2.0, "flash": 1.0, "sdpa": 3.0}, {"int8": 0.5})
    chosen = fastest(folder=tmp_path)
    assert (
        chosen[:2] == ("flash", 16) and chosen.reason is None and list(chosen.timings.ms) == ["flash", "cudnn", "sdpa"]
    )
    assert "int8" not in clock.calls, "nobody asked for it, and it may have to be compiled"
    assert (tmp_path / FILE).exists()


def test_the_fastest_in_8_bit(clock, machine):
    fastest = machine({"cudnn": 2.0, "sdpa": 3.0}, {"slow": 1.5, "fast": 1.0, "missing": None})
    chosen = fastest(bits=8)
    assert chosen[:2] == ("fast", 8) and chosen.reason is None
    assert list(chosen.timings.ms) == ["fast", "slow", "cudnn", "sdpa"]
    assert fastest()[:2] == ("cudnn", 16)


@pytest.mark.parametrize(
    "eight, reason",
    [
        ({"int8": 2.8}, "int8 1.40 times slower than cudnn here"),
        ({"slower": 4.0, "int8": 2.8}, "int8 1.40 times slower than cudnn here"),
        (
            {"int8": None, "broken": "for another GPU"},
            "no kernel for it runs here (int8: No module named 'int8'; broken: RuntimeError: for another GPU)",
        ),
    ],
    ids=["slower", "the best of two", "none"],
)
def test_why_not_in_8_bit(machine, eight, reason):
    chosen = machine({"cudnn": 2.0, "sdpa": 3.0}, eight)(bits=8)
    assert chosen[:2] == ("cudnn", 16) and chosen.reason == reason


def test_at_a_tie_it_is_8_bit(machine):
    assert machine({"cudnn": 2.0, "sdpa": 3.0}, {"int8": 2.05})(bits=8)[:2] == ("int8", 8)
    dense_timing.forget()
    assert machine({"cudnn": 2.0, "sdpa": 3.0}, {"int8": 2.07})(bits=8)[:2] == ("cudnn", 16)


def test_8_bit_may_err_more_than_16_but_not_without_bound(clock, machine, monkeypatch):
    fastest = machine({"rough": 1.0, "sdpa": 4.0}, {"rougher": 1.0, "int8": 2.0})
    for kind, name, factor in (
        ("SIXTEEN_BIT", "rough", 1.04),
        ("EIGHT_BIT", "int8", 1.04),
        ("EIGHT_BIT", "rougher", 1.06),
    ):
        kernel = clock.kernel(name, 1.0, lambda q, k, v, factor=factor: factor * sdpa(q, k, v))
        monkeypatch.setitem(getattr(dense, kind), name, kernel)
    chosen = fastest(bits=8)
    assert chosen[:2] == ("int8", 8) and chosen.timings.out.keys() == {"rough", "rougher"}


def test_8_bit_by_head_dim_and_dtype(clock, machine):
    fastest = machine({"cudnn": 2.0, "sdpa": 3.0}, {"int8": 1.0})
    assert fastest(bits=8, head_dim=64).name == "int8"
    chosen = fastest(bits=8, head_dim=96)
    assert chosen[:2] == ("cudnn", 16) and "the model's is 96" in chosen.reason
    chosen = fastest(bits=8, dtype=torch.float64)
    assert chosen[:3] == ("sdpa", 16, None) and "fp16 or bf16" in chosen.reason
    assert fastest(dtype=torch.float64) == ("sdpa", 16, None, None)


def test_within_a_graph_it_is_pytorch_s_choice_until_something_is_known(machine, monkeypatch):
    fastest = machine({"cudnn": 2.0, "sdpa": 3.0}, {"int8": 1.0})
    monkeypatch.setattr(torch.compiler, "is_compiling", lambda: True)
    assert fastest() == ("sdpa", 16, None, None) and "graph" in fastest(bits=8).reason
    monkeypatch.undo()


def test_where_nothing_works_it_is_pytorch_s_choice(machine):
    fastest = machine({"cudnn": "no", "sdpa": "no"}, {"int8": "no"})
    assert fastest().name == "sdpa" and fastest(bits=8)[:2] == ("sdpa", 16)


def test_how_much_faster_than_another_s(clock, machine):
    fastest = machine({"cudnn": 2.0, "sdpa": 3.0}, {"int8": 1.0})
    rough = clock.kernel("sage", 2.6, lambda q, k, v: 1.5 * sdpa(q, k, v))
    assert times_as_fast(CPU, torch.float32, fastest().name, "sage", rough) == pytest.approx(1.3)
    assert times_as_fast(CPU, torch.float32, "int8", "other", clock.kernel("other", 0.5)) == pytest.approx(0.5)
    assert times_as_fast(CPU, torch.float32, "cudnn", "broken", raises(RuntimeError("no"))) is None
    assert times_as_fast(CPU, torch.float64, "cudnn", "sage", rough) is None


def test_another_s_is_timed_once_and_kept_nowhere(clock, machine, tmp_path):
    fastest = machine({"cudnn": 2.0, "sdpa": 3.0})
    fastest(folder=tmp_path)
    for _ in range(2):
        times_as_fast(CPU, torch.float32, "cudnn", "sage", clock.kernel("sage", 1.0))
    assert clock.calls.count("sage") == 6 and "sage" not in (tmp_path / FILE).read_text()


# The kernels themselves.


def test_on_which_devices_kernels_are_timed(monkeypatch):
    gpu = torch.device("cuda", 0)

    def can_time(cuda, capability, dtype=torch.bfloat16, device=gpu):
        monkeypatch.setattr(torch.version, "cuda", cuda)
        monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device=None: capability)
        dense._can_time.cache_clear()
        dense._dtype.cache_clear()
        return dense._can_time(device, dtype)

    try:
        assert can_time("13.0", (9, 0)) and dense._dtype(gpu) == torch.bfloat16
        assert can_time("13.0", (7, 5), torch.float16) and dense._dtype(gpu) == torch.float16
        assert (
            not can_time("13.0", (7, 0)) and not can_time(None, (9, 0)) and not can_time("13.0", (9, 0), torch.float32)
        )
        assert not can_time("13.0", (9, 0), device=CPU)
    finally:
        dense._can_time.cache_clear()
        dense._dtype.cache_clear()


def test_what_computes_is_what_was_timed():
    """Where a kernel cannot run it must be out, not replaced by another that is then timed under its name."""
    q = torch.randn(1, 2, 40, 64)
    assert dense.STRICT.keys() == {"cudnn", "flash-attn-2"} < dense.SIXTEEN_BIT.keys()
    with pytest.raises(RuntimeError):
        dense.STRICT["cudnn"](q, q, q)  # which is for GPUs
    for name in dense.SIXTEEN_BIT:
        assert dense._candidate(name).attend is dense.STRICT.get(name, dense.SIXTEEN_BIT[name])
    for name in ("cudnn", "flash-attn-2", "sdpa"):
        assert torch.allclose(dense.dense_kernel(name)(q, q, q), sdpa(q, q, q), atol=1e-5)


@pytest.fixture
def packages(monkeypatch):
    """Packages as they are installed elsewhere."""

    def install(name, module, version, **functions):
        monkeypatch.setattr(dense.importlib.metadata, "version", lambda asked: {name: version}[asked])
        monkeypatch.setattr(
            dense.importlib, "import_module", lambda asked: {module: types.SimpleNamespace(**functions)}[asked]
        )

    caches = (dense._comfy_kitchen, dense._sage_attention)
    for cache in caches:
        cache.cache_clear()
    yield install
    for cache in caches:
        cache.cache_clear()


def test_comfy_kitchen(packages):
    calls = []
    packages("comfy-kitchen", "comfy_kitchen", "0.2.26")
    with pytest.raises(RuntimeError, match="0.2.29 or later is needed, not 0.2.26"):
        dense.EIGHT_BIT["comfy-kitchen"](1, 2, 3)
    packages("comfy-kitchen", "comfy_kitchen", "0.2.40", int8_attention=lambda *qkv: calls.append(qkv) or "out")
    assert dense.EIGHT_BIT["comfy-kitchen"](1, 2, 3) == "out" and calls == [(1, 2, 3)]


def test_sage_attention(packages):
    calls = []
    packages("sageattention", "sageattention", "1.0.6")
    with pytest.raises(RuntimeError, match="version 2 is needed, not 1.0.6"):
        dense.EIGHT_BIT["sage-attention-2"](1, 2, 3)
    packages(
        "sageattention", "sageattention", "2.2.0+cu128", sageattn=lambda *qkv, **o: calls.append((qkv, o)) or "out"
    )
    assert dense.EIGHT_BIT["sage-attention-2"](1, 2, 3) == "out"
    assert calls == [((1, 2, 3), {"tensor_layout": "HND", "is_causal": False})]


def test_packages_that_are_not_installed_are_known_by_their_error():
    x = torch.zeros(1, 1, 8, 64)
    for name in ("flash-attn-4", "flash-attn-3", "sage-attention-2"):
        with pytest.raises(ModuleNotFoundError):
            dense.dense_kernel(name)(x, x, x)


def test_one_entry_adds_a_kernel(monkeypatch, machine, clock):
    fastest = machine({"sdpa": 3.0}, {"int8": 2.0})
    monkeypatch.setitem(dense.EIGHT_BIT, "ours", clock.kernel("ours", 1.0))
    assert fastest(bits=8)[:2] == ("ours", 8) and dense.dense_kernel("ours") is dense.EIGHT_BIT["ours"]


def test_a_reason_is_told_as_it_was_found():
    assert dense._why_not_in_8_bit(Timings({"sdpa": 1.0}, dict.fromkeys(dense.EIGHT_BIT, "no"))) == (
        f"no kernel for it runs here ({'; '.join(f'{name}: no' for name in dense.EIGHT_BIT)})"
    )
