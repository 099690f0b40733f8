import logging
import os
from pathlib import PureWindowsPath

import torch

import folder_paths
from comfy_api.latest import io

from ..liveditor_core.model.fit import describe, fit, lacks_ram, this_machine
from ..liveditor_core.model.gguf import FOLDER as GGUF
from ..liveditor_core.model.load import load_files
from ..liveditor_core.sampling.run_report import report_runs
from .types import CATEGORY, named

NAME = "Load LIVEditor"
FOLDERS = ("diffusion_models", "text_encoders", "vae")  # of checkpoint, text encoder and VAE, as the host calls them
WEIGHT_TYPES = {
    "default": {},
    "bf16": {"dtype": torch.bfloat16},
    "fp8_e4m3fn": {"dtype": torch.float8_e4m3fn},
    "fp8_e4m3fn_fast": {"dtype": torch.float8_e4m3fn, "fp8_optimizations": True},
    "fp8_e5m2": {"dtype": torch.float8_e5m2},
}


class LoadLIVEditor(io.ComfyNode):
    @classmethod
    def define_schema(cls):
        return io.Schema(
            node_id="LoadLIVEditor",
            display_name=NAME,
            category=CATEGORY,
            description="Load everything one edit needs: the LIVEditor model, the text encoder that reads your "
            "instruction and the VAE that turns video into latents and back.",
            search_aliases=["liveditor", "video edit model", "instruction video editing", "load wan edit"],
            inputs=[
                io.Combo.Input(
                    "checkpoint",
                    options=[*folder_paths.get_filename_list("diffusion_models"), *_gguf_files()],
                    tooltip="The LIVEditor model in models/diffusion_models. The published .bin is made ready by "
                    "Prepare LIVEditor Model. Other Wan models are refused: they cannot read a source video.",
                ),
                io.Combo.Input(
                    "weight_type",
                    options=list(WEIGHT_TYPES),
                    default="default",
                    advanced=True,
                    tooltip="How the model's weights are kept in memory. default: as in the file. fp8 halves the "
                    "memory of a bf16 file and loses a little precision; fast multiplies in fp8 as well, on RTX 40, 50 "
                    "and H100. A file prepared in fp8 is more exact and as fast.",
                ),
                io.Combo.Input(
                    "text_encoder",
                    options=folder_paths.get_filename_list("text_encoders"),
                    tooltip="The UMT5-XXL text encoder of Wan, in models/text_encoders. It turns your instruction into "
                    "something the model understands.",
                ),
                io.Combo.Input(
                    "vae",
                    options=folder_paths.get_filename_list("vae"),
                    tooltip="The Wan 2.1 VAE, in models/vae. It compresses the video before the edit and unpacks it "
                    "afterwards.",
                ),
            ],
            outputs=[io.Model.Output(), io.Clip.Output(), io.Vae.Output()],
        )

    @classmethod
    def fingerprint_inputs(cls, checkpoint, text_encoder, vae, **_):
        """A file that was replaced under its old name is loaded again; one that is gone is missed by name."""
        if None in (checkpoint, text_encoder, vae):  # a linked name, which the host knows only when it runs
            return None
        return [
            (path, os.path.getsize(path), os.path.getmtime(path)) if path else None
            for path in cls.paths(checkpoint, text_encoder, vae)
        ]

    @staticmethod
    def paths(*names):
        """Where the files are; None for one that is in none of its folders. A linked name may be any path."""
        gguf = names[0].lower().endswith(".gguf") and GGUF in folder_paths.folder_names_and_paths
        folders = (GGUF if gguf else FOLDERS[0], *FOLDERS[1:])
        return [folder_paths.get_full_path(folder, name) for folder, name in zip(folders, names, strict=True)]

    @classmethod
    def execute(cls, checkpoint, weight_type, text_encoder, vae) -> io.NodeOutput:
        names = (checkpoint, text_encoder, vae)
        paths = cls.paths(*names)
        if None in paths:
            lost = paths.index(None)
            name = PureWindowsPath(names[lost]).name  # of paths with either slash
            raise ValueError(
                f"{NAME}: {name}: there is no such file in models/{FOLDERS[lost]}. Put it there or choose another."
            )
        with named(NAME):
            model, clip, loaded_vae = load_files(*paths, model_options=WEIGHT_TYPES[weight_type])
        report_runs(model)
        if lacks_ram(found := fit(model.model_size(), 0, this_machine())):
            logging.warning(f"LIVEditor: {checkpoint}: {describe(found)[-1]}")
        blocks = len(model.model.diffusion_model.blocks)
        logging.info(f"LIVEditor: loaded {checkpoint}, {blocks} blocks, weight type {weight_type}")
        return io.NodeOutput(model, clip, loaded_vae)


def _gguf_files():
    return folder_paths.get_filename_list(GGUF) if GGUF in folder_paths.folder_names_and_paths else []
