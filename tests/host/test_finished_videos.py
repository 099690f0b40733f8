"""What comes back of any footage: the whole video with the part in place, sizes, rates, masks, both side by side."""

import os
import re
from fractions import Fraction

import host
import numpy as np
import pytest
import through_server
from footage import Clip, Sound, steady, then, truth
from footage_cases import EDIT_RATE
from footage_pictures import is_flash, read_number
from through_server import (
    CameOut,
    components,
    copy_of,
    frames_of,
    graph,
    images_of,
    in_step,
    node,
    put,
    run,
    send,
    with_defaults,
    with_report,
)

BEEPING = {"stamps": steady(25, 50), "flashes": (0.4, 1.4), "sounds": (Sound("aac"),)}


@pytest.mark.parametrize(
    "clip",
    [
        Clip("mp4", **BEEPING),
        Clip("mkv", "libx265", **BEEPING | {"sounds": (Sound("flac"),), "offset": 30}),
        Clip("webm", "libvpx-vp9", stamps=then(steady(25, 40), Fraction(25, 2), 5), flashes=(0.4, 1.4)),
    ],
    ids=lambda clip: f"{clip.container} {clip.codec}",
)
@pytest.mark.parametrize("masked", [True, False])
def test_the_part_in_the_whole_video(client, clip, masked):
    encode = {"start": 0.6, "max_frames": 10}  # up to 1.225 s: between two frames
    file = put(clip, "whole")
    out = run(client, graph(client, file, encode, {"whole_video": True, "feather": 0}, masked=masked))
    should = truth(clip, 25).numbers
    edited = [0.6 <= (i + 0.5) / 25 < 1.225 for i in range(len(should))]
    assert out.rate == 25 and out.size == clip.size
    if masked:
        assert out.numbers == should
    else:
        assert [n if not e else None for n, e in zip(out.numbers, edited, strict=True)] == [
            n if not e else None for n, e in zip(should, edited, strict=True)
        ]
    source = [picture.astype(float) for picture in frames_of(host.RUN / "input" / file)]
    for i, (number, picture) in enumerate(zip(should, out.pictures, strict=True)):
        off = np.abs(picture - source[number])
        corner = off[-4:, -6:].mean() if masked else off.mean()
        assert corner > 8 if edited[i] else off.mean() < 4, f"frame {i}: {corner:.1f}, {off.mean():.1f}"
    if clip.sounds:
        assert in_step(out, clip.flashes) and abs(out.sound.length - 2 * out.sound.rate) <= 1


def test_tiles_leave_no_seam_in_time(client):
    """73 frames of one tile: the same with and without tiles."""
    clip = Clip("mkv", "ffv1", size=through_server.EDIT_SIZE, stamps=steady(25, 73))
    file, pictures = put(clip, "tiled"), []
    for tiling in ("auto", "tiled"):
        decode = {"tiling": tiling, "tile_size": 64}
        prompt = graph(client, file, {"fps": "as the source"}, decode, masked=False)
        components(prompt, "video")
        prompt["latent"] = node("VAEEncode", pixels=["parts", 0], vae=["vae", 0])
        prompt["decode"]["inputs"]["samples"] = ["latent", 0]
        pictures.append(images_of(client, prompt, ["decode", 1])[0].astype(float))
    errors = np.square(pictures[0] - pictures[1]).mean(axis=(1, 2, 3))
    assert len(errors) == 73 and 10 * np.log10(255**2 / errors.max().clip(1e-6)) > 50


@pytest.mark.parametrize("rate", [Fraction(30000, 1001), 25])
def test_source_and_edit_stand_beside_each_other_by_time(client, rate):
    """The edit with twice as many frames, and the edit at the source's rate, saved and loaded again."""
    clip = Clip(stamps=steady(rate, 50))
    prompt = graph(client, put(clip, "compared"), {"start": 0.2})
    components(prompt, "decode")
    prompt["more"] = node("RepeatEachFrame", images=["parts", 0], times=2)
    prompt["after"] = node("CreateVideo", images=["more", 0], fps=32.0)
    halves = compared(client, prompt)
    should = truth(clip, 32, start=0.2).numbers[: len(halves[0])]
    assert halves[0] == should and halves[1] == [n for n in truth(clip, start=0.2).numbers for _ in range(2)]

    prompt = graph(client, put(clip, "compared"), {"start": 0.2}, {"fps": "as the source"})
    saved = run(client, prompt)
    os.replace(saved.path, host.RUN / "input" / "reloaded.mp4")
    prompt["after"] = node("LoadVideo", file="reloaded.mp4")
    halves = compared(client, prompt)
    should = truth(clip, rate, start=0.2).numbers
    assert halves[0] == should and len(halves[1]) == len(should)


def compared(client, prompt):
    """Numbers on both sides of Compare Videos."""
    prompt["compare"] = node("LIVEditCompareVideos", before=["encode", 0], after=["after", 0])
    prompt["save"]["inputs"]["video"] = ["compare", 0]
    outputs = client.run(with_defaults(client, prompt))
    out = CameOut(host.saved_file({"save": outputs["save"]}))
    width = out.size[0] // 2
    return [[read_number(picture[:, side]) for picture in out.pictures] for side in (slice(width), slice(width, None))]


@pytest.mark.parametrize(
    "size, edit",
    [((1280, 720), {"size": "auto 540p"}), ((360, 640), {"size": "custom", "width": 272, "height": 480})],
)
def test_sixteen_to_nine_leaves_no_strips_at_its_edges(client, size, edit):
    clip = Clip(size=size, stamps=steady(25, 2), numbered=False)
    out = send(client, clip, "strips", edit | {"fit": "crop", "max_frames": 1}, masked=False)
    source = next(frames_of(host.RUN / "input" / "strips.mp4")).astype(float)
    off = np.abs(out.pictures[0] - source).mean(axis=-1)
    edges = [edge.mean().round(1) for edge in (off[:, 0], off[:, -1], off[0], off[-1])]
    assert out.size == size and min(edges) > 20, edges  # the source's own, saved, is within 4


