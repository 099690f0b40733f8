import functools

import torch

import nodes as host_nodes
from comfy_api.latest import InputImpl, Types, io

from ..liveditor_core import mask as masks
from ..liveditor_core import video as geometry
from ..liveditor_core.vae_stream import decode_latent
from .types import CATEGORY, Source, require_wan_vae

NAME = "Decode Video"
FPS_CHOICES = ("as edited", "as the source")


class DecodeVideo(io.ComfyNode):
    @classmethod
    def define_schema(cls):
        return io.Schema(
            node_id="DecodeVideo",
            display_name=NAME,
            category=CATEGORY,
            description="Turn the edited latent back into a video with exactly as many frames as were edited, with the "
            "source's sound, and on request at its size and frame rate.",
            search_aliases=["latent to video", "vae decode video", "restore size", "liveditor decode"],
            inputs=[
                io.Latent.Input("samples", tooltip="The edit, from LIVEdit Sampler or a stock sampler."),
                io.Vae.Input("vae", tooltip="The Wan 2.1 VAE that encoded the source."),
                Source.Input(
                    "source",
                    tooltip="From Encode Source Video: frame count, frame rate, size and sound are taken from it.",
                ),
                io.Combo.Input(
                    "fps",
                    options=list(FPS_CHOICES),
                    default=FPS_CHOICES[0],
                    tooltip="as edited: the frames that were edited, at their rate. as the source: the source's frame "
                    "rate and frame count; where it was edited at a lower rate, frames repeat.",
                ),
                io.Boolean.Input(
                    "original_size",
                    default=False,
                    tooltip="Scale the edit back to the source's size. Bars from fit pad are cut; where fit crop cut "
                    "edges off, the source's own edges come back unedited.",
                ),
                io.Combo.Input(
                    "tiling",
                    options=["auto", "tiled"],
                    default="auto",
                    advanced=True,
                    tooltip="auto decodes in one go and falls back to tiles when memory runs out. tiled uses least "
                    "memory.",
                ),
                io.Int.Input(
                    "tile_size",
                    default=256,
                    min=64,
                    max=4096,
                    step=32,
                    advanced=True,
                    tooltip="Only for tiled: pixels per tile. Smaller needs less memory.",
                ),
                io.Mask.Input(
                    "mask",
                    optional=True,
                    tooltip="Where the edit shows; if not connected, where LIVEdit Sampler was told to edit. "
                    "Outside it "
                    "every pixel is the source's own. One mask for all frames, or one per frame; from the mask "
                    "editor, a segmentation node, or any other.",
                ),
                io.Int.Input(
                    "feather",
                    default=8,
                    min=0,
                    max=512,
                    optional=True,
                    tooltip="Only with a mask: over how many pixels the edit fades in from the mask's edge, inwards. 0 "
                    "is a hard edge.",
                ),
            ],
            outputs=[
                io.Video.Output(tooltip="The edited video, with the source's sound. For Save Video."),
                io.Image.Output(tooltip="Its frames."),
            ],
        )

    @classmethod
    def execute(
        cls, samples, vae, source, fps, original_size, tiling, tile_size, mask=None, feather=8
    ) -> io.NodeOutput:
        require_wan_vae(vae, NAME)
        latent = samples["samples"]
        if latent.shape[1:] != source.latent.shape[1:]:
            raise ValueError(
                f"{NAME}: the latent must be of the source's size, got {tuple(latent.shape[1:])} against "
                f"{tuple(source.latent.shape[1:])}. "
                "Connect the source that this latent was made from."
            )
        original = {"original_rate": fps == FPS_CHOICES[1], "original_size": original_size}
        read = functools.cache(source.read_frames)  # of a batch every clip may need them, and so may a mask
        mask = samples.get(masks.KEY) if mask is None else mask
        if mask is not None:
            weights = masks.weights(masks.fit_mask(mask, source, **original), feather)

        clips = []
        for item in latent.split(1):
            clip = cls._decode(vae, item, tiling, tile_size)[: source.frames]
            if original_size:
                clip = geometry.restore_size(clip, source, lambda: read(original_rate=False, original_size=True))
            if original["original_rate"]:
                clip = geometry.take_frames(clip, source.shown_indices())
            clips.append(clip if mask is None else masks.keep_outside(clip, read(**original), weights))
        images = torch.cat(clips) if len(clips) > 1 else clips[0]
        audio = source.audio
        if audio is not None and len(clips) > 1:  # one clip after the other, each with its sound
            audio = {**audio, "waveform": torch.cat([audio["waveform"]] * len(clips), dim=-1)}
        rate = source.original_fps if original["original_rate"] else source.fps
        video = InputImpl.VideoFromComponents(Types.VideoComponents(images=images, audio=audio, frame_rate=rate))
        return io.NodeOutput(video, images)

    @staticmethod
    def _decode(vae, latent, tiling, tile_size):
        if tiling == "tiled":
            return host_nodes.VAEDecodeTiled().decode(vae, {"samples": latent}, tile_size)[0]
        return decode_latent(vae, latent)
