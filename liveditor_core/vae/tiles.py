"""Clips through the Wan VAE in tiles of the picture, each over all of time, so that there is no seam in time."""

import math
from itertools import product
from typing import NamedTuple

import torch

STRIDE = 8  # pixels of a latent


class Tile(NamedTuple):
    """Rows and columns of the latent."""

    top: int
    bottom: int
    left: int
    right: int

    def cut(self, x, scale=1):
        """This tile of x, whose last two dimensions are `scale` times the latent's."""
        return x[..., scale * self.top : scale * self.bottom, scale * self.left : scale * self.right]


def encode(encode_pieces, read, height, width, size):
    """Encode a clip in tiles of `size` pixels, each of which reads it again.

    Args:
        encode_pieces: gives pieces of the latent for pieces of the clip.
        read: gives an iterator over pieces of the clip [k, H, W, 3].

    Returns:
        [1, 16, n + 1, H / 8, W / 8].
    """
    latent, height, width = None, height // STRIDE, width // STRIDE
    for tile, share in _tiles(height, width, size, scale=1):
        pieces = (tile.cut(piece.movedim(-1, 0), STRIDE).movedim(0, -1) for piece in read())
        part = torch.cat(list(encode_pieces(pieces)), dim=2)
        if latent is None:
            latent = part.new_zeros(*part.shape[:3], height, width)
        tile.cut(latent).add_(part * share.to(part))
    return latent


def decode(decode_pieces, latent, size):
    """Decode a latent in tiles of `size` pixels.

    Args:
        decode_pieces: gives pieces [k, H, W, 3] of the clip for a latent.

    Returns:
        An iterator over (first frame, row, column, pixels [k, h, w, 3]), which added up there are the clip.
    """
    for tile, share in _tiles(*latent.shape[-2:], size, scale=STRIDE):
        done = 0
        for pixels in decode_pieces(tile.cut(latent)):
            yield done, STRIDE * tile.top, STRIDE * tile.left, pixels * share.unsqueeze(-1).to(pixels)
            done += len(pixels)


def number(height, width, size):
    """How many tiles a picture of so many pixels takes."""
    return len(_spans(height // STRIDE, size)) * len(_spans(width // STRIDE, size))


def overlap(size):
    """How many latents tiles of `size` pixels share with their neighbours at least."""
    return min(64, size // 4) // STRIDE


def _tiles(height, width, size, scale):
    """(tile, its share [h, w] at `scale` times the latent's size); the shares add up to one everywhere."""
    rows, columns = _spans(height, size), _spans(width, size)
    down, across = (_shares(spans, scale * overlap(size), scale) for spans in (rows, columns))
    for i, j in product(range(len(rows)), range(len(columns))):
        yield Tile(*rows[i], *columns[j]), down[i].unsqueeze(1) * across[j]


def _spans(length, size):
    """Where tiles begin and end along one side of the latent, evenly spread."""
    tile = size // STRIDE
    if length <= tile:
        return [(0, length)]
    steps = math.ceil((length - tile) / (tile - overlap(size)))
    starts = [i * (length - tile) // steps for i in range(steps + 1)]
    return [(start, start + tile) for start in starts]


def _shares(spans, fade, scale):
    """By span, what it contributes along it: rising linearly from its ends, but for the ends of the picture."""
    length = scale * spans[-1][1]
    place = torch.arange(length) + 0.5
    depths = []
    for start, end in spans:
        left = place - scale * start if start else torch.full_like(place, math.inf)
        right = scale * end - place if scale * end < length else torch.full_like(place, math.inf)
        depths.append(torch.minimum(left, right).clamp(0, fade))
    shares = torch.stack(depths) / sum(depths)
    return [share[scale * start : scale * end] for share, (start, end) in zip(shares, spans, strict=True)]
