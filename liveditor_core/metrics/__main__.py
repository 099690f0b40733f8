"""The terminal tool: `python -m liveditor_core.metrics PAIRS`, the numbers of many edits."""

import argparse
import sys
from fractions import Fraction
from pathlib import Path

from tqdm import tqdm

if not __package__:  # `python liveditor_core/metrics`, where a Python looks for modules in no folder but its own
    sys.path.insert(0, str(Path(__file__).resolve().parents[2]))
    __package__ = "liveditor_core.metrics"

from ..footage.errors import FootageError

DESCRIPTION = """Say in numbers whether edits are good: every edit against its source, a table, means with confidence
intervals, a picture.

  python -m liveditor_core.metrics edits/                          of a batch
  python -m liveditor_core.metrics pairs/                          folders of two clips each, before and after
  python -m liveditor_core.metrics pairs.csv                       columns: before, after, mask, target, source_text
  python -m liveditor_core.metrics EditVerseBench/ --edits mine/   also DAVIS and VIPSeg, by their frames

What was measured is not measured again. Numbers are those of the node Edit Metrics, whose help has the formulas; they
are no benchmark's scores."""


def main(arguments=None) -> int:
    """Exit code: 0 all were measured, 1 some could not be, 2 nothing can be."""
    options = _parse(arguments)
    try:
        _use_comfyui(options.comfyui)
        return _run(options)
    except FootageError as error:
        print(error, file=sys.stderr)
        return 2


def _use_comfyui(folder):
    """Make ComfyUI's code, which knows videos and models, importable in a process that is not its server."""
    if not (folder / "main.py").is_file():
        raise FootageError(f"{folder}: there is no ComfyUI, whose code is needed. Say where it is: --comfyui FOLDER.")
    if str(folder) not in sys.path:
        sys.path.insert(0, str(folder))
    import torch

    from comfy.cli_args import args

    args.cpu = args.cpu or not torch.cuda.is_available()  # before anything else of ComfyUI is imported


def _run(options):
    from .folders import find_pairs
    from .over_folders import measure_all, write_results

    _require_device(options.device)
    found = find_pairs(options.pairs, options.edits)
    models = _models(options)
    out = options.out or (options.pairs if options.pairs.is_dir() else options.pairs.parent) / "metrics"
    print(f"{options.pairs}: {found.layout}; {len(found.pairs)} pairs")
    for note in found.notes:
        print(f"note: {note}")
    rows, failed = [], []
    with tqdm(total=len(found.pairs), desc="pairs", disable=len(found.pairs) == 1) as bar:
        for pair, row, message in measure_all(found.pairs, out, models, options.fps, options.every, options.device):
            bar.update()
            if row is None:
                failed.append({"name": pair.name, "message": message})
                tqdm.write(f"{pair.name}: {message}")
            else:
                rows.append(row)
    if not rows:
        return 2
    title = f"{options.pairs.resolve().name}: {len(rows)} edits"
    means, files = write_results(out, rows, failed, found, models, title)
    for name, of in means.items():
        print("\n".join([name, *_lines(of)]))
    print("\n".join(str(file.resolve()) for file in files))
    return 1 if failed else 0


def _lines(means):
    for column, (mean, low, high, of) in ((column, each.values()) for column, each in means.items()):
        interval = "" if low is None else f"  [{low:.4g}, {high:.4g}]"
        yield f"  {column:20} {mean:10.4g}{interval}  of {of}"


def _models(options):
    from .load_models import load_models

    return load_models(options.clip, options.clip_vision, options.optical_flow, options.small)


def _at_least_one(text):
    if not text.strip().isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"must be a whole number from 1 on, got {text}")
    return int(text)


def _above_zero(text):
    try:
        value = Fraction(text)
    except (ValueError, ZeroDivisionError):
        value = Fraction(0)
    if value <= 0:
        raise argparse.ArgumentTypeError(f"must be frames a second, as 24 or 30000/1001, got {text}")
    return value


def _require_device(name):
    import torch

    try:
        torch.zeros(1, device=name)
    except (RuntimeError, AssertionError, ValueError) as error:
        reason = str(error).split("\n")[0]
        raise FootageError(f"--device {name}: PyTorch cannot compute there: {reason}. Leave it out for cpu.") from None


def _parse(arguments):
    parser = argparse.ArgumentParser(
        prog="python -m liveditor_core.metrics",
        description=DESCRIPTION,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("pairs", type=Path, help="a folder, a .csv or a .jsonl")
    parser.add_argument("--edits", type=Path, help="of a benchmark: the folder of the edits")
    parser.add_argument("--out", type=Path, help="folder of the results (default: metrics beside the pairs)")
    parser.add_argument("--clip", type=Path, help="file of CLIP's text half, for words")
    parser.add_argument("--clip-vision", type=Path, help="file of its image half")
    parser.add_argument("--optical-flow", type=Path, help="file of RAFT, for motion")
    parser.add_argument("--small", action="store_true", help="the small text-image encoder, which knows ten edits only")
    parser.add_argument("--every", type=_at_least_one, default=1, help="the models look at every so-manieth frame")
    parser.add_argument("--fps", type=_above_zero, default=Fraction(24), help="of folders of frames (default: 24)")
    parser.add_argument("--device", default="cpu", help="of the pixels' numbers, as cuda (default: cpu)")
    parser.add_argument(
        "--comfyui",
        type=Path,
        default=Path(__file__).resolve().parents[4],
        help="ComfyUI's folder, whose code is used (default: that of this pack)",
    )
    return parser.parse_args(arguments)


if __name__ == "__main__":
    sys.exit(main())
