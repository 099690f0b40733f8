import torch

from comfy_api.latest import InputImpl, Types, io

from ..liveditor_core.footage.source_video import AS_EDITED
from ..liveditor_core.inspection import plots
from ..liveditor_core.inspection.record import summary
from .types import CATEGORY, Record, Source

NAME = "Inspect Attention"


class InspectAttention(io.ComfyNode):
    @classmethod
    def define_schema(cls):
        return io.Schema(
            node_id="LIVEditInspectAttention",
            display_name=NAME,
            category=CATEGORY,
            description="See what the edit read: a heat map of the retrieved parts over the source video, and plots of "
            "retrieval, sharpness and the dense half for every recorded transformer block.",
            search_aliases=[
                "attention map",
                "heat map",
                "attention heatmap",
                "visualize attention",
                "retrieved source blocks",
            ],
            inputs=[
                Record.Input("record", tooltip="From Record Attention, whose model the sampler used."),
                Source.Input("source", tooltip="The video that was edited, from Encode Source Video."),
                io.Latent.Input(
                    "samples",
                    tooltip="The edit that the sampler gave out. It tells that the record is of the same run.",
                ),
                io.Int.Input(
                    "step",
                    default=0,
                    min=0,
                    max=1000,
                    tooltip="Which recorded step to show, counted from 1. 0: the last that was recorded.",
                ),
                io.Int.Input(
                    "block",
                    default=-1,
                    min=-1,
                    max=1000,
                    tooltip="Which transformer block the heat map shows, counted from 0. -1: the mean of all that were "
                    "recorded.",
                ),
                io.Int.Input(
                    "head",
                    default=-1,
                    min=-1,
                    max=1000,
                    advanced=True,
                    tooltip="Which attention head the heat map shows, counted from 0. -1: the mean of all.",
                ),
                io.Float.Input(
                    "opacity",
                    default=0.6,
                    min=0.0,
                    max=1.0,
                    step=0.05,
                    tooltip="How strongly the heat covers the source.",
                ),
            ],
            outputs=[
                io.Video.Output(
                    display_name="heat map",
                    tooltip="The source with the retrieved parts bright, at the edit's frame rate. Scaled to the most "
                    "retrieved part.",
                ),
                io.Image.Output(display_name="frames", tooltip="The frames of the heat map."),
                io.Image.Output(
                    display_name="plots",
                    tooltip="A row for every recorded transformer block, along the sequence of blocks of 64 tokens.",
                ),
                io.String.Output(display_name="report", tooltip="The same in numbers."),
            ],
        )

    @classmethod
    def execute(cls, record, source, samples, step, block, head, opacity) -> io.NodeOutput:
        step, heads = cls._recorded(record, source, samples["samples"], step, block)
        if head >= heads:
            raise ValueError(
                f"{NAME}: head must be one of the model's {heads}, counted from 0, got {head}. Choose another, "
                "or -1 for all."
            )
        heat = plots.heat_of(record, step, None if block < 0 else block, None if head < 0 else head)
        most = heat.max().item()
        frames = torch.stack(list(source.unedited(AS_EDITED)))
        frames = plots.over_frames(frames, heat / most if most else heat, opacity)
        video = InputImpl.VideoFromComponents(
            Types.VideoComponents(images=frames, audio=source.sound(AS_EDITED), frame_rate=source.fps)
        )
        report = (
            f"step {step}: the most retrieved part of the source is read by {most:.0%} of the heads, an average part "
            f"by {heat.mean().item():.0%}\n{summary(record, [step])}"
        )
        return io.NodeOutput(video, frames, plots.plots(record, step), report)

    @staticmethod
    def _recorded(record, source, latent, step, block):
        """The step to show and the number of heads, once it is sure that all that is asked for was recorded."""
        if record.layout is None:
            raise ValueError(
                f"{NAME}: the record must come from the run that made the latent, got an empty one. "
                "Connect Record Attention's model to the sampler, and choose steps and blocks that exist."
            )
        if record.result is None or not torch.equal(record.result.to(latent), latent):
            raise ValueError(
                f"{NAME}: the record must be of the run that made the latent, got another run's. "
                "Use a Record Attention of its own for every sampler; after that, queue again with another seed."
            )
        if not record.choices:
            raise ValueError(
                f"{NAME}: needs sparse attention, got a run that was dense everywhere ({record.dense_because}). "
                "Edit a longer clip, or choose a backend other than dense in Sparse Attention Settings."
            )
        frames, height, width = source.latent.shape[2:]
        if record.grid != (frames, -(-height // 2), -(-width // 2)):
            raise ValueError(
                f"{NAME}: the record must be of the source's size, got {record.grid} tokens for a latent of "
                f"{(frames, height, width)}. "
                "Connect the source that was edited; runs in context windows cannot be shown."
            )
        steps = sorted({at for at, _ in record.choices})
        step = step or steps[-1]
        if step not in steps:
            raise ValueError(
                f"{NAME}: step must be one that was recorded ({', '.join(map(str, steps))}), got {step}. Choose "
                "one of them, or record it in Record Attention."
            )
        blocks = sorted({of for at, of in record.choices if at == step})
        if block >= 0 and block not in blocks:
            raise ValueError(
                f"{NAME}: block must be one that was recorded ({', '.join(map(str, blocks))}), got {block}. "
                "Choose one of them, or record it in Record Attention."
            )
        return step, len(record.choices[step, blocks[0]].retrieved)
