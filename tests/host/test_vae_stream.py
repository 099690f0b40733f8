"""Clips through the VAE in pieces: the same numbers as the host's own way, in bounded memory."""

import weakref

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

import comfy.ldm.wan.vae
from liveditor.liveditor_core.footage.errors import FootageError
from liveditor.liveditor_core.vae import clips, many_frames, on_cpu, on_gpu
from liveditor.liveditor_core.vae.source_to_latent import PartWanted, SizeWanted, encode_source

HEIGHT, WIDTH = 48, 64
CHANNELS = 8  # of the tiny VAE, at full size
FRAME = on_cpu.BYTES_PER_VALUE * CHANNELS * HEIGHT * WIDTH  # bytes


@pytest.fixture(params=[on_cpu, on_gpu], ids=["on_cpu", "on_gpu"])
def way(request, monkeypatch):
    """The way that clips go, whatever the device is."""
    monkeypatch.setattr(clips, "_way", lambda vae: request.param)
    return request.param


def clip(frames, height=HEIGHT, width=WIDTH):
    return torch.rand(frames, height, width, 3, generator=torch.Generator().manual_seed(0))


def encode(tiny_vae, frames, size=1000):
    """With the clip read in pieces of so many frames."""
    return clips.encode_frames(tiny_vae, lambda: iter(frames.split(size)), *frames.shape[1:3])


def decode(tiny_vae, latent):
    return torch.cat(list(clips.decode_latent(tiny_vae, latent)))


