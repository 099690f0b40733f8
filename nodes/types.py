"""The pack's own socket types and the checks that several nodes share."""

import contextlib

from comfy_api.latest import io

from ..liveditor_core.checkpoint.weights import CheckpointError
from ..liveditor_core.footage.reader import FootageError
from ..liveditor_core.model.load import wrong_vae
from ..liveditor_core.model.registration import LIVEditor

CATEGORY = "LIVEditor"
Source = io.Custom("LIVEDITOR_SOURCE")
Record = io.Custom("LIVEDITOR_RECORD")


def require_liveditor(model, node_name):
    """Refuse a MODEL of another kind."""
    if not isinstance(model.model, LIVEditor):
        raise ValueError(
            f"{node_name}: needs a LIVEditor model, got {type(model.model).__name__}. Load a LIVEditor "
            "checkpoint with Load LIVEditor."
        )


def require_wan_vae(vae, node_name):
    """Refuse a VAE whose latents are not those of Wan 2.1."""
    if problem := wrong_vae(vae):
        raise ValueError(f"{node_name}: {problem}")


@contextlib.contextmanager
def named(node_name):
    """Put a node's name before what the parts that it calls refuse."""
    try:
        yield
    except (CheckpointError, FootageError) as error:
        raise ValueError(f"{node_name}: {error}") from error
