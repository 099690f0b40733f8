"""Training clips, made on the fly: moving textured scenes, and random crops of a real clip. All on one device, seeded.

Clips are [B, T, 3, H, W] fp32 in [0, 1].
"""

import math
import random
from pathlib import Path

import av
import torch
import torch.nn.functional as F

SIZES = ((192, 192), (256, 112), (144, 256), (176, 144), (128, 128))  # width, height
TEXTURE = 256


def read_video(path, height=None):
    """All frames of a video, [T, 3, H, W] uint8, optionally scaled to a height."""
    frames = []
    with av.open(str(path)) as container:
        for frame in container.decode(video=0):
            if height:
                frame = frame.reformat(
                    width=round(frame.width * height / frame.height / 2) * 2,
                    height=height,
                    format="rgb24",
                    interpolation="AREA",
                )
            frames.append(torch.from_numpy(frame.to_ndarray(format="rgb24")))
    return torch.stack(frames).permute(0, 3, 1, 2)


def read_pictures(folder):
    """Every picture of a folder, [3, H, W] uint8; none without a folder."""
    return [read_video(path)[0] for path in sorted(Path(folder).iterdir())] if folder else []


class Scenes:
    """Draws clips of scenes: a panned, zoomed, turned background and up to four moving shapes, all textured.

    Args:
        real: [T, 3, H, W] uint8 frames of a real clip, or None.
        pictures: list of [3, H, W] uint8, cut up for textures.
        textures: how many procedural textures to keep; a part is replaced at every `refresh`.
    """

    def __init__(self, device, seed, real=None, pictures=(), textures=256):
        self.device = torch.device(device)
        self.generator = torch.Generator(self.device).manual_seed(seed)
        self.random = random.Random(seed)  # for what is decided on the host, so that it never waits for the device
        self.real = None if real is None else real.to(self.device)
        self.pictures = [p.to(self.device) for p in pictures]
        self.bank = self._textures(textures)

    def refresh(self, count=32):
        self.bank[self.random.sample(range(len(self.bank)), count)] = self._textures(count)

    def clips(self, batch, frames, size, real_share=0.3):
        """[batch, frames, 3, height, width] for size = (width, height)."""
        real = 0 if self.real is None else round(batch * real_share)
        out = self._drawn(batch - real, frames, size)
        if real:
            out = torch.cat([out, torch.stack([self._crop(frames, size) for _ in range(real)])])
        return self._grade(out).clamp(0, 1)

    # -- random numbers ------------------------------------------------------------------------------------------

    def _uniform(self, *shape, low=0.0, high=1.0):
        return low + (high - low) * torch.rand(shape, generator=self.generator, device=self.device)

    def _normal(self, *shape):
        return torch.randn(shape, generator=self.generator, device=self.device)

    # -- textures ------------------------------------------------------------------------------------------------

    def _textures(self, count):
        return torch.stack([self._texture() for _ in range(count)])

    def _texture(self):
        """A piece of a picture or of the real clip, or a procedural one."""
        if self.pictures and self.random.random() < 0.5:
            return self._window(self.random.choice(self.pictures)[None], (TEXTURE, TEXTURE))[0]
        if self.real is not None and self.random.random() < 0.3:
            frame = self.random.randrange(len(self.real))
            return self._window(self.real[frame : frame + 1], (TEXTURE, TEXTURE))[0]
        return self._procedural()

    def _window(self, frames, size, smallest=0.25):
        """The same random rectangle of every frame, scaled to size (width, height)."""
        h, w = frames.shape[-2:]
        scale = min(w / size[0], h / size[1]) * self.random.uniform(smallest, 1)
        width, height = int(scale * size[0]), int(scale * size[1])
        y, x = self.random.randrange(h - height + 1), self.random.randrange(w - width + 1)
        window = frames[..., y : y + height, x : x + width].float() / 255
        window = F.interpolate(window, size[::-1], mode="bilinear", antialias=True, align_corners=False)
        return window.flip(-1) if self.random.random() < 0.5 else window

    def _procedural(self):
        """Octaves of noise through a random palette, with stripes, checks or a gradient."""
        falloff = self.random.uniform(0.35, 0.8)
        noise = sum(
            falloff**i
            * F.interpolate(self._normal(1, 3, 2 << i, 2 << i), (TEXTURE, TEXTURE), mode="bicubic", align_corners=False)
            for i in range(7)
        )[0]
        axis = torch.linspace(-1, 1, TEXTURE, device=self.device)
        y, x = torch.meshgrid(axis, axis, indexing="ij")
        angle = self.random.uniform(0, 6.28)
        t = x * math.cos(angle) + y * math.sin(angle)
        kind = self.random.randrange(5)
        if kind == 0:
            pattern = (t * self.random.uniform(6, 60)).sin().sign() * 0.8
        elif kind == 1:
            scale = self.random.uniform(3, 16)
            pattern = ((x * scale).floor() + (y * scale).floor()) % 2 * 2 - 1
        elif kind == 2:
            pattern = 1.5 * t
        else:
            pattern = torch.zeros_like(t)
        base, accent = self._uniform(3, 1, 1), self._normal(3, 1, 1) * 0.4
        grey = noise.mean(0, keepdim=True)
        noise = grey + self.random.random() * (noise - grey)
        return (base + accent * pattern + self.random.uniform(0.05, 0.8) * 0.35 * noise).clamp(0, 1)

    # -- clips ---------------------------------------------------------------------------------------------------

    def _crop(self, frames, size):
        """A piece of the real clip, now and then slowed down."""
        stride = self.random.choice((1.0, 1.56, 1.56, 2.0))
        length = int((frames - 1) * stride) + 1
        start = self.random.randrange(max(1, len(self.real) - length))
        index = [min(len(self.real) - 1, start + int(i * stride)) for i in range(frames)]
        return self._window(self.real[index], size, smallest=0.36)

    def _drawn(self, batch, frames, size):
        time = torch.linspace(-1, 1, frames, device=self.device) * (frames - 1) / 32
        canvas = self._layer(batch, time, size, low=0.3, high=0.9, speed=0.35)
        for _ in range(self.random.randint(1, 4)):
            texture = self._layer(batch, time, size, low=0.2, high=0.8, speed=0.1)
            mask = self._shape(batch, time, size)
            canvas = canvas + mask * (texture - canvas)
        return canvas

    def _layer(self, batch, time, size, low, high, speed):
        """Windows of textures that pan, turn and zoom."""
        width, height = size
        which = torch.randint(len(self.bank), (batch,), generator=self.generator, device=self.device)
        moves = (self._uniform(batch, 1) > 0.3).float()
        angle = self._uniform(batch, 1, low=-0.5, high=0.5) + moves * 0.3 * self._normal(batch, 1) * time
        scale = self._uniform(batch, 1, low=low, high=high) * (
            1 + moves * 0.25 * self._normal(batch, 1).clamp(-1.5, 1.5) * time
        )
        centre = self._uniform(batch, 1, 2, low=-0.5, high=0.5) + moves.unsqueeze(-1) * speed * self._normal(
            batch, 1, 2
        ) * time.view(1, -1, 1)
        x, y = width / max(size), height / max(size)
        cos, sin = angle.cos() * scale, angle.sin() * scale
        theta = torch.stack([cos * x, -sin * y, centre[..., 0], sin * x, cos * y, centre[..., 1]], dim=-1).view(
            -1, 2, 3
        )
        grid = F.affine_grid(theta, (len(theta), 3, height, width), align_corners=False)
        textures = self.bank[which].repeat_interleave(len(time), 0)
        return F.grid_sample(textures, grid, mode="bilinear", padding_mode="reflection", align_corners=False).view(
            batch, len(time), 3, height, width
        )

    def _shape(self, batch, time, size):
        """Soft masks of moving ellipses, boxes and diamonds, [B, T, 1, H, W]."""
        width, height = size
        y, x = torch.meshgrid(
            *(torch.linspace(-n, n, n, device=self.device) / min(size) for n in (height, width)), indexing="ij"
        )
        path = self._uniform(batch, 1, 2, low=-0.8, high=0.8) + 0.7 * self._normal(batch, 1, 2) * time.view(1, -1, 1)
        path = path + 0.3 * self._normal(batch, 1, 2) * (time.view(1, -1, 1) * self._uniform(batch, 1, 1, high=6)).sin()
        angle = self._uniform(batch, 1, high=6.28) + self._normal(batch, 1) * time
        dx, dy = x - path[..., 0, None, None], y - path[..., 1, None, None]
        cos, sin = angle.cos()[..., None, None], angle.sin()[..., None, None]
        radius = self._uniform(batch, 2, 1, 1, 1, low=0.12, high=0.55)
        u, v = (dx * cos + dy * sin).abs() / radius[:, 0], (dy * cos - dx * sin).abs() / radius[:, 1]
        kind = torch.randint(3, (batch, 1, 1, 1), generator=self.generator, device=self.device)
        distance = torch.where(kind == 0, (u * u + v * v).sqrt(), torch.where(kind == 1, torch.maximum(u, v), u + v))
        there = (self._uniform(batch, 1, 1, 1) > 0.2).float()
        return (there * ((1 - distance) * radius.amin(dim=1) * min(size) / 2).clamp(0, 1)).unsqueeze(2)

    def _grade(self, clips):
        """Random exposure, contrast, saturation and tint per clip."""

        def each(low, high, channels=1):
            return self._uniform(len(clips), 1, channels, 1, 1, low=low, high=high)

        order = torch.rand(len(clips), 3, generator=self.generator, device=self.device).argsort(dim=1)
        order = torch.where(self._uniform(len(clips), 1) < 0.5, order, torch.arange(3, device=self.device))
        clips = torch.gather(clips, 2, order.view(-1, 1, 3, 1, 1).expand_as(clips))
        grey = clips.mean(dim=2, keepdim=True)
        clips = grey + each(0.3, 1.6) * (clips - grey)
        clips = 0.5 + each(0.7, 1.2) * (clips - 0.5) + each(-0.12, 0.12)
        return clips * each(0.85, 1.15, channels=3)
