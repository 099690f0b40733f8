"""A node of another pack for tests: it has an id that one of ours had once."""

from comfy_api.latest import ComfyExtension, io


class CompareVideos(io.ComfyNode):
    @classmethod
    def define_schema(cls):
        return io.Schema(
            node_id="CompareVideos",
            display_name="Theirs",
            category="testing",
            is_output_node=True,
            inputs=[io.String.Input("text")],
            outputs=[io.String.Output()],
        )

    @classmethod
    def execute(cls, text) -> io.NodeOutput:
        return io.NodeOutput(f"theirs: {text}")


class Theirs(ComfyExtension):
    async def get_node_list(self):
        return [CompareVideos]


async def comfy_entrypoint():
    return Theirs()
