import os
from fractions import Fraction

import torch

import folder_paths
from comfy_api.latest import InputImpl, Types, io, ui

from ..liveditor_core.footage.comparison import LAYOUTS, for_preview, frames_beside, lay_out
from .types import CATEGORY, Source

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
            ],
            outputs=[io.Video.Output(tooltip="Source and edit in one video, with the edit's sound. For Save Video.")],
        )

    @classmethod
    def execute(cls, before, after, layout) -> io.NodeOutput:
        edit = after.get_components()
        after_frames, fps = edit.images[..., :3], Fraction(edit.frame_rate)
        before_frames = frames_beside(before, after_frames, fps)

        def clip(frames):
            return InputImpl.VideoFromComponents(Types.VideoComponents(images=frames, audio=edit.audio, frame_rate=fps))

        player = _write_preview(before_frames, after_frames, clip)
        return io.NodeOutput(clip(lay_out(before_frames, after_frames, layout)), ui={"liveditor_compare": [player]})


def _write_preview(before, after, clip):
    """Write what the player plays: both next to each other in one file. Where it is, and its measures."""
    shown = torch.cat([for_preview(frames) for frames in (before, after)], dim=2)
    folder, name, counter, subfolder, _ = folder_paths.get_save_image_path(
        "liveditor/compare", folder_paths.get_temp_directory()
    )
    video, file = clip(shown), f"{name}_{counter:05}_.mp4"
    video.save_to(os.path.join(folder, file), format=Types.VideoContainer.MP4, codec=Types.VideoCodec.H264, crf=18)
    return {
        **ui.SavedResult(file, subfolder, io.FolderType.temp),
        "frames": len(shown),
        "fps": round(float(video.get_frame_rate()), 3),
        "width": shown.shape[2] // 2,
        "height": shown.shape[1],
    }
