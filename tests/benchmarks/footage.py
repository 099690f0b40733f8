"""Any footage through the nodes of a real server: what comes out, and what it costs.

    python tasks.py python tests/benchmarks/footage.py table     every kind of footage, right or not
    python tasks.py python tests/benchmarks/footage.py random    300 random files, a third of them damaged
    python tasks.py python tests/benchmarks/footage.py memory    the server's RAM above its base, and a plot of it

A clip that a table names stands in `tests/support/footage_cases.py`, a random one in `random_footage.py` by its seed.
Where memory grows beyond `--limit` the server is killed, and the row says so.
"""

import argparse
import contextlib
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "support"))  # before this folder, for `footage`

import host
import random_footage
import through_server
import tiny_models
import websocket
from footage import Clip, Sound, steady, write
from footage_cases import all_cases, judge
from PIL import Image, ImageDraw
from process_memory import MemoryOf
from through_server import graph, node, with_defaults

GIB = 2**30
SMALL_VAE = "liveditor_nano_vae.safetensors"
GONE = (websocket.WebSocketConnectionClosedException, ConnectionError, OSError)
SOURCES = {  # rate, size; each six seconds long
    "1080p60": (60, (1920, 1080)),
    "4K30": (30, (3840, 2160)),
    "4K60": (60, (3840, 2160)),
    "1080p240": (240, (1920, 1080)),
    "960x544 at 16": (16, (960, 544)),  # nothing to leave out or to scale: what the edit's own frames need
}


class Restarting:
    """A server that is started again when something killed it."""

    def __init__(self, stack):
        self._stack = stack
        self._start()

    def _start(self):
        self.server = self._stack.enter_context(host.Server())

    @property
    def client(self):
        if not self.server.alive():
            self._start()
        return self.server.client

    def restart(self):
        """A server of which nothing was asked yet."""
        self.server.__exit__()
        self._start()

    def died(self):
        """Wait for the end of a server that does not answer any more."""
        while self.server.alive():
            time.sleep(0.1)


def table(restarting, _):
    print("| kind | clip | what came out | right |\n|---|---|---|---|")
    wrong = Counter()
    for i, case in enumerate(all_cases()):
        try:
            out = through_server.send_case(restarting.client, case, f"case_{i}")
            faults, came = (judge(case, out), describe(out)) if out else ([], "refused, with a remedy")
        except AssertionError as refusal:
            faults, came = ["refused"], str(refusal).strip()
        except host.WorkflowFailed as failure:
            faults, came = ["failed"], str(failure)
        except GONE:
            restarting.died()
            faults, came = ["killed"], "the server died"
        wrong[case.kind] += bool(faults)
        clip = case.name.partition(": ")[2]
        print(f"| {case.kind} | {clip} | {cell(came)} | {cell('; '.join(faults)) if faults else 'yes'} |", flush=True)
    total = sum(1 for _ in all_cases())
    print(f"\n{total - wrong.total()} of {total} right; wrong: {dict(+wrong)}")


def describe(out):
    sound = f", {out.sound.layout} {out.sound.rate} Hz" if out.sound else ""
    return f"{len(out.frames)} frames at {float(out.rate):g} fps, {out.size[0]}x{out.size[1]}{sound}"


def cell(text):
    return text.replace("|", "/").replace("\n", " ")[:200]


def random_files(restarting, options):
    counts, killed = Counter(), []
    for seed in range(options.first, options.first + options.count):
        kind = "damaged" if random_footage.is_damaged(seed) else "whole"
        try:
            verdict = through_server.send_random(restarting.client, seed, host.RUN / "input")
        except GONE:
            restarting.died()
            killed.append(seed)
            verdict = through_server.Verdict("killed", "the server died")
        except Exception as error:  # what came out cannot be read: a fault of that seed, and the others go on
            verdict = through_server.Verdict("unreadable", repr(error))
        counts[kind, verdict.outcome, not verdict.fault] += 1
        if verdict.fault:
            print(f"seed {seed} ({kind}): {verdict.outcome}: {verdict.fault}", flush=True)
    print("\n| files | outcome | as it should be | |\n|---|---|---|---|")
    for (kind, outcome, good), count in sorted(counts.items()):
        print(f"| {kind} | {outcome} | {'yes' if good else 'no'} | {count} |")
    print(f"\nthe server died at seeds {killed}" if killed else "\nnothing killed the server")


