"""Frames for the text-image encoder, as the host sees them: a source, its ten exact edits and a copy, only coded.

What is seen in one frame is which of two frames is the edited one. Of edits that undo themselves that takes a prior:
that pictures are lit from above, that their lights are pale and their middle tones warm. So sources are pictures as
they were taken, never flipped upside down, with their channels in order, and drawn scenes that are lit likewise.
"""

import random

import torch
import torch.nn.functional as F

import comfy.clip_model

from .data import Scenes
from .edits import EDITS, luma

SIZE = 64  # pixels a side that the image tower sees
NAMES = (*EDITS, "copy")  # of a group, after its source
SIZES = ((256, 112), (128, 96), (176, 144), (128, 128), (192, 192), (144, 192), (256, 144), (112, 112))  # width, height
FROM_CLIP, FROM_PICTURES = 0.3, 0.35  # shares of sources; the rest is drawn
PASTED = 0.4  # share of sources with a part of another one in them, so that few pictures make many
CODED = 0.6  # share of edited frames that are a little blurred, noisy and off in colour, as a VAE leaves them
WARM = ((0.62, 0.42, 0.30), (0.50, 0.40, 0.25), (0.42, 0.45, 0.25), (0.70, 0.55, 0.42), (0.45, 0.42, 0.40))


class Groups:
    """Makes groups of frames. Args as in Scenes."""

    def __init__(self, seed, clip, pictures):
        self.random, self.scenes = random.Random(seed), Scenes("cpu", seed, None, pictures, textures=96)
        self.generator = torch.Generator().manual_seed(seed)
        self.clip, self.pictures = clip, pictures

    def make(self, count):
        """[count, 1 + len(NAMES), 3, SIZE, SIZE] uint8: sources, edits in the order of NAMES."""
        size = self.random.choice(SIZES)
        sources = torch.stack([self._source(size) for _ in range(count)])
        if self.random.random() < 0.1:
            self.scenes.refresh(4)
        return torch.stack([self._seen(x) for x in (sources, *self._edited(sources))], dim=1)

    def _edited(self, x):
        for edit in EDITS.values():
            yield self._coded(edit(x), CODED)
        yield self._coded(x, 1)

    def _source(self, size):
        """[3, height, width] in [0, 1]"""
        picture = self._picture(size)
        if self.random.random() < PASTED:
            w, h = (int(side * self.random.uniform(0.3, 0.7)) for side in size)
            x, y = self.random.randrange(size[0] - w), self.random.randrange(size[1] - h)
            picture[:, y : y + h, x : x + w] = self._picture((w, h))
        return self._graded(picture)

    def _picture(self, size):
        kind = self.random.random()
        if kind < FROM_CLIP:
            return self._part(self.random.choice(self.clip), size)
        if kind < FROM_CLIP + FROM_PICTURES and self.pictures:
            return self._part(self.random.choice(self.pictures), size)
        return self._lit(self.scenes._drawn(1, 1, size)[0, 0])

    def _part(self, picture, size):
        """A large part of a picture, mirrored or not, scaled to size (width, height)."""
        height, width = picture.shape[-2:]
        scale = min(width / size[0], height / size[1]) * self.random.uniform(0.45, 1)
        w, h = int(scale * size[0]), int(scale * size[1])
        y, x = self.random.randrange(height - h + 1), self.random.randrange(width - w + 1)
        part = picture[None, :, y : y + h, x : x + w].float() / 255
        part = F.interpolate(part, size[::-1], mode="bilinear", antialias=True, align_corners=False)[0].clamp(0, 1)
        return part.flip(-1) if self.random.random() < 0.5 else part

    def _lit(self, x):
        """A drawn scene in the colours and the light of an ordinary one."""
        grey = luma(x)
        middle = torch.tensor(self.random.choice(WARM)).view(3, 1, 1) + 0.05 * self._normal(3, 1, 1)
        low, high = (grey * 2).clamp(max=1), (grey * 2 - 1).clamp(min=0)
        toned = low * middle * (1 - high) + high * torch.tensor((1.0, 0.98, 0.95)).view(3, 1, 1)
        x = torch.lerp(torch.lerp(grey.expand_as(x), x, 0.35), toned, self.random.uniform(0.5, 1))
        down = torch.linspace(1, 0, x.shape[-2]).view(1, -1, 1)  # 1 at the top
        sky = torch.tensor((0.75, 0.85, 1.0)).view(3, 1, 1)
        edge, depth = self.random.uniform(0.35, 0.9), self.random.uniform(0.05, 0.4)
        above = self.random.uniform(0, 0.7) * ((down - edge) / depth + 0.5).clamp(0, 1)
        light = 1 + self.random.uniform(0.1, 0.6) * (down - 0.6)
        return torch.lerp(x * light, sky.expand_as(x), above)

    def _graded(self, x):
        """Exposure, contrast, saturation and tint a little off, saturation often low."""
        uniform = self.random.uniform
        grey = luma(x)
        x = grey + uniform(0.25, 1.3) * (x - grey)
        x = (0.5 + uniform(0.45, 1.15) * (x - 0.5)) * uniform(0.7, 1.2) + uniform(-0.1, 0.1)
        return (x * (1 + 0.01 * self._normal(3, 1, 1))).clamp(0, 1)

    def _coded(self, x, share):
        """Some of frames [N, 3, H, W] as they come out of a VAE."""
        scale, shape = self.random.uniform(0.35, 1), x.shape[-2:]
        small = F.interpolate(x, scale_factor=scale, mode="bilinear", antialias=True, align_corners=False)
        soft = F.interpolate(small, shape, mode="bilinear", align_corners=False)
        soft = soft + 0.012 * self._normal(*x.shape) + 0.01 * self._normal(len(x), 3, 1, 1)
        return torch.where(torch.rand(len(x), 1, 1, 1, generator=self.generator) < share, soft, x).clamp(0, 1)

    def _normal(self, *shape):
        return torch.randn(shape, generator=self.generator)

    @staticmethod
    def _seen(x):
        return (seen(x.movedim(1, -1)) * 255).round().byte()


def seen(frames):
    """The middle square of frames [N, H, W, 3] in [0, 1] as the host scales it, [N, 3, SIZE, SIZE]."""
    return comfy.clip_model.clip_preprocess(frames, size=SIZE, mean=[0.0] * 3, std=[1.0] * 3)
