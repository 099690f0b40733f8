"""Which dense attention computes the dense half and the attention to the text."""

import torch

from comfy.ldm.modules.attention import attention_pytorch, optimized_attention

from ...kernels import available_dense_attention, dense_attention


def choose_dense_attention(transformer_options, device, dtype):
    """What computes the dense half: the attention that the user chose for the host, else the fastest at hand.

    Returns:
        Its name, and a callable (q, k, v) -> out on [B, H, tokens, D].
    """
    chosen = "optimized_attention_override" in transformer_options or optimized_attention is not attention_pytorch
    if chosen or dtype not in (torch.float16, torch.bfloat16) or device.type != "cuda":

        def attend(q, k, v):
            return optimized_attention(
                q,
                k,
                v,
                heads=q.shape[1],
                skip_reshape=True,
                skip_output_reshape=True,
                transformer_options=transformer_options,
            )

        return "an override" if "optimized_attention_override" in transformer_options else getattr(
            optimized_attention, "__name__", "the host's"
        ), attend
    return available_dense_attention(device)[0], dense_attention