def same(got, expected):
    torch.testing.assert_close(got, expected, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("frames", [1, 5, 9, 17, 33])
def test_the_same_as_the_host(tiny_vae, way, frames):
    latent = tiny_vae.encode(clip(frames))
    pixels = tiny_vae.decode(latent)[0]
    for size in (1, 3, frames):
        same(encode(tiny_vae, clip(frames), size), latent)
    same(decode(tiny_vae, latent), pixels)


@pytest.mark.parametrize("budget", [0, 2.5 * FRAME, 7 * FRAME])
@pytest.mark.parametrize("frames", [1, 5, 9, 17, 33])
def test_a_cpu_s_pieces_of_any_size_are_the_same_as_the_host(tiny_vae, frames, budget, monkeypatch):
    latent = tiny_vae.encode(clip(frames))
    pixels = tiny_vae.decode(latent)[0]
    monkeypatch.setattr(on_cpu, "BUDGET", int(budget))
    monkeypatch.setattr(tiny_vae, "encode", None)
    monkeypatch.setattr(tiny_vae, "decode", None)
    monkeypatch.setattr(on_gpu, "encode", None)
    for size in (4, frames):
        same(encode(tiny_vae, clip(frames), size), latent)
    same(decode(tiny_vae, latent), pixels)


@pytest.mark.parametrize("frames", [1, 9])
def test_whole_clips_as_in_training_have_the_host_s_gradients(tiny_vae, frames):
    weights = tiny_vae.get_sd()
    with torch.inference_mode(False), torch.enable_grad():
        model = comfy.ldm.wan.vae.WanVAE(dim=CHANNELS, z_dim=16, temperal_downsample=[False, True, True])
        model.load_state_dict({name: value.clone() for name, value in weights.items()})
        pixels = 2 * clip(frames).movedim(-1, 0).unsqueeze(0) - 1
        found = []
        for through in (
            lambda: model.decode(model.encode(pixels)),
            lambda: many_frames.decode(model, many_frames.encode(model, pixels)),
        ):
            model.zero_grad()
            out = through()
            out.square().mean().backward()
            found.append([out.detach(), *(parameter.grad for parameter in model.parameters())])
    for expected, got in zip(*found, strict=True):
        assert (got is None) == (expected is None)
        if expected is not None:
            torch.testing.assert_close(got, expected, atol=1e-5, rtol=1e-3)


def test_no_more_than_two_frames_reach_the_host_s_layers(tiny_vae, monkeypatch):
    monkeypatch.setattr(clips, "_way", lambda vae: on_gpu)
    seen = []
    for part in (tiny_vae.first_stage_model.encoder, tiny_vae.first_stage_model.decoder):
        monkeypatch.setattr(
            part,
            "forward",
            lambda x, *args, forward=part.forward, **kwargs: seen.append(x.shape[2]) or forward(x, *args, **kwargs),
        )
    decode(tiny_vae, encode(tiny_vae, clip(33)))
    assert max(seen) == 2 and len(seen) == 17 + 5


@pytest.mark.parametrize("budget, most", [(0, 1), (3.5 * FRAME, 3)])
def test_a_cpu_s_budget_says_how_many_frames_go_at_once(tiny_vae, budget, most, monkeypatch):
    monkeypatch.setattr(on_cpu, "BUDGET", int(budget))
    seen = []

    def convolve(x, *args, run=many_frames.convolve, **kwargs):
        if x.shape[2:4] == (HEIGHT, WIDTH):
            seen.append(x.shape[1])
        return run(x, *args, **kwargs)

    monkeypatch.setattr(many_frames, "convolve", convolve)
    latent = encode(tiny_vae, clip(17))
    assert max(seen) == most
    seen.clear()
    decode(tiny_vae, latent)
    assert max(seen) <= most


@pytest.mark.parametrize("budget, most", [(0, 1), (5 * FRAME, 5), (1000 * FRAME, on_cpu.MOST)])
def test_a_cpu_gathers_small_pieces(tiny_vae, budget, most, monkeypatch):
    monkeypatch.setattr(on_cpu, "BUDGET", int(budget))
    seen = []
    process_input = tiny_vae.process_input
    monkeypatch.setattr(tiny_vae, "process_input", lambda frames: seen.append(len(frames)) or process_input(frames))
    encode(tiny_vae, clip(33), 1)
    assert max(seen) == most and sum(seen) == 33


def test_no_clip_lies_in_memory_whole(tiny_vae, way, monkeypatch):
    monkeypatch.setattr(on_cpu, "BUDGET", 3 * FRAME)
    alive, most = weakref.WeakSet(), []

    def read():
        for i in range(33):
            frame = torch.full((1, HEIGHT, WIDTH, 3), i / 33)
            alive.add(frame)
            most.append(len(alive))
            yield frame

    latent = clips.encode_frames(tiny_vae, read, HEIGHT, WIDTH)
    assert max(most) <= 4, most
    pieces = [len(piece) for piece in clips.decode_latent(tiny_vae, latent)]
    assert sum(pieces) == 33 and max(pieces) <= 4


class MostMemory(TorchDispatchMode):
    """How many bytes of large tensors made meanwhile were alive at once, at most."""

    def __init__(self):
        super().__init__()
        self.most, self.alive = 0, []

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        out = function(*args, **(kwargs or {}))
        made = [leaf for leaf in tree_leaves(out) if isinstance(leaf, torch.Tensor)]
        self.alive += [weakref.ref(tensor) for tensor in made if tensor.untyped_storage().nbytes() > FRAME // 100]
        tensors = [(ref, ref()) for ref in self.alive]
        self.alive = [ref for ref, tensor in tensors if tensor is not None]
        storages = [tensor.untyped_storage() for _, tensor in tensors if tensor is not None]
        self.most = max(self.most, sum({storage.data_ptr(): storage.nbytes() for storage in storages}.values()))
        return out


def most_memory(tiny_vae, frames):
    """Both ways, of a clip that is read and let go frame by frame."""
    with MostMemory() as encoding:
        latent = clips.encode_frames(tiny_vae, lambda: (clip(1) for _ in range(frames)), HEIGHT, WIDTH)
    with MostMemory() as decoding:
        for _ in clips.decode_latent(tiny_vae, latent):
            pass
    return encoding.most, decoding.most


def test_memory_does_not_grow_with_the_clip(tiny_vae, way, monkeypatch):
    monkeypatch.setattr(on_cpu, "BUDGET", 4 * FRAME)
    most_memory(tiny_vae, 1)  # weights that come to the device count once
    for short, long in zip(most_memory(tiny_vae, 17), most_memory(tiny_vae, 49), strict=True):
        assert long < 1.05 * short


def test_a_cpu_keeps_to_its_budget(tiny_vae, monkeypatch):
    """Beside what is carried from piece to piece, which with single frames is nearly all there is."""
    most_memory(tiny_vae, 1)
    monkeypatch.setattr(on_cpu, "BUDGET", 0)
    smallest = most_memory(tiny_vae, 17)
    for frames in (8, 16):
        monkeypatch.setattr(on_cpu, "BUDGET", frames * FRAME)
        for least, most in zip(smallest, most_memory(tiny_vae, 17), strict=True):
            assert 1.5 * least < most < least + frames * FRAME


@pytest.mark.parametrize("start", [float("nan"), float("inf")])
def test_a_start_that_is_no_number(start):
    size, part = SizeWanted("custom", WIDTH, HEIGHT, "crop"), PartWanted(start, 0, False)
    with pytest.raises(FootageError, match=f"start must be a number of seconds, got {start}. Use 0"):
        encode_source(clip(5), None, size, part, image_fps=16)
