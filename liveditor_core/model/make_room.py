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


def call_again(patchers, call):
    """The answer of a call of a model; after each out-of-memory but the last with less of its weights on the GPU.

    The allocator's free memory may be in pieces that are too small, more so the fuller the card is: that cannot be
    known beforehand. A call changes nothing, so that it may be repeated.

    Args:
        patchers: the host's, of the model on every GPU that computes the call; none where it is not known.
    """
    for _ in range(TRIES - 1):
        try:
            return call()
        except Exception as error:
            patchers = [each for each in patchers if each.load_device != each.offload_device]
            if is_oom is None or not patchers or not is_oom(error):
                raise
            said = str(error).splitlines()[0]
        # The failed call's tensors went with its error.
        freed = sum(each.partially_unload(each.offload_device, ROOM) for each in patchers)
        comfy.model_management.soft_empty_cache()
        logging.warning(
            f"LIVEditor: {said}; {freed / 2**30:.1f} GiB of the weights leave the GPU, and the call is done again"
        )
    return call()
