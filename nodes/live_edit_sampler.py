from comfy_api.latest import io

from ..liveditor_core.sampling.edit import edit
from .checks import require_liveditor
from .types import CATEGORY, Source, named

NAME = "LIVEdit Sampler"


class LIVEditSampler(io.ComfyNode):
    @classmethod
    def define_schema(cls):
        return io.Schema(
            node_id="LIVEditSampler",
            display_name=NAME,
            category=CATEGORY,
            description="Edit the source video as the prompt says. The same as KSampler with flow_unipc and wan_flow, "
            "with the source attached for you.",
            search_aliases=["liveditor sampler", "video edit", "edit video", "instruction edit", "ksampler"],
            inputs=[
                io.Model.Input(
                    "model", tooltip="The LIVEditor model, from Load LIVEditor or through Sparse Attention Settings."
                ),
                io.Conditioning.Input("positive", tooltip="The instruction: what to change, in plain words."),
                io.Conditioning.Input(
                    "negative",
                    tooltip="What the result should not look like. LIVEditor was released with a fixed negative "
                    "prompt; the shipped workflow has it.",
                ),
                Source.Input("source", tooltip="The video to edit, from Encode Source Video."),
                io.Int.Input(
                    "seed",
                    default=42,
                    min=0,
                    max=0xFFFFFFFFFFFFFFFF,
                    control_after_generate=True,
                    tooltip="The starting noise. The same seed and settings give the same edit.",
                ),
                io.Int.Input(
                    "steps",
                    default=32,
                    min=1,
                    max=1000,
                    tooltip="More steps refine the edit and take longer. Released: 32.",
                ),
                io.Float.Input(
                    "cfg",
                    default=2.5,
                    min=0.0,
                    max=30.0,
                    step=0.1,
                    round=0.01,
                    tooltip="How strongly the instruction is followed. 1 is fastest (no negative prompt), too high "
                    "burns the colours. Released: 2.5.",
                ),
                io.Float.Input(
                    "shift",
                    default=6.0,
                    min=0.01,
                    max=100.0,
                    step=0.1,
                    advanced=True,
                    tooltip="Where the steps are spent: higher works longer on the rough layout, lower on details. "
                    "Released: 6.0.",
                ),
                io.Mask.Input(
                    "mask",
                    optional=True,
                    tooltip="Edit only here; elsewhere the sampler sees and keeps the source. Decode Video then puts "
                    "the source's own pixels back outside it.",
                ),
            ],
            outputs=[
                io.Latent.Output(tooltip="The edited video as a latent, for Decode Video."),
                io.String.Output(
                    display_name="report",
                    tooltip="How it was computed: attention, seconds per step, GPU memory, and what it had to do "
                    "without. The log has the same.",
                ),
            ],
        )

    @classmethod
    def execute(cls, model, positive, negative, source, seed, steps, cfg, shift, mask=None) -> io.NodeOutput:
        require_liveditor(model, NAME)
        with named(NAME):
            return io.NodeOutput(
                *edit(model, positive, negative, source, seed=seed, steps=steps, cfg=cfg, shift=shift, mask=mask)
            )
