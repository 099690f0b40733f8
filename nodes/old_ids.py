"""Ids of before: ids are global, and other packs have nodes of these names. Graphs saved with them go on opening."""

from comfy_api.latest import ComfyAPI, io

from . import host_server
from .compare_videos import CompareVideos
from .inspect_attention import InspectAttention
from .record_attention import RecordAttention

OLD_IDS = {"CompareVideos": CompareVideos, "InspectAttention": InspectAttention, "RecordAttention": RecordAttention}


async def register():
    """Name the nodes that stand for the old ids, which the host takes only where no pack has a node of that id."""
    if host_server.running() is None:
        return
    replacements = ComfyAPI().node_replacement
    for old_id, node in OLD_IDS.items():
        schema = node.GET_SCHEMA()
        await replacements.register(
            io.NodeReplace(
                new_node_id=schema.node_id,
                old_node_id=old_id,
                old_widget_ids=[each.id for each in schema.inputs if isinstance(each, io.WidgetInput)],
                input_mapping=[{"new_id": each.id, "old_id": each.id} for each in schema.inputs],
                output_mapping=[{"new_idx": i, "old_idx": i} for i in range(len(schema.outputs))],
            )
        )
