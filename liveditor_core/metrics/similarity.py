"""Structural similarity of two pictures (Wang, Bovik, Sheikh, Simoncelli 2004), by Gaussian windows, per channel."""

import torch

WINDOW, SIGMA = 11, 1.5  # pixels
C1, C2 = 0.01**2, 0.03**2  # of pictures in 0..1
# Rows at a time: what lies between then stays in the cache of a processor. The windows over 1080p took 0.08 s on two
# cores; over whole pictures 0.54 s, and by torch's convolution 1.9 s, which on a GPU would also be in TF32.
ROWS = 32
_MARGIN = WINDOW // 2


def similarity(before: torch.Tensor, after: torch.Tensor) -> torch.Tensor | None:
    """SSIM around every pixel whose whole window lies in the picture, the mean of the channels.

    Args:
        before, after: [H, W, 3] float32 in 0..1.

    Returns:
        [H - 10, W - 10], or None where a side is shorter than the window.
    """
    height, width = before.shape[:2]
    if min(height, width) < WINDOW:
        return None
    out = torch.zeros(height - 2 * _MARGIN, width - 2 * _MARGIN, device=before.device)
    for top in range(0, len(out), ROWS):
        rows = slice(top, min(len(out), top + ROWS) + 2 * _MARGIN)
        out[top : top + ROWS] = _of_rows(before[rows], after[rows])
    return out


def windows_within(part: torch.Tensor) -> torch.Tensor:
    """Which of the windows lie wholly within a part, so that nothing beyond it counts.

    Args:
        part: [H, W] bool.

    Returns:
        [H - 10, W - 10] bool.
    """
    beyond = (~part).float()[None]
    for size in ((WINDOW, 1), (1, WINDOW)):
        beyond = torch.nn.functional.max_pool2d(beyond, size, stride=1)
    return beyond[0] == 0


def _of_rows(before, after):
    # Around the middle of the range: variances are differences of squares, of which single precision then loses less.
    x, y = (frame.movedim(-1, 0) - 0.5 for frame in (before, after))
    means = _blurred(torch.cat([x, y, x * x, y * y, x * y]))
    ux, uy, xx, yy, xy = means.split(len(x))
    xx, yy, xy = xx.sub_(ux * ux), yy.sub_(uy * uy), xy.sub_(ux * uy)
    ux, uy = ux + 0.5, uy + 0.5
    top = (2 * ux * uy + C1) * (2 * xy + C2)
    return (top / ((ux * ux + uy * uy + C1) * (xx + yy + C2))).mean(dim=0)


def _blurred(pictures):
    """Gaussian windows over [C, H, W], only where they lie wholly within.  # [C, H - 10, W - 10]"""
    places = torch.arange(-_MARGIN, _MARGIN + 1, dtype=torch.float64)
    weights = torch.exp(-(places**2) / (2 * SIGMA**2))
    weights = (weights / weights.sum()).tolist()
    for axis in (1, 2):
        count = pictures.shape[axis] - 2 * _MARGIN
        out = pictures.narrow(axis, _MARGIN, count) * weights[_MARGIN]
        for i in range(_MARGIN):
            both = pictures.narrow(axis, i, count) + pictures.narrow(axis, 2 * _MARGIN - i, count)
            out.add_(both, alpha=weights[i])
        pictures = out
    return pictures
