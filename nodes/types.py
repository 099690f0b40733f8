"""The pack's own socket types, and what all nodes share that need no model."""

import contextlib

from comfy_api.latest import io

from ..liveditor_core.checkpoint.weights import CheckpointError
from ..liveditor_core.footage.errors import FootageError
from ..liveditor_core.sampling.instructions import TimelineError

CATEGORY = "LIVEditor"
Source = io.Custom("LIVEDITOR_SOURCE")
Record = io.Custom("LIVEDITOR_RECORD")
OpticalFlow = io.Custom("OPTICAL_FLOW")  # the host's, which has no name for it that could be imported


@contextlib.contextmanager
def named(node_name):
    """Put a node's name before what the parts that it calls refuse."""
    try:
        yield
    except (CheckpointError, FootageError, TimelineError) as error:
        raise ValueError(f"{node_name}: {error}") from error
