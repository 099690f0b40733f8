"""What the pack takes from ComfyUI and can do without, in the lines of `host_contract.py`."""

# By what is lost without.
MENUS = "flow_unipc and wan_flow are not in KSampler's menus; LIVEdit Sampler does without them"
OLD_IDS = "graphs saved with the ids of before do not open"
OPTIONAL = {
    OLD_IDS: (
        "comfy_api.latest.ComfyAPI()",
        "comfy_api.latest.io.NodeReplace(*, new_node_id, old_node_id, old_widget_ids, input_mapping, output_mapping)",
        "comfy_api.latest.io.WidgetInput",
    ),
    MENUS: (
        "comfy.k_diffusion.sampling",
        "comfy.model_sampling.ModelSamplingDiscreteFlow",
        "comfy.samplers.KSampler.SAMPLERS",
        "comfy.samplers.SCHEDULER_HANDLERS",
        "comfy.samplers.SCHEDULER_NAMES",
        "comfy.samplers.SchedulerHandler(handler)",
    ),
    "clips go through the VAE as the host has it, whole": (
        "comfy.ldm.wan.vae.WanVAE",
        "comfy.ldm.wan.vae.count_cache_layers(model)",
    ),
    "every fp8 layer rounds its input for itself, and the estimate of memory does not know of that": (
        "comfy.quant_ops.QuantizedTensor(qdata, layout_cls, params)",
        "comfy.quant_ops.get_layout_class(name)",
    ),
    "failures of the GPU come in the host's words": (
        "comfy.model_management.ACCELERATOR_ERROR",
        "comfy.model_management.OOM_EXCEPTION",
        "comfy.model_management.is_oom(e)",
    ),
    "python -m liveditor_core.metrics asks no models": (
        "comfy.clip_vision.load_clipvision_from_sd(sd, *, prefix, convert_keys)",
        "comfy.model_patcher.ModelPatcher(model, *, load_device, offload_device)",
    ),
    "LIVEdit Sampler shows neither progress nor previews": ("latent_preview.prepare_callback(model, steps)",),
    "a prompt that is not connected to Encode Source Video is not asked for": (
        "comfy_execution.graph_utils.ExecutionBlocker(message)",
    ),
}
# From later versions than the oldest; nothing is lost in those that have none.
NEWER = ("comfy.model_prefetch.pause_malloc_graph()",)
