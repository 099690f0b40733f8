"""ComfyUI's server, for what reaches beyond nodes."""

import sys


def running():
    """The server; None where ComfyUI is a library and has none."""
    return getattr(getattr(sys.modules.get("server"), "PromptServer", None), "instance", None)


def routes_without(path):
    """The server's routes, to add one of this path.

    None where there is no server to ask, or it has such a route: a second one would stop it.
    """
    server = running()
    return None if server is None or any(route.path == path for route in server.routes) else server.routes


def tell(hidden, line):
    """Show a line on the node that is at work. Args: hidden, of its class, with unique_id."""
    server = running()
    if server is not None and hidden is not None:
        server.send_progress_text(line, hidden.unique_id)
