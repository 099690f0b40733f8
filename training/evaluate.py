"""Measure a trained small model: `python tasks.py python -m training.evaluate FOLDER`.

Writes a table, CSV, a plot and a picture.

Everything goes through the pack's own nodes. Clips, crops and phrasings are not those of the training.
"""

from . import common  # noqa: F401  (before anything of ComfyUI)

# isort: split
import argparse
import asyncio
import csv
import statistics
from pathlib import Path

import torch

import folder_paths
import nodes as host_nodes
from comfy_api.latest import InputImpl
from liveditor.liveditor_core.footage.source_video import AS_EDITED
from liveditor.nodes import LIVEditorExtension
from liveditor.nodes.decode_video import DecodeVideo
from liveditor.nodes.encode_source_video import EncodeSourceVideo
from liveditor.nodes.live_edit_sampler import LIVEditSampler
from liveditor.nodes.load_liveditor import LoadLIVEditor
from liveditor.nodes.sparse_attention_settings import SparseAttentionSettings

from . import score
from .common import CLIP
from .edits import EDITS, HELD_OUT
from .nano import MODEL, RECOMMENDED, TEXT_ENCODER, VAE

# label, SAR, SRR, flat ratio; None is dense attention
SETTINGS = (
    ("dense", None),
    ("recommended", RECOMMENDED["ratios"]),
    ("half of the source", (0.25, 0.5, 0.5)),
    ("no dense half", (0.25, 1.0, 0.0)),
    ("released for 14B", (0.0625, 0.125, 0.5)),
)
CASES = (
    ("bikes.mp4", 0.0),
    ("carphone_pristine.mp4", 1.0),
)  # the last is edited with all settings, the others as recommended
SHOWN = ("night", "sepia", "mirror", "pixelate", "invert")


class Nano:
    """The three trained files through the pack's nodes, with the settings recommended for them."""

    def __init__(self, folder):
        asyncio.run(LIVEditorExtension().on_load())
        for kind in ("diffusion_models", "text_encoders", "vae"):
            place = folder / kind if (folder / kind).is_dir() else folder
            folder_paths.add_model_folder_path(kind, str(place), is_default=True)
        self.model, self.clip, self.vae = LoadLIVEditor.execute(MODEL, "default", TEXT_ENCODER, VAE).result

    def source(self, path, start=0.0, size=RECOMMENDED["size"], frames=RECOMMENDED["frames"]):
        """Encode Source Video's source."""
        return EncodeSourceVideo.execute(
            InputImpl.VideoFromFile(str(path)), self.vae, "custom", *size, "crop", "as the source", start, frames, 16.0
        ).result[0]

    def with_settings(self, ratios):
        """The MODEL with SAR, SRR and flat ratio, or with dense attention."""
        sar, srr, flat = ratios or (0.0625, 0.125, 0.5)
        return SparseAttentionSettings.execute(
            self.model, sar, srr, flat, "pytorch" if ratios else "dense", "sharpest (as released)"
        ).result[0]

    def edit(self, model, source, text, seed=42, **settings):
        """Latent of an edit; settings are inputs of LIVEdit Sampler other than recommended."""
        positive, negative = (host_nodes.CLIPTextEncode().encode(self.clip, each)[0] for each in (text, ""))
        settings = {name: RECOMMENDED[name] for name in ("steps", "cfg", "shift")} | settings
        return LIVEditSampler.execute(model, positive, negative, source, seed, **settings).result[0]

    def frames_of(self, latent, source):
        """[T, H, W, 3] in [0, 1]"""
        return DecodeVideo.execute(latent, self.vae, source, "as edited", False, "auto", 256).result[1]


@torch.inference_mode()
def measure(nano, folder, cases=CASES, settings=SETTINGS, phrases=1):
    """Scores of every edit: list of dicts of setting, clip, start, phrase and score."""
    rows = []
    for name, start in cases:
        source = nano.source(Path(folder) / name, start)
        pixels = torch.stack(list(source.unedited(AS_EDITED)))
        for label, ratios in settings:
            model = nano.with_settings(ratios)
            for edit in EDITS:
                for phrase in HELD_OUT[edit][:phrases]:
                    found = score.score(nano.frames_of(nano.edit(model, source, phrase), source), pixels, edit)
                    rows.append({"setting": label, "clip": name, "start": start, "phrase": phrase, **found._asdict()})
        print(f"{name} from {start:g} s done", flush=True)
    return rows


