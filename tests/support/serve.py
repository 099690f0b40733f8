"""Start ComfyUI with this pack and keep it running: `python tasks.py serve`."""

import argparse
import contextlib

import host
import tiny_models


def main():
    parser = argparse.ArgumentParser(prog="tasks.py serve")
    parser.add_argument("--port", type=int, default=8188)
    options, comfyui_arguments = parser.parse_known_args()
    tiny_models.make_in_subprocess()
    with host.Server(options.port, arguments=comfyui_arguments) as server:
        print(
            f"ComfyUI with LIVEditor: http://127.0.0.1:{server.port}   (its files: {host.RUN}, log: {server.log})",
            flush=True,
        )
        with contextlib.suppress(KeyboardInterrupt):
            server.wait()


if __name__ == "__main__":
    main()
