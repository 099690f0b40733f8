from comfy_api.latest import io, ui

from ..liveditor_core.attention.config import ATTENTION_BITS, BACKENDS, DENSE_FIRST, OPTIONS_KEY, SparseAttentionConfig
from ..liveditor_core.sampling.run_report import report_runs
from ..liveditor_core.sampling.settings_report import settings_report
from .checks import require_liveditor
from .types import CATEGORY, Source

NAME = "Sparse Attention Settings"
DENSE_HALF = {"sharpest (as released)": "sharpest", "flattest (as in the paper's figure)": "flattest"}
PRECISION = {f"{bits} bit": bits for bits in ATTENTION_BITS}
LARGEST_TRAINED = (21, 68, 120)  # latent frames, height, width of 81 frames at 960x544
assert set(DENSE_HALF.values()) == set(DENSE_FIRST)


class SparseAttentionSettings(io.ComfyNode):
    @classmethod
    def define_schema(cls):
        released = SparseAttentionConfig()
        return io.Schema(
            node_id="SparseAttentionSettings",
            display_name=NAME,
            category=CATEGORY,
            description="Trade speed against fidelity: how much of the source and of the video itself each part of "
            "the edit may look at. Without this node the model runs with the settings it was released with.",
            search_aliases=["SAR", "SRR", "flat ratio", "sparse attention", "attention backend", "speed"],
            inputs=[
                io.Model.Input(
                    "model",
                    tooltip="A LIVEditor model. The settings travel with the model that comes out; the one that goes "
                    "in is not changed.",
                ),
                io.Float.Input(
                    "sar",
                    display_name="SAR",
                    default=released.exact_kv_ratio,
                    min=0.0,
                    max=1.0,
                    step=0.0005,
                    round=0.0001,
                    tooltip="Sparse attention ratio: the share of blocks that the sparse half looks at in full detail; "
                    "the rest it sees as averages. Higher is finer and slower. Released: 0.0625.",
                ),
                io.Float.Input(
                    "srr",
                    display_name="SRR",
                    default=released.source_keep_ratio,
                    min=0.0,
                    max=1.0,
                    step=0.005,
                    round=0.0001,
                    tooltip="Source retrieval ratio: the share of the source video that each attention head keeps. "
                    "Higher stays closer to the source and is slower. Released: 0.125.",
                ),
                io.Float.Input(
                    "flat_ratio",
                    display_name="flat ratio",
                    default=released.dense_query_ratio,
                    min=0.0,
                    max=1.0,
                    step=0.01,
                    round=0.0001,
                    tooltip="The share of the video that is computed with dense attention; the rest is sparse. Higher "
                    "is finer and slower. Released: 0.5.",
                ),
                io.Combo.Input(
                    "backend",
                    options=list(BACKENDS),
                    default="auto",
                    advanced=True,
                    tooltip="What computes the sparse half. auto takes the fastest that runs here. dense switches "
                    "sparse attention off, for comparison: everything looks at everything.",
                ),
                io.Combo.Input(
                    "dense_half",
                    options=list(DENSE_HALF),
                    default=next(iter(DENSE_HALF)),
                    advanced=True,
                    tooltip="Which blocks get dense attention: those that look at few places most sharply, as the "
                    "released weights were trained, or those that look around most evenly.",
                ),
                Source.Input(
                    "source",
                    optional=True,
                    tooltip="Connect the source video to see its number of tokens and what attention will cost for it. "
                    "Changes nothing in the edit.",
                ),
                io.Combo.Input(
                    "precision_of_attention",
                    options=list(PRECISION),
                    default=next(iter(PRECISION)),
                    display_name="precision of attention",
                    optional=True,
                    advanced=True,
                    tooltip="8 bit computes the dense half with rounded numbers where a kernel for it was timed to be "
                    "the fastest here; the report says which. It errs by about 2 % of a call's output (16 bit: 0.3 %) "
                    "and needs an H100 or H200, or comfy-kitchen 0.2.29 or later, or SageAttention 2. Released: "
                    "16 bit.",
                ),
            ],
            outputs=[
                io.Model.Output(),
                io.String.Output(
                    display_name="report",
                    tooltip="What will compute the attention and why, the compute left compared with dense attention, "
                    "the number of tokens.",
                ),
            ],
        )

    @classmethod
    def execute(
        cls, model, sar, srr, flat_ratio, backend, dense_half, source=None, precision_of_attention="16 bit"
    ) -> io.NodeOutput:
        require_liveditor(model, NAME)
        config = SparseAttentionConfig.from_settings(
            sar=sar,
            srr=srr,
            flat_ratio=flat_ratio,
            dense_half=DENSE_HALF[dense_half],
            backend=backend,
            bits=PRECISION[precision_of_attention],
        )
        m = model.clone()
        m.model_options["transformer_options"][OPTIONS_KEY] = config.to_options()
        report_runs(m)
        text = settings_report(m, config, LARGEST_TRAINED if source is None else source.latent.shape[2:])
        if source is None:
            text += "\nfor 81 frames at 960x544; connect the source for your clip"
        return io.NodeOutput(m, text, ui=ui.PreviewText(text))
