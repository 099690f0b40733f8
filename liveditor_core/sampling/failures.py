"""What to do when a run fails, in words that help."""

import traceback

try:
    from comfy.model_management import ACCELERATOR_ERROR, OOM_EXCEPTION, is_oom
except ImportError:  # a failure of the GPU cannot be told from others: the host's own words must do
    is_oom = None

GIB = 2**30


def explain(error, when, needed, config, kept=False):
    """The same failure in words that help, of a type that the host treats alike.

    None where the original says enough.

    Args:
        when: in words, what was computed.
        needed: bytes of one call, None if that is not known.
        kept: whether the state of the run is kept.
    """
    if is_oom is None:
        return None
    if is_oom(error):
        size = (
            "" if needed is None else f" One call at this size needs about {needed / GIB:.1f} GiB beside the weights."
        )
        return OOM_EXCEPTION(
            f"LIVEditor: out of GPU memory in {when}.{size} Use a smaller size, a smaller window in LIVEdit Sampler or "
            "fp8 weights, close other programs that use the GPU, or start ComfyUI with --reserve-vram. "
            + (
                "What was computed is kept: the same run goes on from there."
                if kept
                else "Nothing was saved of this run; the next one starts afresh."
            )
        )
    if isinstance(error, ACCELERATOR_ERROR) and "CUDA" in str(error):
        return RuntimeError(
            f"LIVEditor: the GPU failed in {when}: {str(error).splitlines()[0]}. It may not answer until ComfyUI is "
            f"started again. If it happens again at the same step, choose another backend than {config.backend} in "
            "Sparse Attention Settings and report it."
        )
    return None


def forget_frames(error):
    """Let go of what the frames of a failed run hold: clones of the MODEL, latents, GPU memory.

    Host and exception refer to each other until the next garbage collection; a clone of a MODEL that dies there
    together with its parent leaves weights that the host takes for leaked, warns of after every prompt, and never
    evicts.
    """
    while error is not None:
        traceback.clear_frames(error.__traceback__)
        error = error.__cause__ or error.__context__
