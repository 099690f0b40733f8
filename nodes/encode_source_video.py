import logging
import math
import os
from fractions import Fraction
from functools import partial

import av
import torch

import node_helpers
from comfy_api.latest import InputImpl, io
from comfy_execution.graph_utils import ExecutionBlocker

from ..liveditor_core import video as geometry
from ..liveditor_core.model_config import SOURCE_KEY
from ..liveditor_core.vae_stream import encode_frames
from .types import CATEGORY, Source, require_wan_vae

NAME = "Encode Source Video"
TRAINED_FPS = 16
FPS_CHOICES = ("16 (as trained)", "as the source")


class EncodeSourceVideo(io.ComfyNode):
    @classmethod
    def define_schema(cls):
        return io.Schema(
            node_id="EncodeSourceVideo",
            display_name=NAME,
            category=CATEGORY,
            description="Prepare the video you want to edit: choose the part, the frame rate and the size, and encode "
            "it for "
            "the sampler. Decode Video puts the edit back at the right length, size and sound.",
            search_aliases=["source video", "video to latent", "video conditioning", "vid2vid source"],
            inputs=[
                io.MultiType.Input(
                    "video",
                    types=[io.Video, io.Image],
                    tooltip="The video to edit: a VIDEO from Load Video, or a batch of IMAGE frames (then set "
                    "image fps).",
                ),
                io.Vae.Input("vae", tooltip="The Wan 2.1 VAE from Load LIVEditor or Load VAE."),
                io.Combo.Input(
                    "size",
                    options=[*geometry.PRESETS, "custom"],
                    default="auto 540p",
                    tooltip="Size of the edit. auto picks the trained size nearest in shape to your video, for example "
                    "960x544 for 16:9. custom uses width and height below.",
                ),
                io.Int.Input(
                    "width",
                    default=960,
                    min=geometry.SIZE_STEP,
                    max=8192,
                    step=geometry.SIZE_STEP,
                    tooltip="Only for size custom. A multiple of 16.",
                ),
                io.Int.Input(
                    "height",
                    default=544,
                    min=geometry.SIZE_STEP,
                    max=8192,
                    step=geometry.SIZE_STEP,
                    tooltip="Only for size custom. A multiple of 16.",
                ),
                io.Combo.Input(
                    "fit",
                    options=list(geometry.FITS),
                    default="crop",
                    tooltip="When the shapes differ. crop: fill the size and cut the edges, as the model was trained. "
                    "pad: keep everything, with black bars that Decode Video removes. stretch: distort.",
                ),
                io.Combo.Input(
                    "fps",
                    options=list(FPS_CHOICES),
                    default=FPS_CHOICES[0],
                    tooltip="Frame rate of the edit. The model was trained at 16 frames a second; with the "
                    "source's own "
                    "rate, the same number of frames covers less time.",
                ),
                io.Float.Input(
                    "start",
                    default=0.0,
                    min=0.0,
                    max=86400.0,
                    step=0.01,
                    tooltip="Where in the video to begin, in seconds.",
                ),
                io.Int.Input(
                    "max_frames",
                    default=81,
                    min=0,
                    max=100000,
                    tooltip="Edit at most this many frames, 0 for all. The model was trained on 81 (5 seconds at 16 "
                    "fps). Memory and time grow with it. Any number works: frames are padded to 4n + 1 for the "
                    "VAE and cut again afterwards.",
                ),
                io.Float.Input(
                    "image_fps",
                    default=16.0,
                    min=0.01,
                    max=1000.0,
                    step=0.01,
                    advanced=True,
                    tooltip="Only for IMAGE input: the frame rate of the frames.",
                ),
                io.Conditioning.Input(
                    "positive",
                    optional=True,
                    tooltip="Only for stock samplers: the instruction, to get it back with the source attached. "
                    "LIVEdit "
                    "Sampler does not need it.",
                ),
                io.Conditioning.Input(
                    "negative",
                    optional=True,
                    tooltip="Only for stock samplers: the negative prompt, to get it back with the source attached.",
                ),
            ],
            outputs=[
                Source.Output("source", tooltip="For LIVEdit Sampler and Decode Video."),
                io.Conditioning.Output(
                    "positive_out",
                    display_name="positive",
                    tooltip="The instruction with the source attached, for stock samplers.",
                ),
                io.Conditioning.Output(
                    "negative_out",
                    display_name="negative",
                    tooltip="The negative prompt with the source attached, for stock samplers.",
                ),
                io.Latent.Output("latent", tooltip="An empty latent of the right size, for stock samplers."),
            ],
        )

    @classmethod
    def execute(
        cls, video, vae, size, width, height, fit, fps, start, max_frames, image_fps, positive=None, negative=None
    ) -> io.NodeOutput:
        require_wan_vae(vae, NAME)
        for label, value in (("width", width), ("height", height)):
            if size == "custom" and value % geometry.SIZE_STEP:
                raise ValueError(
                    f"{NAME}: {label} must be a multiple of {geometry.SIZE_STEP}, got {value}. Use "
                    f"{round(value / geometry.SIZE_STEP) * geometry.SIZE_STEP or geometry.SIZE_STEP}."
                )
        part = partial(_read_part, video, start=start, max_frames=max_frames, edit_at=fps, image_fps=image_fps)
        original, audio, original_fps, edit_fps, first_frame = part()
        original_height, original_width = original.shape[1:3]
        if size != "custom":
            width, height = geometry.preset_size(size, original_width, original_height)
        indices = geometry.frame_indices(len(original), original_fps, edit_fps)[: max_frames or None]
        fitted = geometry.fit_frames(original[indices], width, height, fit)
        latent = encode_frames(vae, geometry.pad_frames(fitted))
        source = geometry.SourceVideo(
            latent=latent,
            width=width,
            height=height,
            frames=len(fitted),
            fps=edit_fps,
            original_width=original_width,
            original_height=original_height,
            original_frames=len(original),
            original_fps=original_fps,
            first_frame=first_frame,
            fit=fit,
            audio=audio,
            read_original=lambda: part()[0],
        )
        padded = geometry.padded_frame_count(len(fitted)) - len(fitted)
        logging.info(
            f"LIVEditor: source of {len(fitted)} frames at {float(edit_fps):g} fps, {width}x{height}"
            + (f", {padded} frames added for the VAE and cut again later" if padded else "")
        )
        attached = [
            _attach(conditioning, latent, name)
            for conditioning, name in ((positive, "positive"), (negative, "negative"))
        ]
        return io.NodeOutput(source, *attached, {"samples": latent.new_zeros(latent.shape)})


