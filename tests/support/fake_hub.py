"""A server that answers for the published checkpoint as the Hugging Face hub does, and fails as networks do."""

import hashlib
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from liveditor.liveditor_core.checkpoint.download import HUB_FILE, HUB_REPOSITORY


class FakeHub:
    """With `with`; serves `content`.

    cut_after: bytes after which an answer ends, each time; None for whole answers.
    gone: nothing is answered any more.
    gone_after: how many answers are given before that; None for all.
    ranges: whether it knows them.
    """

    def __init__(self, content, cut_after=None, ranges=True, sha256=None):
        self.content, self.cut_after, self.ranges, self.gone = content, cut_after, ranges, False
        self.gone_after = None
        self.sha256 = sha256 or hashlib.sha256(content).hexdigest()
        self.asked = []  # the first byte of every answer
        self.pause = threading.Event()  # set: nothing waits
        self.pause.set()

    def __enter__(self):
        hub = self

        class Handler(BaseHTTPRequestHandler):
            def log_message(self, *_):
                pass

            def do_HEAD(self):
                if hub.gone or self.path != f"/{HUB_REPOSITORY}/resolve/main/{HUB_FILE}":
                    return self.send_error(404 if not hub.gone else 503)
                self.send_response(200)
                self.send_header("X-Repo-Commit", "0" * 40)
                self.send_header("ETag", f'"{hub.sha256}"')
                self.send_header("Content-Length", str(len(hub.content)))
                self.end_headers()

            def do_GET(self):
                if hub.gone:
                    return self.send_error(503)
                asked = self.headers.get("Range", "bytes=0-")
                first = int(asked.removeprefix("bytes=").partition("-")[0]) if hub.ranges else 0
                hub.asked.append(first)
                hub.gone = hub.gone_after is not None and len(hub.asked) >= hub.gone_after  # this is the last
                self.send_response(206 if first else 200)
                self.send_header("Content-Length", str(len(hub.content) - first))
                self.end_headers()
                last = len(hub.content) if hub.cut_after is None else first + hub.cut_after
                for at in range(first, min(last, len(hub.content)), 65536):
                    hub.pause.wait()
                    self.wfile.write(hub.content[at : min(at + 65536, last)])
                self.close_connection = True

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self.endpoint = f"http://127.0.0.1:{self._server.server_address[1]}"
        threading.Thread(target=self._server.serve_forever, daemon=True).start()
        return self

    def __exit__(self, *_):
        self.pause.set()
        self._server.shutdown()
        self._server.server_close()
