"""Several GPUs for each prompt: which may compute together, copies of the model for them, and who computes what."""

import itertools

import torch

import comfy.model_management
import comfy.multigpu
import comfy.patcher_extension

from .gpu_groups import GROUPS_KEY, SIZE_KEY, Group, groups_of


def copies_for(model, size):
    """A clone of a MODEL with copies of it on as many GPUs as compute one prompt, or as it has already.

    Args:
        model: the host's MODEL, a LIVEditor.
        size: how many shall compute one prompt.

    Returns:
        The MODEL, and what is to be said of it.

    Raises:
        ValueError: these GPUs cannot compute together, or the MODEL cannot be loaded for them; names rule, value and
            remedy.
    """
    heads = model.model.diffusion_model.num_heads
    if size > heads:
        raise ValueError(f"GPUs for each prompt must be at most the model's {heads} heads, got {size}. Choose fewer.")
    wanted = max(size, 1 + len(model.get_additional_models_with_key("multigpu")))
    groups = groups_of(_in_order(model)[:wanted], size)
    for group in groups:
        for one, other in itertools.combinations(group, 2):
            _refuse_pair(one, other)
    try:
        model = comfy.multigpu.create_multigpu_deepclones(model, wanted, reuse_loaded=True)
    except RuntimeError as error:
        raise ValueError(f"the model cannot be loaded for another GPU: {error}") from None
    named = "; ".join(" and ".join(map(_name, group)) for group in groups)
    if max(map(len, groups)) == 1:
        return model, f"{named}: no other GPU to split heads with; edits are computed as without this node"
    return model, f"{named}: together for each prompt"


def share_prompts(model, size):
    """Let GPUs of a MODEL compute each prompt together, in groups of so many; the MODEL passed in is changed.

    The host's copies for them are made by whoever calls this.
    """
    model.model_options["transformer_options"][SIZE_KEY] = size
    kind = comfy.patcher_extension.WrappersMP.CALC_COND_BATCH
    model.remove_wrappers_with_key(kind, SIZE_KEY)
    model.add_wrapper_with_key(kind, SIZE_KEY, _in_groups)


def _refuse_pair(one, other):
    if one.type != "cuda":
        return
    kinds = [torch.cuda.get_device_capability(each) for each in (one, other)]
    if kinds[0] != kinds[1]:
        raise ValueError(
            f"GPUs of one prompt must be of one generation, got {_name(one)} and {_name(other)}. Choose others "
            "with CUDA_VISIBLE_DEVICES, or give each prompt one GPU with MultiGPU CFG Split."
        )
    if not (torch.cuda.can_device_access_peer(one, other) and torch.cuda.can_device_access_peer(other, one)):
        raise ValueError(
            f"GPUs of one prompt must reach each other's memory, and {_name(one)} and {_name(other)} do not: what "
            "they exchange would go through the machine's RAM. Give each prompt one GPU with MultiGPU CFG Split, "
            "or each clip one with a batch."
        )


def _in_order(model):
    """The GPUs, those of the MODEL and its copies first, in the order in which the host takes them."""
    taken = [model.load_device, *(each.load_device for each in model.get_additional_models_with_key("multigpu"))]
    return taken + [each for each in comfy.model_management.get_all_torch_devices() if each not in taken]


def _name(device):
    return f"{device} ({torch.cuda.get_device_name(device)})" if device.type == "cuda" else str(device)


def _in_groups(executor, model, conds, x_in, timestep, model_options):
    """Wraps the host's calculation of all prompts in a step."""
    copies, pool = model_options.get("multigpu_clones"), model_options.get("multigpu_thread_pool")
    options = model_options.get("transformer_options", {})
    size = options.get(SIZE_KEY, 1)
    if not copies or pool is None or size < 2:
        return executor(model, conds, x_in, timestep, model_options)
    groups = {
        devices[0]: Group(devices, tuple(copies[each] for each in devices), pool)
        for devices in groups_of(list(copies), size)
    }
    changed = {**model_options, "transformer_options": {**options, GROUPS_KEY: groups}}
    if len(groups) == 1:
        del changed["multigpu_clones"]
    else:
        changed["multigpu_clones"] = {device: copies[device] for device in groups}
    return executor(model, conds, x_in, timestep, changed)
