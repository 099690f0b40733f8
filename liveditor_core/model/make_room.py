"""A call that runs out of GPU memory is computed again with more room, instead of losing the edit."""

import logging

import comfy.model_management

try:
    from comfy.model_management import is_oom
except ImportError:  # it cannot be told from other failures
    is_oom = None

# What the allocator cannot use between the blocks of a call that it gave away (measured: 0.4 GiB were too little).
BETWEEN_BLOCKS = 768 << 20
ROOM = 1 << 30  # bytes of the weights that leave the GPU before each new try
TRIES = 4


def call_again(model, call):
    """The answer of a call of a model; after each out-of-memory but the last with less of its weights on the GPU.

    The allocator's free memory may be in pieces that are too small, more so the fuller the card is: that cannot be
    known beforehand. A call changes nothing, so that it may be repeated.

    Args:
        model: the host's; `current_patcher` holds its weights.
    """
    for _ in range(TRIES - 1):
        try:
            return call()
        except Exception as error:
            patcher = model.current_patcher
            if is_oom is None or patcher is None or patcher.load_device == patcher.offload_device or not is_oom(error):
                raise
            said = str(error).splitlines()[0]
        freed = patcher.partially_unload(patcher.offload_device, ROOM)  # the failed call's tensors went with its error
        comfy.model_management.soft_empty_cache()
        logging.warning(
            f"LIVEditor: {said}; {freed / 2**30:.1f} GiB of the weights leave the GPU, and the call is done again"
        )
    return call()
