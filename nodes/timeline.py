from comfy_api.latest import io

from ..liveditor_core.sampling.timeline_conditioning import timeline_conditioning
from .types import CATEGORY, Source, named

NAME = "LIVEdit Timeline"
EXAMPLE = "0:00 make it night\n0:02.5 invert the colours"


class LIVEditTimeline(io.ComfyNode):
    @classmethod
    def define_schema(cls):
        return io.Schema(
            node_id="LIVEditTimeline",
            display_name=NAME,
            category=CATEGORY,
            description="Several instructions for one edit, each from a time of its own on. Connect it to positive of "
            "LIVEdit Sampler in place of a prompt.",
            search_aliases=["timeline", "prompt schedule", "prompt travel", "timed instructions", "shots", "scenes"],
            inputs=[
                io.Clip.Input("clip", tooltip="The text encoder, from Load LIVEditor."),
                io.String.Input(
                    "timeline",
                    multiline=True,
                    default=EXAMPLE,
                    tooltip="A line for every instruction: its time, then what to change from then on, for example "
                    "0:12.5 make it night. Times are 12.5, 0:12.5 or 1:02:03, in seconds from the first edited frame, "
                    "rising; the first is 0:00.",
                ),
                io.Float.Input(
                    "transition",
                    default=0.5,
                    min=0.0,
                    max=2.0,
                    step=0.05,
                    round=0.001,
                    tooltip="Seconds in which an instruction goes over into the next, half of them before its time. 0 "
                    "changes from one frame to the next.",
                ),
                Source.Input(
                    "source",
                    optional=True,
                    tooltip="Connect the source video to check the times against its length and to see the bar at its "
                    "real length. Changes nothing in the edit.",
                ),
            ],
            outputs=[
                io.Conditioning.Output(
                    "conditioning",
                    display_name="CONDITIONING",
                    tooltip="The instructions with their times, for LIVEdit Sampler. Stock samplers refuse it.",
                ),
                io.String.Output(display_name="report", tooltip="From when to when every instruction holds."),
            ],
        )

    @classmethod
    def execute(cls, clip, timeline, transition, source=None) -> io.NodeOutput:
        with named(NAME):
            return io.NodeOutput(
                *timeline_conditioning(
                    clip, timeline, transition, None if source is None else float(source.frames / source.fps)
                )
            )
