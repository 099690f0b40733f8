"""What the pack takes from ComfyUI, and what becomes of the pack where something of it is missing.

A line is a name of the host's code with the parameters that are passed to it, by the host's names for them. `def`
stands before methods that are overridden, with all of their parameters; `Class().name` is set on objects, so that it
cannot be looked for before there is one. A test compares all of this with the shipped code and with the host.
"""

import importlib

OLDEST = (0, 30)  # ComfyUI

LOAD, ENCODE, SETTINGS, SAMPLER = (
    "Load LIVEditor",
    "Encode Source Video",
    "Sparse Attention Settings",
    "LIVEdit Sampler",
)
DECODE, COMPARE, RECORD, INSPECT = "Decode Video", "Compare Videos", "Record Attention", "Inspect Attention"
LORA, TIMELINE, PREPARE = "Load LoRA (LIVEditor)", "LIVEdit Timeline", "Prepare LIVEditor Model"
SPLIT, ENCODER = "Split Heads over GPUs", "Load Small Text-Image Encoder"
NODES = (PREPARE, LOAD, LORA, ENCODE, SETTINGS, TIMELINE, SAMPLER, DECODE, COMPARE, SPLIT, RECORD, INSPECT, ENCODER)

# By the nodes that cannot be without.
MODEL_NODES = (LOAD, LORA, ENCODE, SETTINGS, TIMELINE, SAMPLER, DECODE, SPLIT, RECORD)
NEEDED = {
    NODES: (
        "comfy_api.latest.ComfyExtension",
        "def comfy_api.latest.ComfyExtension.get_node_list()",
        "def comfy_api.latest.ComfyExtension.on_load()",
        "comfy.model_management.throw_exception_if_processing_interrupted()",
        "comfy.utils.ProgressBar(total)",
        "comfy_api.latest.Input.Video",
        "def comfy_api.latest.Input.Video.as_trimmed(start_time, duration, strict_duration)",
        "comfy_api.latest.Input.Video.get_active_trim_window()",
        "def comfy_api.latest.Input.Video.get_bit_depth()",
        "def comfy_api.latest.Input.Video.get_components()",
        "def comfy_api.latest.Input.Video.get_container_format()",
        "def comfy_api.latest.Input.Video.get_dimensions()",
        "def comfy_api.latest.Input.Video.get_duration()",
        "def comfy_api.latest.Input.Video.get_frame_count()",
        "def comfy_api.latest.Input.Video.get_frame_rate()",
        "def comfy_api.latest.Input.Video.get_stream_source()",
        "def comfy_api.latest.Input.Video.save_to(path, format, codec, metadata, bit_depth, crf)",
        "comfy_api.latest.io.AnyType.Output(*, display_name, tooltip)",
        "comfy_api.latest.io.Audio.Input(id, *, optional, tooltip)",
        "comfy_api.latest.io.Boolean.Input(id, *, optional, tooltip, default)",
        "comfy_api.latest.io.Hidden.dynprompt",
        "comfy_api.latest.io.Hidden.unique_id",
        "comfy_api.latest.io.String.Output(id, *, display_name, tooltip)",
        "comfy_api.latest.Input",
        "comfy_api.latest.InputImpl",
        "comfy_api.latest.InputImpl.VideoFromComponents(components)",
        "comfy_api.latest.InputImpl.VideoFromFile",
        "comfy_api.latest.Types",
        "comfy_api.latest.Types.VideoComponents(*, images, frame_rate, audio)",
        "comfy_api.latest.io",
        "comfy_api.latest.io.Clip.Input(id, *, tooltip)",
        "comfy_api.latest.io.Clip.Output(*, tooltip)",
        "comfy_api.latest.io.Combo.Input(id, *, options, display_name, optional, tooltip, default, advanced)",
        "comfy_api.latest.io.ComfyNode",
        "def comfy_api.latest.io.ComfyNode.define_schema()",
        "def comfy_api.latest.io.ComfyNode.execute(**kwargs)",
        "def comfy_api.latest.io.ComfyNode.fingerprint_inputs(**kwargs)",
        "def comfy_api.latest.io.ComfyNode.validate_inputs(**kwargs)",
        "comfy_api.latest.io.Conditioning.Input(id, *, optional, tooltip)",
        "comfy_api.latest.io.Conditioning.Output(id, *, display_name, tooltip)",
        "comfy_api.latest.io.Custom(io_type)",
        "comfy_api.latest.io.Float.Input(id, *, display_name, optional, tooltip, default, min, max, step, round, "
        "advanced)",
        "comfy_api.latest.io.FolderType.temp",
        "comfy_api.latest.io.Image",
        "comfy_api.latest.io.Image.Output(*, display_name, tooltip)",
        "comfy_api.latest.io.Int.Input(id, *, display_name, optional, tooltip, default, min, max, step, "
        "control_after_generate, advanced)",
        "comfy_api.latest.io.Latent.Input(id, *, optional, tooltip)",
        "comfy_api.latest.io.Latent.Output(id, *, tooltip)",
        "comfy_api.latest.io.Mask.Input(id, *, optional, tooltip)",
        "comfy_api.latest.io.Model.Input(id, *, tooltip)",
        "comfy_api.latest.io.Model.Output(*, tooltip)",
        "comfy_api.latest.io.MultiType.Input(id, *, types, tooltip)",
        "comfy_api.latest.io.NodeOutput(*args, ui)",
        "comfy_api.latest.io.Schema(*, node_id, display_name, category, inputs, outputs, hidden, description, "
        "search_aliases, is_output_node)",
        "comfy_api.latest.io.String.Input(id, *, display_name, optional, tooltip, multiline, default, advanced)",
        "comfy_api.latest.io.Vae.Input(id, *, tooltip)",
        "comfy_api.latest.io.Vae.Output()",
        "comfy_api.latest.io.Video",
        "comfy_api.latest.io.Video.Input(id, *, tooltip)",
        "comfy_api.latest.io.Video.Output(*, display_name, tooltip)",
        "comfy_api.latest.ui",
        "comfy_api.latest.ui.PreviewText(value)",
        "comfy_api.latest.ui.SavedResult(filename, subfolder, type)",
        "folder_paths.add_model_folder_path(folder_name, full_folder_path)",
        "folder_paths.folder_names_and_paths",
        "folder_paths.get_filename_list(folder_name)",
        "folder_paths.get_folder_paths(folder_name)",
        "folder_paths.get_full_path(folder_name, filename)",
        "folder_paths.get_save_image_path(filename_prefix, output_dir)",
        "folder_paths.get_temp_directory()",
    ),
    MODEL_NODES: (
        "folder_paths.get_user_directory()",
        "comfy.cli_args.args",
        "comfy.conds.CONDConstant",
        "comfy.conds.CONDConstant().cond",
        "def comfy.conds.CONDConstant.size()",
        "comfy.conds.CONDNoiseShape(cond)",
        "comfy.conds.CONDRegular(cond)",
        "comfy.ldm.common_dit.pad_to_patch_size(img, patch_size)",
        "comfy.ldm.modules.attention.optimized_attention(q, k, v, *, heads, skip_reshape, "
        "skip_output_reshape, transformer_options)",
        "comfy.ldm.wan.model.WanAttentionBlock",
        "comfy.ldm.wan.model.WanAttentionBlock.__init__(cross_attn_type, dim, ffn_dim, num_heads, window_size, "
        "qk_norm, cross_attn_norm, eps, *, operation_settings)",
        "comfy.ldm.wan.model.WanAttentionBlock().eps",
        "comfy.ldm.wan.model.WanAttentionBlock().norm3",
        "def comfy.ldm.wan.model.WanAttentionBlock.forward(x, e, freqs, context, context_img_len, transformer_options)",
        "comfy.ldm.wan.model.WanModel",
        "comfy.ldm.wan.model.WanModel.__init__(*, patch_size, in_dim, dim, wan_attn_block_class, device, dtype, "
        "operations, **)",
        "def comfy.ldm.wan.model.WanModel._forward(x, timestep, context, clip_fea, time_dim_concat, "
        "transformer_options, **kwargs)",
        "comfy.ldm.wan.model.WanModel().blocks",
        "comfy.ldm.wan.model.WanModel().dim",
        "def comfy.ldm.wan.model.WanModel.forward_orig(x, t, context, clip_fea, freqs, transformer_options, **kwargs)",
        "comfy.ldm.wan.model.WanModel().freq_dim",
        "comfy.ldm.wan.model.WanModel().head",
        "comfy.ldm.wan.model.WanModel().num_heads",
        "comfy.ldm.wan.model.WanModel().patch_embedding",
        "comfy.ldm.wan.model.WanModel().patch_size",
        "comfy.ldm.wan.model.WanModel.rope_encode(t, h, w, *, device, dtype, transformer_options)",
        "comfy.ldm.wan.model.WanModel().text_embedding",
        "comfy.ldm.wan.model.WanModel().time_embedding",
        "comfy.ldm.wan.model.WanModel().time_projection",
        "comfy.ldm.wan.model.WanModel.unpatchify(x, grid_sizes)",
        "comfy.ldm.wan.model.WanSelfAttention",
        "comfy.ldm.wan.model.WanSelfAttention.__init__(dim, num_heads, window_size, qk_norm, eps, *, "
        "operation_settings)",
        "def comfy.ldm.wan.model.WanSelfAttention.forward(x, freqs, transformer_options)",
        "comfy.ldm.wan.model.WanSelfAttention().k",
        "comfy.ldm.wan.model.WanSelfAttention().head_dim",
        "comfy.ldm.wan.model.WanSelfAttention().norm_k",
        "comfy.ldm.wan.model.WanSelfAttention().norm_q",
        "comfy.ldm.wan.model.WanSelfAttention().num_heads",
        "comfy.ldm.wan.model.WanSelfAttention().o",
        "comfy.ldm.wan.model.WanSelfAttention().q",
        "comfy.ldm.wan.model.WanSelfAttention().v",
        "comfy.ldm.wan.model.WanT2VCrossAttention",
        "def comfy.ldm.wan.model.WanT2VCrossAttention.forward(x, context, transformer_options, **kwargs)",
        "comfy.ldm.wan.model.WanT2VCrossAttention().head_dim",
        "comfy.ldm.wan.model.WanT2VCrossAttention().k",
        "comfy.ldm.wan.model.WanT2VCrossAttention().norm_k",
        "comfy.ldm.wan.model.WanT2VCrossAttention().norm_q",
        "comfy.ldm.wan.model.WanT2VCrossAttention().num_heads",
        "comfy.ldm.wan.model.WanT2VCrossAttention().o",
        "comfy.ldm.wan.model.WanT2VCrossAttention().q",
        "comfy.ldm.wan.model.WanT2VCrossAttention().v",
        "comfy.ldm.wan.model.repeat_e(e, x)",
        "comfy.ldm.wan.model.sinusoidal_embedding_1d(dim, position)",
        "comfy.model_base.BaseModel.__init__(model_config, model_type, *, device, unet_model)",
        "comfy.model_base.ModelType.FLOW",
        "comfy.model_base.WAN21",
        "comfy.model_base.WAN21().diffusion_model",
        "comfy.model_base.WAN21().current_patcher",
        "def comfy.model_base.WAN21._apply_model(x, t, c_concat, c_crossattn, control, transformer_options, **kwargs)",
        "def comfy.model_base.WAN21.extra_conds(**kwargs)",
        "def comfy.model_base.WAN21.extra_conds_shapes(**kwargs)",
        "comfy.model_base.WAN21.get_dtype()",
        "comfy.model_base.WAN21.get_dtype_inference()",
        "comfy.model_base.WAN21().manual_cast_dtype",
        "def comfy.model_base.WAN21.memory_required(input_shape, cond_shapes)",
        "comfy.model_base.WAN21().model_config",
        "comfy.model_base.WAN21.process_latent_in(latent)",
        "comfy.model_management.cast_to(weight, dtype, device)",
        "comfy.model_management.pin_memory(tensor)",
        "comfy.model_management.unpin_memory(tensor)",
        "comfy.model_management.dtype_size(dtype)",
        "comfy.model_management.get_torch_device()",
        "comfy.sd.load_lora_for_models(model, clip, lora, strength_model, strength_clip, *, lora_metadata)",
        "comfy.model_management.soft_empty_cache()",
        "comfy.model_patcher.ModelPatcher.get_attachment(key)",
        "comfy.model_patcher.ModelPatcher.clone()",
        "comfy.model_patcher.ModelPatcher().model",
        "comfy.model_patcher.ModelPatcher().model_options",
        "comfy.ops.cast_bias_weight(s, input, *, dtype, device, bias_dtype, offloadable)",
        "comfy.ops.uncast_bias_weight(s, weight, bias, offload_stream)",
        "comfy.sd.CLIPType.WAN",
        "comfy.sd.VAE(*, sd, metadata)",
        "comfy.sd.VAE().latent_channels",
        "comfy.sd.VAE().latent_dim",
        "comfy.sd.VAE().patcher",
        "comfy.sd.VAE.throw_exception_if_invalid()",
        "comfy.sd.load_clip(*, ckpt_paths, embedding_directory, clip_type)",
        "comfy.sd.load_diffusion_model(unet_path, *, model_options)",
        "comfy.sd.load_vae_patcher",
        "comfy.supported_models.WAN21_T2V",
        "def comfy.supported_models.WAN21_T2V.get_model(state_dict, prefix, device)",
        "def comfy.supported_models.WAN21_T2V.matches(unet_config, state_dict, unet_key_prefix)",
        "def comfy.supported_models.WAN21_T2V.process_unet_state_dict(state_dict)",
        "comfy.supported_models.WAN21_T2V.sampling_settings",
        "comfy.supported_models.WAN21_T2V.supported_inference_dtypes",
        "comfy.supported_models.models",
        "comfy.text_encoders.wan.WanT5Model",
        "def comfy.text_encoders.wan.WanT5Model.encode_token_weights(token_weight_pairs)",
        "comfy.text_encoders.wan.WanT5Tokenizer",
        "comfy.text_encoders.wan.WanT5Tokenizer.__init__(embedding_directory, tokenizer_data)",
        "def comfy.text_encoders.wan.WanT5Tokenizer.tokenize_with_weights(text, return_word_ids, **kwargs)",
        "node_helpers.conditioning_set_values(conditioning, values)",
    ),
    (*MODEL_NODES, ENCODER): (
        "comfy.model_patcher.ModelPatcher().cached_patcher_init",
        "comfy.sd.CLIP(target, *, tokenizer_data, parameters, state_dict, model_options, disable_dynamic)",
        "comfy.sd.CLIP().patcher",
        "comfy.supported_models_base.ClipTarget(tokenizer, clip)",
        "comfy.utils.calculate_parameters(sd)",
        "comfy.utils.load_torch_file(ckpt, *, safe_load, return_metadata)",
    ),
    (ENCODER,): (
        "comfy.clip_model.CLIPTextModel",
        "comfy.clip_model.CLIPTextModel.__init__(config_dict, dtype, device, operations)",
        "comfy.clip_model.CLIPTextModel.set_input_embeddings(embeddings)",
        "comfy.clip_vision.ClipVisionModel(json_config)",
        "comfy.clip_vision.ClipVisionModel.get_sd()",
        "comfy.clip_vision.ClipVisionModel.load_sd(sd)",
        "comfy.sd.CLIP().cond_stage_model",
        "comfy.sd1_clip.SD1ClipModel",
        "comfy.sd1_clip.SD1ClipModel.__init__(*, device, dtype, model_options, clip_model, name)",
        "comfy.sd1_clip.SD1Tokenizer",
        "comfy.sd1_clip.SD1Tokenizer.__init__(embedding_directory, tokenizer_data, *, tokenizer, name)",
        "comfy.sd1_clip.SDClipModel",
        "comfy.sd1_clip.SDClipModel.__init__(*, device, max_length, textmodel_json_config, dtype, model_class, "
        "special_tokens, model_options)",
        "comfy.sd1_clip.SDTokenizer",
        "comfy.sd1_clip.SDTokenizer.__init__(tokenizer_path, *, max_length, pad_with_end, embedding_key, "
        "tokenizer_class, has_start_token, pad_token)",
        "comfy.text_encoders.spiece_tokenizer.SPieceTokenizer",
        "comfy_api.latest.io.ClipVision.Output(*, tooltip)",
    ),
    (TIMELINE,): (
        "comfy.sd.CLIP.encode_from_tokens_scheduled(tokens)",
        "comfy.sd.CLIP.tokenize(text)",
        "folder_paths.get_annotated_filepath(name)",
        "folder_paths.get_output_directory()",
    ),
    (DECODE,): (
        "comfy.utils.save_torch_file(sd, ckpt)",
        "folder_paths.get_input_directory()",
    ),
    (ENCODE, SAMPLER, DECODE): (
        "comfy.ldm.wan.vae.WanVAE().conv1",
        "comfy.ldm.wan.vae.WanVAE().conv2",
        "comfy.ldm.wan.vae.WanVAE().decoder",
        "comfy.ldm.wan.vae.WanVAE().encoder",
        "comfy.model_management.cuda_device_context(device)",
        "comfy.model_management.load_models_gpu(models, *, memory_required, force_full_load)",
        "comfy.model_management.raise_non_oom(e)",
        "comfy.sd.VAE.decode(samples_in)",
        "comfy.sd.VAE.decode_tiled(samples, *, tile_x, tile_y, overlap, tile_t, overlap_t)",
        "comfy.sd.VAE().device",
        "comfy.sd.VAE().disable_offload",
        "comfy.sd.VAE.encode(pixel_samples)",
        "comfy.sd.VAE().first_stage_model",
        "comfy.sd.VAE().memory_used_decode",
        "comfy.sd.VAE().memory_used_encode",
        "comfy.sd.VAE().output_device",
        "comfy.sd.VAE().process_input",
        "comfy.sd.VAE().process_output",
        "comfy.sd.VAE().vae_dtype",
        "comfy.sd.VAE.vae_output_dtype()",
    ),
    (LOAD, SETTINGS, SAMPLER): (
        "comfy.model_management.current_loaded_models",
        "comfy.model_management.extra_reserved_memory()",
        "comfy.model_management.get_free_memory(dev)",
        "comfy.model_management.get_total_memory(dev)",
        "comfy.model_management.minimum_inference_memory()",
        "comfy.model_patcher.ModelPatcher.model_size()",
    ),
    (SAMPLER, SPLIT): (
        "comfy.model_patcher.ModelPatcher().load_device",
        "comfy.model_patcher.ModelPatcher.get_additional_models_with_key(key)",
    ),
    (SPLIT,): (
        "comfy.model_management.get_all_torch_devices()",
        "comfy.multigpu.create_multigpu_deepclones(model, max_gpus, *, reuse_loaded)",
        "comfy.patcher_extension.WrappersMP.CALC_COND_BATCH",
    ),
    (LOAD, SETTINGS, SAMPLER, SPLIT, RECORD): (
        "comfy.model_patcher.ModelPatcher.add_wrapper_with_key(wrapper_type, key, wrapper)",
        "comfy.model_patcher.ModelPatcher.remove_wrappers_with_key(wrapper_type, key)",
        "comfy.patcher_extension.WrappersMP.OUTER_SAMPLE",
        "comfy.patcher_extension.WrappersMP.SAMPLER_SAMPLE",
        "comfy.samplers.CFGGuider().model_patcher",
        "comfy.samplers.CFGGuider().conds",
        "comfy.samplers.CFGGuider().inner_model",
    ),
    (SAMPLER,): (
        "comfy.context_windows.ContextHandlerABC",
        "def comfy.context_windows.ContextHandlerABC.execute(calc_cond_batch, model, conds, x_in, timestep, "
        "model_options)",
        "def comfy.context_windows.ContextHandlerABC.get_resized_cond(cond_in, x_in, window, device)",
        "def comfy.context_windows.ContextHandlerABC.should_use_context(model, conds, x_in, timestep, model_options)",
        "comfy.context_windows.create_prepare_sampling_wrapper(model)",
        "comfy.model_base.WAN21().model_sampling",
        "comfy.model_patcher.ModelPatcher().patches",
        "comfy.patcher_extension.CallbacksMP.ON_CLONE",
        "comfy.model_base.model_sampling(model_config, model_type)",
        "comfy.model_patcher.ModelPatcher.add_object_patch(name, obj)",
        "comfy.sample.prepare_noise(latent_image, seed)",
        "comfy.sample.sample_custom(model, noise, cfg, sampler, sigmas, positive, negative, latent_image, *, "
        "noise_mask, callback, disable_pbar, seed)",
        "comfy.samplers.KSAMPLER(sampler_function, *, extra_options)",
        "comfy.patcher_extension.WrappersMP.PREDICT_NOISE",
        "comfy.samplers.CFGGuider().cfg",
        "comfy.utils.PROGRESS_BAR_ENABLED",
    ),
}

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
    "LIVEdit Sampler shows neither progress nor previews": ("latent_preview.prepare_callback(model, steps)",),
    "a prompt that is not connected to Encode Source Video is not asked for": (
        "comfy_execution.graph_utils.ExecutionBlocker(message)",
    ),
}
# From later versions than the oldest; nothing is lost in those that have none.
NEWER = ("comfy.model_prefetch.pause_malloc_graph()",)


def name_of(line):
    """The name in a line; None if it is set on objects."""
    return None if "()." in line else line.removeprefix("def ").partition("(")[0]


def missing(lines):
    """The names among some lines that this host does not have."""
    return [name for name in map(name_of, lines) if name is not None and not _exists(name)]


def _exists(name):
    first, *others = name.split(".")
    try:
        found, path = importlib.import_module(first), first
        for part in others:
            path += f".{part}"
            found = getattr(found, part) if hasattr(found, part) else importlib.import_module(path)
    except ImportError:
        return False
    return True
