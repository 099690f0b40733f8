"""LIVEditor for ComfyUI: edit a video by instruction, with in-context sparse attention."""

WEB_DIRECTORY = "./web"


async def comfy_entrypoint():
    from .liveditor_core.start import refuse_to_start

    refuse_to_start()
    from .nodes import LIVEditorExtension

    return LIVEditorExtension()
