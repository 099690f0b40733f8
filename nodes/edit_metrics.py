import folder_paths
from comfy.model_management import get_torch_device
from comfy_api.latest import io

from ..liveditor_core.metrics.change_map import ChangeMap
from ..liveditor_core.metrics.host_models import models_of
from ..liveditor_core.metrics.masks import outside_of
from ..liveditor_core.metrics.measure import measure
from ..liveditor_core.metrics.model_files import hashed, require_projection
from ..liveditor_core.metrics.pairs import TimedPairs
from ..liveditor_core.metrics.plots import plots
from ..liveditor_core.metrics.report import headline, report
from ..liveditor_core.progress import check, watch
from .connections import files_behind
from .types import CATEGORY, OpticalFlow, Source, named

NAME = "Edit Metrics"
# By the input for a model, the folders that its files may lie in.
FOLDERS = {
    "clip": ("text_encoders", "clip_vision", "checkpoints", "loras"),
    "clip_vision": ("clip_vision", "checkpoints"),
    "optical_flow": ("optical_flow",),
}


class EditMetrics(io.ComfyNode):
    @classmethod
    def define_schema(cls):
        return io.Schema(
            node_id="LIVEditMetrics",
            display_name=NAME,
            category=CATEGORY,
            description="Say in numbers whether an edit is good: what changed, what was kept, how steady it is and, "
            "with models that you have, whether it moves as its source and follows the words.",
            search_aliases=[
                "quality",
                "psnr",
                "ssim",
                "clip score",
                "pickscore",
                "warp error",
                "flicker",
                "benchmark",
                "evaluate edit",
            ],
            is_output_node=True,
            inputs=[
                io.MultiType.Input(
                    "before",
                    types=[Source, io.Video],
                    tooltip="The source from Encode Source Video, of which the very frames that were edited are taken; "
                    "or any other VIDEO, taken at the same times.",
                ),
                io.Video.Input("after", tooltip="The edit, from Decode Video or Load Video."),
                io.Mask.Input(
                    "mask",
                    optional=True,
                    tooltip="Where the edit should be: the rest should be kept. Without one, the half of each frame "
                    "that changed least is asked whether it was kept.",
                ),
                io.Clip.Input(
                    "clip",
                    optional=True,
                    tooltip="The text half of a CLIP model, from Load CLIP of type stable_diffusion: CLIP-L, CLIP-H, "
                    "CLIP-G or PickScore.",
                ),
                io.ClipVision.Input(
                    "clip_vision",
                    optional=True,
                    tooltip="The image half of the same model, from Load CLIP Vision. Alone, with DINO too, it tells "
                    "how much neighbouring frames are alike.",
                ),
                OpticalFlow.Input(
                    "optical_flow",
                    optional=True,
                    tooltip="RAFT, from Load Optical Flow Model: whether the edit moves as its source does.",
                ),
                io.String.Input(
                    "target",
                    display_name="target text",
                    default="",
                    multiline=True,
                    optional=True,
                    tooltip="What the edit should show, as a caption: a street at night. Not the instruction.",
                ),
                io.String.Input(
                    "source_text",
                    display_name="source text",
                    default="",
                    multiline=True,
                    optional=True,
                    tooltip="What the source shows, as a caption: a street by day. For the direction of the change.",
                ),
                io.Int.Input(
                    "every",
                    display_name="models look at every",
                    default=1,
                    min=1,
                    max=1000,
                    optional=True,
                    advanced=True,
                    tooltip="so-manieth frame, or pair of neighbouring frames. 1: at all. The numbers of the pixels "
                    "are always of all frames.",
                ),
            ],
            outputs=[
                io.String.Output(display_name="report", tooltip="All numbers, beside those of an unedited copy."),
                io.Image.Output(display_name="plots", tooltip="The numbers of every frame as curves."),
                io.Video.Output(
                    display_name="change map",
                    tooltip="The source in grey, and bright over it how much each pixel changed. For Save Video.",
                ),
                io.String.Output(
                    display_name="numbers", tooltip="The report and the numbers of every frame as JSON, for programs."
                ),
            ],
            hidden=[io.Hidden.unique_id, io.Hidden.dynprompt],
        )

    @classmethod
    def execute(
        cls,
        before,
        after,
        mask=None,
        clip=None,
        clip_vision=None,
        optical_flow=None,
        target="",
        source_text="",
        every=1,
    ) -> io.NodeOutput:
        with named(NAME):
            pairs = TimedPairs(before, after, check)
            numbers = measure(
                pairs,
                outside=None if mask is None else outside_of(mask, pairs),
                models=models_of(clip, clip_vision, optical_flow, cls._files()),
                target=target.strip(),
                source_text=source_text.strip(),
                every=every,
                device=get_torch_device(),
                tick=watch(),
            )
        lines = report(numbers.summary)
        change_map = ChangeMap(pairs, folder_paths.get_temp_directory(), watch)
        return io.NodeOutput(
            lines,
            plots(numbers),
            change_map,
            numbers.to_json(),
            ui={"text": (lines,), "liveditor_metrics": (headline(numbers.summary),)},
        )

    @classmethod
    def _files(cls):
        """Of the models that are connected."""
        for used_as, folders in FOLDERS.items():
            files = files_behind(cls.hidden, used_as, folders)
            if used_as == "clip":
                require_projection(list(files.values()))
            for name, path in files.items():
                yield hashed(used_as, name, path, check)
