import collections
import os
from pathlib import Path

import folder_paths
from comfy_api.latest import io

from ..liveditor_core.checkpoint.download import HUB_FILE, HUB_REPOSITORY
from ..liveditor_core.checkpoint.prepare import PICKLES, is_whole, prepare, target
from ..liveditor_core.checkpoint.weight_types import WEIGHT_TYPES, label
from ..liveditor_core.checkpoint.weights import CheckpointError
from ..liveditor_core.model.gguf import gguf_loader
from ..liveditor_core.progress import BytesProgress
from .host_server import tell
from .types import CATEGORY, named

NAME = "Prepare LIVEditor Model"
DOWNLOAD = f"download {HUB_FILE} (28 GB) from {HUB_REPOSITORY}"
FOLDER = "diffusion_models"
PACK = Path(__file__).resolve().parents[1]
ELSEWHERE = (
    "choose fp8 or int8. For another installation, convert in a terminal: python -m liveditor_core.checkpoint convert"
)
lost = collections.Counter()  # by the path of a new file, how often it was not there
DEFAULT = label("fp8_e4m3fn_scaled")


def sources():
    """Files to choose from, by what the menu shows: pickles first, wherever they lie among the models."""
    found = {}
    for folder in (FOLDER, "checkpoints"):
        for name in folder_paths.get_filename_list(folder):
            found.setdefault(name, folder)
    return dict(sorted(found.items(), key=lambda item: (not item[0].lower().endswith(PICKLES), item)))


class PrepareModel(io.ComfyNode):
    @classmethod
    def define_schema(cls):
        names = [name for name, folder in sources().items() if not _is_ours(folder, name)]
        pickles = [name for name in names if name.lower().endswith(PICKLES)]
        return io.Schema(
            node_id="LIVEditPrepareModel",
            display_name=NAME,
            category=CATEGORY,
            description="Turn the published LIVEditor file into one that Load LIVEditor takes, in the weight type that "
            "suits your card: choose it among your models or let it be downloaded, and run. Needed once.",
            search_aliases=["convert checkpoint", "download liveditor", "quantise", "gguf", "fp8", "int8", "pickle"],
            inputs=[
                io.Combo.Input(
                    "published_file",
                    display_name="published file",
                    options=[*pickles, DOWNLOAD, *(name for name in names if name not in pickles)],
                    tooltip="The published liveditor_ckpt.bin in models/diffusion_models or models/checkpoints, or a "
                    "safetensors file in bf16; or download it now. A download that was cut off goes on.",
                ),
                io.Combo.Input(
                    "weight_type",
                    display_name="weight type",
                    options=[label(name) for name in WEIGHT_TYPES],
                    default=DEFAULT,
                    tooltip="How the weights are kept, with the size of the 14B on disk. Half of the memory loses a "
                    "little precision; GGUF is read through the node pack ComfyUI-GGUF.",
                ),
                io.String.Input(
                    "name",
                    default="",
                    optional=True,
                    advanced=True,
                    tooltip="Of the new file. Empty: after the model and the weight type.",
                ),
            ],
            outputs=[
                io.AnyType.Output(
                    display_name="checkpoint",
                    tooltip="The new file's name; may be connected to Load LIVEditor's checkpoint.",
                ),
                io.String.Output(
                    display_name="report", tooltip="Name and size of the file, and what is needed no more."
                ),
            ],
            hidden=[io.Hidden.unique_id],
            is_output_node=True,
        )

    @classmethod
    def validate_inputs(cls, published_file, weight_type, **_):
        """Menus change with the files, and their words with time."""
        if published_file not in (None, DOWNLOAD) and published_file not in sources():
            return f"{published_file}: there is no such file in models/{FOLDER} or models/checkpoints."
        if weight_type is not None and _type(weight_type) not in WEIGHT_TYPES:
            return f"weight_type must be one of {', '.join(WEIGHT_TYPES)}, got {weight_type}."
        return True

    @classmethod
    def fingerprint_inputs(cls, published_file, weight_type, name="", **_):
        """Run again where the published file was replaced or the new one deleted, and not for what it wrote itself."""
        if None in (published_file, weight_type, name):
            return None
        try:
            source = _path(published_file)
            path = target(source, _folder(), _type(weight_type), name)
        except CheckpointError:
            return None  # said when it runs
        lost[path] += not is_whole(path)
        return lost[path], source and (source, os.path.getsize(source), os.path.getmtime(source))

    @classmethod
    def execute(cls, published_file, weight_type, name="") -> io.NodeOutput:
        kind = _type(weight_type)
        with named(NAME):
            if WEIGHT_TYPES[kind].ggml:
                gguf_loader(kind, ELSEWHERE)  # missed now, not when the new file is loaded
            path, report = prepare(
                _path(published_file),
                _folder(),
                kind,
                name=name,
                progress=BytesProgress(lambda line: tell(cls.hidden, line)),
            )
        tell(cls.hidden, report)  # in place of how far it was
        name = os.path.basename(path)
        return io.NodeOutput(name, report, ui={"text": (report,), "liveditor_prepared": (name,)})


def _type(shown):
    """A weight type by the menu's line or its own name."""
    return shown.partition(":")[0]


def _path(published_file):
    """None for the one to download."""
    if published_file == DOWNLOAD:
        return None
    path = folder_paths.get_full_path(sources().get(published_file, FOLDER), published_file)
    if path is None:
        raise CheckpointError(f"{published_file}: there is no such file. Put it into models/{FOLDER}.")
    return path


def _is_ours(folder, name):
    """Whether a file comes with the pack: the small model, which is ready as it is."""
    path = folder_paths.get_full_path(folder, name)
    return path is not None and Path(path).resolve().is_relative_to(PACK)


def _folder():
    """Where new models go: of the folders that the host looks in, the one of this name that is the user's."""
    folders = folder_paths.get_folder_paths(FOLDER)
    folder = next((each for each in folders if os.path.basename(os.path.normpath(each)) == FOLDER), folders[0])
    os.makedirs(folder, exist_ok=True)
    return folder