def test_what_a_crop_leaves_unedited_is_said(client):
    encode = {"width": 64, "height": 32, "fit": "crop", "max_frames": 1}
    prompt = with_report(graph(client, put(Clip(size=(320, 240)), "four_to_three"), encode))
    assert re.search("unedited|not edited|outside", run(client, prompt).report, re.IGNORECASE)


def test_the_shape_as_displayed_chooses_the_size(client):
    clip = Clip("mpg", "mpeg2video", size=(720, 576), pixel_aspect=Fraction(64, 45), stamps=steady(25, 3))
    out = send(client, clip, "wide", {"size": "auto 480p", "fit": "crop", "max_frames": 1}, {"original_size": False})
    assert out.size == (832, 480)


def test_back_at_the_sources_rate_sound_stays_in_step(client):
    for container in ("mp4", "mkv"):
        clip = Clip(container, **BEEPING | {"stamps": steady(60, 120)})
        out = send(client, clip, "sixty_again", {"start": 0.1}, {"fps": "as the source"})
        assert out.rate == 60 and out.numbers == truth(clip, 60, start=0.1).numbers
        assert in_step(out, [beep - 0.1 for beep in clip.flashes])
        assert sum(map(is_flash, out.pictures)) > 10


# Masks


def test_masks_of_a_whole_video_of_variable_rate(client):
    """A mask for every picture of the file: bright blocks of a picture are edited, dark ones are the source's."""
    clip = Clip(stamps=then(steady(4, 4), 30, 24))
    prompt = graph(client, put(clip, "masks"), {"start": 0.5}, {"feather": 0})
    components(prompt, "video")
    prompt["bright"] = node("ImageToMask", image=["parts", 0], channel="red")
    prompt["mask"] = node("ThresholdMask", mask=["bright", 0], value=0.8)
    out = run(client, prompt)
    should = truth(clip, start=0.5).numbers
    for number, picture in zip(should, out.pictures, strict=True):
        assert through_server.bright_blocks_are_edited(picture, number), number


@pytest.mark.parametrize("missing", [1, 2])
def test_a_mask_more_or_less(client, missing):
    clip = Clip(stamps=steady(EDIT_RATE, 20))
    prompt = graph(client, put(clip, "fewer_masks"), decode={"feather": 0})
    components(prompt, "video")
    prompt["fewer"] = node("ImageFromBatch", image=["parts", 0], batch_index=0, length=20 - missing)
    prompt["bright"] = node("ImageToMask", image=["fewer", 0], channel="red")
    prompt["mask"] = node("ThresholdMask", mask=["bright", 0], value=0.8)
    out = run(client, prompt)
    assert len(out.frames) == 20
    for number, picture in enumerate(out.pictures[: 20 - missing]):
        assert through_server.bright_blocks_are_edited(picture, number), number


def test_soft_and_small_masks_end_where_they_were_drawn(client):
    """A black that is not 0 is outside, and a mask an eighth as large keeps its edges within a pixel."""
    clip = Clip("mkv", "ffv1", stamps=steady(EDIT_RATE, 3))
    prompt = graph(client, put(clip, "soft"), decode={"feather": 0})
    levels = {"noise": 0.01, "video_black": 16 / 255}
    for name, level in levels.items():
        prompt[f"{name}_floor"] = node("SolidMask", value=level, width=32, height=32)
        prompt[name] = copy_of(prompt["mask"], destination=[f"{name}_floor", 0])
    prompt["small_floor"] = node("SolidMask", value=0.0, width=12, height=8)
    prompt["small_inside"] = node("SolidMask", value=1.0, width=3, height=4)
    small = {"destination": ["small_floor", 0], "source": ["small_inside", 0], "x": 6, "y": 2}
    prompt["small"] = copy_of(prompt["mask"], **small)
    for name in (*levels, "small"):
        prompt[f"decode_{name}"] = copy_of(prompt["decode"], mask=[name, 0])
    decodes = ("decode", *(f"decode_{name}" for name in (*levels, "small")))
    hard, *soft, small = images_of(client, prompt, *([decode, 1] for decode in decodes))
    for pictures in soft:
        assert (pictures != hard)[:, :-8, :-8].sum() == 0
    inside = np.zeros(hard.shape[1:3], bool)
    inside[16 - 1 : 48 + 1, 48 - 1 : 72 + 1] = True
    inside[-8:, -8:] = True  # the corner of the hard one
    assert (small != hard)[:, ~inside].sum() == 0
    assert (small != hard)[:, 18:46, 50:70].mean() > 0.8


def test_frames_are_made_where_somebody_takes_them(client):
    """Connected only after a first run, they are made as well; until then there are none."""
    clip = Clip(stamps=steady(EDIT_RATE, 5))
    prompt = graph(client, put(clip, "taken"))
    ran = []

    def note(message):
        if isinstance(message, dict) and message["type"] == "executing":
            ran.append(message["data"]["node"])

    client.run(prompt, note)
    assert "decode" in ran
    ran.clear()
    client.run(prompt | {"again": copy_of(prompt["save"], filename_prefix="again")}, note)
    assert "decode" not in ran, "decoded once, however many read it"
    (pictures,) = images_of(client, prompt, ["decode", 1])
    assert [read_number(picture) for picture in pictures] == list(range(5))
