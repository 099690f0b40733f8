"""In-context sparse attention written a second time, from the specification, in float64 and with plain loops.

Nothing of the pack is used. In the sparse half every mean block is written out as that many copies of its mean key and
mean value, so that the joint softmax is an ordinary one.
"""

import math

import torch

BLOCK = 64


def attention(q, k, v):
    return torch.softmax(q @ k.T / math.sqrt(q.shape[-1]), dim=-1) @ v


def largest(values, count):
    """The `count` largest, of equal ones the earlier; ascending."""
    return sorted(sorted(range(len(values)), key=lambda i: (-float(values[i]), i))[:count])


def head(q, k, v, gate, target, sar, srr, flat_ratio, dense_half="sharpest", dense_everywhere=False):
    """One head.

    Args:
        q, k, v: [N, D] float64; gate: [N] float64.
        target: number of target tokens.

    Returns:
        [N, D] float64.
    """
    tokens = len(q)
    blocks = [range(i, min(i + BLOCK, tokens)) for i in range(0, tokens, BLOCK)]
    n_t = target // BLOCK
    n_s = len(blocks) - n_t
    q_m, k_m, v_m = (torch.stack([x[list(b)].mean(0) for b in blocks]) for x in (q, k, v))
    scores = torch.softmax(q_m @ k_m.T / math.sqrt(q.shape[-1]), dim=-1)
    pooled = scores @ v_m
    residual = torch.stack([gate[t] * pooled[t // BLOCK] for t in range(tokens)])
    if n_t == 0 or dense_everywhere:
        return attention(q, k, v) + residual

    kept = largest([scores[:n_t, n_t + j].sum() for j in range(n_s)], max(1, int(n_s * srr)) if srr > 0 else 0)
    kv_blocks = [range(i, min(i + BLOCK, target)) for i in range(0, target, BLOCK)]
    kv_blocks += [[t for t in blocks[n_t + j] if t >= target] for j in kept]
    kv_tokens = [t for b in kv_blocks for t in b]

    top = max(1, int(n_t * sar))
    sharpness = [sum(sorted(scores[i, :n_t].tolist(), reverse=True)[:top]) for i in range(len(blocks))]
    if dense_half == "flattest":
        sharpness = [-s for s in sharpness]
    dense = largest(sharpness, int(len(blocks) * flat_ratio))

    out = torch.empty_like(q)
    for i, rows in enumerate(blocks):
        rows = list(rows)
        if i in dense:
            out[rows] = attention(q[rows], k[kv_tokens], v[kv_tokens])
            continue
        means = [k[list(b)].mean(0) for b in kv_blocks]
        exact = largest([q_m[i] @ m for m in means], max(1, int(sar * len(kv_blocks))))
        keys, values = [], []
        for j, b in enumerate(kv_blocks):
            if j in exact:
                keys.append(k[list(b)])
                values.append(v[list(b)])
            else:
                keys.append(means[j].expand(len(b), -1))
                values.append(v[list(b)].mean(0).expand(len(b), -1))
        out[rows] = attention(q[rows], torch.cat(keys), torch.cat(values))
    return out + residual


def in_context_sparse_attention(q, k, v, gate, target, **settings):
    """[B, H, N, D] in any dtype -> [B, H, N, D] float64."""
    return torch.stack(
        [
            torch.stack(
                [
                    head(q[b, h].double(), k[b, h].double(), v[b, h].double(), gate[b].double(), target, **settings)
                    for h in range(q.shape[1])
                ]
            )
            for b in range(q.shape[0])
        ]
    )
