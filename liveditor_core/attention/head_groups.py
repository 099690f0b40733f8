"""Heads in groups: of equal work, so that little lies gathered at once; of equal length, so that nothing is padded."""

import math

import torch

from .token_layout import TokenLayout

# What the dense half gathers at once, in sizes of q: the heads are taken in groups of equal work. At the released
# settings that is three groups of at most fourteen heads; two groups took as long and, with fp8 weights, 0.14 GiB more.
GATHERED_AT_ONCE = 0.75
SMALLEST_GROUP = 1 << 28  # bytes, below which groups save nothing worth a launch


def all_heads(x):
    """Every head of every batch item.  # [B * H] int32"""
    return torch.arange(x.shape[0] * x.shape[1], dtype=torch.int32, device=x.device)


def in_groups(heads, q, *, tokens):
    """Slices of equally many heads, whose queries and answers, keys and values stay below what may lie gathered at
    once.

    Args:
        tokens: queries and keys of one head.
    """
    needed = 2 * tokens * heads * q.shape[-1] * q.element_size()
    groups = min(heads, math.ceil(needed / max(SMALLEST_GROUP, GATHERED_AT_ONCE * q.numel() * q.element_size())))
    size = math.ceil(heads / max(1, groups))
    return [slice(first, first + size) for first in range(0, heads, size)]


def heads_by_length(source_blocks, layout: TokenLayout):
    """Heads grouped by how many tokens their KV sets hold, so that each group attends densely without masks or padding.

    A head that keeps a short block has fewer tokens than one that does not: one group where both streams are multiples
    of the block size, at most four otherwise.

    Returns:
        A function that gives the groups: head_index [G] int32, the same as a list, and the number of tokens. It waits
        for the GPU to have come thus far; call it after queueing more work.
    """
    whole = layout.target + source_blocks.shape[-1] * layout.block_size
    if not layout.has_tails or source_blocks.shape[-1] == 0:
        heads = all_heads(source_blocks)
        return lambda: [(heads, list(range(len(heads))), whole)]
    missing = torch.zeros(source_blocks.shape[:2], dtype=torch.int32, device=source_blocks.device)
    for block in {layout.num_target_kv_blocks, layout.num_kv_blocks - 1}:  # the only source blocks that can be short
        start, end = layout.kv_block(block)
        missing += (source_blocks == block).any(dim=-1) * (layout.block_size - (end - start))
    order = missing.flatten().argsort(stable=True).to(torch.int32)
    missing = _on_its_way_to_host(missing)

    def groups():
        first, numbers = 0, missing().flatten().argsort(stable=True).tolist()
        for lost, count in zip(*(x.tolist() for x in missing().unique(return_counts=True)), strict=True):
            group = slice(first, first + count)
            yield order[group], numbers[group], whole - lost
            first += count

    return groups


def _on_its_way_to_host(x):
    """A function that gives a tensor's copy in the host's memory, and waits for no more than what was queued before
    it.
    """
    if x.device.type != "cuda":
        return x.cpu
    host = torch.empty(x.shape, dtype=x.dtype, pin_memory=True)
    host.copy_(x, non_blocking=True)
    done = torch.cuda.Event()
    done.record(torch.cuda.current_stream(x.device))

    def wait():
        done.synchronize()
        return host

    return wait
