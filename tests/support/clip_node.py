"""A node that gives tiny CLIP models, copied into the test server's custom_nodes."""

import os
import sys

from comfy_api.latest import ComfyExtension, io

SUPPORT = "LIVEDITOR_TEST_SUPPORT"  # environment variable: where tiny_clip.py lies


class TinyClip(io.ComfyNode):
    @classmethod
    def define_schema(cls):
        return io.Schema(
            node_id="TinyClip",
            category="testing",
            inputs=[io.Int.Input("projection")],
            outputs=[io.Clip.Output(), io.ClipVision.Output()],
        )

    @classmethod
    def execute(cls, projection) -> io.NodeOutput:
        if os.environ[SUPPORT] not in sys.path:
            sys.path.append(os.environ[SUPPORT])
        import tiny_clip

        return io.NodeOutput(tiny_clip.clip(), tiny_clip.clip_vision(projection))


class TinyClipNodes(ComfyExtension):
    async def get_node_list(self):
        return [TinyClip]


async def comfy_entrypoint():
    return TinyClipNodes()
