"""A headless ComfyUI server in a process of its own, and what is asked of it over HTTP and websocket."""

import asyncio
import json
import os
import socket
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
import uuid
from pathlib import Path
from typing import NamedTuple

import aiohttp
import psutil
import yaml

from .errors import BatchError, Interrupted, JobFailed, PromptRefused, ServerDidNotStart, ServerDied
from .living import find, named

DIRECT = urllib.request.build_opener(urllib.request.ProxyHandler({}))  # no proxy is asked for this machine
# In a node's message, where the GPU will not answer until the server is started again.
BROKEN_GPU = ("CUDA error", "cudaError", "device-side assert", "CUBLAS_STATUS", "CUDNN_STATUS", "AcceleratorError")
EXTRA_PATHS = "--extra-model-paths-config"  # ComfyUI's own word for a file that names more folders of models
# What is given to every server here, and cannot be given twice; the user's base folder has an argument of its own.
OURS = ("--listen", "--port", "--tls-keyfile", "--tls-certfile", "--base-directory", "--input-directory")
OURS += ("--output-directory", "--temp-directory", "--user-directory", "--database-url")
CPU_TIME = Path("/sys/fs/cgroup/cpu.max")  # of Linux: time given in a period, and the period
START = 600  # seconds that a server may take to answer: custom nodes import, disks are slow
PROCESS = "server.json"  # in a worker's folder: which process guards its server
LOG = "server.log"
SERVERS = "LIVEDITOR_SERVERS"  # in their environment: how many share the machine's RAM
THREADS = "OMP_NUM_THREADS"  # there, too: how many threads PyTorch takes


class ComfyUI(NamedTuple):
    """How ComfyUI is started on a machine."""

    code: Path  # folder of main.py
    base: Path | None = None  # its base directory, where that is another
    python: str = sys.executable
    arguments: tuple = ()
    servers: int = 1  # that run on the machine at once
    threads: str | None = os.environ.get(THREADS)  # of each, as the user chose where the batch was started

    def require_free_arguments(self):
        """Refuse arguments that a batch gives itself.

        Raises:
            BatchError: one of them is there.
        """
        for word in self.arguments:
            name = word.partition("=")[0]
            if len(name) > 4 and any(each.startswith(name) for each in OURS):  # the host takes the beginning of a name
                raise BatchError(
                    f"--server: must not hold {name}, which the batch gives to every server itself. Leave it out; "
                    "models of another base folder are found by --base FOLDER, or by ComfyUI's extra_model_paths.yaml."
                )

    def on_cpu(self) -> "ComfyUI":
        """Told to compute without a GPU, where there may be none that it would find by itself."""
        others = sys.platform == "darwin" or Path("/dev/kfd").exists()  # of Apple and AMD
        return self if others or "--cpu" in self.arguments else self._replace(arguments=(*self.arguments, "--cpu"))

    def model_folders(self) -> list[Path]:
        """Where it looks for files of models, those folders included that the user named in a file for it.

        Raises:
            BatchError: that file cannot be read.
        """
        default = (self.base or self.code) / "models"
        found = sorted(default.iterdir()) if default.is_dir() else []
        named = [value for word, value in zip(self.arguments, self.arguments[1:], strict=False) if word == EXTRA_PATHS]
        for file in (self.code / "extra_model_paths.yaml", *map(Path, named)):
            if file.is_file():
                found += _folders_in(file)
        return [folder for folder in dict.fromkeys(found) if folder.is_dir()]


def _cores() -> int:
    """That this process may use: of a container's as many as it was given time for."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    try:
        time_given, period = map(int, CPU_TIME.read_text().split())
    except (OSError, ValueError):  # no container, or without a limit
        return cores
    return max(1, min(cores, time_given // period))


def _folders_in(file):
    """The folders that a file of ComfyUI's for more model paths names."""
    try:
        groups = [group for group in (yaml.safe_load(file.read_text(encoding="utf-8")) or {}).values() if group]
        found = []
        for group in groups:
            base = file.parent / os.path.expandvars(os.path.expanduser(group.get("base_path", "")))
            for key, text in group.items():
                if isinstance(text, str) and key != "base_path":
                    found += [(base / line.strip()).resolve() for line in text.split("\n") if line.strip()]
        return found
    except (OSError, ValueError, AttributeError, yaml.YAMLError) as error:
        raise BatchError(f"{file}: cannot be read as ComfyUI's list of model folders: {error}") from None


