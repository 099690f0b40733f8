"""The nodes of the pack, category LIVEditor."""

import importlib
from pathlib import Path

import folder_paths
from comfy_api.latest import ComfyExtension

from ..liveditor_core import host_contract, host_optional
from ..liveditor_core.start import find_losses

MODELS = Path(__file__).resolve().parents[1] / "models"  # the small model, which users may delete
MODEL_FOLDERS = ("diffusion_models", "text_encoders", "vae", "clip_vision")  # of it, as the host calls them
NODES = {  # by name, in which file the node is, and its class
    host_contract.PREPARE: ("prepare_model", "PrepareModel"),
    host_contract.LOAD: ("load_liveditor", "LoadLIVEditor"),
    host_contract.LORA: ("load_lora", "LoadLoRA"),
    host_contract.ENCODE: ("encode_source_video", "EncodeSourceVideo"),
    host_contract.SETTINGS: ("sparse_attention_settings", "SparseAttentionSettings"),
    host_contract.TIMELINE: ("timeline", "LIVEditTimeline"),
    host_contract.SAMPLER: ("live_edit_sampler", "LIVEditSampler"),
    host_contract.DECODE: ("decode_video", "DecodeVideo"),
    host_contract.COMPARE: ("compare_videos", "CompareVideos"),
    host_contract.SPLIT: ("split_heads", "SplitHeads"),
    host_contract.RECORD: ("record_attention", "RecordAttention"),
    host_contract.INSPECT: ("inspect_attention", "InspectAttention"),
    host_contract.METRICS: ("edit_metrics", "EditMetrics"),
    host_contract.ENCODER: ("load_text_image_encoder", "LoadTextImageEncoder"),
}


class LIVEditorExtension(ComfyExtension):
    """Nothing is imported that this host cannot run."""

    async def on_load(self):
        self.losses = find_losses()
        if host_contract.LOAD not in self.losses.nodes:
            from ..liveditor_core.model import neighbours, registration

            registration.register()
            neighbours.warn_of_blind_packs(folder_paths.get_folder_paths("custom_nodes"))
        if host_optional.MENUS not in self.losses.features:
            from ..liveditor_core.sampling import flow_unipc

            flow_unipc.register()
        if not self.losses.nodes:
            from . import attention_route, fit_route, shots_route

            attention_route.register()
            fit_route.register()
            shots_route.register()
            if host_optional.OLD_IDS not in self.losses.features:
                from . import old_ids

                await old_ids.register()
        for name in MODEL_FOLDERS:
            if (MODELS / name).is_dir():
                folder_paths.add_model_folder_path(name, str(MODELS / name))

    async def get_node_list(self):
        offered = [place for name, place in NODES.items() if name not in self.losses.nodes]
        return [getattr(importlib.import_module(f".{file}", __name__), node) for file, node in offered]
