"""LIVEditor for ComfyUI, in rooms: attention, model, checkpoint, footage, vae, inspection, sampling."""
