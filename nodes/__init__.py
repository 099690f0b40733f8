"""The nodes of the pack, category LIVEditor."""

from pathlib import Path

import folder_paths
from comfy_api.latest import ComfyExtension

from ..liveditor_core.model import registration
from ..liveditor_core.sampling import flow_unipc
from . import attention_route, old_ids
from .compare_videos import CompareVideos
from .decode_video import DecodeVideo
from .encode_source_video import EncodeSourceVideo
from .inspect_attention import InspectAttention
from .live_edit_sampler import LIVEditSampler
from .load_liveditor import LoadLIVEditor
from .load_lora import LoadLoRA
from .record_attention import RecordAttention
from .sparse_attention_settings import SparseAttentionSettings

MODELS = Path(__file__).resolve().parents[1] / "models"  # the small model, in the host's own folder names


class LIVEditorExtension(ComfyExtension):
    async def on_load(self):
        registration.register()
        flow_unipc.register()
        await old_ids.register()
        attention_route.register()
        for folder in MODELS.iterdir():
            folder_paths.add_model_folder_path(folder.name, str(folder))

    async def get_node_list(self):
        return [
            LoadLIVEditor,
            LoadLoRA,
            EncodeSourceVideo,
            SparseAttentionSettings,
            LIVEditSampler,
            DecodeVideo,
            CompareVideos,
            RecordAttention,
            InspectAttention,
        ]
