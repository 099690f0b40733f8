"""What the canvas asks the server: what computes the attention on this machine, and whether that is faster."""

import asyncio

from ..liveditor_core.attention.config import BACKENDS
from ..liveditor_core.sampling.settings_report import speed_here
from . import host_server

PATH = "/liveditor/attention"


def register():
    """Answer GET PATH?backend=NAME with a Speed. Without a server, ComfyUI being a library, there is none to ask."""
    server = host_server.running()
    if server is None or any(route.path == PATH for route in server.routes):  # a second one would stop the server
        return

    from aiohttp import web

    @server.routes.get(PATH)
    async def attention(request):
        backend = request.query.get("backend")
        if backend not in BACKENDS:
            return web.json_response(
                {"error": f"backend must be one of {', '.join(BACKENDS)}, got {backend}"}, status=400
            )
        # The first answer may compile a kernel; the server goes on meanwhile.
        return web.json_response((await asyncio.to_thread(speed_here, backend))._asdict())
