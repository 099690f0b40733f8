"""Writing a video, from decoded frames to a file: seconds of one process, and of several at once.

    python tasks.py python tests/benchmarks/writing.py --threads 32 8 1 --at-once 2

Threads are those that PyTorch takes for a frame's numbers; the encoder has its own. Frames are noise, as an edit by
random weights gives them.
"""

import argparse
import subprocess
import sys
import tempfile
import time
import types
from fractions import Fraction
from pathlib import Path

import torch

ROOT = Path(__file__).resolve().parents[2]
sys.path.append(str(ROOT / "tests" / "support"))
import comfy_library  # noqa: E402,F401

package = types.ModuleType("liveditor")
package.__path__ = [str(ROOT)]
sys.modules["liveditor"] = package
from liveditor.liveditor_core.footage.frames_clip import FramesClip  # noqa: E402
from liveditor.liveditor_core.footage.spool import Spool  # noqa: E402
from liveditor.liveditor_core.footage.writer import VideoForm, write_video  # noqa: E402


def write(size):
    width, height, count = map(int, size.split("x"))
    frames = torch.rand(count, height, width, 3)
    colours = FramesClip(frames[:1], Fraction(16)).colours
    with tempfile.TemporaryDirectory() as folder:
        started = time.perf_counter()
        spool = Spool(folder, height, width, count)
        spool.append(frames)
        spooled = time.perf_counter()
        form = VideoForm(width, height, Fraction(16), colours, False, Fraction(1))
        write_video(f"{folder}/written.mp4", form, (spool[i] for i in range(count)), [])
        print(f"{spooled - started:.2f} s into the spool, {time.perf_counter() - spooled:.2f} s into the file")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", default="832x480x33", help="WIDTHxHEIGHTxFRAMES")
    parser.add_argument("--threads", nargs="+", type=int, default=[torch.get_num_threads()])
    parser.add_argument("--at-once", type=int, default=2, help="processes")
    parser.add_argument("--one", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.one:
        torch.set_num_threads(options.threads[0])
        return write(options.size)
    for threads in options.threads:
        command = [sys.executable, __file__, "--one", "--size", options.size, "--threads", str(threads)]
        for processes in (1, options.at_once):
            running = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for _ in range(processes)]
            for each in running:
                print(f"{threads} threads, {processes} at once: {each.communicate()[0].strip()}", flush=True)


if __name__ == "__main__":
    main()
