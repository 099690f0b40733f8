"""Nodes for tests of footage, copied into the test server's custom_nodes."""

import time

from comfy_api.latest import ComfyExtension, io


class Pause(io.ComfyNode):
    """Something that takes its time between Encode Source Video and Decode Video."""

    @classmethod
    def define_schema(cls):
        return io.Schema(
            node_id="Pause",
            category="testing",
            inputs=[io.Latent.Input("samples"), io.Float.Input("seconds")],
            outputs=[io.Latent.Output()],
        )

    @classmethod
    def execute(cls, samples, seconds) -> io.NodeOutput:
        time.sleep(seconds)
        return io.NodeOutput(samples)


class RepeatEachFrame(io.ComfyNode):
    """As an interpolator would make more frames of a clip."""

    @classmethod
    def define_schema(cls):
        return io.Schema(
            node_id="RepeatEachFrame",
            category="testing",
            inputs=[io.Image.Input("images"), io.Int.Input("times")],
            outputs=[io.Image.Output()],
        )

    @classmethod
    def execute(cls, images, times) -> io.NodeOutput:
        return io.NodeOutput(images.repeat_interleave(times, dim=0))


class FootageNodes(ComfyExtension):
    async def get_node_list(self):
        return [Pause, RepeatEachFrame]


async def comfy_entrypoint():
    return FootageNodes()
