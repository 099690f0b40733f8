"""Which way up a frame is to be shown: turned by quarters and mirrored, as its display matrix says."""

import struct
from typing import NamedTuple

import torch
from av.sidedata.sidedata import Type


class Turn(NamedTuple):
    """First rows and columns change places, then the picture is mirrored."""

    swaps: bool = False
    left_right: bool = False
    upside_down: bool = False

    @property
    def words(self):
        return {
            (False, False, False): "",
            (True, True, False): "turned by 90 degrees clockwise",
            (False, True, True): "turned by 180 degrees",
            (True, False, True): "turned by 90 degrees counterclockwise",
        }.get(self, "mirrored")


def turned(frame) -> Turn:
    """How a decoded frame is to be turned; angles between are taken for the nearest quarter."""
    data = frame.side_data.get(Type.DISPLAYMATRIX)
    if data is None:
        return Turn()
    a, b, _, c, d = struct.unpack_from("<5i", bytes(data))
    if abs(a) + abs(d) >= abs(b) + abs(c):
        return Turn(False, a < 0, d < 0)
    return Turn(True, c < 0, b < 0)


def upright(picture: torch.Tensor, turn: Turn) -> torch.Tensor:
    """Turn a picture.  # [H, W, C]"""
    if turn.swaps:
        picture = picture.transpose(0, 1)
    sides = [side for side, mirrored in ((1, turn.left_right), (0, turn.upside_down)) if mirrored]
    return picture.flip(sides) if sides else picture
