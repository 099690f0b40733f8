"""The terminal tool: `python -m liveditor_core.checkpoint convert IN OUT`, `download --to FOLDER`, `check FILE`."""

import argparse
import os
import sys
from pathlib import Path

from tqdm import tqdm

if not __package__:  # `python liveditor_core/checkpoint`, where a Python looks for modules in no folder but its own
    sys.path.insert(0, str(Path(__file__).resolve().parents[2]))
    __package__ = "liveditor_core.checkpoint"

from .check import check_liveditor
from .convert import convert_checkpoint
from .download import HUB_FILE, HUB_REPOSITORY, download
from .weight_types import WEIGHT_TYPES, label
from .weights import CheckpointError


def main(arguments=None):
    parser = argparse.ArgumentParser(
        prog="python -m liveditor_core.checkpoint", description="LIVEditor checkpoints for ComfyUI."
    )
    commands = parser.add_subparsers(dest="command", required=True)
    convert = commands.add_parser(
        "convert",
        help="turn the published checkpoint into a file that ComfyUI reads",
        epilog="weight types, size of the 14B:\n" + "\n".join(f"  {label(name)}" for name in WEIGHT_TYPES),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    convert.add_argument("source")
    convert.add_argument("destination")
    convert.add_argument("--weight-type", choices=WEIGHT_TYPES, default="bf16", metavar="TYPE", help="see below")
    convert.add_argument("--prefix", help="prefix of the keys to take, where the file holds several copies")
    fetch = commands.add_parser("download", help=f"fetch {HUB_FILE} from {HUB_REPOSITORY} on the Hugging Face hub")
    fetch.add_argument("--to", required=True, help="folder to put it in")
    check = commands.add_parser("check", help="say whether a file is a whole LIVEditor checkpoint")
    check.add_argument("file")
    options = parser.parse_args(arguments)
    try:
        if options.command == "convert":
            with Bar(os.path.basename(options.destination)) as bar:
                convert_checkpoint(
                    options.source,
                    options.destination,
                    weight_type=options.weight_type,
                    prefix=options.prefix,
                    progress=bar.show,
                )
        elif options.command == "download":
            with Bar(HUB_FILE) as bar:
                path = download(options.to, progress=bar.show)
            print(path)
        else:
            print(f"{options.file}: a whole LIVEditor checkpoint, {len(check_liveditor(options.file)['keys'])} tensors")
    except (CheckpointError, OSError) as error:
        parser.exit(1, f"{error}\n")


class Bar:
    """A progress bar in bytes, which appears with the first of them."""

    def __init__(self, name):
        self._name, self._bar = name, None

    def __enter__(self):
        return self

    def __exit__(self, *_):
        if self._bar is not None:
            self._bar.close()

    def show(self, done, total):
        if self._bar is None or done < self._bar.n:
            self.__exit__()
            self._bar = tqdm(total=total, unit="B", unit_scale=True, desc=self._name)
        self._bar.update(done - self._bar.n)


if __name__ == "__main__":
    main()
