"""Functions that find the GPU full, as PyTorch and other packages say it."""

import torch

FULL = {
    "torch": torch.cuda.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 MiB"),
    "triton": RuntimeError("Triton Error [CUDA]: out of memory"),
    "driver": RuntimeError("CUDA_ERROR_OUT_OF_MEMORY (2)"),
    "launch": torch.AcceleratorError("CUDA error: out of memory"),
}
MAKES_ROOM = torch.cuda.OutOfMemoryError, torch.AcceleratorError  # for these the host frees memory


def full_once(error, function):
    """A function that works, but fails the first time for want of memory."""
    errors = [error]

    def call(*args, **kwargs):
        if errors:
            raise errors.pop()
        return function(*args, **kwargs)

    return call
