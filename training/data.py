"""Training clips, made on the fly: moving textured scenes, and random crops of a real clip. All on one device, seeded.

Clips are [B, T, 3, SIZE, SIZE] fp32 in [0, 1].
"""

import importlib.util
from pathlib import Path

import av
import torch
import torch.nn.functional as F

SIZE = 128
TEXTURE = 256
PHOTOS = {"skimage": ("astronaut.png", "coffee.png", "chelsea.png", "rocket.jpg", "motorcycle_left.png", "brick.png", "grass.png", "gravel.png", "hubble_deep_field.jpg", "ihc.png"),
          "sklearn": ("china.jpg", "flower.jpg")}
PHOTO_FOLDERS = {"skimage": "data", "sklearn": "datasets/images"}


def read_video(path, height=None):
    """All frames of a video, [T, 3, H, W] uint8, optionally scaled to a height."""
    frames = []
    with av.open(str(path)) as container:
        for frame in container.decode(video=0):
            if height:
                frame = frame.reformat(width=round(frame.width * height / frame.height / 2) * 2, height=height, format="rgb24", interpolation="AREA")
            frames.append(torch.from_numpy(frame.to_ndarray(format="rgb24")))
    return torch.stack(frames).permute(0, 3, 1, 2)


def photos():
    """Photographs that scikit-image and scikit-learn bring along, where those are installed; list of [3, H, W] uint8."""
    found = []
    for package, names in PHOTOS.items():
        spec = importlib.util.find_spec(package)
        for name in names if spec else ():
            found.append(read_video(Path(spec.origin).parent / PHOTO_FOLDERS[package] / name)[0])
    return found


