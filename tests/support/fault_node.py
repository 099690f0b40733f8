"""Nodes for tests, copied into the test server's custom_nodes.

One makes a MODEL fail in the middle of a step, one gives a name to inputs of any type.
"""

import gc

import torch

from comfy_api.latest import ComfyExtension, io

FAULTS = {
    "any": lambda: RuntimeError("any other failure"),
    "out of memory": lambda: torch.cuda.OutOfMemoryError(
        "Allocation on device 0 would exceed allowed memory. (out of memory)"
    ),
    "GPU lost": lambda: torch.AcceleratorError(
        "CUDA error: unspecified launch failure\nCUDA kernel errors might be asynchronously reported"
    ),
}


class FailInSampling(io.ComfyNode):
    @classmethod
    def define_schema(cls):
        return io.Schema(
            node_id="FailInSampling",
            category="testing",
            inputs=[io.Model.Input("model"), io.Combo.Input("fault", options=list(FAULTS)), io.Int.Input("step")],
            outputs=[io.Model.Output()],
        )

    @classmethod
    def execute(cls, model, fault, step) -> io.NodeOutput:
        def fail(args):
            options = args["transformer_options"]
            if (
                options["block_index"] == 1
                and (options["sample_sigmas"] == options["sigmas"][0]).nonzero().item() == step - 1
            ):
                raise FAULTS[fault]()
            return {"img": args["img"]}

        model = model.clone()
        model.set_model_patch(fail, "double_block")
        return io.NodeOutput(model)


class CollectGarbage(io.ComfyNode):
    """As the host does when it has been idle for ten seconds."""

    @classmethod
    def define_schema(cls):
        return io.Schema(
            node_id="CollectGarbage",
            category="testing",
            inputs=[io.Model.Input("model"), io.Int.Input("time")],
            outputs=[io.Model.Output()],
        )

    @classmethod
    def execute(cls, model, time) -> io.NodeOutput:
        gc.collect()
        return io.NodeOutput(model)


class NameOfAnyType(io.ComfyNode):
    """As many packs have them: what it gives out fits into every input, choices from a list too."""

    @classmethod
    def define_schema(cls):
        return io.Schema(
            node_id="NameOfAnyType",
            category="testing",
            inputs=[io.String.Input("name")],
            outputs=[io.AnyType.Output()],
        )

    @classmethod
    def execute(cls, name) -> io.NodeOutput:
        return io.NodeOutput(name)


class Faults(ComfyExtension):
    async def get_node_list(self):
        return [FailInSampling, CollectGarbage, NameOfAnyType]


async def comfy_entrypoint():
    return Faults()
