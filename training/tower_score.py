"""Measure the small text-image encoder: `python tasks.py python -m training.tower_score FOLDER`. Writes tables.

What is asked is what metrics ask. An edit is recognised by the gain if, of the words of all ten edits, its own are
those that its frames came nearest to beyond their source's; by the direction if its frames went most along its words.
All through the host's CLIP and CLIP_VISION; clips and words are not those of the training.
"""

from . import common  # noqa: F401  (before anything of ComfyUI)

# isort: split
import argparse
import statistics
from pathlib import Path
from typing import NamedTuple

import torch
import torch.nn.functional as F

from liveditor.liveditor_core.footage.geometry import fit_frames
from liveditor.liveditor_core.model.small_towers import load_small_towers

from . import evaluate
from .common import CLIP
from .data import read_video
from .edits import EDITS, HELD_OUT
from .nano import RECOMMENDED
from .towers import FILE, UNEDITED_HELD_OUT
from .transformer import find

CLIPS = {  # at which size, width and height, and which frames the parts begin with
    "bikes.mp4": ((256, 112), (0, 40, 80, 120, 160, 200, 240)),
    "carphone_pristine.mp4": ((176, 144), (0, 30, 60, 90)),
}
FRAMES, EVERY = 4, 2  # of a part, and how far apart
NAMES = tuple(EDITS)


class Found(NamedTuple):
    """What an edit's frames gained on the words of all edits, and how far they went along them, means over frames."""

    clip: str
    edit: str
    gains: torch.Tensor  # [10], in the order of NAMES
    directions: torch.Tensor  # [10]

    @property
    def by_gain(self):
        return NAMES[self.gains.argmax()]

    @property
    def by_direction(self):
        return NAMES[self.directions.argmax()]


class Judge:
    """The encoder of a folder, or of `models/`."""

    def __init__(self, folder):
        self.clip, self.vision = load_small_towers(str(find(Path(folder), FILE)))

    def texts(self, lines):
        """[len(lines), D], of length 1."""
        pooled = [self.clip.encode_from_tokens(self.clip.tokenize(line), return_pooled=True)[1] for line in lines]
        return F.normalize(torch.cat(pooled).float(), dim=-1)

    def images(self, frames):
        """[N, H, W, 3] in [0, 1] to [N, D], of length 1."""
        return F.normalize(self.vision.encode_image(frames)["image_embeds"].float(), dim=-1)

    def found(self, clip, edit, source, edited, words, source_words):
        """Args: frames [N, H, W, 3]; what `texts` gives of a line for each edit, and of one for the source."""
        change = self.images(edited) - self.images(source)
        gains = change @ words.T
        directions = F.normalize(change, dim=-1) @ F.normalize(words - source_words, dim=-1).T
        return Found(clip, edit, gains.mean(dim=0), directions.mean(dim=0))


def words_of(judge, phrase):
    """Embeddings of the so-manieth held-out phrase of every edit, [10, D], and of one for the source, [1, D]."""
    lines = [HELD_OUT[name][phrase] for name in EDITS]
    return judge.texts(lines), judge.texts([UNEDITED_HELD_OUT[phrase % len(UNEDITED_HELD_OUT)]])


def parts(folder):
    """Frames of the clips that nothing was trained on: (clip, [FRAMES, H, W, 3])."""
    for name, (size, starts) in CLIPS.items():
        video = read_video(Path(folder) / name).movedim(1, -1)
        for start in starts:
            frames = video[start : start + FRAMES * EVERY : EVERY].float() / 255
            yield name, fit_frames(frames, *size, "crop")


def exact(name, frames):
    """An edit of frames [N, H, W, 3]."""
    return EDITS[name](frames.movedim(-1, 1)).movedim(1, -1)


def measure(judge, sources, phrases=range(5)):
    """Found of all exact edits of all sources in all held-out phrasings."""
    spoken = [words_of(judge, phrase) for phrase in phrases]
    return [
        judge.found(clip, name, frames, exact(name, frames), *words)
        for clip, frames in sources
        for name in EDITS
        for words in spoken
    ]


def of_the_small_model(judge, models, folder, steps=RECOMMENDED["steps"]):
    """Found of the edits that the small model makes, each asked for in one held-out phrasing."""
    nano, found = evaluate.Nano(models), []
    model, words = nano.with_settings(RECOMMENDED["ratios"]), words_of(judge, -1)
    for clip, start in evaluate.CASES:
        source = nano.source(Path(folder) / clip, start, CLIPS[clip][0])
        pixels = torch.stack(list(source.unedited(evaluate.AS_EDITED)))
        for name in EDITS:
            edited = nano.frames_of(nano.edit(model, source, HELD_OUT[name][-1], steps=steps), source)
            found.append(judge.found(clip, name, pixels, edited, *words))
    return found


def recognised(found, by="by_gain"):
    """The share of edits that are."""
    return statistics.mean(getattr(one, by) == one.edit for one in found)


def table(found):
    """Markdown: for each edit the shares, and the mean gain and direction in its own words."""
    rows = ["| edit | by gain | by direction | gain | direction |", "|---|---|---|---|---|"]
    for name in (*EDITS, None):
        of_it = [one for one in found if name in (None, one.edit)]
        own = [NAMES.index(one.edit) for one in of_it]
        gain = statistics.mean(one.gains[i].item() for one, i in zip(of_it, own, strict=True))
        direction = statistics.mean(one.directions[i].item() for one, i in zip(of_it, own, strict=True))
        shares = f"{recognised(of_it):.0%} | {recognised(of_it, 'by_direction'):.0%}"
        label = name.replace("_", " ") if name else "**all**"
        rows.append(f"| {label} | {shares} | {gain:+.2f} | {direction:+.2f} |")
    return "\n".join(rows)


@torch.inference_mode()
def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, help="folder with the file that training.towers wrote, or models/")
    parser.add_argument("--clips", type=Path, default=CLIP.parent, help=f"folder with {' and '.join(CLIPS)}")
    parser.add_argument("--models", type=Path, help="models/: measure edits of the small model as well")
    options = parser.parse_args()
    judge = Judge(options.folder)
    found = measure(judge, list(parts(options.clips)))
    for clip in CLIPS:
        print(f"{clip}, exact edits\n\n{table([one for one in found if one.clip == clip])}\n", flush=True)
    print(f"all, exact edits\n\n{table(found)}\n", flush=True)
    if options.models:
        print(f"edits of the small model\n\n{table(of_the_small_model(judge, options.models, options.clips))}")


if __name__ == "__main__":
    main()
