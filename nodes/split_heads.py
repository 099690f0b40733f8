from comfy_api.latest import io, ui

from ..liveditor_core.model.gpus import copies_for, share_prompts
from ..liveditor_core.sampling.run_report import report_runs
from .checks import require_liveditor
from .types import CATEGORY

NAME = "Split Heads over GPUs"


class SplitHeads(io.ComfyNode):
    @classmethod
    def define_schema(cls):
        return io.Schema(
            node_id="LIVEditSplitHeads",
            display_name=NAME,
            category=CATEGORY,
            description="Compute every prompt of an edit on several GPUs of this machine at once: each has a part of "
            "the video, and a part of the attention heads. For cfg 1, or for more GPUs than prompts; with cfg above 1 "
            "and two GPUs, MultiGPU CFG Split alone is as fast. On one GPU it changes nothing.",
            search_aliases=["multi gpu", "two GPUs", "Ulysses", "sequence parallel", "head parallel"],
            inputs=[
                io.Model.Input(
                    "model",
                    tooltip="A LIVEditor model, after nodes that change it such as Load LoRA (LIVEditor). The one that "
                    "goes in is not changed.",
                ),
                io.Int.Input(
                    "gpus",
                    display_name="GPUs for each prompt",
                    default=2,
                    min=1,
                    max=8,
                    tooltip="How many compute one prompt together. To compute both prompts at once as well, put "
                    "MultiGPU CFG Split beside this node with all GPUs: four of them and 2 here give two for each "
                    "prompt.",
                ),
            ],
            outputs=[
                io.Model.Output(tooltip="For LIVEdit Sampler or a stock sampler."),
                io.String.Output("report", display_name="report", tooltip="Which GPUs compute together."),
            ],
        )

    @classmethod
    def execute(cls, model, gpus) -> io.NodeOutput:
        require_liveditor(model, NAME)
        try:
            model, text = copies_for(model, gpus)
        except ValueError as error:
            raise ValueError(f"{NAME}: {error}") from None
        share_prompts(model, gpus)
        report_runs(model)
        return io.NodeOutput(model, text, ui=ui.PreviewText(text))
