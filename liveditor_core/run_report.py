"""What a run says about its attention: one log line with milliseconds per call and peak memory."""

import contextlib
import logging
import time

import torch

import comfy.model_management
import comfy.model_patcher
import comfy.patcher_extension

from .sparse_attention import compute_left

KEY = "liveditor_run"


class AttentionClock:
    """Times the attention calls of one run. Calls on several GPUs, from several threads, may interleave."""

    def __init__(self):
        self.calls = []
        self.tokens = 0
        self.compute_left = 1.0

    @contextlib.contextmanager
    def call(self, q, layout, config):
        self.tokens = layout.tokens
        self.compute_left = compute_left(layout=layout, config=config, device=q.device, dtype=q.dtype, head_dim=q.shape[-1])
        if q.device.type == "cuda":
            start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
            start.record(torch.cuda.current_stream(q.device))
            yield
            end.record(torch.cuda.current_stream(q.device))
            self.calls.append((start, end))
        else:
            start = time.perf_counter()
            yield
            self.calls.append(time.perf_counter() - start)

    def milliseconds(self):
        """Of every call; waits for the GPU."""
        for call in self.calls:
            if isinstance(call, tuple):
                call[1].synchronize()
        return [call[0].elapsed_time(call[1]) if isinstance(call, tuple) else call * 1e3 for call in self.calls]


def timed(transformer_options, q, layout, config):
    """A context that times an attention call, if the run is one that reports."""
    clock = transformer_options.get(KEY)
    return clock.call(q, layout, config) if clock is not None else contextlib.nullcontext()


def report_runs(model):
    """Let every run of a MODEL end with a line in the log; the MODEL passed in is changed."""
    kind = comfy.patcher_extension.WrappersMP.OUTER_SAMPLE
    model.remove_wrappers_with_key(kind, KEY)
    model.add_wrapper_with_key(kind, KEY, _sample_and_report)


def _sample_and_report(executor, *args, **kwargs):
    guider = executor.class_obj
    options = guider.model_options
    device = comfy.model_management.get_torch_device()
    clock = AttentionClock()
    guider.model_options = comfy.model_patcher.create_model_options_clone(options)
    guider.model_options["transformer_options"][KEY] = clock
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
    try:
        out = executor(*args, **kwargs)
    finally:
        guider.model_options = options
    milliseconds = clock.milliseconds()
    if milliseconds:
        peak = f", peak memory {torch.cuda.max_memory_allocated(device) / 2**30:.1f} GiB" if device.type == "cuda" else ""
        logging.info(f"LIVEditor: {len(milliseconds)} attention calls of {clock.tokens:,} tokens at {clock.compute_left:.3f} of dense attention, "
                     f"{sum(milliseconds) / len(milliseconds):.2f} ms each{peak}")
    return out
