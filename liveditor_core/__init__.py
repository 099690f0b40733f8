"""LIVEditor for ComfyUI.

The model, its in-context sparse attention, its sampler, its checkpoints and its video geometry.
"""
