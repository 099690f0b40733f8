import folder_paths
from comfy_api.latest import io

from ..liveditor_core.footage.source_video import OutputForm
from ..liveditor_core.vae.latent_to_video import decode_edit
from .checks import require_wan_vae
from .connections import taken, taken_by_prompt
from .types import CATEGORY, Source, named

NAME = "Decode Video"
FPS_CHOICES = ("as edited", "as the source")
IMAGES = 1  # the output


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
                    "wide edges off, the source's own edges come back unedited (Encode Source Video's report says so).",
                ),
                io.Combo.Input(
                    "tiling",
                    options=["auto", "tiled"],
                    default="auto",
                    advanced=True,
                    tooltip="auto decodes whole frames, a few at a time, and falls back to tiles when memory runs out. "
                    "tiled uses least memory.",
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
                    tooltip="Where the edit shows; if not connected, where LIVEdit Sampler was told to edit. Outside "
                    "it every pixel is the source's own. One mask for all frames, or one per frame; from the mask "
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
                io.Boolean.Input(
                    "whole_video",
                    default=False,
                    optional=True,
                    tooltip="Give the whole video, with the edited part in its place, at the source's size and frame "
                    "rate and with all of its sound tracks; all other frames are the source's own.",
                ),
            ],
            outputs=[
                io.Video.Output(
                    tooltip="The edited video, with the source's sound. For Save Video; it is written frame by frame, "
                    "however long it is."
                ),
                io.Image.Output(tooltip="Its frames, only made where something is connected: they lie in memory."),
            ],
            hidden=[io.Hidden.unique_id, io.Hidden.dynprompt],
        )

    @classmethod
    def fingerprint_inputs(cls, **_):
        return taken_by_prompt(cls.hidden, IMAGES)

    @classmethod
    def execute(
        cls, samples, vae, source, fps, original_size, tiling, tile_size, mask=None, feather=8, whole_video=False
    ) -> io.NodeOutput:
        require_wan_vae(vae, NAME)
        form = OutputForm(original_rate=fps == FPS_CHOICES[1], original_size=original_size)
        with named(NAME):
            video = decode_edit(
                samples,
                vae,
                source,
                form,
                folder_paths.get_temp_directory(),
                tile_size=tile_size if tiling == "tiled" else None,
                mask=mask,
                feather=feather,
                whole=whole_video,
            )
            images = video.get_components().images if taken(cls.hidden, IMAGES) else None
        return io.NodeOutput(video, images)
