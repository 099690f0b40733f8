import comfy.patcher_extension
from comfy_api.latest import io

from ..liveditor_core.attention.observers import RECORD_KEY
from ..liveditor_core.inspection.record import AttentionRecord, check_numbers
from .checks import require_liveditor
from .types import CATEGORY, Record

NAME = "Record Attention"


class RecordAttention(io.ComfyNode):
    @classmethod
    def define_schema(cls):
        return io.Schema(
            node_id="LIVEditRecordAttention",
            display_name=NAME,
            category=CATEGORY,
            description="Let a sampler note what its sparse attention chooses: which parts of the source every head "
            "reads, and what is computed densely. Inspect Attention shows it.",
            search_aliases=["attention map", "inspect attention", "what did it look at", "debug attention"],
            inputs=[
                io.Model.Input(
                    "model",
                    tooltip="A LIVEditor model. The one that comes out records; the one that goes in is not changed.",
                ),
                io.String.Input(
                    "steps",
                    default="1, last",
                    tooltip="Which sampling steps to record, counted from 1: numbers and ranges with commas such "
                    'as "1, '
                    '8-12, last", or "all".',
                ),
                io.String.Input(
                    "blocks",
                    default="all",
                    tooltip="Which transformer blocks to record, counted from 0, in the same way. A block of the 14B "
                    "takes 0.3 MB of memory per step.",
                ),
            ],
            outputs=[
                io.Model.Output(tooltip="For LIVEdit Sampler or a stock sampler."),
                Record.Output("record", tooltip="For Inspect Attention. It is filled while the sampler runs."),
            ],
        )

    @classmethod
    def validate_inputs(cls, steps="all", blocks="all"):
        for label, text in (("steps", steps), ("blocks", blocks)):
            try:
                check_numbers("all" if text is None else text)  # a linked text is known only when the node runs
            except ValueError as error:
                return f"{NAME}: {label} {error}."
        return True

    @classmethod
    def execute(cls, model, steps, blocks) -> io.NodeOutput:
        require_liveditor(model, NAME)
        wrong = cls.validate_inputs(steps, blocks)
        if wrong is not True:
            raise ValueError(wrong)
        record = AttentionRecord(steps, blocks)
        m = model.clone()
        m.model_options["transformer_options"][RECORD_KEY] = record
        kind = comfy.patcher_extension.WrappersMP.OUTER_SAMPLE
        m.remove_wrappers_with_key(kind, RECORD_KEY)
        m.add_wrapper_with_key(kind, RECORD_KEY, record.run)
        return io.NodeOutput(m, record)
