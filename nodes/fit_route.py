"""What the canvas asks the server: whether the files that are chosen fit this machine at a size."""

import asyncio

from ..liveditor_core.checkpoint.weights import CheckpointError
from ..liveditor_core.model.fit import fit_of_files, lacks_ram
from . import host_server
from .load_liveditor import WEIGHT_TYPES, LoadLIVEditor

PATH = "/liveditor/fit"


def register():
    """Answer GET PATH?checkpoint=...&weight_type=...&text_encoder=...&vae=...&tokens=N with a Fit, or {error}."""
    routes = host_server.routes_without(PATH)
    if routes is None:
        return

    from aiohttp import web

    @routes.get(PATH)
    async def answer(request):
        query = request.query
        try:
            tokens = int(query["tokens"])
            names = [query[name] for name in ("checkpoint", "text_encoder", "vae")]
            weight_type = query["weight_type"]
            if tokens < 1 or weight_type not in WEIGHT_TYPES:
                raise ValueError
        except (KeyError, ValueError):
            text = "needs checkpoint, weight_type, text_encoder, vae and tokens, a number"
            return web.json_response({"error": text}, status=400)
        try:
            return web.json_response(await asyncio.to_thread(_fit, names, weight_type, tokens))
        except CheckpointError as error:
            return web.json_response({"error": str(error)})


def _fit(names, weight_type, tokens):
    paths = LoadLIVEditor.paths(*names)
    if paths[0] is None:
        raise CheckpointError(f"{names[0]}: there is no such file.")
    dtype = WEIGHT_TYPES[weight_type].get("dtype")
    found = fit_of_files(*paths, tokens, dtype and dtype.itemsize)
    return found._asdict() | {"machine": found.machine._asdict(), "lacks_ram": lacks_ram(found)}
