"""What sparse attention chose while a sampler ran: retrieved source blocks, sharpness, the dense half.

For chosen steps and transformer blocks.
"""

import re
from typing import NamedTuple

import torch

from ..attention.token_layout import TokenLayout

_PART = re.compile(r"(\d+)(?:\s*-\s*(\d+))?|last")


class Choice(NamedTuple):
    """What one transformer block chose in one step, on the CPU."""

    retrieved: torch.Tensor  # [H, source KV blocks] bool: kept by this head
    sharpness: torch.Tensor  # [H, query blocks] fp32
    dense: torch.Tensor  # [H, query blocks] bool: attends densely in this head


def check_numbers(text: str):
    """Refuse what `numbers_in` could not read.

    Raises:
        ValueError: the text is neither `all` nor a list of numbers, rising ranges and `last`.
    """
    parts = [_PART.fullmatch(part.strip()) for part in text.split(",")]
    if text.strip() != "all" and not all(part and int(part[1] or 0) <= int(part[2] or part[1] or 0) for part in parts):
        raise ValueError(f'must be "all", or numbers and ranges with commas such as "1, 8-12, last", got {text!r}')


def numbers_in(text: str, first: int, count: int) -> set[int]:
    """The numbers that a text names, of `count` beginning at `first`."""
    everything = range(first, first + count)
    if text.strip() == "all":
        return set(everything)
    named = set()
    for part in text.split(","):
        start, end = _PART.fullmatch(part.strip()).groups()
        named |= (
            {everything[-1]}
            if start is None
            else {number for number in everything if int(start) <= number <= int(end or start)}
        )
    return named


class AttentionRecord:
    """Follows the runs of one MODEL.

    Holds the last one's choices of the positive prompt, which is the first of a guider's.

    Args:
        steps: which steps to record, counted from 1: `all`, or for example `1, 8-12, last`.
        blocks: which transformer blocks, counted from 0, in the same way. Both have passed `check_numbers`.

    Attributes:
        choices: (step, block) to Choice.
        layout: TokenLayout of the run, None before it.
        grid: latent frames, rows and columns of tokens.
        dense_because: why nothing was chosen where attention was dense.
        result: the latent that the run gave, on the CPU; None while there is none.
    """

    def __init__(self, steps: str, blocks: str):
        self._steps, self._blocks = steps, blocks
        self.begin()

    def begin(self):
        self.choices, self.layout, self.grid, self.dense_because, self.result = {}, None, None, None, None

    def run(self, executor, *args, **kwargs):
        """A wrapper around a whole run of a sampler."""
        self.begin()
        latent = executor(*args, **kwargs)
        self.result = latent.cpu()
        return latent

    def watch(self, transformer_options, layout: TokenLayout):
        """What to tell of one self-attention call.

        A function for `in_context_sparse_attention`'s `watch`, or None if this call is not recorded.

        Of samplers that call the model more than once in a step the last call is kept.
        """
        which = transformer_options.get("cond_or_uncond", [0])
        sigmas, block = transformer_options["sample_sigmas"], transformer_options["block_index"]
        if 0 not in which or block not in numbers_in(self._blocks, 0, transformer_options["total_blocks"]):
            return None
        step = int((sigmas - transformer_options["sigmas"][0].to(sigmas)).abs().argmin()) + 1  # waits for the GPU
        if step not in numbers_in(self._steps, 1, len(sigmas) - 1):
            return None

        def note(chosen, dense_because):
            self.layout, self.grid, self.dense_because = layout, tuple(transformer_options["grid_sizes"]), dense_because
            if chosen is not None:
                item = which.index(0) * (
                    chosen.sparse.kv_set.shape[0] // len(which)
                )  # batches are one prompt after the other
                self.choices[step, block] = Choice(
                    _marked(
                        chosen.sparse.kv_set[item, :, layout.num_target_kv_blocks :] - layout.num_target_kv_blocks,
                        layout.num_source_blocks,
                    ),
                    chosen.sharpness[item].float().cpu(),
                    _marked(chosen.dense_blocks[item], layout.num_blocks),
                )

        return note


def _marked(indices, count):
    """[H, M] indices to [H, count] bool, on the CPU."""
    return torch.zeros(len(indices), count, dtype=torch.bool).scatter_(1, indices.long().cpu(), True)


def source_heat(values: torch.Tensor, layout: TokenLayout, grid) -> torch.Tensor:
    """Values of source blocks at the places of their tokens.

    Args:
        values: [source KV blocks].
        grid: latent frames, rows and columns of tokens.

    Returns:
        [latent frames, rows, columns].
    """
    heat = values.new_zeros(layout.source)
    for block, value in enumerate(values, layout.num_target_kv_blocks):
        start, end = layout.kv_block(block)
        heat[start - layout.target : end - layout.target] = value
    return heat.view(*grid)


def summary(record: AttentionRecord, steps: list[int]) -> str:
    """A line for every recorded step and transformer block."""
    layout = record.layout
    lines = [
        f"{layout.num_source_blocks} source blocks and {layout.num_target_blocks} target blocks of "
        f"{layout.block_size} tokens"
    ]
    for (step, block), choice in sorted(record.choices.items()):
        if step in steps:
            dense = choice.dense.float()
            low, middle, high = choice.sharpness.flatten().quantile(torch.tensor([0.05, 0.5, 0.95])).tolist()
            lines.append(
                f"step {step}, block {block}: each head reads {choice.retrieved.sum(dim=1).float().mean():.0f} source "
                f"blocks, all heads together {choice.retrieved.any(dim=0).sum()}; sharpness {low:.2f} to {high:.2f}, "
                f"median {middle:.2f}; dense: {dense[:, : layout.num_target_blocks].mean():.0%} of the target, "
                f"{dense[:, layout.num_target_blocks :].mean():.0%} of the source"
            )
    return "\n".join(lines)
