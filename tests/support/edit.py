"""Edit a video with the shipped workflow, through the API of a real ComfyUI: `python tasks.py edit`."""

import argparse
import json
import shutil
import sys
import time
from fractions import Fraction
from pathlib import Path

import av
import host
import tiny_models

sys.path.append(str(host.PACK))
from training import score  # noqa: E402

WORKFLOW = host.PACK / "workflows" / "liveditor_edit.json"
MODEL_OPTIONS = {"checkpoint": "diffusion_models", "text_encoder": "text_encoders", "vae": "vae"}
DEMO = {"width": 224, "height": 96, "steps": 8, "max_frames": 0, "fps": "as the source", "original_size": True}


def parse_arguments():
    parser = argparse.ArgumentParser(prog="tasks.py edit", description=__doc__)
    parser.add_argument("--input", type=Path, default=host.CLIPS / "bikes.mp4", help="video to edit (default: the clip bikes.mp4)")
    parser.add_argument("--prompt", help="what to change (default: the workflow's)")
    parser.add_argument("--output", type=Path, help="where to put the edited mp4 (default: ComfyUI's output folder)")
    for name, folder in MODEL_OPTIONS.items():
        parser.add_argument(f"--{name.replace('_', '-')}", type=Path, help=f"safetensors file of your own (default: a tiny random model; put into {folder})")
    parser.add_argument("--size", help='"auto 540p", "auto 480p" or WIDTHxHEIGHT')
    parser.add_argument("--fps", choices=("16 (as trained)", "as the source"))
    parser.add_argument("--steps", type=int)
    parser.add_argument("--max-frames", type=int, help="0 for all")
    parser.add_argument("--seed", type=int)
    parser.add_argument("--original-size", action=argparse.BooleanOptionalAction, default=None)
    options = parser.parse_args()
    own = [name for name in MODEL_OPTIONS if getattr(options, name)]
    if own and len(own) < len(MODEL_OPTIONS):
        parser.error(f"your own models need all of --checkpoint, --text-encoder and --vae, got {', '.join(own)}")
    for path in (options.input, *(getattr(options, name) for name in own)):
        if not path.is_file():
            parser.error(f"{path}: there is no such file")
    return options, bool(own)


def place(path, folder):
    """Make a user's file visible to ComfyUI under its own name: models by a link where that is allowed, videos by a copy."""
    target = host.RUN / folder / path.name
    if target.exists() and not target.is_symlink() and target.samefile(path):
        return path.name
    target.unlink(missing_ok=True)
    if folder == "input":  # ComfyUI opens no links out of its input folder
        shutil.copy(path, target)
    else:
        host.link_or_copy(path.resolve(), target)
    return path.name


def fill_in(prompt, options, own_models):
    """Put the user's choices into the API-format workflow."""
    def inputs(class_type):
        return host.nodes_of(prompt, class_type)[0]["inputs"]

    inputs("LoadVideo")["file"] = place(options.input, "input")
    names = {name: place(getattr(options, name), f"models/{folder}") for name, folder in MODEL_OPTIONS.items()} if own_models else {
        "checkpoint": tiny_models.TRANSFORMER, "text_encoder": tiny_models.TEXT_ENCODER, "vae": tiny_models.VAE}
    inputs("LoadLIVEditor").update(names)
    if options.prompt:
        prompt[inputs("LIVEditSampler")["positive"][0]]["inputs"]["text"] = options.prompt

    chosen = {} if own_models else dict(DEMO, size="custom")
    if options.size:
        width, _, height = options.size.partition("x")
        chosen |= {"size": "custom", "width": int(width), "height": int(height)} if height.isdigit() else {"size": options.size}
    chosen |= {name: value for name in ("fps", "steps", "max_frames", "seed", "original_size") if (value := getattr(options, name)) is not None}
    for class_type in ("EncodeSourceVideo", "LIVEditSampler", "DecodeVideo"):
        node = inputs(class_type)
        node.update({name: value for name, value in chosen.items() if name in node})
    return prompt


def describe(path):
    with av.open(str(path)) as container:
        video = container.streams.video[0]
        frames = sum(1 for _ in container.decode(video))
        sound = "with sound" if container.streams.audio else "no sound"
        return f"{video.width}x{video.height}, {frames} frames at {float(Fraction(video.average_rate)):g} fps, {sound}"


def put_side_by_side(source, result):
    """Write the source and its edit next to each other, beside the edit; the path of that video."""
    edited, fps = score.read_video(result)
    edited = edited.float() / 255
    path = result.with_stem(result.stem.rstrip("_") + "_before_after")
    score.write_side_by_side(path, score.source_frames(source, edited, fps), edited, fps)
    return path


def main():
    options, own_models = parse_arguments()
    tiny_models.make_in_subprocess()
    with host.Server() as server:
        prompt = fill_in(server.client.to_api(json.loads(WORKFLOW.read_text(encoding="utf-8"))), options, own_models)
        if not own_models:
            print("No checkpoint was given: this uses a tiny transformer, VAE and text encoder with RANDOM weights, made on the spot. Everything "
                  "runs as with the real model, but the picture is noise. Give --checkpoint, --text-encoder and --vae for a real edit.")
        print(f"input:  {options.input} ({describe(options.input)})", flush=True)
        titles = {"EncodeSourceVideo": "encoding the source", "LIVEditSampler": "sampling", "DecodeVideo": "decoding"}

        def show(message):
            if isinstance(message, dict) and message["type"] == "executing" and message["data"]["node"]:
                title = titles.get(prompt[message["data"]["node"]]["class_type"])
                if title:
                    print(f"        {title} ...", flush=True)

        started = time.monotonic()
        try:
            result = host.saved_file(server.client.run(prompt, show, timeout=24 * 3600))
        except host.WorkflowFailed as error:
            raise SystemExit(f"the edit failed: {error}\nthe server's log: {server.log}") from error
    if options.output:
        options.output.parent.mkdir(parents=True, exist_ok=True)
        result = Path(shutil.copy(result, options.output))
    print(f"prompt: {prompt[host.nodes_of(prompt, 'LIVEditSampler')[0]['inputs']['positive'][0]]['inputs']['text']}")
    print(f"time:   {time.monotonic() - started:.0f} s")
    print(f"edited: {result} ({describe(result)})")
    print(f"both:   {put_side_by_side(options.input, result)}")


if __name__ == "__main__":
    main()
