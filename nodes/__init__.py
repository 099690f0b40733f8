"""The nodes of the pack, category LIVEditor."""

from comfy_api.latest import ComfyExtension

from ..liveditor_core import flow_unipc, model_config
from .decode_video import DecodeVideo
from .encode_source_video import EncodeSourceVideo
from .live_edit_sampler import LIVEditSampler
from .load_liveditor import LoadLIVEditor
from .sparse_attention_settings import SparseAttentionSettings


class LIVEditorExtension(ComfyExtension):
    async def on_load(self):
        model_config.register()
        flow_unipc.register()

    async def get_node_list(self):
        return [LoadLIVEditor, EncodeSourceVideo, SparseAttentionSettings, LIVEditSampler, DecodeVideo]