def _read_part(video, *, start, max_frames, edit_at, image_fps):
    """The frames of the part to edit, RGB, with its audio, its frame rate, the frame rate of the edit, and which
    frame of the video its first is.
    """
    start_at = start
    if isinstance(video, torch.Tensor):
        frames, audio, fps = video, None, Fraction(image_fps).limit_denominator(1001)
    else:
        frames, audio, fps, start = _read_video(video, start, max_frames, edit_at)
    edit_fps = _edit_fps(fps, edit_at)
    first = round(start * fps)
    first_frame = (
        first if start == start_at else math.ceil(start_at * fps - Fraction(1, 10**6))
    )  # of a file the host has left out all frames before the start
    if len(frames) == 0 or first >= len(frames):
        raise ValueError(
            f"{NAME}: the video must have at least one frame after its start, got none after {start_at:g} s. "
            "Choose another video or an earlier start."
        )
    wanted = math.ceil(max_frames * fps / edit_fps) if max_frames else None
    frames = frames[first:][:wanted, ..., :3]
    return frames, geometry.audio_window(audio, start, len(frames) / fps), fps, edit_fps, first_frame


def _read_video(video, start, max_frames, edit_at):
    """Decode a VIDEO, of a file only the part that is needed; returns the start within what was decoded as well."""
    try:
        fps = video.get_frame_rate()
        if isinstance(video, InputImpl.VideoFromFile):
            seconds = max(0.0, video.get_duration() - start)
            if max_frames:
                seconds = min(seconds, float((max_frames + 1) / min(fps, _edit_fps(fps, edit_at))))
            # A window of no length would mean all of the video to the host.
            video, start = video.as_trimmed(start, seconds or 1e-3, strict_duration=False), 0.0
        components = video.get_components()
    except (av.error.FFmpegError, ValueError, StopIteration) as error:
        name = video.get_stream_source()
        name = os.path.basename(name) if isinstance(name, str) else "the input"
        raise ValueError(
            f"{NAME}: {name}: must be a video that FFmpeg can read, with a picture ({error}). Choose another "
            "file or convert it to mp4."
        ) from error
    return components.images, components.audio, components.frame_rate, start


def _edit_fps(fps, edit_at):
    return fps if edit_at == FPS_CHOICES[1] else Fraction(TRAINED_FPS)


def _attach(conditioning, latent, name):
    if conditioning is None:
        return ExecutionBlocker(
            f"{NAME}: its output {name} is used, but nothing is connected to its input {name}. Connect your "
            "prompt there."
        )
    return node_helpers.conditioning_set_values(conditioning, {SOURCE_KEY: latent})
