"""LIVEditor for ComfyUI: edit a video by instruction, with in-context sparse attention."""

from .liveditor_core.start import other_copy, refuse_to_start

if not other_copy():  # whose scripts are served already
    WEB_DIRECTORY = "./web"


async def comfy_entrypoint():
    refuse_to_start()
    from .nodes import LIVEditorExtension

    return LIVEditorExtension()
