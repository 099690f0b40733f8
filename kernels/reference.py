"""Every operation in plain PyTorch: the truth that the other backends are tested against. Runs on any device.

Tensors are [B, H, N, D] with free strides, block indices int32. `target` is the number of target tokens, `block_size`
the tokens per block. Query blocks are cut every `block_size` tokens; KV blocks at the border between the streams as
well.
"""

from typing import NamedTuple

import torch

# Largest number of fp32 scores held at once, so that a long clip does not need more memory here than elsewhere.
SCORES_AT_ONCE = 1 << 26


class SparseBlocks(NamedTuple):
    """The blocks of the sparse half, int32, per batch item and head; KV blocks by their index in the sequence."""

    query_blocks: torch.Tensor  # [B, H, Q], whose rows are computed
    kv_set: torch.Tensor  # [B, H, S], ascending: all target blocks, then the kept source blocks
    exact_blocks: torch.Tensor  # [B, H, Q, E], out of the KV set
    is_exact: torch.Tensor  # [B, H, Q, words], the same as a bit for every place in the KV set; see `choose_exact`


def kv_block_starts(*, tokens, target, block_size, device):
    """First token of every KV block, then one past the last token.  # [KV blocks + 1]

    Target blocks come first. A block that would lie over the border between the streams becomes two short ones.
    """
    of_target, whole = -(-target // block_size), target // block_size
    blocks = torch.arange(
        of_target - whole - (-tokens // block_size) + 1, device=device
    )  # made on the device: nothing waits
    return torch.where(
        blocks < of_target, blocks * block_size, ((blocks - of_target + whole) * block_size).clamp(target, tokens)
    )


def block_means(x, *, target, block_size=64):
    """Mean of every KV block over its own tokens.

    Args:
        x: [B, H, N, D], any float dtype.

    Returns:
        [B, H, KV blocks, D] fp32.
    """
    starts = kv_block_starts(tokens=x.shape[2], target=target, block_size=block_size, device=x.device)
    lengths = starts.diff()
    block_of_token = torch.repeat_interleave(
        torch.arange(len(lengths), device=x.device), lengths, output_size=x.shape[2]
    )
    sums = torch.zeros(*x.shape[:2], len(lengths), x.shape[3], dtype=torch.float32, device=x.device)
    sums.index_add_(2, block_of_token, x.float())
    return sums / lengths.view(-1, 1)


def softmax_with_top_sums(scores, *, columns, top):
    """Softmax over the last dim, in place, and how much of each row its largest entries hold.

    Args:
        scores: [..., M] fp32; replaced by their softmax.
        columns: only the first so many entries of a row count for the sum.
        top: how many of those to add up, at most `columns`.

    Returns:
        [...] fp32.
    """
    torch.softmax(scores, dim=-1, out=scores)
    return scores[..., :columns].topk(top, dim=-1).values.sum(dim=-1)


def split_largest(values, *, count):
    """Positions of the `count` largest values along the last dim, and of all others.

    Of equal values the earlier is larger.

    Args:
        values: [..., M] fp32.

    Returns:
        [..., count] and [..., M - count] int32, both ascending.
    """
    order = values.sort(dim=-1, descending=True, stable=True).indices
    largest, others = order.tensor_split([count], dim=-1)
    return tuple(part.sort(dim=-1).values.to(torch.int32) for part in (largest, others))


def choose_exact(scores, *, kv_set, count):
    """The KV blocks that each sparse query block attends to exactly.

    Those with the largest scores, of equal ones the earlier.

    Args:
        scores: [B, H, P, S] fp32, mean query times mean key.
        kv_set: [B, H, S] int32, ascending KV block indices.
        count: how many, at least one.

    Returns:
        KV block indices [B, H, P, count] int32, ascending; and [B, H, P, 2 * ceil(S / 64)] int32, whose bits, from the
        lowest of the first word on, say of every place in the set whether it is exact; they are 1 past its end.
    """
    chosen, _ = split_largest(scores, count=count)
    size = kv_set.shape[-1]
    is_exact = torch.zeros(*scores.shape[:-1], -(-size // 64) * 64, dtype=torch.int64, device=scores.device)
    is_exact[..., size:] = 1
    is_exact.scatter_(-1, chosen.long(), 1)
    words = (is_exact.unflatten(-1, (-1, 32)) << torch.arange(32, device=scores.device)).sum(dim=-1)
    return torch.gather(kv_set, 2, chosen.flatten(2).long()).view_as(chosen), words.to(torch.int32)


def gather_query_blocks(q, *, head_index, query_blocks, block_size=64):
    """Copy query blocks next to each other.

    Args:
        q: [B, H, N, D].
        head_index: [G], which heads, as batch item * H + head.
        query_blocks: [B, H, Q].

    Returns:
        [G, Q * block_size, D], dtype of q. Rows past the end of the sequence repeat its last token.
    """
    b, h = head_index // q.shape[1], head_index % q.shape[1]
    rows = _rows(query_blocks[b, h], block_size).clamp_max(q.shape[2] - 1)
    return q[b.unsqueeze(1), h.unsqueeze(1), rows]


def gather_kv_set(x, *, head_index, source_blocks, length, target, block_size=64):
    """Copy the tokens of the KV set next to each other: all of the target, then the kept source blocks, none twice.

    Args:
        x: [B, H, N, D], keys or values.
        head_index: [G], heads that keep equally many tokens, as batch item * H + head.
        source_blocks: [B, H, K] KV block indices.
        length: how many tokens they keep, the target's included.

    Returns:
        [G, length, D], dtype of x.
    """
    b, h = head_index // x.shape[1], head_index % x.shape[1]
    starts = kv_block_starts(tokens=x.shape[2], target=target, block_size=block_size, device=x.device)
    kept = source_blocks[b, h].long()
    rows = starts[kept].unsqueeze(-1) + torch.arange(block_size, device=x.device)
    rows = rows[rows < starts[kept + 1].unsqueeze(-1)].view(len(b), length - target)
    rows = torch.cat([torch.arange(target, device=x.device).expand(len(b), -1), rows], dim=1)
    return x[b.unsqueeze(1), h.unsqueeze(1), rows]


def write_query_blocks(values, *, head_index, query_blocks, residual, gate, out, block_size=64):
    """Write blocks of attention output back in token order, plus each token's share of the pooled residual.

    Args:
        values: [G, Q * block_size, D]; rows past the end of the sequence are dropped, and may be missing.
        head_index: [G], as batch item * H + head.
        query_blocks: [B, H, Q].
        residual: [B, H, query blocks of the sequence, D] fp32.
        gate: [B, N] fp32.
        out: [B, H, N, D], written in place.
    """
    b, h = head_index // out.shape[1], head_index % out.shape[1]
    rows = _rows(query_blocks[b, h], block_size)[:, : values.shape[1]]
    g, _ = (rows < out.shape[2]).nonzero(as_tuple=True)
    values, rows, b, h = values[rows < out.shape[2]], rows[rows < out.shape[2]], b[g], h[g]
    pooled = residual[b, h, rows // block_size] * gate[b, rows].unsqueeze(-1)
    out[b, h, rows] = (values.float() + pooled).to(out.dtype)


def sparse_attention(q, k, v, *, k_mean, v_mean, blocks, residual, gate, target, out, block_size=64):
    """Attend to chosen KV blocks exactly and to the rest of the KV set through their means.

    A block not chosen counts as its length in copies of its mean key, all carrying its mean value: a 0th-order
    Taylor expansion of the softmax around the mean key (arXiv 2605.04569). Exact and mean blocks share one softmax.

    Args:
        q, k, v: [B, H, N, D].
        k_mean, v_mean: [B, H, S, D] fp32, means of the blocks of the KV set.
        blocks: SparseBlocks.
        residual, gate: as in `write_query_blocks`; added to the rows written.
        out: [B, H, N, D], written in place at the rows of the query blocks.
    """
    query_blocks, kv_set, exact_blocks, is_exact = blocks
    batch, heads, tokens, dim = q.shape
    starts = kv_block_starts(tokens=tokens, target=target, block_size=block_size, device=q.device)
    lengths = starts.diff()
    within = torch.arange(block_size, device=q.device)
    scores_per_block = block_size * (exact_blocks.shape[-1] * block_size + kv_set.shape[-1])
    step = max(1, SCORES_AT_ONCE // scores_per_block)
    for head in range(batch * heads):
        b, h = divmod(head, heads)
        weight = lengths[kv_set[b, h].long()].log()
        for first in range(0, query_blocks.shape[-1], step):
            place = {
                "head_index": torch.tensor([head], device=q.device),
                "query_blocks": query_blocks[..., first : first + step],
                "block_size": block_size,
            }
            exact = exact_blocks[b, h, first : first + step].long()
            rows = gather_query_blocks(q, **place).view(len(exact), block_size, dim).float() * dim**-0.5

            tokens_exact = starts[exact].unsqueeze(-1) + within  # [Q, E, block_size]
            outside = (tokens_exact >= starts[exact + 1].unsqueeze(-1)).flatten(1)
            tokens_exact = tokens_exact.flatten(1).clamp_max(tokens - 1)
            scores_exact = rows @ k[b, h, tokens_exact].float().transpose(1, 2)
            scores_exact.masked_fill_(outside.unsqueeze(1), float("-inf"))

            scores_mean = rows @ k_mean[b, h].T + weight
            bits = (is_exact[b, h, first : first + step].unsqueeze(-1) >> torch.arange(32, device=q.device)) & 1
            scores_mean.masked_fill_(bits.flatten(-2)[:, None, : len(weight)].bool(), float("-inf"))

            p = torch.cat([scores_exact, scores_mean], dim=-1).softmax(dim=-1)
            p_exact, p_mean = p.split([scores_exact.shape[-1], scores_mean.shape[-1]], dim=-1)
            values = p_exact @ v[b, h, tokens_exact].float() + p_mean @ v_mean[b, h]
            write_query_blocks(values.view(1, -1, dim), residual=residual, gate=gate, out=out, **place)


def _rows(query_blocks, block_size):
    """Token indices of query blocks; those of a short last block run past the end.  # [..., Q * block_size]"""
    rows = query_blocks.long().unsqueeze(-1) * block_size + torch.arange(block_size, device=query_blocks.device)
    return rows.flatten(-2)
