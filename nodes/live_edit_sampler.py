from pathlib import Path

import folder_paths
from comfy_api.latest import io

from ..liveditor_core.footage.errors import FootageError
from ..liveditor_core.sampling.edit import Keeping, edit
from ..liveditor_core.sampling.part import Redo
from ..liveditor_core.sampling.windows import DEFAULT, WindowSize
from .checks import require_liveditor
from .connections import made_by
from .host_server import tell
from .types import CATEGORY, Source, named

NAME = "LIVEdit Sampler"
KEEP_EVERY = 2.0  # minutes
SOURCE_COMPUTED = {"in every step": False, "in every other step": True}


class LIVEditSampler(io.ComfyNode):
    @classmethod
    def define_schema(cls):
        return io.Schema(
            node_id="LIVEditSampler",
            display_name=NAME,
            category=CATEGORY,
            description="Edit the source video as the prompt says, however long it is. Up to the length of a window it "
            "is the same as KSampler with flow_unipc and wan_flow, with the source attached for you.",
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
                io.Latent.Input(
                    "earlier",
                    optional=True,
                    tooltip="Redo a part of an earlier edit of the same source: its LATENT, from another LIVEdit "
                    "Sampler or Load Latent. Only from redo from to redo to is edited anew, with these words and this "
                    "seed; all else stays exactly as it was.",
                ),
                io.Float.Input(
                    "redo_from",
                    display_name="redo from",
                    default=0.0,
                    min=0.0,
                    max=86400.0,
                    step=0.01,
                    optional=True,
                    advanced=True,
                    tooltip="Only with earlier: where the part to redo begins, in seconds from the first edited frame.",
                ),
                io.Float.Input(
                    "redo_to",
                    display_name="redo to",
                    default=0.0,
                    min=0.0,
                    max=86400.0,
                    step=0.01,
                    optional=True,
                    advanced=True,
                    tooltip="Only with earlier: where the part to redo ends, in seconds from the first edited frame.",
                ),
                io.Int.Input(
                    "window",
                    default=DEFAULT.frames,
                    min=9,
                    max=100001,
                    step=4,
                    optional=True,
                    advanced=True,
                    tooltip="Longer clips are edited in overlapping windows of this many frames, so that GPU memory "
                    "stays that of one window. Trained: 81.",
                ),
                io.Int.Input(
                    "overlap",
                    default=DEFAULT.overlap,
                    min=0,
                    max=1000,
                    step=4,
                    optional=True,
                    advanced=True,
                    tooltip="How many frames neighbouring windows share at least; the edit goes over from one to the "
                    "next in them. More is smoother and slower.",
                ),
                io.Float.Input(
                    "keep_every",
                    display_name="keep every",
                    default=KEEP_EVERY,
                    min=0.0,
                    max=1440.0,
                    step=0.5,
                    optional=True,
                    advanced=True,
                    tooltip="Minutes from one saving of the unfinished edit to the next, 0 for none. After a crash, an "
                    "interrupt or a restart the same run goes on from there.",
                ),
                io.Float.Input(
                    "cfg_until",
                    display_name="cfg until",
                    default=1.0,
                    min=0.0,
                    max=1.0,
                    step=0.05,
                    round=0.001,
                    optional=True,
                    advanced=True,
                    tooltip="Share of the steps that run with cfg, the first ones. The others run without the negative "
                    "prompt, in half the time. Released: 1, all.",
                ),
                io.Combo.Input(
                    "source_computed",
                    options=list(SOURCE_COMPUTED),
                    default=next(iter(SOURCE_COMPUTED)),
                    display_name="source computed",
                    optional=True,
                    advanced=True,
                    tooltip="In every other step: what the model knows of the source is kept for the step that "
                    "follows, which takes half the time and changes little. Needs more memory, and a clip that fits "
                    "in one window. Released: in every step.",
                ),
            ],
            outputs=[
                io.Latent.Output(tooltip="The edited video as a latent, for Decode Video."),
                io.String.Output(
                    display_name="report",
                    tooltip="How it was computed: attention, seconds per step, GPU memory, windows, and what it had to "
                    "do without. The log has the same.",
                ),
            ],
            hidden=[io.Hidden.unique_id, io.Hidden.dynprompt],
        )

    @classmethod
    def execute(
        cls,
        model,
        positive,
        negative,
        source,
        seed,
        steps,
        cfg,
        shift,
        mask=None,
        earlier=None,
        redo_from=0.0,
        redo_to=0.0,
        window=DEFAULT.frames,
        overlap=DEFAULT.overlap,
        keep_every=KEEP_EVERY,
        cfg_until=1.0,
        source_computed="in every step",
    ) -> io.NodeOutput:
        require_liveditor(model, NAME)
        with named(NAME):
            if earlier is None and redo_to > 0:
                raise FootageError(
                    f"redo to needs an earlier edit, got {redo_to:g} s and none. Connect its LATENT to earlier, or set "
                    "redo to to 0 to edit all."
                )
            return io.NodeOutput(
                *edit(
                    model,
                    positive,
                    negative,
                    source,
                    seed=seed,
                    steps=steps,
                    cfg=cfg,
                    shift=shift,
                    mask=mask,
                    size=WindowSize(window, overlap),
                    redo=None if earlier is None else Redo(earlier, redo_from, redo_to),
                    keeping=cls._keeping(keep_every),
                    say=lambda line: tell(cls.hidden, line),
                    cfg_until=cfg_until,
                    reuse_source=SOURCE_COMPUTED[source_computed],
                )
            )

    @classmethod
    def _keeping(cls, minutes):
        if minutes <= 0:
            return None
        folder = Path(folder_paths.get_user_directory(), "liveditor", "unfinished")
        return Keeping(folder, 60 * minutes, made_by(cls.hidden, "model", "positive", "negative"))