def summarise(rows, label):
    """Means over the rows of one setting: PSNR, PSNR of the source, share recognised."""
    rows = [row for row in rows if row["setting"] == label]
    return (
        statistics.mean(row["decibels"] for row in rows),
        statistics.mean(row["source_decibels"] for row in rows),
        statistics.mean(row["nearest"] == row["edit"] for row in rows),
    )


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("models", type=Path, help="folder with the files that the trainings wrote")
    parser.add_argument(
        "--clips", type=Path, default=CLIP.parent, help="folder with bikes.mp4 and carphone_pristine.mp4"
    )
    parser.add_argument(
        "--out",
        type=Path,
        help="folder for nano.csv, nano_settings.png and nano_frames.jpg (default: that of the models)",
    )
    options = parser.parse_args()
    import matplotlib.pyplot  # noqa: F401  (not in the tests' environment; better missed now than after minutes)

    out = options.out or options.models
    out.mkdir(parents=True, exist_ok=True)
    model = Nano(options.models)
    draw_frames(model, options.clips / CASES[1][0], CASES[1][1], out / "nano_frames.jpg")
    rows = measure(model, options.clips, CASES[:-1], SETTINGS[1:2]) + measure(model, options.clips, CASES[-1:])
    with (out / "nano.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, fieldnames=list(rows[0]))
        writer.writeheader()
        writer.writerows(
            {name: f"{value:.2f}" if isinstance(value, float) else value for name, value in row.items()} for row in rows
        )
    print("| edit, as recommended | dB | source | recognised |\n|---|---|---|---|")
    for edit in (*EDITS, None):
        decibels, source, recognised = summarise([row for row in rows if edit in (row["edit"], None)], "recommended")
        print(f"| {edit.replace('_', ' ') if edit else 'all'} | {decibels:.1f} | {source:.1f} | {recognised:.0%} |")
    rows = [row for row in rows if row["clip"] == CASES[-1][0]]
    print(f"\n| attention, {CASES[-1][0]} | SAR | SRR | flat ratio | dB | recognised |\n|---|---|---|---|---|---|")
    for label, ratios in SETTINGS:
        decibels, _, recognised = summarise(rows, label)
        sar, srr, flat = ratios or ("", "", "")
        print(f"| {label} | {sar} | {srr} | {flat} | {decibels:.1f} | {recognised:.0%} |")
    plot(rows, out / "nano_settings.png")


@torch.inference_mode()
def draw_frames(nano, clip, start, path):
    """A frame of a clip and of some edits of it, under what was asked."""
    from PIL import Image, ImageDraw

    source = nano.source(clip, start)
    middle = source.frames // 2
    frames = [("the source", list(source.unedited(AS_EDITED))[middle])]
    model = nano.with_settings(RECOMMENDED["ratios"])
    frames += [
        (HELD_OUT[edit][0], nano.frames_of(nano.edit(model, source, HELD_OUT[edit][0]), source)[middle])
        for edit in SHOWN
    ]
    width, height, columns, line = source.width, source.height, 3, 16
    sheet = Image.new("RGB", (columns * (width + 4) - 4, -(-len(frames) // columns) * (height + line)), "white")
    for i, (text, frame) in enumerate(frames):
        x, y = i % columns * (width + 4), i // columns * (height + line)
        ImageDraw.Draw(sheet).text((x + 2, y + 2), text, fill="black")
        sheet.paste(Image.fromarray((frame * 255).round().byte().numpy()), (x, y + line))
    sheet.save(path, quality=88)


def plot(rows, path):
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(figsize=(8, 3.6), layout="constrained")
    labels = [label for label, _ in SETTINGS]
    axes.bar(labels, [summarise(rows, label)[0] for label in labels], color="#4c78a8")
    axes.axhline(summarise(rows, labels[0])[1], color="#e45756", linestyle="--", label="unedited source")
    axes.set_ylabel("PSNR to the exact edit, dB")
    axes.tick_params(axis="x", labelrotation=20)
    axes.legend(frameon=False)
    figure.savefig(path, dpi=110)


if __name__ == "__main__":
    main()
