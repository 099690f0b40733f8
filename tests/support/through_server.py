"""Footage through the nodes of a real server, and what came out: pictures by number, sound by its beeps."""

import os
from fractions import Fraction
from functools import cached_property
from pathlib import Path
from typing import NamedTuple

import av
import footage
import host
import numpy as np
import random_footage
import tiny_models
from footage_pictures import BRIGHT, DARK, block_levels, is_flash, read_number, shown
from footage_sound import BEEP_LASTS

EDIT_SIZE = (32, 32)  # the smallest that is quick; the source's size and frames come back at the end
REFUSALS = ("must", "needs", "cannot")  # one of these words states the rule


def graph(client, file, encode=None, decode=None, *, masked=True):
    """A prompt that reads a video and writes it back without a model between: an edit of nothing.

    With the mask, which covers the lower right corner of the picture, all else is the source's own.

    Args:
        file: name in the input folder.
        encode, decode: inputs of those nodes other than the defaults; the size is EDIT_SIZE, stretched, all frames.

    Returns:
        Nodes called video, vae, encode, decode, save, and mask.
    """
    width, height = EDIT_SIZE
    small = {"size": "custom", "width": width, "height": height, "fit": "stretch", "max_frames": 0}
    prompt = {
        "video": node("LoadVideo", file=file),
        "vae": node("VAELoader", vae_name=tiny_models.THIN_VAE),
        "encode": node("EncodeSourceVideo", video=["video", 0], vae=["vae", 0], **small | (encode or {})),
        "decode": node(
            "DecodeVideo",
            samples=["encode", 3],
            vae=["vae", 0],
            source=["encode", 0],
            **{"original_size": True} | (decode or {}),
        ),
        "save": node("SaveVideo", video=["decode", 0], filename_prefix="footage", format="auto", codec="auto"),
    }
    if masked:
        prompt["nothing"] = node("SolidMask", value=0.0, width=width, height=height)
        prompt["corner"] = node("SolidMask", value=1.0, width=2, height=2)
        corner = {"x": width - 2, "y": height - 2}
        prompt["mask"] = node(
            "MaskComposite", destination=["nothing", 0], source=["corner", 0], operation="add", **corner
        )
        prompt["decode"]["inputs"]["mask"] = ["mask", 0]
    return with_defaults(client, prompt)


def node(class_type, **inputs):
    return {"class_type": class_type, "inputs": inputs}


def with_defaults(client, prompt):
    """Fill in the defaults of all widgets that a prompt says nothing of, as the canvas does."""
    for each in prompt.values():
        info = client.get(f"object_info/{each['class_type']}")[each["class_type"]]["input"].get("required", {})
        for name, (kind, *options) in info.items():
            if name not in each["inputs"] and options and "default" in options[0]:
                each["inputs"][name] = options[0]["default"]
            elif name not in each["inputs"] and isinstance(kind, list):
                each["inputs"][name] = kind[0]
    return prompt


def components(prompt, video):
    """Take the VIDEO of a node apart: its frames and sound are the outputs of `parts`."""
    prompt["parts"] = node("GetVideoComponents", video=[video, 0])


def copy_of(each, **inputs):
    """A node of a prompt with other inputs."""
    return {**each, "inputs": each["inputs"] | inputs}


def with_report(prompt):
    """The prompt that also says what Encode Source Video reports."""
    return prompt | {"report": node("PreviewAny", source=["encode", 4])}


def run(client, prompt):
    """Run a prompt; what came out."""
    outputs = client.run(prompt)
    report = outputs.pop("report", {}).get("text", [""])[0]
    return CameOut(host.saved_file(outputs), report)


def put(clip, name):
    """Write a Clip into the input folder; the file's name."""
    return footage.write(clip, host.RUN / "input" / f"{name}.{clip.container}").name


def send(client, clip, name, encode=None, decode=None, **options):
    """Send a Clip through; what came out."""
    return run(client, graph(client, put(clip, name), encode, decode, **options))


def send_case(client, case, name):
    """Send a case of `footage_cases` through; what came out, or None where it was refused as it may be."""
    file = put(case.clip, name)
    prompt = graph(client, file, case.encode, case.decode)
    try:
        return run(client, with_report(prompt) if case.says else prompt)
    except host.WorkflowFailed as refusal:
        assert case.may_refuse and names_remedy(str(refusal), file), str(refusal)
        return None


def images_of(client, prompt, *images):
    """Some IMAGEs of a prompt without loss.  # uint8 [F, H, W, 3] each"""
    saves = {f"images{i}": node("SaveImage", images=image, filename_prefix="footage") for i, image in enumerate(images)}
    outputs = client.run({key: value for key, value in prompt.items() if key != "save"} | saves)
    read = []
    for name in saves:
        files = [host.RUN / "output" / image["subfolder"] / image["filename"] for image in outputs[name]["images"]]
        read.append(np.stack([next(iter(frames_of(file))) for file in files]))
    return read


def frames_of(path):
    """The pictures of a video or image file as a player shows them.  # uint8 [H, W, 3] each"""
    with av.open(str(path)) as container:
        for frame in container.decode(video=0):
            yield shown(frame)


class Verdict(NamedTuple):
    """What became of a random file."""

    outcome: str  # right, read, refused
    fault: str  # what is wrong with that, or nothing


