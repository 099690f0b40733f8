"""Tiles of the picture, with stand-ins for the VAE that look at no neighbours: blended, they give the whole."""

import pytest
import torch

from liveditor.liveditor_core.vae import tiles

SIZES = [(64, 64, 64), (64, 72, 64), (128, 200, 96), (544, 960, 256), (264, 256, 256), (48, 1000, 128)]


def shrink(clip):
    """[k, H, W, 3] to [1, 3, k, H / 8, W / 8]."""
    return clip[:, ::8, ::8].movedim(-1, 0).unsqueeze(0)


def grow(latent):
    """The other way."""
    return latent[0].movedim(0, -1).repeat_interleave(8, dim=1).repeat_interleave(8, dim=2)


@pytest.mark.parametrize("height, width, size", SIZES)
def test_encoded_tiles_blend_into_the_whole(height, width, size):
    clip = torch.rand(5, height, width, 3, generator=torch.Generator().manual_seed(0))
    read = []

    def encode_pieces(pieces):
        for piece in pieces:
            assert max(piece.shape[1:3]) <= size
            yield shrink(piece)

    latent = tiles.encode(encode_pieces, lambda: read.append(1) or iter(clip.split(2)), height, width, size)
    torch.testing.assert_close(latent, shrink(clip))
    assert len(read) == tiles.number(height, width, size)


@pytest.mark.parametrize("height, width, size", SIZES)
def test_decoded_tiles_add_up_to_the_whole(height, width, size):
    latent = torch.rand(1, 3, 4, height // 8, width // 8, generator=torch.Generator().manual_seed(0))
    clip, depth = torch.zeros(4, height, width, 3), torch.zeros(height, width)
    for first, y, x, pixels in tiles.decode(lambda part: grow(part).split(3), latent, size):
        assert max(pixels.shape[1:3]) <= size
        clip[first : first + len(pixels), y : y + pixels.shape[1], x : x + pixels.shape[2]] += pixels
        depth[y : y + pixels.shape[1], x : x + pixels.shape[2]] += first == 0
    torch.testing.assert_close(clip, grow(latent))
    assert depth.min() == 1 and depth.max() == (1 if max(height, width) <= size else depth.max())


def test_a_tile_fades_in_over_what_it_shares_with_its_neighbour():
    latent = torch.ones(1, 3, 1, 8, 14)  # 64 x 112 pixels: two tiles of 64, which share two latents
    left, right = (pixels[0, 0, :, 0] for *_, pixels in tiles.decode(lambda part: [grow(part)], latent, 64))
    ramp = (torch.arange(16) + 0.5) / 16
    torch.testing.assert_close(left, torch.cat([torch.ones(48), 1 - ramp]))
    torch.testing.assert_close(right, torch.cat([ramp, torch.ones(48)]))
