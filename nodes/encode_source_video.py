import node_helpers
from comfy_api.latest import io

from ..liveditor_core.footage import geometry
from ..liveditor_core.model.registration import SOURCE_KEY
from ..liveditor_core.vae.source_to_latent import CUSTOM, PartWanted, SizeWanted, encode_source
from .checks import require_wan_vae
from .types import CATEGORY, Source, named

try:
    from comfy_execution.graph_utils import ExecutionBlocker
except ImportError:
    ExecutionBlocker = None  # what uses an output without a prompt then fails in its own words

NAME = "Encode Source Video"
FPS_CHOICES = ("16 (as trained)", "as the source")


class EncodeSourceVideo(io.ComfyNode):
    @classmethod
    def define_schema(cls):
        return io.Schema(
            node_id="EncodeSourceVideo",
            display_name=NAME,
            category=CATEGORY,
            description="Prepare the video you want to edit: choose the part, the frame rate and the size, and encode "
            "it for the sampler. Decode Video puts the edit back at the right length, size and sound.",
            search_aliases=["source video", "video to latent", "video conditioning", "vid2vid source"],
            inputs=[
                io.MultiType.Input(
                    "video",
                    types=[io.Video, io.Image],
                    tooltip="The video to edit: a VIDEO from Load Video, trimmed or not, or a batch of IMAGE frames "
                    "(then set image fps). Any file that FFmpeg reads; it is read by time, a few frames at a time.",
                ),
                io.Vae.Input("vae", tooltip="The Wan 2.1 VAE from Load LIVEditor or Load VAE."),
                io.Combo.Input(
                    "size",
                    options=[*geometry.PRESETS, CUSTOM],
                    default="auto 540p",
                    tooltip="Size of the edit. auto picks the trained size nearest in shape to your video, for example "
                    "960x544 for 16:9, or, where that would cut off more than 3 %, a size of the same area in your "
                    "video's own shape. auto small model is for the model that comes with the pack. custom uses width "
                    "and height below.",
                ),
                io.Int.Input(
                    "width",
                    default=960,
                    min=geometry.SIZE_STEP,
                    max=8192,
                    step=geometry.SIZE_STEP,
                    tooltip="Only for size custom. A multiple of 16.",
                ),
                io.Int.Input(
                    "height",
                    default=544,
                    min=geometry.SIZE_STEP,
                    max=8192,
                    step=geometry.SIZE_STEP,
                    tooltip="Only for size custom. A multiple of 16.",
                ),
                io.Combo.Input(
                    "fit",
                    options=list(geometry.FITS),
                    default="crop",
                    tooltip="When the shapes differ. crop: fill the size and cut the edges, as the model was trained. "
                    "pad: keep everything, with black bars that Decode Video removes. stretch: distort.",
                ),
                io.Combo.Input(
                    "fps",
                    options=list(FPS_CHOICES),
                    default=FPS_CHOICES[0],
                    tooltip="Frame rate of the edit. The model was trained at 16 frames a second; with the source's "
                    "own rate, the same number of frames covers less time.",
                ),
                io.Float.Input(
                    "start",
                    default=0.0,
                    min=0.0,
                    max=86400.0,
                    step=0.01,
                    tooltip="Where in the video to begin, in seconds from its first picture.",
                ),
                io.Int.Input(
                    "max_frames",
                    default=81,
                    min=0,
                    max=100000,
                    tooltip="Edit at most this many frames, 0 for all. The model was trained on 81 (5 seconds at 16 "
                    "fps). Time grows with it; longer clips are edited in windows (LIVEdit Sampler). Any number works: "
                    "frames are padded to 4n + 1 for the VAE and cut again afterwards.",
                ),
                io.Float.Input(
                    "image_fps",
                    default=0.0,
                    min=0.0,
                    max=1000.0,
                    step=0.01,
                    tooltip="Only for IMAGE input, which must say it: the frame rate of the frames, for example from "
                    "Get Video Components.",
                ),
                io.Audio.Input(
                    "audio",
                    optional=True,
                    tooltip="The sound of IMAGE frames, or another one for a VIDEO. It begins with the first frame.",
                ),
                io.Conditioning.Input(
                    "positive",
                    optional=True,
                    tooltip="Only for stock samplers: the instruction, to get it back with the source attached. "
                    "LIVEdit Sampler does not need it.",
                ),
                io.Conditioning.Input(
                    "negative",
                    optional=True,
                    tooltip="Only for stock samplers: the negative prompt, to get it back with the source attached.",
                ),
            ],
            outputs=[
                Source.Output("source", tooltip="For LIVEdit Sampler and Decode Video."),
                io.Conditioning.Output(
                    "positive_out",
                    display_name="positive",
                    tooltip="The instruction with the source attached, for stock samplers.",
                ),
                io.Conditioning.Output(
                    "negative_out",
                    display_name="negative",
                    tooltip="The negative prompt with the source attached, for stock samplers.",
                ),
                io.Latent.Output("latent", tooltip="An empty latent of the right size, for stock samplers."),
                io.String.Output(
                    "report",
                    tooltip="What was found in the video: rate, variable or not, size, depth, colours, rotation, sound "
                    "tracks, damage; what is edited of it, and what will stay unedited. The log has the same.",
                ),
            ],
        )

    @classmethod
    def execute(
        cls,
        video,
        vae,
        size,
        width,
        height,
        fit,
        fps,
        start,
        max_frames,
        image_fps,
        audio=None,
        positive=None,
        negative=None,
    ) -> io.NodeOutput:
        require_wan_vae(vae, NAME)
        with named(NAME):
            source, report = encode_source(
                video,
                vae,
                SizeWanted(size, width, height, fit),
                PartWanted(start, max_frames, fps == FPS_CHOICES[1]),
                image_fps=image_fps,
                audio=audio,
            )
        attached = [
            cls._attach(conditioning, source, name)
            for conditioning, name in ((positive, "positive"), (negative, "negative"))
        ]
        return io.NodeOutput(source, *attached, {"samples": source.latent.new_zeros(source.latent.shape)}, report)

    @staticmethod
    def _attach(conditioning, source, name):
        if conditioning is None:
            return ExecutionBlocker and ExecutionBlocker(
                f"{NAME}: its output {name} is used, but nothing is connected to its input {name}. "
                "Connect your prompt there."
            )
        return node_helpers.conditioning_set_values(conditioning, {SOURCE_KEY: source.latent})
