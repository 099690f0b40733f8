"""What the canvas asks the server: what computes the attention on this machine, and whether that is faster."""

import asyncio

from ..liveditor_core.attention.config import BACKENDS
from ..liveditor_core.sampling.settings_report import speed_here
from . import host_server

PATH = "/liveditor/attention"


def register():
    """Answer GET PATH?backend=NAME with a Speed."""
    routes = host_server.routes_without(PATH)
    if routes is None:
        return

    from aiohttp import web

    @routes.get(PATH)
    async def attention(request):
        backend = request.query.get("backend")
        if backend not in BACKENDS:
            return web.json_response(
                {"error": f"backend must be one of {', '.join(BACKENDS)}, got {backend}"}, status=400
            )
        # The first answer may compile a kernel; the server goes on meanwhile.
        return web.json_response((await asyncio.to_thread(speed_here, backend))._asdict())
