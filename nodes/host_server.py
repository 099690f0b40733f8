"""ComfyUI's server, for what reaches beyond nodes."""

import sys


def running():
    """The server; None where ComfyUI is a library and has none."""
    return getattr(getattr(sys.modules.get("server"), "PromptServer", None), "instance", None)
