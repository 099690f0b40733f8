"""Make the pictures that show edits by the small model: `python tasks.py python tests/support/thumbnails.py`.

Cards of the templates (before on the left of a line and after on its right, or above and below), the icon and the
banner of the registry. All are real runs of the small model on the clips that the tests fetch.
"""

import copy
import json
import shutil

import av
import host
from PIL import Image, ImageDraw, ImageFont

DOCS, TEMPLATES = host.PACK / "web" / "docs", host.PACK / "workflows"
BIKES, BUNNY = "bikes.mp4", "bigbuckbunny.mp4"
CARD = 480, 270
LINE = 3  # pixels between before and after
SMALL = "small model"
CYCLIST, STREET = 4.6, 6.0  # seconds of bikes.mp4
BUNNY_AT = 0.36  # of the width of bigbuckbunny.mp4


class Editor:
    """Runs templates by the small model."""

    def __init__(self, client):
        self._client = client

    def frames(self, clip, text=None, template="liveditor_demo", start=0.0, frames=17, attention=None):
        """Pictures of the source and of the edit at the same times.

        Args:
            text: the instruction; the template's own if None.
            attention: inputs of Sparse Attention Settings.
        """
        graph = json.loads((TEMPLATES / f"{template}.json").read_text(encoding="utf-8"))
        prompt = copy.deepcopy(self._client.to_api(graph))
        host.set_inputs(prompt, "LoadVideo", file=clip)
        host.set_inputs(prompt, "EncodeSourceVideo", start=start, max_frames=frames)
        if attention:
            host.set_inputs(prompt, "SparseAttentionSettings", **attention)
        if text is not None:
            (sampler,) = host.nodes_of(prompt, "LIVEditSampler")
            prompt[sampler["inputs"]["positive"][0]]["inputs"]["text"] = text
        host.remove(prompt, "PreviewImage")  # of liveditor_inspect, which shows its plots there
        saved = host.saved_file(self._client.run(prompt))
        edited = [(frame.time, frame.to_image()) for frame in av.open(str(saved)).decode(video=0)]
        source = [(frame.time - start, frame.to_image()) for frame in av.open(str(host.CLIPS / clip)).decode(video=0)]
        return [(min(source, key=lambda each: abs(each[0] - time))[1], picture) for time, picture in edited]


def covering(picture, size, focus=0.5):
    """A picture scaled to cover a size; `focus` is the share of the width that lies in the middle where it can."""
    width, height = size
    scale = max(width / picture.width, height / picture.height)
    scaled = picture.resize((round(picture.width * scale), round(picture.height * scale)), Image.Resampling.LANCZOS)
    left, top = (
        round(min(max(0, focus * scaled.width - width / 2), scaled.width - width)),
        (scaled.height - height) // 2,
    )
    return scaled.crop((left, top, left + width, top + height))


def split(pictures, size, places, focus=0.5):
    """One picture of several that show the same: each from its place on, as shares of the width, with lines between."""
    out = covering(pictures[0], size, focus)
    for picture, place in zip(pictures[1:], places, strict=True):
        left = round(size[0] * place)
        out.paste(covering(picture, size, focus).crop((left, 0, *size)), (left, 0))
        ImageDraw.Draw(out).rectangle((left - LINE // 2, 0, left + LINE // 2, size[1]), fill="white")
    return out


def film(pairs, size):
    """Pictures at several times in a row: before above, after below."""
    width, height = size[0] // len(pairs), size[1] // 2
    out = Image.new("RGB", size, "white")
    for column, pair in enumerate(pairs):
        for row, picture in enumerate(pair):
            out.paste(
                covering(picture, (width - LINE, height - LINE // 2)), (column * width, row * (height + LINE // 2))
            )
    return out


def caption(picture, text, size=17):
    """Words in the lower right corner, on a dark ground."""
    font = ImageFont.load_default(size)
    draw = ImageDraw.Draw(picture, "RGBA")
    left, top, right, bottom = draw.textbbox((0, 0), text, font)
    x, y = picture.width - right - 10, picture.height - bottom - 8
    draw.rectangle((x + left - 6, y + top - 4, x + right + 6, y + bottom + 4), fill=(0, 0, 0, 150))
    draw.text((x, y), text, "white", font)
    return picture


def cards(editor):
    """(template, picture) of each."""

    def edit(clip, start, text=None, at=0.5, **options):
        pairs = editor.frames(clip, text, start=start, **options)
        return pairs[round(at * (len(pairs) - 1))]

    yield "liveditor_demo", split(edit(BIKES, STREET), CARD, [0.5])
    for name, text, start in (
        ("edit", "give it a warm sepia tone", 0),
        ("edit_stock_nodes", "swap red and blue", 2),
        ("rewrite", "make it black and white", 4),
        ("gpus", "turn it into a night scene", 3),
    ):
        yield f"liveditor_{name}", caption(split(edit(BUNNY, start, text), CARD, [0.3]), SMALL)
    before, sparse = edit(BIKES, STREET)
    dense = editor.frames(BIKES, start=STREET, attention={"backend": "dense"})[8][1]
    yield "liveditor_compare", split((before, sparse, dense), CARD, [1 / 3, 2 / 3])
    yield "liveditor_mask", film([edit(BIKES, CYCLIST, template="liveditor_mask")], CARD)
    yield "liveditor_inspect", split(edit(BIKES, STREET, template="liveditor_inspect"), CARD, [0.5])
    for name in ("liveditor_long", "liveditor_timeline"):
        pairs = editor.frames(BIKES, template=name, start=3.5, frames=150)
        yield name, film([pairs[round(share * (len(pairs) - 1))] for share in (0.15, 0.5, 0.85)], CARD)


def icon(editor):
    return split(editor.frames(BUNNY, "turn it into a night scene", start=2)[8], (400, 400), [0.5], BUNNY_AT)


def banner(editor):
    """Of 21:9."""
    size, texts = (
        (1260, 540),
        ["give it a warm sepia tone", "turn it into a night scene", "invert the colours", "make it black and white"],
    )
    pairs = [editor.frames(BUNNY, text, start=2)[8] for text in texts]
    columns = [pairs[0][0], *(edit for _, edit in pairs)]
    picture, width = Image.new("RGB", size, "white"), size[0] // len(columns)
    for number, column in enumerate(columns):
        picture.paste(covering(column, (width - LINE, size[1]), BUNNY_AT), (number * width, 0))
    draw = ImageDraw.Draw(picture, "RGBA")
    draw.rectangle((0, 420, *size), fill=(0, 0, 0, 150))
    draw.text((40, 424), "LIVEditor", "white", ImageFont.load_default(60))
    draw.text((44, 494), "edit a video by instruction (edits: small model)", "white", ImageFont.load_default(26))
    return picture


def main():
    for clip in (BIKES, BUNNY):
        shutil.copy(host.CLIPS / clip, host.RUN / "input" / clip)
    with host.Server() as server:
        editor = Editor(server.client)
        icon(editor).save(DOCS / "icon.jpg", quality=88, optimize=True)
        banner(editor).save(DOCS / "banner.jpg", quality=82, optimize=True)
        for name, picture in cards(editor):
            picture.save(TEMPLATES / f"{name}.jpg", quality=82, optimize=True)
            print(name, (TEMPLATES / f"{name}.jpg").stat().st_size)


if __name__ == "__main__":
    main()
