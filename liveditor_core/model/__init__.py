"""The transformer, and what ComfyUI needs to know of it."""
