"""Who follows the self-attention calls of a run: found in `transformer_options`, which travel with a MODEL."""

import contextlib

RUN_KEY = "liveditor_run"  # a run report
RECORD_KEY = "liveditor_record"  # a record of what was chosen


def followed(transformer_options, q, layout, config, dense_kernel, without=()):
    """A context for an attention call, watched if the run is one that reports."""
    report = transformer_options.get(RUN_KEY)
    return (
        contextlib.nullcontext()
        if report is None
        else report.attention(q, layout, config, dense_kernel, without, transformer_options.get("block_index", 0))
    )
