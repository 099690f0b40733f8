"""Clips with known truths for tests of the metrics, and models that stand in for those that cannot be had."""

from fractions import Fraction

import torch

from liveditor.liveditor_core.metrics.measure import Models, measure


class Frames:
    """Pairs of frames that lie in memory. Args: before, after: [F, H, W, 3] in 0..1."""

    rate, notes = Fraction(25), ()

    def __init__(self, before, after):
        self.before, self.after = before, after
        self.count, self.height, self.width = after.shape[:3]

    def frames(self):
        return zip(self.before, self.after, strict=True)


def measured(before, after, **how):
    """(summary, frames) of Numbers. `outside`: [H, W] bool, the same for all frames."""
    if (outside := how.get("outside")) is not None:
        how["outside"] = lambda number: outside
    numbers = measure(Frames(before, after), **how)
    numbers.to_json()  # there is neither NaN nor infinity in it
    return numbers.summary, numbers.frames


def textured(frames=1, height=72, width=96, seed=1, scale=6):
    """Smooth noise that fills 0.1..0.9.  # [F, H, W, 3]"""
    noise = torch.rand(
        frames, 3, height // scale + 3, width // scale + 3, generator=torch.Generator().manual_seed(seed)
    )
    picture = torch.nn.functional.interpolate(noise, size=(height, width), mode="bicubic", align_corners=True)
    return picture.movedim(1, -1).clamp(0, 1) * 0.8 + 0.1


def still(frames=6, **options):
    """The same picture again and again."""
    return textured(1, **options).expand(frames, -1, -1, -1).clone()


def panned(frames, across, down=0, height=160, width=224, seed=1):
    """A picture that moves by whole pixels a frame, without an end: it comes in again at the other side."""
    picture = textured(1, height, width, seed)[0]
    ys, xs = (torch.fft.fftfreq(size, 1 / size) for size in (height, width))
    smooth = torch.exp(-0.5 * (ys[:, None] ** 2 + xs**2) / 10**2).unsqueeze(-1)  # of one piece across the border
    picture = torch.fft.ifft2(torch.fft.fft2(picture, dim=(0, 1)) * smooth, dim=(0, 1)).real
    picture = (picture - picture.min()) / (picture.max() - picture.min())
    return torch.stack([picture.roll((i * down, i * across), (0, 1)) for i in range(frames)])


def whole_motion(first, second):
    """Flow of pictures that move as a whole, by phase correlation: [N, H, W, 3] twice to [N, 2, H, W].

    It knows nothing of how they were made.
    """
    flows = []
    for a, b in zip(first, second, strict=True):
        a, b = (torch.fft.fft2(each.double().mean(-1)) for each in (a, b))
        cross = b * a.conj()
        peak = torch.fft.ifft2(cross / (cross.abs() + 1e-3 * cross.abs()[1:, 1:].max() + 1e-9)).real
        height, width = peak.shape
        down, across = divmod(int(peak.argmax()), width)
        shift = torch.tensor([(across + width // 2) % width - width // 2, (down + height // 2) % height - height // 2])
        flows.append(shift.float().view(2, 1, 1).expand(2, height, width))
    return torch.stack(flows)


def mean_colour(images):
    """An embedding that can be computed by hand: the mean of red, green and blue."""
    return images.mean(dim=(1, 2))


TEXTS = {"red": (1.0, 0.0, 0.0), "green": (0.0, 1.0, 0.0), "blue": (0.0, 0.0, 1.0)}


def colour_names(texts):
    return torch.tensor([TEXTS[text] for text in texts])


COLOURS = Models(images=mean_colour, texts=colour_names)
