"""The one place that chooses a backend.

A backend is a module with the functions of `reference.py`. `auto` takes the first that can run; a backend that the
user names is used or refused, never replaced.
"""

import functools
import importlib
import importlib.util
import logging

MODULES = {"triton": ".triton_backend", "tilelang": ".tilelang_backend", "pytorch": ".reference"}
PACKAGES = {"triton": "triton", "tilelang": "tilelang", "pytorch": "torch"}
AUTO_ORDER = ("triton", "tilelang", "pytorch")


class BackendUnavailable(RuntimeError):
    """A backend was named that cannot run here; the message gives the reason and the remedy."""


def unavailable_reason(name, device):
    """Why a backend cannot run on a device, or None. Probes lazily: nothing is imported for `pytorch`."""
    if name == "pytorch":
        return None
    if device.type != "cuda":
        return f"needs a CUDA GPU, the tensors are on {device.type}"
    if importlib.util.find_spec(f"{__package__}{MODULES[name]}") is None:
        return "this version of the pack has no GPU kernels of that kind"
    if importlib.util.find_spec(PACKAGES[name]) is None:
        return f"the Python package {PACKAGES[name]} is not installed"
    return None


def backend_for(name, device):
    """The module that implements the operations.

    Args:
        name: `auto`, `triton`, `tilelang` or `pytorch`.
        device: torch.device of the tensors.

    Raises:
        BackendUnavailable: a backend was named that cannot run on this device.
    """
    if name == "auto":
        reasons = {}
        for name in AUTO_ORDER:
            reasons[name] = unavailable_reason(name, device)
            if reasons[name] is None:
                break
        _log_choice(name, device.type, "; ".join(f"{n}: {r}" for n, r in reasons.items() if r))
    else:
        reason = unavailable_reason(name, device)
        if reason is not None:
            raise BackendUnavailable(f"Sparse attention: backend {name} cannot run: {reason}. Choose auto or pytorch in Sparse Attention Settings.")
    return importlib.import_module(MODULES[name], __package__)


@functools.cache
def _log_choice(name, device_type, reasons):
    """Say once per process which backend auto took, and why not the others."""
    logging.info(f"LIVEditor: attention backend {name} on {device_type}" + (f" ({reasons})" if reasons else ""))
