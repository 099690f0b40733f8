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

sys.path.append(str(host.PACK))
from training import score

WORKFLOW, SMALL_MODEL_WORKFLOW = (host.PACK / "workflows" / f"liveditor_{name}.json" for name in ("edit", "demo"))
BOTH = "before and after"
MODEL_OPTIONS = {"checkpoint": "diffusion_models", "text_encoder": "text_encoders", "vae": "vae"}


def parse_arguments():
    parser = argparse.ArgumentParser(prog="tasks.py edit", description=__doc__)
    parser.add_argument(
        "--input", type=Path, default=host.CLIPS / "bikes.mp4", help="video to edit (default: the clip bikes.mp4)"
    )
    parser.add_argument("--prompt", help="what to change (default: the workflow's)")
    parser.add_argument("--output", type=Path, help="where to put the edited mp4 (default: ComfyUI's output folder)")
    for name, folder in MODEL_OPTIONS.items():
        parser.add_argument(
            f"--{name.replace('_', '-')}",
            type=Path,
            help=f"safetensors file of your own, put into {folder} (default: the small model that ships with the pack)",
        )
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
    """Make a user's file visible to ComfyUI under its own name.

    Models by a link where that is allowed, videos by a copy.
    """
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
    if own_models:
        inputs("LoadLIVEditor").update(
            {name: place(getattr(options, name), f"models/{folder}") for name, folder in MODEL_OPTIONS.items()}
        )
    if options.prompt:
        prompt[inputs("LIVEditSampler")["positive"][0]]["inputs"]["text"] = options.prompt

    prompt[BOTH] = {
        "class_type": "SaveVideo",
        "inputs": {
            "video": [host.key_of(prompt, "LIVEditCompareVideos"), 0],
            "filename_prefix": "video/LIVEditor_before_after",
            "format": "auto",
            "codec": "auto",
        },
    }
    chosen = {}
    if options.size:
        width, _, height = options.size.partition("x")
        chosen |= (
            {"size": "custom", "width": int(width), "height": int(height)}
            if height.isdigit()
            else {"size": options.size}
        )
    chosen |= {
        name: value
        for name in ("fps", "steps", "max_frames", "seed", "original_size")
        if (value := getattr(options, name)) is not None
    }
    for class_type in ("EncodeSourceVideo", "LIVEditSampler", "DecodeVideo"):
        node = inputs(class_type)
        node.update({name: value for name, value in chosen.items() if name in node})
    return prompt


def report_score(result, options, prompt):
    """How good an edit by the small model is: what it knows can be computed exactly."""
    edited, fps = score.read_video(result)
    edited = edited.float() / 255
    found = score.score(edited, score.source_frames(options.input, edited, fps), score.asked_edit(prompt))
    print(
        f"score:  {found.decibels:.1f} dB PSNR to the exact edit ({found.edit.replace('_', ' ')}), of the unedited "
        f"source {found.source_decibels:.1f} dB; most like: {found.nearest.replace('_', ' ')}"
    )


def describe(path):
    with av.open(str(path)) as container:
        video = container.streams.video[0]
        frames = sum(1 for _ in container.decode(video))
        sound = "with sound" if container.streams.audio else "no sound"
        return f"{video.width}x{video.height}, {frames} frames at {float(Fraction(video.average_rate)):g} fps, {sound}"


def main():
    options, own_models = parse_arguments()
    workflow = WORKFLOW if own_models else SMALL_MODEL_WORKFLOW
    with host.Server() as server:
        prompt = fill_in(server.client.to_api(json.loads(workflow.read_text(encoding="utf-8"))), options, own_models)
        print(f"input:  {options.input} ({describe(options.input)})", flush=True)
        titles = {"EncodeSourceVideo": "encoding the source", "LIVEditSampler": "sampling", "DecodeVideo": "decoding"}

        def show(message):
            if isinstance(message, dict) and message["type"] == "executing" and message["data"]["node"]:
                title = titles.get(prompt[message["data"]["node"]]["class_type"])
                if title:
                    print(f"        {title} ...", flush=True)

        started = time.monotonic()
        try:
            outputs = server.client.run(prompt, show, timeout=24 * 3600)
        except host.WorkflowFailed as error:
            raise SystemExit(f"the edit failed: {error}\nthe server's log: {server.log}") from error
    both = host.saved_file({BOTH: outputs.pop(BOTH)})
    result = host.saved_file(outputs)
    if options.output:
        options.output.parent.mkdir(parents=True, exist_ok=True)
        both = Path(shutil.copy(both, options.output.with_stem(options.output.stem + "_before_after")))
        result = Path(shutil.copy(result, options.output))
    text = prompt[host.nodes_of(prompt, "LIVEditSampler")[0]["inputs"]["positive"][0]]["inputs"]["text"]
    print(f"prompt: {text}")
    print(f"time:   {time.monotonic() - started:.0f} s")
    if not own_models:
        report_score(result, options, text)
    print(f"both:   {both}")
    print(f"edited: {result} ({describe(result)})")


if __name__ == "__main__":
    main()
