"""What nodes of other packs do to the model and its conditionings: what is warned of, and what is refused."""

import logging
from pathlib import Path

SPAN_KEY = "liveditor_span"  # when an instruction of LIVEdit Timeline holds

# What other models read from a conditioning and LIVEditor does not, and which nodes attach it.
FOREIGN_CONDITIONINGS = {
    "control": "a ControlNet, from Apply ControlNet",
    "concat_latent_image": "a start image or control video, from a node such as WanImageToVideo",
    "clip_vision_output": "a CLIP vision embedding, from a node such as WanImageToVideo",
    "reference_latents": "reference latents, from a node such as ReferenceLatent",
    "context_latents": "context latents, from Bernini's nodes",
    "time_dim_concat": "reference frames, from a node such as WanPhantomSubjectToVideo",
    "vace_frames": "VACE's control frames, from WanVaceToVideo",
    "camera_conditions": "a camera's path, from WanCameraImageToVideo",
    "audio_embed": "an audio embedding, from a node such as WanSoundImageToVideo",
    "pose_video_latent": "a pose video, from a node such as WanAnimateToVideo",
}


# Packs that load Wan files in processes of their own, by what their folders are called.
BLIND_PACKS = {"raylight": "Raylight"}


def warn_of_blind_packs(folders):
    """Name installed packs that would take a LIVEditor file for plain Wan.

    Args:
        folders: where packs lie, as paths.
    """
    installed = {path.name.lower() for folder in map(Path, folders) if folder.is_dir() for path in folder.iterdir()}
    for word, name in BLIND_PACKS.items():
        if any(word in each and not each.endswith(".disabled") for each in installed):
            logging.warning(
                f"LIVEditor: {name} is installed. Its loaders take a LIVEditor file for plain Wan, and the source "
                "video would be left out: load it with Load LIVEditor, and use MultiGPU CFG Split or Split Heads over "
                "GPUs for several GPUs."
            )


def is_replaced(module, name):
    """Whether a method of a module is another than its class's; the host puts the class's own back as an attribute."""
    replaced = vars(module).get(name)
    return replaced is not None and getattr(replaced, "__func__", None) is not getattr(type(module), name)


def refuse_foreign_conditionings(cond):
    """Refuse a conditioning that carries what only other models read: it would have no effect, silently.

    Args:
        cond: of the host, as `extra_conds` gets it.

    Raises:
        ValueError: names what it carries, where that comes from and the remedy.
    """
    for key, what in FOREIGN_CONDITIONINGS.items():
        if cond.get(key) is not None:
            raise ValueError(
                f"LIVEditor: the {cond.get('prompt_type', 'given')} conditioning must carry text and source alone, "
                f"got {what}. LIVEditor does not read it: remove that node; the video to edit comes from Encode Source "
                "Video."
            )


def refuse_times(cond):
    """Refuse a conditioning that holds for a time only, where nothing keeps it to that: all would be averaged.

    LIVEdit Sampler gives every one the mask of its frames in place of its time.

    Args:
        cond: of the host, as `extra_conds` gets it.
    """
    if cond.get(SPAN_KEY) is not None:
        raise ValueError(
            f"LIVEditor: the {cond.get('prompt_type', 'given')} conditioning must hold for all frames, got one with a "
            "time, from LIVEdit Timeline. Other samplers do not know times: use LIVEdit Sampler."
        )


def refuse_replaced_forward(transformer):
    """Refuse a transformer whose `forward_orig` another node replaced, as caches of the TeaCache kind do.

    Such a function computes the host's own Wan: it knows nothing of the source.

    Raises:
        ValueError: names the function and the remedy.
    """
    if is_replaced(transformer, "forward_orig"):
        replaced = transformer.forward_orig
        name = f"{getattr(replaced, '__module__', '?')}.{getattr(replaced, '__qualname__', type(replaced).__name__)}"
        raise ValueError(
            f"LIVEditor: the transformer's forward_orig must be its own, got {name} of another node, which knows "
            "nothing of the source video. Remove that node (often TeaCache or another cache); EasyCache, in ComfyUI, "
            "works."
        )


def has_replaced_layers(blocks):
    """Whether other packs compute anything within a block, and may want all of the sequence at once."""
    return any(is_replaced(module, "forward") for block in blocks for module in block.modules())


def warn_of_replaced_attention(blocks):
    if replaced := sum(is_replaced(block.self_attn, "forward") for block in blocks):
        logging.warning(
            f"LIVEditor: another node replaced the self-attention of {replaced} blocks, so SAR, SRR and flat ratio "
            "have no effect there."
        )
