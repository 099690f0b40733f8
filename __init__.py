"""LIVEditor for ComfyUI: edit a video by instruction, with in-context sparse attention."""

WEB_DIRECTORY = "./web"


async def comfy_entrypoint():
    from .nodes import LIVEditorExtension

    return LIVEditorExtension()
