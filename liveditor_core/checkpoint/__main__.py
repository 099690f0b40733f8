"""The terminal tool: `python -m liveditor_core.checkpoint convert IN OUT`, `download --to FOLDER`, `check FILE`."""

import argparse

from .check import check_liveditor
from .convert import convert_checkpoint
from .download import HUB_FILE, HUB_REPOSITORY, download
from .weights import WEIGHT_TYPES, CheckpointError


def main(arguments=None):
    parser = argparse.ArgumentParser(
        prog="python -m liveditor_core.checkpoint", description="LIVEditor checkpoints for ComfyUI."
    )
    commands = parser.add_subparsers(dest="command", required=True)
    convert = commands.add_parser("convert", help="turn the published checkpoint into safetensors")
    convert.add_argument("source")
    convert.add_argument("destination")
    convert.add_argument("--weight-type", choices=WEIGHT_TYPES, default="bf16")
    convert.add_argument("--prefix", help="prefix of the keys to take, where the file holds several copies")
    fetch = commands.add_parser("download", help=f"fetch {HUB_FILE} from {HUB_REPOSITORY} on the Hugging Face hub")
    fetch.add_argument("--to", required=True, help="folder to put it in")
    check = commands.add_parser("check", help="say whether a file is a whole LIVEditor checkpoint")
    check.add_argument("file")
    options = parser.parse_args(arguments)
    try:
        if options.command == "convert":
            convert_checkpoint(
                options.source, options.destination, weight_type=options.weight_type, prefix=options.prefix
            )
        elif options.command == "download":
            print(download(options.to))
        else:
            print(f"{options.file}: a whole LIVEditor checkpoint, {len(check_liveditor(options.file)['keys'])} tensors")
    except (CheckpointError, OSError) as error:
        parser.exit(1, f"{error}\n")


if __name__ == "__main__":
    main()
