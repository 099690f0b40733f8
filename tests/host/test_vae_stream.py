"""Long clips through the VAE: the same numbers as the host's own way, a few frames at a time."""

import host
import pytest
import tiny_models
import torch

from liveditor.liveditor_core.vae import clips, long_clips


@pytest.fixture
def vae(library):
    tiny_models.make_in_subprocess()
    import comfy.sd
    import comfy.utils

    sd, metadata = comfy.utils.load_torch_file(str(host.RUN / "models" / "vae" / tiny_models.VAE), return_metadata=True)
    return comfy.sd.VAE(sd=sd, metadata=metadata)


@pytest.fixture
def short(monkeypatch):
    monkeypatch.setattr(clips, "LONGEST_AT_ONCE", 1)
    monkeypatch.setattr(clips, "_whole_at_once", lambda *_: False)  # as on a GPU


def clip(frames):
    return torch.rand(frames, 48, 64, 3, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("frames", [5, 9, 33])
def test_the_same_as_the_host(vae, short, frames):
    latent = vae.encode(clip(frames))
    torch.testing.assert_close(clips.encode_frames(vae, clip(frames)), latent, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(clips.decode_latent(vae, latent), vae.decode(latent)[0], atol=1e-5, rtol=1e-5)


def test_a_few_frames_at_a_time(vae, short, monkeypatch):
    seen = []
    for part in (vae.first_stage_model.encoder, vae.first_stage_model.decoder):
        monkeypatch.setattr(
            part,
            "forward",
            lambda x, *args, forward=part.forward, **kwargs: seen.append(x.shape[2]) or forward(x, *args, **kwargs),
        )
    latent = clips.encode_frames(vae, clip(33))
    assert clips.decode_latent(vae, latent).shape == (33, 48, 64, 3)
    assert max(seen) == 2 and len(seen) == 17 + 5


def test_short_clips_go_the_host_s_way(vae, monkeypatch):
    monkeypatch.setattr(clips, "_or_in_tiles", None)
    assert clips.decode_latent(vae, clips.encode_frames(vae, clip(9))).shape == (9, 48, 64, 3)


def test_out_of_memory_goes_on_in_tiles(vae, short, monkeypatch, caplog):
    def fail(*_):
        raise torch.cuda.OutOfMemoryError("out of memory")

    expected = clips.encode_frames(vae, clip(9))
    monkeypatch.setattr(long_clips, "encode", fail)
    monkeypatch.setattr(long_clips, "decode", fail)
    latent = clips.encode_frames(vae, clip(9))
    torch.testing.assert_close(latent, expected, atol=1e-4, rtol=1e-4)  # the clip is smaller than a tile
    assert clips.decode_latent(vae, latent).shape == (9, 48, 64, 3)
    wide = torch.nn.functional.pad(latent, (0, 40))  # more than a tile
    assert clips.decode_latent(vae, wide[:, :, :2]).shape == (5, 48, 64 + 320, 3)
    assert sum("going on in tiles" in record.message for record in caplog.records) == 3


@pytest.mark.parametrize("frames", [1, 5, 17])
def test_whole_clips_on_a_cpu_are_the_same_as_the_host(vae, frames, monkeypatch):
    latent = vae.encode(clip(frames))
    pixels = vae.decode(latent)[0]
    monkeypatch.setattr(vae, "encode", None)
    monkeypatch.setattr(vae, "decode", None)
    torch.testing.assert_close(clips.encode_frames(vae, clip(frames)), latent, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(clips.decode_latent(vae, latent), pixels, atol=1e-5, rtol=1e-5)


def test_a_clip_that_does_not_fit_goes_the_host_s_way(vae, monkeypatch):
    expected = vae.encode(clip(9))
    monkeypatch.setattr(clips.comfy.model_management, "get_free_memory", lambda device: 1 << 20)
    monkeypatch.setattr(clips.whole_clip, "encode", None)
    assert torch.equal(clips.encode_frames(vae, clip(9)), expected)