def send_random(client, seed, folder):
    """Send the random file of a seed through; a Verdict."""
    path, clip, shown = random_footage.make(seed, folder)
    try:
        out = run(client, graph(client, path.name))
    except host.WorkflowFailed as refusal:
        message = str(refusal)
        if shown:
            return Verdict("refused", f"a whole {clip.container} was refused: {message}")
        return Verdict("refused", "" if names_remedy(message, path.name) else f"no remedy: {message}")
    if shown is None:
        return Verdict("read", "")
    numbers = [read_number(np.rot90(picture, -clip.rotation // 90)) for picture in out.pictures]
    pairs = list(zip(numbers, shown.numbers, strict=False))
    off = [f"{seen} for {number}" for seen, number in pairs if seen is None or abs(seen - number) > 1]
    if abs(len(numbers) - len(shown.numbers)) > 1:
        off.append(f"{len(numbers)} frames for {len(shown.numbers)}")
    if bool(clip.sounds) != bool(out.sound_streams):
        off.append(f"{out.sound_streams} sound tracks for {len(clip.sounds)}")
    return Verdict("right", f"{clip.container} {clip.codec}: {', '.join(off[:3])}" if off else "")


class CameOut:
    """A video file that came out of the server.

    Attributes:
        frames: list of av.VideoFrame.
        rate: frames a second.
        size, pixel_aspect: width and height, and the shape of a pixel.
        report: what Encode Source Video said, if it was asked.
    """

    def __init__(self, path, report=""):
        self.path, self.report = Path(path), report
        with av.open(str(path)) as container:
            stream = container.streams.video[0]
            self.frames = list(container.decode(stream))
            self.rate = Fraction(stream.average_rate)
            self.size = (stream.width, stream.height)
            self.pixel_aspect = stream.sample_aspect_ratio or Fraction(1)
            self.sound_streams = len(container.streams.audio)

    @cached_property
    def pictures(self):
        """uint8 [H, W, 3] each."""
        return [shown(frame) for frame in self.frames]

    @cached_property
    def numbers(self):
        return [read_number(picture) for picture in self.pictures]

    @cached_property
    def sound(self):
        return Heard(self.path) if self.sound_streams else None

    def flashes(self):
        """When the flash goes on, seconds."""
        on = [is_flash(picture) for picture in self.pictures]
        return [i / float(self.rate) for i in range(len(on)) if on[i] and not (i and on[i - 1])]


class Heard:
    """The first sound track of a file.

    Attributes:
        wave: floats [channels, samples].
        rate, start: samples a second; seconds at which it begins.
        length: samples up to the end of the last packet, of which decoders give more: AAC comes in blocks of 1024.
        layout: FFmpeg's name of its channels.
    """

    def __init__(self, path):
        with av.open(str(path)) as container:
            stream = container.streams.audio[0]
            resampler = av.AudioResampler(format="flt")
            frames, end = [], 0
            for packet in container.demux(stream):
                if packet.pts is not None:
                    end = max(end, packet.pts + (packet.duration or 0))
                frames += [part for frame in packet.decode() for part in resampler.resample(frame)]
            self.rate, self.layout = stream.rate, frames[0].layout.name
            self.start = float(frames[0].pts * frames[0].time_base)
            channels = frames[0].layout.nb_channels
            self.wave = np.concatenate([frame.to_ndarray().reshape(-1, channels) for frame in frames]).T
            self.length = end * stream.time_base * self.rate

    def beeps(self):
        """When beeps begin, seconds: where it becomes loud after 40 ms of quiet."""
        window = max(1, self.rate // 500)
        mono = np.abs(self.wave).max(axis=0)
        loud = mono[: len(mono) // window * window].reshape(-1, window).max(axis=1)
        loud = np.flatnonzero(loud > 0.3 * max(loud.max(), 0.02))
        return [self.start + i * window / self.rate for n, i in enumerate(loud) if n == 0 or i - loud[n - 1] > 20]

    def pitch(self):
        """The loudest frequency, Hz; None where nothing is to be heard."""
        mono = self.wave.mean(axis=0)
        if np.abs(mono).max() < 0.01:
            return None
        spectrum = np.abs(np.fft.rfft(mono * np.hanning(len(mono))))
        return float(np.argmax(spectrum) * self.rate / len(mono))


def in_step(out, beeps):
    """Whether beeps and flashes are where they belong, within a frame; beeps outside the clip do not count."""
    inside = [beep for beep in beeps if 0 <= beep < len(out.frames) / out.rate - BEEP_LASTS]
    heard, seen, step = out.sound.beeps(), out.flashes(), 1 / out.rate
    return len(heard) == len(seen) == len(inside) > 0 and all(
        abs(a - c) < step and abs(b - c) <= step for a, b, c in zip(heard, seen, inside, strict=True)
    )


def bright_blocks_are_edited(picture, number):
    """Whether the dark blocks of a number are as they were and the bright ones are not."""
    levels = block_levels(picture)
    dark = [pair[0 if not number >> bit & 1 else 1] for bit, pair in enumerate(levels)]
    bright = [pair[1 if not number >> bit & 1 else 0] for bit, pair in enumerate(levels)]
    return max(dark) < DARK + 0.06 and all(abs(level - BRIGHT) > 0.06 for level in bright)


def names_remedy(message, file):
    """Whether a refusal names the file, the rule and what to do."""
    sentences = [part for part in message.split(". ") if part.strip()]
    return os.path.basename(file) in message and any(word in message for word in REFUSALS) and len(sentences) > 1
