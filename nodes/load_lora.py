import logging
import os

import folder_paths
from comfy_api.latest import io

from ..liveditor_core.checkpoint.weights import CheckpointError
from ..liveditor_core.model.lora import apply_lora
from .checks import require_liveditor
from .types import CATEGORY, named

NAME = "Load LoRA (LIVEditor)"


class LoadLoRA(io.ComfyNode):
    @classmethod
    def define_schema(cls):
        return io.Schema(
            node_id="LIVEditLoadLoRA",
            display_name=NAME,
            category=CATEGORY,
            description="Put a LoRA for Wan on the model, in whichever of the usual spellings its file comes, and say "
            "how much of it fits.",
            search_aliases=["lora", "load lora", "diffsynth lora", "peft lora", "diffusers lora", "lycoris"],
            inputs=[
                io.Model.Input("model", tooltip="A LIVEditor model. The one that goes in is not changed."),
                io.Combo.Input(
                    "lora",
                    options=folder_paths.get_filename_list("loras"),
                    tooltip="A LoRA file for Wan 2.1 or 2.2 14B, in models/loras: of ComfyUI, DiffSynth, PEFT, "
                    "diffusers or LyCORIS.",
                ),
                io.Float.Input(
                    "strength",
                    default=1.0,
                    min=-100.0,
                    max=100.0,
                    step=0.01,
                    tooltip="How strongly it acts: 1 as it was trained, 0 not at all.",
                ),
            ],
            outputs=[
                io.Model.Output(
                    tooltip="The model with the LoRA, for LIVEdit Sampler, a stock sampler or another LoRA."
                ),
                io.String.Output(display_name="report", tooltip="How many of the file's keys fit, and which do not."),
            ],
        )

    @classmethod
    def fingerprint_inputs(cls, lora, **_):
        """A file that was replaced under its old name is loaded again."""
        path = lora and folder_paths.get_full_path("loras", lora)
        return path and (path, os.path.getsize(path), os.path.getmtime(path))

    @classmethod
    def execute(cls, model, lora, strength) -> io.NodeOutput:
        require_liveditor(model, NAME)
        path = folder_paths.get_full_path("loras", lora)
        with named(NAME):
            if path is None:
                raise CheckpointError(f"{os.path.basename(lora)}: there is no such file. Put it into models/loras.")
            model, report = apply_lora(model, path, strength)
        logging.info(f"LIVEditor: LoRA {report}")
        return io.NodeOutput(model, report)
