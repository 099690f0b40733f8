"""NaN and infinity in what the model answers: noticed in every step, and where they began is found."""

import torch

SUMS_KEY = "liveditor_sums"  # in transformer_options: a list that gets a sum of every block's answer


def note(transformer_options, x):
    """Remember the sum of a block's answer, if somebody asked: it is NaN or infinite if any number in it is."""
    sums = transformer_options.get(SUMS_KEY)
    if sums is not None:
        sums.append(x.sum())


def refuse(answer, x, transformer_options, again):
    """Refuse an answer that is not finite. Waits for the GPU.

    Args:
        answer: of one call.
        x: the latent that the call was about.
        again: function of transformer_options that makes the same call once more, to find the first block that fails.

    Raises:
        ValueError: names step and block.
    """
    if torch.isfinite(answer).all():
        return
    step = _step(transformer_options)
    if not torch.isfinite(x).all():
        raise ValueError(
            f"LIVEditor: the latent must be finite, got NaN or infinity before {step}, in what the sampler or the "
            "source brought. Choose sampler flow_unipc with scheduler wan_flow, and encode the source again."
        )
    sums = []
    again({**transformer_options, SUMS_KEY: sums})
    broken = torch.stack(sums).isfinite().logical_not().nonzero().flatten().tolist() if sums else []
    where = f"block {broken[0]} of {len(sums)}" if broken else "the model's answer"
    raise ValueError(
        f"LIVEditor: {step} gave NaN or infinity in {where}. The checkpoint is damaged or its weight type too coarse; "
        "convert it again, or load it with weight type bf16."
    )


def _step(transformer_options):
    sigmas, current = transformer_options.get("sample_sigmas"), transformer_options.get("sigmas")
    if sigmas is None or current is None:
        return "the call"
    return f"step {int((sigmas.to(current) - current[0]).abs().argmin()) + 1} of {len(sigmas) - 1}"
