"""A real ComfyUI server in a process of its own, and a client for its HTTP API and websocket."""

import json
import os
import shutil
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.parse
import urllib.request
import uuid
from pathlib import Path

import websocket
from comfy_cli.workflow_to_api import convert_ui_to_api

COMFYUI, RUN, CLIPS = (Path(os.environ[f"LIVEDITOR_{name}"]) for name in ("COMFYUI", "RUN", "CLIPS"))
PACK = Path(__file__).resolve().parents[2]


class WorkflowFailed(RuntimeError):
    """A node raised; the message is what the user sees."""


class Server:
    """ComfyUI with this pack. Use as a context manager; the log is in `log`.

    Args:
        base: the folder of models, custom nodes, input and output.
        tree: of ComfyUI's code.
    """

    def __init__(self, port=None, base=RUN, arguments=(), tree=COMFYUI):
        self.port = port or _free_port()
        self.base = Path(base)
        self.log = self.base / f"server-{self.port}.log"
        cpu = [] if _has_cuda() else ["--cpu"]
        self._command = [
            sys.executable,
            "-s",
            str(tree / "main.py"),
            *cpu,
            "--listen",
            "127.0.0.1",
            "--port",
            str(self.port),
            "--disable-auto-launch",
            "--disable-api-nodes",
            "--base-directory",
            str(base),
            "--database-url",
            "sqlite:///:memory:",
            *arguments,
        ]

    def __enter__(self):
        with open(self.log, "wb") as log:
            self._process = subprocess.Popen(self._command, stdout=log, stderr=subprocess.STDOUT)
        self.client = Client(f"127.0.0.1:{self.port}")
        deadline = time.monotonic() + 180
        while True:
            try:
                self.client.get("system_stats")
                return self
            except (urllib.error.URLError, ConnectionError):
                if self._process.poll() is not None or time.monotonic() > deadline:
                    self.__exit__()
                    raise RuntimeError(f"ComfyUI did not start; its log ends:\n{self.log_text()[-3000:]}") from None
                time.sleep(0.3)

    def __exit__(self, *_):
        self._process.terminate()
        try:
            self._process.wait(20)
        except subprocess.TimeoutExpired:
            self._process.kill()

    @property
    def pid(self):
        return self._process.pid

    def wait(self):
        self._process.wait()

    def alive(self):
        return self._process.poll() is None

    def log_text(self):
        return self.log.read_text(errors="replace")


class Client:
    """The server's API as a user's own program would call it."""

    def __init__(self, address):
        self.address = address
        self.id = uuid.uuid4().hex

    def get(self, path):
        with urllib.request.urlopen(f"http://{self.address}/{path}", timeout=60) as answer:
            return json.load(answer)

    def post(self, path, body):
        request = urllib.request.Request(
            f"http://{self.address}/{path}", json.dumps(body).encode(), {"Content-Type": "application/json"}
        )
        try:
            with urllib.request.urlopen(request, timeout=60) as answer:
                return json.loads(answer.read() or b"null")
        except urllib.error.HTTPError as error:
            return json.loads(error.read() or b"null")

    def to_api(self, workflow):
        """API format of a workflow file in UI format."""
        return convert_ui_to_api(workflow, self.get("object_info"))

    def run(self, prompt, on_event=None, timeout=1200):
        """Queue an API-format prompt and wait for it.

        Args:
            prompt: API format.
            on_event: called with every websocket message: a dict, or bytes for previews.

        Returns:
            The prompt's outputs by node id.

        Raises:
            WorkflowFailed: the server refused the prompt, or a node raised.
        """
        socket_ = websocket.create_connection(f"ws://{self.address}/ws?clientId={self.id}", timeout=timeout)
        try:
            answer = self.post("prompt", {"prompt": prompt, "client_id": self.id})
            if answer.get("node_errors") or "prompt_id" not in answer:
                raise WorkflowFailed(json.dumps(answer))
            while True:
                message = socket_.recv()
                message = json.loads(message) if isinstance(message, str) else message
                if on_event is not None:
                    on_event(message)
                if not isinstance(message, dict) or message["data"].get("prompt_id") != answer["prompt_id"]:
                    continue
                if message["type"] == "execution_error":
                    raise WorkflowFailed(
                        f"{message['data']['node_type']}: {message['data']['exception_message'].strip()}"
                    )
                if message["type"] == "execution_interrupted":
                    raise WorkflowFailed("interrupted")
                if message["type"] == "execution_success":
                    return self._outputs(answer["prompt_id"])
        finally:
            socket_.close()

    def _outputs(self, prompt_id):
        """What a finished prompt gave out; the history is written a moment after the message that it succeeded."""
        for _ in range(100):
            history = self.get(f"history/{prompt_id}")
            if prompt_id in history:
                return history[prompt_id]["outputs"]
            time.sleep(0.05)
        raise WorkflowFailed(f"the server forgot prompt {prompt_id}")


def nodes_of(prompt, class_type):
    """The nodes of one class in an API-format prompt."""
    return [node for node in prompt.values() if node["class_type"] == class_type]


def key_of(prompt, class_type):
    """The id of the only node of a class."""
    (key,) = [key for key, node in prompt.items() if node["class_type"] == class_type]
    return key


def set_inputs(prompt, class_type, **values):
    """Set inputs of the only node of a class."""
    prompt[key_of(prompt, class_type)]["inputs"].update(values)


def remove(prompt, class_type):
    """Take the nodes of a class, and what hangs on them, out of a prompt."""
    gone = {key for key, node in prompt.items() if node["class_type"] == class_type}
    while more := {
        key
        for key, node in prompt.items()
        if key not in gone and any(isinstance(v, list) and v[0] in gone for v in node["inputs"].values())
    }:
        gone |= more
    for key in gone:
        del prompt[key]


def saved_file(outputs, base=RUN):
    """Path of the video that a Save Video node wrote, in the server's base folder."""
    for output in outputs.values():
        for kind in ("images", "video", "gifs"):
            for item in output.get(kind, []):
                return Path(base) / item["type"] / item["subfolder"] / item["filename"]
    raise WorkflowFailed(f"the workflow saved no video: {outputs}")


def link_or_copy(path, target):
    """Put a file at another place without copying it, where the system allows that."""
    try:
        Path(target).symlink_to(path)
    except OSError:
        shutil.copy(path, target)


def _free_port():
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


def _has_cuda():
    import torch

    return torch.cuda.is_available()