class Scenes:
    """Draws clips of scenes: a panned, zoomed, turned background and up to four moving shapes, all textured.

    Args:
        real: [T, 3, H, W] uint8 frames of a real clip, or None.
        pictures: list of [3, H, W] uint8.
        textures: how many procedural textures to keep; a part is replaced at every `refresh`.
    """

    def __init__(self, device, seed, real=None, pictures=(), textures=256):
        self.device = torch.device(device)
        self.generator = torch.Generator(self.device).manual_seed(seed)
        self.real = None if real is None else real.to(self.device)
        self.pictures = [p.to(self.device) for p in pictures]
        self.bank = self._textures(textures)

    def refresh(self, count=32):
        places = torch.randint(len(self.bank), (count,), generator=self.generator, device=self.device)
        self.bank[places] = self._textures(count)

    def clips(self, batch, frames, real_share=0.3):
        """[batch, frames, 3, SIZE, SIZE]"""
        real = 0 if self.real is None else round(batch * real_share)
        out = self._drawn(batch - real, frames)
        if real:
            out = torch.cat([out, torch.stack([self._crop(frames) for _ in range(real)])])
        return self._grade(out).clamp(0, 1)

    # -- random numbers ------------------------------------------------------------------------------------------

    def _uniform(self, *shape, low=0.0, high=1.0):
        return low + (high - low) * torch.rand(shape, generator=self.generator, device=self.device)

    def _normal(self, *shape):
        return torch.randn(shape, generator=self.generator, device=self.device)

    def _int(self, high):
        return int(torch.randint(high, (), generator=self.generator, device=self.device))

    # -- textures ------------------------------------------------------------------------------------------------

    def _textures(self, count):
        parts = [self._picture() if self.pictures and self._int(2) else self._frame() if self.real is not None and self._int(3) == 0 else self._procedural() for _ in range(count)]
        return torch.stack(parts)

    def _picture(self):
        return self._window(self.pictures[self._int(len(self.pictures))][None])[0]

    def _frame(self):
        return self._window(self.real[self._int(len(self.real))][None])[0]

    def _window(self, frames, size=TEXTURE, smallest=0.25):
        """The same random square of every frame, scaled to size."""
        h, w = frames.shape[-2:]
        side = int(min(h, w) * float(self._uniform(1, low=smallest, high=1.0)))
        y, x = self._int(h - side + 1), self._int(w - side + 1)
        window = frames[..., y:y + side, x:x + side].float() / 255
        window = F.interpolate(window, (size, size), mode="bilinear", antialias=True, align_corners=False)
        return window.flip(-1) if self._int(2) else window

    def _procedural(self):
        """Octaves of noise through a random palette, with stripes, checks or a gradient."""
        falloff = float(self._uniform(1, low=0.35, high=0.8))
        noise = sum(falloff**i * F.interpolate(self._normal(1, 3, 2 << i, 2 << i), (TEXTURE, TEXTURE), mode="bicubic", align_corners=False) for i in range(7))[0]
        axis = torch.linspace(-1, 1, TEXTURE, device=self.device)
        y, x = torch.meshgrid(axis, axis, indexing="ij")
        angle = float(self._uniform(1, high=6.28))
        t = x * torch.tensor(angle).cos() + y * torch.tensor(angle).sin()
        kind = self._int(5)
        if kind == 0:
            pattern = (t * float(self._uniform(1, low=6, high=60))).sin().sign() * 0.8
        elif kind == 1:
            scale = float(self._uniform(1, low=3, high=16))
            pattern = ((x * scale).floor() + (y * scale).floor()) % 2 * 2 - 1
        elif kind == 2:
            pattern = 1.5 * t
        else:
            pattern = torch.zeros_like(t)
        mix = float(self._uniform(1, low=0.05, high=0.8))
        base, accent = self._uniform(3, 1, 1), self._normal(3, 1, 1) * 0.4
        grey = noise.mean(0, keepdim=True)
        noise = grey + float(self._uniform(1)) * (noise - grey)
        return (base + accent * pattern + mix * 0.35 * noise).clamp(0, 1)

    # -- clips ---------------------------------------------------------------------------------------------------

    def _crop(self, frames):
        """A piece of the real clip, now and then slowed down."""
        stride = (1.0, 1.56, 1.56, 2.0)[self._int(4)]
        length = int((frames - 1) * stride) + 1
        start = self._int(max(1, len(self.real) - length))
        index = (start + torch.arange(frames, device=self.device) * stride).long().clamp_max(len(self.real) - 1)
        return self._window(self.real[index], SIZE, smallest=0.36)

    def _drawn(self, batch, frames):
        time = torch.linspace(-1, 1, frames, device=self.device) * (frames - 1) / 32
        canvas = self._layer(batch, time, low=0.3, high=0.9, speed=0.35)
        for _ in range(1 + self._int(4)):
            texture = self._layer(batch, time, low=0.2, high=0.8, speed=0.1)
            mask = self._shape(batch, time)
            canvas = canvas + mask * (texture - canvas)
        return canvas

    def _layer(self, batch, time, low, high, speed):
        """Windows of textures that pan, turn and zoom."""
        which = torch.randint(len(self.bank), (batch,), generator=self.generator, device=self.device)
        still = (self._uniform(batch, 1) > 0.3).float()
        angle = self._uniform(batch, 1, low=-0.5, high=0.5) + still * 0.3 * self._normal(batch, 1) * time
        scale = self._uniform(batch, 1, low=low, high=high) * (1 + still * 0.25 * self._normal(batch, 1).clamp(-1.5, 1.5) * time)
        centre = self._uniform(batch, 1, 2, low=-0.5, high=0.5) + still.unsqueeze(-1) * speed * self._normal(batch, 1, 2) * time.view(1, -1, 1)
        cos, sin = angle.cos() * scale, angle.sin() * scale
        theta = torch.stack([cos, -sin, centre[..., 0], sin, cos, centre[..., 1]], dim=-1).view(-1, 2, 3)
        grid = F.affine_grid(theta, (len(theta), 3, SIZE, SIZE), align_corners=False)
        textures = self.bank[which].repeat_interleave(len(time), 0)
        return F.grid_sample(textures, grid, mode="bilinear", padding_mode="reflection", align_corners=False).view(batch, len(time), 3, SIZE, SIZE)

    def _shape(self, batch, time):
        """Soft masks of moving ellipses, boxes and diamonds, [B, T, 1, SIZE, SIZE]."""
        axis = torch.linspace(-1, 1, SIZE, device=self.device)
        y, x = torch.meshgrid(axis, axis, indexing="ij")
        path = self._uniform(batch, 1, 2, low=-0.8, high=0.8) + 0.7 * self._normal(batch, 1, 2) * time.view(1, -1, 1)
        path = path + 0.3 * self._normal(batch, 1, 2) * (time.view(1, -1, 1) * self._uniform(batch, 1, 1, high=6)).sin()
        angle = self._uniform(batch, 1, high=6.28) + self._normal(batch, 1) * time
        dx, dy = x - path[..., 0, None, None], y - path[..., 1, None, None]
        cos, sin = angle.cos()[..., None, None], angle.sin()[..., None, None]
        size = self._uniform(batch, 2, 1, 1, 1, low=0.12, high=0.55)
        u, v = (dx * cos + dy * sin).abs() / size[:, 0], (dy * cos - dx * sin).abs() / size[:, 1]
        kind = torch.randint(3, (batch, 1, 1, 1), generator=self.generator, device=self.device)
        distance = torch.where(kind == 0, (u * u + v * v).sqrt(), torch.where(kind == 1, torch.maximum(u, v), u + v))
        there = (self._uniform(batch, 1, 1, 1) > 0.2).float()
        return (there * ((1 - distance) * size.amin(dim=1) * SIZE / 2).clamp(0, 1)).unsqueeze(2)

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
