"""Checkpoints: check a file before it is loaded, turn the published pickle into safetensors, fetch it when asked.

Run in the pack's folder: `python -m liveditor_core.checkpoint convert IN OUT`, `... download --to FOLDER`.
"""
