"""Reading and scaling a clip of a constant rate: the host's reader against the pack's, each in a process of its own.

    python tasks.py python tests/benchmarks/reading.py [CLIP] [--repeats 3]

81 frames at 16 a second are brought to 960x544, with their sound; without CLIP 6 seconds of 1080p30 are made. What the
pack did before is the host's reader and `fit_frames` of all frames that are chosen.
"""

import argparse
import json
import subprocess
import sys
import tempfile
import time
import types
from fractions import Fraction
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "tests" / "support"))  # before this folder, for `footage`
FRAMES, FPS, SIZE = 81, 16, (960, 544)


def by_the_host(path):
    from comfy_api.latest import InputImpl
    from liveditor.liveditor_core.footage.geometry import fit_frames
    from liveditor.liveditor_core.footage.timing import frame_at, frame_time

    video = InputImpl.VideoFromFile(path).as_trimmed(0, (FRAMES + 1) / FPS, strict_duration=False)
    parts = video.get_components()
    chosen = [frame_at(frame_time(i, Fraction(FPS)), parts.frame_rate, len(parts.images)) for i in range(FRAMES)]
    return len(fit_frames(parts.images[chosen], *SIZE, "crop"))


def by_the_pack(path):
    from liveditor.liveditor_core.footage.file_clip import FileClip
    from liveditor.liveditor_core.footage.geometry import fit_frames
    from liveditor.liveditor_core.footage.timing import frame_time

    clip = FileClip(path)
    times = (frame_time(i, Fraction(FPS)) for i in range(FRAMES))
    frames = clip.frames_at(times, seen=[], until=Fraction(FRAMES, FPS))
    count = sum(len(fit_frames(frame.unsqueeze(0), *SIZE, "crop")) for frame in frames)
    clip.sound.read(Fraction(0), Fraction(FRAMES, FPS))
    return count


WAYS = {"host": by_the_host, "pack": by_the_pack}


def measure(way, path):
    """In this process: seconds, and how much its RAM rose at most, GiB."""
    import resource

    import comfy_library  # noqa: F401

    import comfy_api.latest  # noqa: F401

    package = types.ModuleType("liveditor")
    package.__path__ = [str(ROOT)]
    sys.modules["liveditor"] = package
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    started = time.perf_counter()
    count = WAYS[way](path)
    seconds = time.perf_counter() - started
    rose = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 2**20
    print(json.dumps([count, seconds, rose]))


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("clip", nargs="?")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--way", choices=WAYS, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.way:
        return measure(options.way, options.clip)
    with tempfile.TemporaryDirectory() as folder:
        path = options.clip or made(Path(folder) / "clip.mp4")
        found = {way: [] for way in WAYS}
        for _ in range(options.repeats):
            for way in WAYS:  # one after the other, so that a busy machine is busy for both
                command = [sys.executable, "-s", __file__, path, "--way", way]
                answer = subprocess.run(command, check=True, capture_output=True, text=True).stdout
                found[way].append(json.loads(answer.splitlines()[-1]))
    print("| reader | frames | s, best of all | RAM at most, GiB |\n|---|---|---|---|")
    for way, rows in found.items():
        counts, seconds, rose = zip(*rows, strict=True)
        print(f"| {way} | {counts[0]} | {min(seconds):.2f} | {max(rose):.2f} |")
    ratio = min(row[1] for row in found["pack"]) / min(row[1] for row in found["host"])
    print(f"\nthe pack takes {ratio:.2f} of the host's time")


def made(path):
    from footage import Clip, Sound, steady, write

    return str(write(Clip(size=(1920, 1080), stamps=steady(30, 180), sounds=(Sound(),), flashes=(1.0,)), path))


if __name__ == "__main__":
    main()
