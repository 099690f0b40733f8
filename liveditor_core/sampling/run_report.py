"""What a run says about itself: what computed it, how long, how much memory, what it had to do without."""

import contextlib
import logging
import time

import torch

import comfy.patcher_extension

from ..attention.config import SparseAttentionConfig
from ..attention.observers import RUN_KEY
from ..attention.plan import plan_attention
from ..model.known_words import describe_unknown
from ..model.lora import loras_of
from .failures import explain
from .gpus_report import GpusOfRun


class RunReport:
    """Follows one run of a sampler; `text` is the report once it has ended.

    Calls on several GPUs, from several threads, may interleave.
    """

    def __init__(self):
        self.text = ""
        self.notes = []  # more lines, from what knows more about the run
        self.keeper = None  # of its state
        self.reuse = None  # of its source, a SourceReuse
        self.kept = 0  # bytes that it keeps for each prompt
        self._begin()

    def _begin(self):
        self._calls, self._model_calls, self._what = [], 0, None

    @contextlib.contextmanager
    def attention(self, q, layout, config, dense_kernel, without, block):
        """Times a self-attention call and remembers how it is computed, and what its dense half does without."""
        if self._what is None:
            self._what = q.shape, q.device, q.dtype, layout, config, dense_kernel, without
        self._model_calls += block == 0
        if q.device.type == "cuda":
            start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
            start.record(torch.cuda.current_stream(q.device))
            yield
            end.record(torch.cuda.current_stream(q.device))
            self._calls.append((start, end))
        else:
            start = time.perf_counter()
            yield
            self._calls.append(time.perf_counter() - start)

    @contextlib.contextmanager
    def run(self, patcher, model_options, steps, step_times):
        """Watches a whole run of a MODEL; `step_times` gets the clock's time at every step's end."""
        self._begin()
        gpus = GpusOfRun(model_options)
        started = time.perf_counter()
        yield
        attention = self._attention_seconds()  # waits for the GPU
        ended = time.perf_counter()
        if self._what is None:
            self.text = "\n".join(["LIVEditor: no model calls", *(f"  {note}" for note in self.notes)])
            return
        shape, where, dtype, layout, config, dense_kernel, without = self._what
        plan = plan_attention(layout=layout, config=config, device=where, dtype=dtype, head_dim=shape[-1])
        left = 1.0 if plan.dense_everywhere else config.dense_fraction(layout)
        whole = ended - started
        first = step_times[0] - started if step_times else whole
        each = (ended - step_times[0]) / (len(step_times) - 1) if len(step_times) > 1 else first
        lines = [
            f"LIVEditor: {steps} steps, {self._model_calls} model calls of {layout.tokens:,} tokens"
            + (f" x {shape[0]}" if shape[0] > 1 else "")
            + f" in {str(dtype).removeprefix('torch.')}",
            f"  attention: {'dense' if plan.dense_everywhere else plan.backend} on {where}, dense half by "
            f"{dense_kernel}, {left:.3f} of dense attention, {sum(attention) / len(attention) * 1e3:.2f} ms each, "
            f"{sum(attention) / whole:.0%} of the time",
            f"  time: {each:.2f} s per step, the first {first:.2f} s, {whole:.1f} s in all",
        ]
        estimate = patcher.model.memory_of_call(shape[0], layout.tokens)
        estimate += 0 if self.reuse is None else self.kept * self.reuse.prompts
        shares_heads = shape[1] < patcher.model.diffusion_model.num_heads
        lines += [f"  {line}" for line in gpus.describe(shares_heads, estimate)]
        lines += [f"  {note}" for note in self.notes]
        lines += [] if self.reuse is None else [f"  {self.reuse.describe(self._model_calls)}"]
        lines += [f"  LoRA: {line}" for line in loras_of(patcher)]
        missing = "; ".join((*plan.reasons, *without))
        lines.append(f"  done without: {missing}" if missing else "  nothing was missing")
        self.text = "\n".join(lines)
        logging.info(self.text)

    def needed(self, model):
        """Bytes that one call needs beside the weights, as far as a call has come to be."""
        return None if self._what is None else model.memory_of_call(1, self._what[3].tokens) + self.kept

    def _attention_seconds(self):
        """Of every call."""
        for call in self._calls:
            if isinstance(call, tuple):
                call[1].synchronize()
        return [call[0].elapsed_time(call[1]) / 1e3 if isinstance(call, tuple) else call for call in self._calls]


def report_runs(model):
    """Let every run of a MODEL end with a report in the log, and its failures with a remedy.

    The MODEL passed in is changed.
    """
    kind = comfy.patcher_extension.WrappersMP.SAMPLER_SAMPLE
    model.remove_wrappers_with_key(kind, RUN_KEY)
    model.add_wrapper_with_key(kind, RUN_KEY, _sample_and_report)


def report_run_into(model, report):
    """Let the next run of a MODEL fill in a RunReport; the MODEL passed in is changed."""
    model.model_options["transformer_options"][RUN_KEY] = report
    report_runs(model)


def _sample_and_report(executor, guider, sigmas, extra_args, callback, noise, *args, **kwargs):
    options = extra_args["model_options"]["transformer_options"]  # the guider's own copy, for this run alone
    report = options.setdefault(RUN_KEY, RunReport())
    config = SparseAttentionConfig.from_options(options)
    step_times = []

    def each_step(*state):
        step_times.append(time.perf_counter())
        if callback is not None:
            callback(*state)

    steps, begun = len(sigmas) - 1, 0 if report.keeper is None else report.keeper.step
    if steps < 1 or torch.is_grad_enabled():  # training comes this way too
        return executor(guider, sigmas, extra_args, callback, noise, *args, **kwargs)
    report.notes += describe_unknown(guider.conds.get("positive", ()))
    try:
        with report.run(guider.model_patcher, extra_args["model_options"], steps, step_times):
            return executor(guider, sigmas, extra_args, each_step, noise, *args, **kwargs)
    except Exception as error:
        keeper = report.keeper
        explained = explain(
            error,
            f"step {min(begun + len(step_times) + 1, steps)} of {steps}",
            report.needed(guider.inner_model),
            config,
            kept=keeper is not None and keeper.stopped(),
        )
        if explained is None:
            raise
        raise explained from error
