import os

import folder_paths
from comfy_api.latest import io, ui

from ..liveditor_core.footage.comparison import LAYOUTS, PREVIEW, ComparedVideo, Pairs
from ..liveditor_core.progress import check, watch
from .types import CATEGORY, Source, named

NAME = "Compare Videos"


class CompareVideos(io.ComfyNode):
    @classmethod
    def define_schema(cls):
        return io.Schema(
            node_id="LIVEditCompareVideos",
            display_name=NAME,
            category=CATEGORY,
            description="Play the source and the edit together, frame by frame, with a border to drag between them; "
            "and give both as one video to save.",
            search_aliases=[
                "before after",
                "video compare",
                "side by side",
                "wipe",
                "comparison player",
                "split screen",
            ],
            is_output_node=True,
            inputs=[
                io.MultiType.Input(
                    "before",
                    types=[Source, io.Video],
                    tooltip="The source from Encode Source Video, of which the very frames that were edited are shown; "
                    "or any other VIDEO, shown at the same times.",
                ),
                io.Video.Input("after", tooltip="The edit, from Decode Video."),
                io.Combo.Input(
                    "layout",
                    display_name="saved layout",
                    options=list(LAYOUTS),
                    default=LAYOUTS[0],
                    tooltip="Of the video to save. wipe: a border runs over the picture once, from the source to the "
                    "edit. The player on the node shows both in any way.",
                ),
                io.String.Input(
                    "before_name",
                    display_name="name of before",
                    default="",
                    optional=True,
                    advanced=True,
                    tooltip="What the player calls it, such as the settings of one edit. Empty: before.",
                ),
                io.String.Input(
                    "after_name",
                    display_name="name of after",
                    default="",
                    optional=True,
                    advanced=True,
                    tooltip="What the player calls it, such as the settings of another edit. Empty: after.",
                ),
            ],
            outputs=[io.Video.Output(tooltip="Source and edit in one video, with the edit's sound. For Save Video.")],
        )

    @classmethod
    def execute(cls, before, after, layout, before_name="", after_name="") -> io.NodeOutput:
        with named(NAME):
            pairs = Pairs(before, after, check)
            temp = folder_paths.get_temp_directory()
            player = _write_preview(ComparedVideo(pairs, PREVIEW, temp, watch))
            player["names"] = [before_name, after_name]
        return io.NodeOutput(ComparedVideo(pairs, layout, temp, watch), ui={"liveditor_compare": [player]})


def _write_preview(preview):
    """Write what the player plays: both next to each other in one file. Where it is, and its measures."""
    folder, name, counter, subfolder, _ = folder_paths.get_save_image_path(
        "liveditor/compare", folder_paths.get_temp_directory()
    )
    file = f"{name}_{counter:05}_.mp4"
    preview.save_to(os.path.join(folder, file))
    width, height = preview.shown
    return {
        **ui.SavedResult(file, subfolder, io.FolderType.temp),
        "frames": len(preview),
        "fps": round(float(preview.rate), 3),
        "width": width,
        "height": height,
    }