class Server:
    """Of one worker.

    Args:
        folder: of the worker: input, output and temp of the server, its log.
        user: ComfyUI's user folder, where unfinished edits are kept; servers may share one.
        gpu: number of the GPU that it sees, None for all there are.
    """

    def __init__(self, comfyui: ComfyUI, folder: Path, user: Path, gpu: str | None):
        self._comfyui, self.folder, self._user, self._gpu = comfyui, Path(folder), Path(user), gpu
        self._process = self._address = self._nodes = None
        self._starting, self._stop_starting = False, threading.Event()

    @property
    def input(self) -> Path:
        return self.folder / "input"

    def start(self):
        """Start it, unless it runs.

        Raises:
            ServerDidNotStart: with the end of its log.
        """
        try:
            self._start()
        except OSError as error:
            raise ServerDidNotStart(f"{type(error).__name__}: {error}") from None

    def _start(self):
        if self.running():
            return
        self.stop()
        self._stop_starting.clear()
        self._starting = True
        try:
            self._start_anew()
        finally:
            self._starting = False

    def _start_anew(self):
        for name in ("input", "output", "temp"):
            (self.folder / name).mkdir(parents=True, exist_ok=True)
        self._user.mkdir(parents=True, exist_ok=True)
        port = _free_port()
        base = [] if self._comfyui.base is None else ["--base-directory", self._comfyui.base]
        guard = [sys.executable, "-s", Path(__file__).with_name("guard.py"), os.getpid()]
        command = [*guard, self._comfyui.python, "-s", self._comfyui.code / "main.py", *base, "--listen", "127.0.0.1"]
        command += ["--port", port, "--disable-auto-launch", "--database-url", "sqlite:///:memory:"]
        command += ["--input-directory", self.input, "--output-directory", self.folder / "output"]
        command += ["--temp-directory", self.folder / "temp", "--user-directory", self._user]
        command += self._comfyui.arguments
        apart = (
            {"creationflags": subprocess.CREATE_NEW_PROCESS_GROUP} if os.name == "nt" else {"start_new_session": True}
        )
        with open(self.folder / LOG, "ab") as log:
            self._process = psutil.Popen(
                list(map(str, command)), stdout=log, stderr=subprocess.STDOUT, env=self.environment(), **apart
            )
        (self.folder / PROCESS).write_text(json.dumps(named(self._process)), encoding="utf-8")
        self._address = f"http://127.0.0.1:{port}"
        deadline = time.monotonic() + START
        while True:
            try:
                self.ask("system_stats")
                return
            except (urllib.error.URLError, ConnectionError, TimeoutError):
                if self._stop_starting.is_set():
                    self.stop()
                    raise Interrupted from None
                if not self.running() or time.monotonic() > deadline:
                    self.stop()
                    end = (self.folder / LOG).read_text(encoding="utf-8", errors="replace")[-2000:]
                    raise ServerDidNotStart(f"ComfyUI did not start; its log ends:\n{end}") from None
                time.sleep(0.1)

    def environment(self) -> dict[str, str]:
        """What it is started with; of a machine that it shares with others it has its share.

        With as many threads each as there are cores, several PyTorchs wait for each other's, busily: writing a video
        took each of two processes on 32 cores 3.8 s in place of 1.1, with 8 threads each 1.1.
        """
        servers, on_cpu = self._comfyui.servers, "--cpu" in self._comfyui.arguments
        environment = {**os.environ, SERVERS: str(servers)}
        if self._gpu is not None:
            environment |= {"CUDA_VISIBLE_DEVICES": self._gpu, "CUDA_DEVICE_ORDER": "PCI_BUS_ID"}  # as nvidia-smi's
        environment.pop(THREADS, None)  # Ray gives its workers one
        if self._comfyui.threads is not None:
            environment[THREADS] = self._comfyui.threads
        elif servers > 1 and not on_cpu:  # there their number may change what is computed
            environment[THREADS] = str(max(1, _cores() // servers))
        if servers > 1:
            environment.setdefault("OMP_WAIT_POLICY", "PASSIVE")
        return environment

    def running(self) -> bool:
        return self._process is not None and self._process.poll() is None

    def stop(self):
        """End it, and one that an earlier worker of this folder left behind."""
        processes = [] if self._process is None else [self._process]
        try:
            if (left := find(json.loads((self.folder / PROCESS).read_text(encoding="utf-8")))) is not None:
                processes.append(left)
        except (OSError, ValueError, KeyError, TypeError):
            pass
        for process in processes:
            try:
                everything = [*process.children(recursive=True), process]
                for each in everything:
                    each.kill()
                psutil.wait_procs(everything, timeout=20)
            except psutil.Error:
                pass  # it is gone already
        self._process = None
        (self.folder / PROCESS).unlink(missing_ok=True)

    def ask(self, path, body=None):
        """The answer to a GET, or to a POST of JSON."""
        data = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(f"{self._address}/{path}", data, {"Content-Type": "application/json"})
        with DIRECT.open(request, timeout=60) as answer:
            return json.loads(answer.read() or b"null")

    def run(self, prompt, on_progress, silence: float) -> dict:
        """Run a prompt.

        Args:
            on_progress: called with steps done and all steps of the sampler.
            silence: seconds without a word after which it counts as hung.

        Returns:
            What the nodes gave out, by their ids.

        Raises:
            JobFailed, Interrupted, ServerDied.
        """
        try:
            return asyncio.run(self._run(prompt, on_progress, silence))
        except (ServerDied, aiohttp.ClientError, ConnectionError, TimeoutError, asyncio.TimeoutError) as error:
            self.stop()  # it may hang, or be about to end
            raise ServerDied(str(error) or type(error).__name__) from None

    def nodes(self):
        """What it says of its nodes."""
        if self._nodes is None:
            self._nodes = self.ask("object_info")
        return self._nodes

    def interrupt(self):
        """Stop what it computes; what an unfinished edit keeps is saved. One that only starts is ended."""
        if self._starting:
            self._stop_starting.set()
        elif self.running():
            self.ask("interrupt", {})

    async def _run(self, prompt, on_progress, silence):
        client = uuid.uuid4().hex
        async with aiohttp.ClientSession() as session:
            # Previews may be large, and nobody looks at them here.
            async with session.ws_connect(f"{self._address}/ws?clientId={client}", max_msg_size=0) as socket_:
                async with session.post(
                    f"{self._address}/prompt", json={"prompt": prompt, "client_id": client}
                ) as answer:
                    accepted = await answer.json()
                if accepted.get("node_errors") or "prompt_id" not in accepted:
                    raise PromptRefused(_refusal(accepted), _refused_inputs(accepted))
                heard = time.monotonic()
                while True:
                    try:
                        message = await asyncio.wait_for(socket_.receive(), heard + silence - time.monotonic())
                    except asyncio.TimeoutError:
                        raise ServerDied(f"the server said nothing for {silence:.0f} s") from None
                    if message.type == aiohttp.WSMsgType.BINARY:
                        continue
                    if message.type != aiohttp.WSMsgType.TEXT:
                        raise ServerDied("the server ended")
                    said = json.loads(message.data)
                    kind, data = said["type"], said.get("data")
                    # Nodes of other packs send what they like, some every second.
                    if not isinstance(data, dict) or data.get("prompt_id") != accepted["prompt_id"]:
                        continue
                    heard = time.monotonic()
                    if kind == "progress":
                        on_progress(data["value"], data["max"])
                    elif kind == "execution_error":
                        said = _failure(data["node_type"], data["exception_message"].strip())
                        raise (ServerDied if any(words in said for words in BROKEN_GPU) else JobFailed)(said)
                    elif kind == "execution_interrupted":
                        raise Interrupted
                    elif kind == "execution_success":
                        break
            # The history is written a moment after the message.
            for _ in range(200):
                async with session.get(f"{self._address}/history/{accepted['prompt_id']}") as answer:
                    history = await answer.json()
                if accepted["prompt_id"] in history:
                    return history[accepted["prompt_id"]]["outputs"]
                await asyncio.sleep(0.02)
            raise ServerDied("the server forgot what it had done")


def _refusal(answer):
    """Why a prompt was not accepted, in the nodes' own words."""
    said = [answer["error"].get("message", "")] if isinstance(answer.get("error"), dict) else []
    for node in (answer.get("node_errors") or {}).values():
        for error in node.get("errors", []):
            said.append(f"{node.get('class_type', '?')}: {error.get('message', '')}: {error.get('details', '')}")
    return "; ".join(filter(None, said)) or json.dumps(answer)


def _refused_inputs(answer):
    """(id, class, input) of everything that is wrong with a prompt."""
    return [
        (key, node.get("class_type", "?"), (error.get("extra_info") or {}).get("input_name", ""))
        for key, node in (answer.get("node_errors") or {}).items()
        for error in node.get("errors", [])
    ]


def _failure(node, message):
    """Some nodes name themselves."""
    return message if message.replace(" ", "").startswith(node) else f"{node}: {message}"


def _free_port():
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]
