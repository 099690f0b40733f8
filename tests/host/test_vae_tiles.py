"""Clips through the VAE in tiles of the picture, what is reported meanwhile, and VAEs that are not known."""

import itertools

import pytest
import torch

import comfy.model_management
from liveditor.liveditor_core.footage.spool import Spool
from liveditor.liveditor_core.vae import clips, on_cpu, on_gpu

HEIGHT, WIDTH = 48, 160
LARGE = "out of memory with whole frames in the VAE, going on in tiles"


@pytest.fixture(params=[on_cpu, on_gpu], ids=["on_cpu", "on_gpu"])
def way(request, monkeypatch):
    """The way that clips go, whatever the device is."""
    monkeypatch.setattr(clips, "_way", lambda vae: request.param)
    return request.param


def clip(frames):
    """Waves that move, so that no frame is like another."""
    y, x, t = torch.arange(HEIGHT).view(-1, 1), torch.arange(WIDTH).view(1, -1), torch.arange(frames).view(-1, 1, 1)
    waves = [x / 9 + t / 3 + 0 * y, y / 7 - t / 5 + 0 * x, (x + y) / 11 + t / 2]
    return 0.5 + 0.5 * torch.stack(waves, dim=-1).sin()


def encode(vae, frames):
    return clips.encode_frames(vae, lambda: iter(frames.split(3)), *frames.shape[1:3])


def decode_into(vae, latent, folder, tile_size=None, progress=None, before=()):
    """What lies in the spool afterwards."""
    spool = Spool(folder, 8 * latent.shape[3], 8 * latent.shape[4])
    for frame in before:
        spool.append(frame.unsqueeze(0))
    clips.decode_into(vae, latent, spool, tile_size, progress)
    return torch.stack(list(spool))


def fail_once(monkeypatch, way, name):
    """Let memory run out after the first piece."""
    run, calls = getattr(way, name), []

    def limited(*args):
        calls.append(1)
        pieces = run(*args)
        yield next(pieces)
        if len(calls) == 1:
            raise torch.cuda.OutOfMemoryError("out of memory")
        yield from pieces

    monkeypatch.setattr(way, name, limited)


def decibels(a, b):
    """By frame."""
    return -10 * (a - b).square().mean((1, 2, 3)).log10()


def test_no_seam_in_time(tiny_vae, way, tmp_path):
    latent = encode(tiny_vae, clip(81))
    whole = torch.cat(list(clips.decode_latent(tiny_vae, latent)))
    near = decibels(decode_into(tiny_vae, latent, tmp_path, tile_size=64), whole)
    elsewhere = torch.cat([near[:52], near[69:]])
    assert near[52:69].min() > elsewhere.min() - 0.1 and elsewhere.min() > 35


def test_out_of_memory_goes_on_in_tiles(tiny_vae, way, tmp_path, monkeypatch, caplog):
    monkeypatch.setattr(clips, "ENCODE_TILE", 96)
    monkeypatch.setattr(clips, "DECODE_TILE", 64)
    whole = encode(tiny_vae, clip(9))
    fail_once(monkeypatch, way, "encode")
    latent = encode(tiny_vae, clip(9))
    assert not torch.equal(latent, whole)
    assert (latent - whole).square().mean() < 0.05 * whole.var()
    expected = decode_into(tiny_vae, whole, tmp_path, tile_size=64)
    fail_once(monkeypatch, way, "decode")
    got = decode_into(tiny_vae, whole, tmp_path, before=clip(2))
    torch.testing.assert_close(got[:2], clip(2), atol=1e-5, rtol=0)
    assert torch.equal(got[2:], expected)
    assert sum(LARGE in record.message for record in caplog.records) == 2


def test_other_failures_are_not_taken_for_too_little_memory(tiny_vae, way, tmp_path, monkeypatch):
    def fail(*_):
        raise ZeroDivisionError

    monkeypatch.setattr(way, "encode", fail)
    monkeypatch.setattr(way, "decode", fail)
    with pytest.raises(ZeroDivisionError):
        encode(tiny_vae, clip(5))
    with pytest.raises(ZeroDivisionError):
        decode_into(tiny_vae, torch.zeros(1, 16, 2, 6, 20), tmp_path)


def test_what_is_reported(tiny_vae, way, tmp_path):
    latent = encode(tiny_vae, clip(41))
    for tile_size, total in ((None, 41), (64, 3 * 41)):
        reports = []
        decode_into(tiny_vae, latent, tmp_path, tile_size, lambda *report, to=reports: to.append(report))
        done = [0, *(done for done, _ in reports)]
        assert done[-1] == total and {total for _, total in reports} == {total}
        assert all(0 < b - a <= clips.REPORTED for a, b in itertools.pairwise(done))


def test_it_can_be_stopped(tiny_vae, way):
    read = []

    def stop_at(frame):
        for i, piece in enumerate(clip(41).split(1)):
            read.append(i)
            if i == frame:
                comfy.model_management.interrupt_current_processing(True)
            yield piece

    with pytest.raises(comfy.model_management.InterruptProcessingException):
        clips.encode_frames(tiny_vae, lambda: stop_at(3), HEIGHT, WIDTH)
    assert max(read) <= 3 + on_cpu.MOST
    pieces = clips.decode_latent(tiny_vae, encode(tiny_vae, clip(41)))
    next(pieces)
    comfy.model_management.interrupt_current_processing(True)
    with pytest.raises(comfy.model_management.InterruptProcessingException):
        list(pieces)


def test_a_vae_that_is_not_known_goes_the_host_s_way(tiny_vae, tmp_path, monkeypatch):
    monkeypatch.setattr(clips, "WanVAE", ())
    monkeypatch.setattr(on_cpu, "encode", None)
    monkeypatch.setattr(on_gpu, "decode", None)
    latent = tiny_vae.encode(clip(21))
    assert torch.equal(encode(tiny_vae, clip(21)), latent)
    whole = tiny_vae.decode(latent)[0]
    torch.testing.assert_close(decode_into(tiny_vae, latent, tmp_path), whole, atol=1e-5, rtol=0)
    long = latent.repeat(1, 1, 1000 // 6 + 1, 1, 1)
    asked = {}
    monkeypatch.setattr(
        tiny_vae, "decode_tiled", lambda latent, **given: asked.update(given) or torch.zeros(1, 5, HEIGHT, WIDTH, 3)
    )
    decode_into(tiny_vae, long, tmp_path, tile_size=128)
    assert asked["tile_t"] >= long.shape[2] and asked["tile_x"] == asked["tile_y"] == 16 and asked["overlap"] == 4
