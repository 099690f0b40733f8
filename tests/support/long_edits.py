"""Edits of long clips by the small model, through a server: prompts, and what came out."""

import sys
import time
from typing import NamedTuple

import host
import numpy as np
import torch
from safetensors.torch import load_file
from through_server import frames_of, node, with_defaults

sys.path.append(str(host.PACK))
from training.nano import MODEL, RECOMMENDED, TEXT_ENCODER, VAE

WINDOW = {"window": 33, "overlap": 8}


def prompt(client, file, words, encode=None, **sampler):
    """Edit a clip at its own rate, 256x112, and save video and latent.

    Args:
        file: name in the input folder.
        words: an instruction, or a timeline with a line for each.
        encode, sampler: inputs of Encode Source Video and LIVEdit Sampler other than the small model's.
    """
    sar, srr, flat_ratio = RECOMMENDED["ratios"]
    width, height = RECOMMENDED["size"]
    part = {"fps": "as the source", "max_frames": 0} | (encode or {})
    settings = {name: RECOMMENDED[name] for name in ("steps", "cfg", "shift")} | WINDOW | sampler
    asked = "LIVEditTimeline" if "\n" in words else "CLIPTextEncode"
    text = {"timeline": words} if "\n" in words else {"text": words}
    return with_defaults(
        client,
        {
            "video": node("LoadVideo", file=file),
            "load": node("LoadLIVEditor", checkpoint=MODEL, text_encoder=TEXT_ENCODER, vae=VAE),
            "settings": node(
                "SparseAttentionSettings", model=["load", 0], sar=sar, srr=srr, flat_ratio=flat_ratio, backend="pytorch"
            ),
            "words": node(asked, clip=["load", 1], **text),
            "nothing": node("CLIPTextEncode", clip=["load", 1], text=""),
            "encode": node(
                "EncodeSourceVideo",
                video=["video", 0],
                vae=["load", 2],
                size="custom",
                width=width,
                height=height,
                **part,
            ),
            "sample": node(
                "LIVEditSampler",
                model=["settings", 0],
                positive=["words", 0],
                negative=["nothing", 0],
                source=["encode", 0],
                **settings,
            ),
            "decode": node(
                "DecodeVideo", samples=["sample", 0], vae=["load", 2], source=["encode", 0], fps="as the source"
            ),
            "save": node("SaveVideo", video=["decode", 0], filename_prefix="long", format="auto", codec="auto"),
            "latent": node("SaveLatent", samples=["sample", 0], filename_prefix="latents/long"),
            "report": node("PreviewAny", source=["sample", 1]),
        },
    )


class Done(NamedTuple):
    """What came of a prompt."""

    video: object  # path of the file, None where none was saved
    latent: torch.Tensor
    report: str
    seconds: dict[str, float]  # by node


def run(client, prompt, on_progress=None, base=host.RUN):
    """Run a prompt.

    Args:
        on_progress: called with calls of the model that are done, and all of them.
    """
    seconds, at_work = {}, [None, time.monotonic()]

    def follow(message):
        if not isinstance(message, dict):
            return
        data = message["data"]
        if message["type"] == "executing":
            now = time.monotonic()
            if at_work[0] is not None:
                seconds[at_work[0]] = seconds.get(at_work[0], 0) + now - at_work[1]
            at_work[:] = data["node"], now
        if message["type"] == "progress" and data["node"] == "sample" and on_progress is not None:
            on_progress(data["value"], data["max"])

    outputs = client.run(prompt, follow, timeout=3600)
    saved = outputs["latent"]["latents"][0]
    latent = load_file(base / "output" / saved["subfolder"] / saved["filename"])["latent_tensor"]
    video = host.saved_file(outputs, base) if "save" in prompt else None
    return Done(video, latent, outputs["report"]["text"][0], seconds)


def frames(path):
    """[F, H, W, 3] uint8"""
    return np.stack(list(frames_of(path)))
