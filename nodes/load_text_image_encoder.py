import os

import folder_paths
from comfy_api.latest import io

from ..liveditor_core.checkpoint.weights import CheckpointError
from ..liveditor_core.model.small_towers import load_small_towers
from .types import CATEGORY, named

NAME = "Load Small Text-Image Encoder"
FOLDER = "clip_vision"


class LoadTextImageEncoder(io.ComfyNode):
    @classmethod
    def define_schema(cls):
        return io.Schema(
            node_id="LIVEditLoadTextImageEncoder",
            display_name=NAME,
            category=CATEGORY,
            description="Load the small text-image encoder of this pack. It knows ten edits and nothing else: for "
            "trying and testing metrics, not for judging real edits.",
            search_aliases=["clip", "clip vision", "clip score", "text image encoder", "small clip"],
            inputs=[
                io.Combo.Input(
                    "encoder",
                    options=folder_paths.get_filename_list(FOLDER),
                    tooltip="liveditor_nano_text_image_encoder.safetensors, which comes with this pack. Real CLIP "
                    "models are loaded with Load CLIP and Load CLIP Vision.",
                ),
            ],
            outputs=[
                io.Clip.Output(tooltip="Embeds texts: the words of the small model's ten edits. No conditioning."),
                io.ClipVision.Output(tooltip="Embeds frames: what the ten edits make of them."),
            ],
        )

    @classmethod
    def fingerprint_inputs(cls, encoder, **_):
        """A file that was replaced under its old name is loaded again."""
        path = encoder and folder_paths.get_full_path(FOLDER, encoder)
        return path and (path, os.path.getsize(path), os.path.getmtime(path))

    @classmethod
    def execute(cls, encoder) -> io.NodeOutput:
        path = folder_paths.get_full_path(FOLDER, encoder)
        with named(NAME):
            if path is None:
                raise CheckpointError(
                    f"{os.path.basename(encoder)}: there is no such file in models/{FOLDER}. Choose another."
                )
            return io.NodeOutput(*load_small_towers(path))