def memory(restarting, options):
    limit = options.limit * GIB
    print("| what | GiB above the base | s |\n|---|---|---|")
    with tempfile.TemporaryDirectory() as folder:
        for name, (rate, size) in SOURCES.items():
            if options.only in ("", "encode"):
                prompt = encode_only(restarting.client, big_clip(folder, rate, size, 6), 960, 544)
                measured(restarting, f"Encode, 81 frames of 960x544 from {name}", prompt, limit)
        if options.only in ("", "decode"):
            file = big_clip(folder, 30, (3840, 2160), 6)
            prompt = graph(restarting.client, file, {"width": 256, "height": 144, "max_frames": 81})
            measured(restarting, "Encode, Decode and Save, 81 frames, mask, original_size 3840x2160", prompt, limit)
        if options.only in ("", "minute"):
            file = big_clip(folder, 30, (1920, 1080), options.seconds)
            decode = {"original_size": False}
            prompt = graph(restarting.client, file, {"width": 256, "height": 112}, decode, masked=False)
            prompt["vae"]["inputs"]["vae_name"] = SMALL_VAE
            name = f"Encode, Decode and Save, {options.seconds} s of 1080p30 at 256x112"
            samples, phases = measured(restarting, name, prompt, limit)
            draw(samples, phases, options.plot, name)


def big_clip(folder, rate, size, seconds):
    """Write a clip where it is not there yet, and put it into the input folder; the file's name."""
    path = Path(folder) / f"{size[0]}x{size[1]}_{rate}_{seconds}.mp4"
    if not path.exists():
        write(Clip(size=size, stamps=steady(rate, rate * seconds), sounds=(Sound(),), flashes=(1.0, 5.0)), path)
    target = host.RUN / "input" / path.name
    target.write_bytes(path.read_bytes())
    return path.name


def encode_only(client, file, width, height):
    prompt = graph(client, file, {"width": width, "height": height, "max_frames": 81}, masked=False)
    prompt["vae"]["inputs"]["vae_name"] = SMALL_VAE
    del prompt["decode"], prompt["save"]
    return with_defaults(client, prompt | {"save": node("SaveLatent", samples=["encode", 3])})


def measured(restarting, name, prompt, limit):
    """Run a prompt and print its row; samples of memory, and when each node began."""
    restarting.restart()
    client = restarting.client
    client.run(graph(client, through_server.put(Clip(), "warm"), {"max_frames": 5}))  # what is loaded once is no growth
    phases, started = [], time.monotonic()

    def note(message):
        if isinstance(message, dict) and message["type"] == "executing" and message["data"]["node"]:
            phases.append((time.monotonic() - started, message["data"]["node"]))

    with MemoryOf(restarting.server.pid, limit) as memory_:
        try:
            client.run(prompt, note, timeout=7200)
        except GONE:
            restarting.died()
    seconds = time.monotonic() - started
    grown = f"more than {limit / GIB:g}, stopped" if memory_.exceeded else f"{memory_.growth / GIB:.2f}"
    print(f"| {name} | {grown} | {seconds:.0f} |", flush=True)
    return memory_.samples, phases


def draw(samples, phases, path, title):
    """A plot of memory against time, with a line where each node begins."""
    width, height, left, bottom = 1000, 420, 70, 50
    image = Image.new("RGB", (width, height), "white")
    pen = ImageDraw.Draw(image)
    longest, highest = max(time_ for time_, _ in samples), max(max(size for _, size in samples) / GIB, 0.1)

    def place(seconds, gib):
        across, up = seconds / longest * (width - left - 20), gib / highest * (height - bottom - 50)
        return left + across, height - bottom - up

    for i in range(5):
        gib = highest * i / 4
        pen.line([place(0, gib), place(longest, gib)], fill="#dddddd")
        pen.text((10, place(0, gib)[1] - 6), f"{gib:.2f} GiB", fill="black")
        seconds = longest * i / 4
        pen.text((place(seconds, 0)[0] - 10, height - bottom + 8), f"{seconds:.0f} s", fill="black")
    for seconds, node_ in phases:
        if node_ in ("encode", "decode", "save"):
            x = place(seconds, 0)[0]
            pen.line([(x, 40), (x, height - bottom)], fill="#cc6600")
            pen.text((x + 4, 42), node_, fill="#cc6600")
    pen.line([place(seconds, size / GIB) for seconds, size in samples], fill="#2255aa", width=2)
    pen.text((left, 12), f"{title}: the server's RAM above its base", fill="black")
    image.save(path)
    print(f"plot: {path}")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest="command", required=True)
    commands.add_parser("table").set_defaults(action=table)
    command = commands.add_parser("random")
    command.add_argument("--first", type=int, default=0, help="the first seed")
    command.add_argument("--count", type=int, default=300)
    command.set_defaults(action=random_files)
    command = commands.add_parser("memory")
    command.add_argument("--limit", type=float, default=8, help="GiB above the base at which the server is stopped")
    command.add_argument("--only", choices=("", "encode", "decode", "minute"), default="")
    command.add_argument("--seconds", type=int, default=60, help="of the long clip")
    command.add_argument("--plot", type=Path, default=Path("footage_memory.png"))
    command.set_defaults(action=memory)
    options = parser.parse_args()
    tiny_models.make_in_subprocess()
    with contextlib.ExitStack() as stack:
        options.action(Restarting(stack), options)


if __name__ == "__main__":
    main()
