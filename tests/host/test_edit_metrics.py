"""Edit Metrics: clips paired by time and size, masks, the host's models, and the node in a real server."""

import hashlib
import json
import threading
import time
from fractions import Fraction

import av
import host
import measured
import numpy as np
import psutil
import pytest
import tiny_clip
import torch
from pictures import pictures_source
from safetensors.torch import save_file
from torchvision.models.optical_flow import raft_large

import comfy.clip_vision
import folder_paths
from comfy_api.latest import InputImpl, Types
from liveditor.liveditor_core.footage.clip import Picture, SteadyClip
from liveditor.liveditor_core.footage.errors import FootageError
from liveditor.liveditor_core.footage.file_clip import FileClip
from liveditor.liveditor_core.metrics import change_map
from liveditor.liveditor_core.metrics.host_models import flow_of, models_of
from liveditor.liveditor_core.metrics.masks import outside_of
from liveditor.liveditor_core.metrics.measure import measure
from liveditor.liveditor_core.metrics.model_files import require_projection
from liveditor.liveditor_core.metrics.pairs import TimedPairs
from liveditor.nodes.edit_metrics import EditMetrics

RAFT = "raft_large_random.safetensors"


def video(frames, fps=25):
    return InputImpl.VideoFromComponents(Types.VideoComponents(images=frames, audio=None, frame_rate=Fraction(fps)))


def numbered(count, height=64, width=96):
    """Frames that say which they are: brightness 10, 20, ..."""
    return (torch.arange(1, count + 1) * 10 / 255).view(-1, 1, 1, 1).expand(count, height, width, 3).clone()


def numbers(pairs):
    """Of the frames of each pair."""
    return [tuple(round(float(frame.mean()) * 25.5) for frame in pair) for pair in pairs.frames()]


@pytest.fixture(autouse=True)
def temp(tmp_path, monkeypatch, library):
    monkeypatch.setattr(folder_paths, "temp_directory", str(tmp_path))
    return tmp_path


@pytest.mark.parametrize(
    "before, after, expected, note",
    [
        (video(numbered(8), 30), video(numbered(8), 30), [(i, i) for i in range(1, 9)], None),
        (video(numbered(8), 30), video(numbered(4), 15), [(2, 1), (4, 2), (6, 3), (8, 4)], None),
        (video(numbered(4), 15), video(numbered(8), 30), [(-(-i // 2), i) for i in range(1, 9)], None),
        (video(numbered(3), 10), video(numbered(5), 10), [(1, 1), (2, 2), (3, 3)], "after lasts 0.20 s longer"),
        (video(numbered(9), 10), video(numbered(2), 10), [(1, 1), (2, 2)], "before lasts 0.70 s longer"),
        (video(numbered(1), 10), video(numbered(1), 10), [(1, 1)], None),
    ],
)
def test_frames_are_paired_by_time_and_where_both_are(before, after, expected, note):
    pairs = TimedPairs(before, after)
    assert numbers(pairs) == expected and pairs.count == len(expected)
    assert len(pairs.notes) == (note is not None) and all(note in line for line in pairs.notes)


def write(path, stamps, levels):
    """A file whose frames begin to show at these milliseconds."""
    with av.open(str(path), "w") as out:
        stream = out.add_stream("libx264", rate=1000, options={"qp": "0"})
        stream.width, stream.height, stream.pix_fmt, stream.time_base = 64, 48, "yuv420p", Fraction(1, 1000)
        for stamp, level in zip(stamps, levels, strict=True):
            frame = av.VideoFrame.from_ndarray(np.full((48, 64, 3), level, np.uint8), format="rgb24")
            frame.pts, frame.time_base = stamp, Fraction(1, 1000)
            out.mux(stream.encode(frame))
        out.mux(stream.encode(None))
    return str(path)


def test_a_file_of_variable_rate_is_paired_by_time(tmp_path):
    """A phone's: by number, every frame but the first would stand beside another."""
    path = write(tmp_path / "phone.mkv", [0, 40, 240, 280, 480, 520], [10, 20, 30, 40, 50, 60])
    after = video(numbered(14), 25)
    found = numbers(TimedPairs(FileClip(path), after))
    assert [before for before, _ in found] == [1, 2, 2, 2, 2, 2, 3, 4, 4, 4, 4, 4, 5, 6]
    same = measure(TimedPairs(FileClip(path), FileClip(path))).summary
    assert same["kept"]["identical"] and same["compared"]["frames"] == 14


def test_both_are_compared_at_the_smaller_size():
    large, small = measured.textured(3, 128, 192), measured.textured(3, 64, 96, scale=3)
    for before, after in ((large, small), (small, large)):
        pairs = TimedPairs(video(before), video(after))
        assert (
            (pairs.width, pairs.height) == (96, 64) and "compared at 96x64" in pairs.notes[0] and len(pairs.notes) == 1
        )
        found = measure(pairs).summary["kept"]["whole_frame"]
        assert found["psnr"] > 25, "they are the same picture at two sizes"
    pairs = TimedPairs(video(measured.textured(2, 96, 96)), video(measured.textured(2, 64, 96)))
    assert "their shapes differ" in pairs.notes[1] and (pairs.width, pairs.height) == (96, 64)
    assert measure(pairs).summary["compared"]["width"] == 96


def test_a_source_is_taken_as_it_was_edited():
    """Cropped to the edit's shape, while the edit has its size; as decoded, once it is back at the source's."""
    pictures = measured.textured(5, 64, 120)
    source = pictures_source(pictures, (64, 64), "crop", rate=16)
    cropped = torch.stack([source.fitted(picture) for picture in pictures])
    for edit in (cropped, pictures):
        summary = measure(TimedPairs(source, video(edit, 16))).summary
        assert summary["kept"]["identical"] and summary["notes"] == []
    enlarged = torch.nn.functional.interpolate(cropped.movedim(-1, 1), scale_factor=2).movedim(1, -1)
    pairs = TimedPairs(source, video(enlarged, 16))
    assert (pairs.width, pairs.height) == (64, 64) and measure(pairs).summary["kept"]["whole_frame"]["psnr"] > 40


@pytest.mark.parametrize("crf", [18, 28])
def test_a_copy_that_was_only_coded_anew_comes_last(tmp_path, crf):
    source, copy = str(host.CLIPS / "carphone_pristine.mp4"), str(tmp_path / "copy.mp4")
    with av.open(source) as container, av.open(copy, "w") as out:
        stream = container.streams.video[0]
        coded = out.add_stream("libx264", rate=stream.average_rate, options={"crf": str(crf)})
        coded.width, coded.height, coded.pix_fmt = stream.width, stream.height, "yuv420p"
        for number, frame in zip(range(12), container.decode(stream), strict=False):
            frame.pts, frame.time_base, frame.pict_type = number, 1 / Fraction(stream.average_rate), 0
            out.mux(coded.encode(frame))
        out.mux(coded.encode(None))
    summary = measure(TimedPairs(FileClip(source), FileClip(copy))).summary
    assert summary["kept"]["whole_frame"]["psnr"] > 30 and summary["changed"]["whole_frame"]["mean"] > 1
    assert summary["gate"]["kept_if_edited"] < 0.01, "nearly as little as an exact copy"


def half(height, width):
    """A mask of the right half."""
    mask = torch.zeros(1, height, width)
    mask[..., width // 2 :] = 1
    return mask


def edited(pictures, by=30 / 255):
    """With the right half brighter."""
    out = pictures.clone()
    out[:, :, pictures.shape[2] // 2 :] += by
    return out


@pytest.mark.parametrize("mask", [half(64, 96), half(32, 48), half(64, 96).expand(6, -1, -1), half(64, 96)[0]])
def test_masks_of_clips(mask):
    before = measured.textured(6, 64, 96) * 0.8
    pairs = TimedPairs(video(before), video(edited(before)))
    summary = measure(pairs, outside=outside_of(mask, pairs)).summary
    assert summary["kept"]["identical"] and summary["kept"]["pixels"] == 6 * 64 * 48
    assert summary["changed"]["inside"]["mean"] == pytest.approx(30, abs=1e-3)


def test_masks_of_the_frames_of_either_clip():
    before, after = video(measured.textured(8, 64, 96), 30), video(measured.textured(4, 64, 96), 15)
    pairs = TimedPairs(before, after)
    masks = torch.zeros(8, 64, 96)
    for i, mask in enumerate(masks):
        mask[: i + 1] = 1
    rows = [int((~outside_of(masks, pairs)(number)).any(1).sum()) for number in range(4)]
    assert rows == [2, 4, 6, 8], "of the frames of before, by their times"
    rows = [int((~outside_of(masks[:4], pairs)(number)).any(1).sum()) for number in range(4)]
    assert rows == [1, 2, 3, 4], "of the frames of after"
    with pytest.raises(FootageError, match=r"one for each frame of after \(4\) or of before \(8\), got 20"):
        outside_of(torch.ones(20, 64, 96), pairs)
    with pytest.raises(FootageError, match="must cover some of the picture, got one that is empty"):
        outside_of(torch.zeros(1, 64, 96), pairs)


def test_a_mask_on_a_source_lies_as_in_decode_video():
    """One of the edit's size on the edit, any other on the whole picture, of which crop leaves the middle."""
    pictures = measured.textured(4, 64, 120) * 0.8
    source = pictures_source(pictures, (64, 64), "crop", rate=16)
    cropped = torch.stack([source.fitted(picture) for picture in pictures])
    for mask in (half(64, 64), half(64, 120)):
        pairs = TimedPairs(source, video(edited(cropped), 16))
        summary = measure(pairs, outside=outside_of(mask, pairs)).summary
        assert summary["kept"]["identical"] and summary["changed"]["inside"]["mean"] == pytest.approx(30, abs=1e-2)
    back = pictures.clone()
    back[:, :, 60:92] += 30 / 255  # what crop cut off is the source's own
    pairs = TimedPairs(source, video(back, 16))
    summary = measure(pairs, outside=outside_of(half(64, 120), pairs)).summary
    assert summary["kept"]["identical"] and summary["kept"]["pixels"] == 4 * 64 * (120 - 32)


def test_outside_the_part_that_was_edited_nothing_is_inside():
    from dataclasses import replace

    pictures = measured.textured(8, 64, 96)
    whole = pictures_source(pictures, (96, 64), rate=16)
    part = replace(whole, start=Fraction(4, 16), frames=4, original_frames=4, stamps=whole.stamps[:4])
    after = pictures.clone()
    after[4:] = edited(pictures[4:])
    pairs = TimedPairs(part, video(after, 16))
    outside = outside_of(half(64, 96), pairs)
    assert [bool(outside(i).all()) for i in range(8)] == [True] * 4 + [False] * 4
    assert measure(pairs, outside=outside).summary["kept"]["identical"]


def test_texts_are_embedded_through_the_projection():
    """Load CLIP's CLIP-L gives what goes into it, unless it is asked; and is left as it was found."""
    clip, weights = tiny_clip.clip(), tiny_clip.text_weights()
    raw = clip.encode_from_tokens(clip.tokenize("a red car"), return_pooled=True)[1]
    found = models_of(clip, tiny_clip.clip_vision()).texts(["a red car", "a (blue:1.5) car"])
    assert found.shape == (2, 32)
    assert torch.allclose(found[0], (raw @ weights["text_projection.weight"].T)[0], atol=5e-3)
    assert not torch.allclose(found[0], raw[0], atol=0.1)
    assert torch.equal(clip.encode_from_tokens(clip.tokenize("a red car"), return_pooled=True)[1], raw)
    pooled = clip.encode_from_tokens(clip.tokenize("a (blue:1.5) car", disable_weights=True), return_pooled=True)[1]
    assert torch.allclose(found[1], (pooled @ weights["text_projection.weight"].T)[0], atol=5e-3), "no weights in ()"


def test_pictures_are_embedded_as_the_host_does():
    vision, pictures = tiny_clip.clip_vision(), measured.textured(2, 48, 96)
    found = models_of(clip_vision=vision).images(pictures)
    assert torch.equal(found, vision.encode_image(pictures)["image_embeds"]) and found.shape == (2, 32)
    patches = comfy.clip_vision.ClipVisionModel(tiny_clip.VISION | {"model_type": "siglip_vision_model"})
    for value in patches.get_sd().values():
        value.normal_(std=0.1)
    assert models_of(clip_vision=patches).images(pictures).shape == (2, 48), "SigLIP: the mean of its patches"


def execute(before, after, **inputs):
    return EditMetrics.execute(before, after, **inputs)


def test_words_with_the_host_s_models():
    clip = measured.textured(4, 48, 96)
    after = edited(clip, 0.1)
    models = {"clip": tiny_clip.clip(), "clip_vision": tiny_clip.clip_vision()}
    result = execute(video(clip), video(after), target="a red car", source_text="a car", **models)
    summary = json.loads(result[3])
    words = summary["words"]
    embedded = models_of(**models)
    text = torch.nn.functional.normalize(embedded.texts(["a red car"]).double(), dim=-1)
    frames = torch.nn.functional.normalize(embedded.images(after).double(), dim=-1)
    assert words["text_edit"] == pytest.approx(float((frames @ text.T).mean()), abs=1e-5)
    assert words["consistency_edit"] == pytest.approx(float((frames[1:] * frames[:-1]).sum(-1).mean()), abs=1e-5)
    assert words["direction"] is not None and len(summary["frames"]["text_edit"]) == 4
    assert "cosine of text and frame" in result[0] and 'direction from "a car"' in result[0]


def test_models_that_do_not_fit_are_refused_by_name():
    clip = video(measured.textured(2, 48, 96))
    with pytest.raises(ValueError, match="Edit Metrics: CLIP and CLIP_VISION must be of one model, got embeddings 32"):
        execute(clip, clip, clip=tiny_clip.clip(), clip_vision=tiny_clip.clip_vision(40), target="a car")
    with pytest.raises(ValueError, match="Edit Metrics: CLIP needs CLIP_VISION of the same model beside it"):
        execute(clip, clip, clip=tiny_clip.clip(), target="a car")
    alone = json.loads(execute(clip, clip, clip_vision=tiny_clip.clip_vision())[3])["words"]
    assert alone["consistency_edit"] == pytest.approx(alone["consistency_source"]) and alone["text_edit"] is None


def test_a_text_encoder_without_projection_is_refused(tmp_path):
    weights = tiny_clip.text_weights()
    save_file(weights, tmp_path / "whole.safetensors")
    del weights["text_projection.weight"]
    save_file(weights, tmp_path / "torn.safetensors")
    require_projection([str(tmp_path / "whole.safetensors"), str(tmp_path / "torn.safetensors")])
    require_projection([])
    with pytest.raises(FootageError, match="must have its text projection, got .*torn.safetensors without one"):
        require_projection([str(tmp_path / "torn.safetensors")])


def test_a_text_encoder_that_embeds_no_text_as_a_whole_is_refused(monkeypatch):
    clip = tiny_clip.clip()
    monkeypatch.setattr(clip.cond_stage_model, "encode_token_weights", lambda tokens: (torch.zeros(1, 77, 32), None))
    with pytest.raises(FootageError, match="must be a text encoder of a CLIP model, got SD1ClipModel"):
        models_of(clip, tiny_clip.clip_vision()).texts(["a car"])


def raft(height, width):
    """The host's OPTICAL_FLOW with random weights."""
    import comfy.model_patcher

    torch.manual_seed(0)
    model = raft_large(weights=None, progress=False).eval()
    cpu = torch.device("cpu")
    return comfy.model_patcher.ModelPatcher(model, load_device=cpu, offload_device=cpu)


def test_flow_is_raft_s_last_and_of_pictures_in_its_range():
    model, frames = raft(128, 128), measured.textured(2, 128, 128)
    found = flow_of(model)(frames[:1], frames[1:])
    first, second = (2 * frame.movedim(-1, 0)[None] - 1 for frame in frames)
    assert torch.allclose(found, model.model(first, second)[-1], atol=1e-3) and found.shape == (1, 2, 128, 128)


def test_change_map_is_bright_where_the_edit_is_and_grey_elsewhere(temp):
    before = measured.textured(4, 64, 96) * 0.7
    result = execute(video(before), video(edited(before, 64 / 255)))[2]
    frames = result.get_components().images
    assert frames.shape == (4, 64, 96, 3) and result.get_frame_rate() == 25
    left, right = frames[:, :, :48], frames[:, :, 48:]
    assert torch.allclose(left[..., 0], left[..., 2], atol=1e-6), "grey"
    assert torch.allclose(right, right.new_tensor((250, 250, 165)) / 255, atol=0.01), "as much as is shown"
    path = temp / "map.mp4"
    result.save_to(str(path))
    assert av.open(str(path)).streams.video[0].frames == 4
    assert torch.allclose(change_map.painted(before[0], before[0])[..., 0], before[0].mean(-1) / 2, atol=0.1)


@pytest.mark.parametrize("frames", [1, 3])
@pytest.mark.parametrize("level", [0.0, 0.5])
def test_the_node_on_single_and_black_frames(frames, level):
    clip = torch.full((frames, 35, 51, 3), level)
    for after in (clip.clone(), clip + 0.25):
        lines, plots, changes, text = execute(video(clip), video(after)).args
        summary = json.loads(text, parse_constant=pytest.fail)
        assert summary["compared"]["frames"] == frames and "nan" not in lines.lower() and "inf" not in lines.lower()
        assert plots.shape[0] == 1 and plots.isfinite().all() and len(changes) == frames


class Film(SteadyClip):
    """As long as it is said to be, made when it is read."""

    name, rate, width, height, notes, errors = "film", Fraction(25), 480, 272, (), ()

    def __init__(self, frames, shift=0):
        self._frames, self._picture = frames, measured.textured(1, 272, 480)[0].roll(shift, 1)

    def __len__(self):
        return self._frames

    def pictures(self, start):
        return (Picture(i / self.rate, 1 / self.rate, i) for i in range(self.first_at(start), len(self)))

    def rgb(self, picture):
        return self._picture.roll(picture.frame, 0).clone()


def test_memory_does_not_grow_with_the_clip():
    """300 frames kept would be 940 MB."""
    process, peaks = psutil.Process(), []
    for frames in (30, 300):
        before, peak = process.memory_info().rss, [0]
        pairs = TimedPairs(Film(frames), Film(frames, 3))
        measure(pairs, tick=lambda *_, peak=peak: peak.append(process.memory_info().rss))
        peaks.append(max(peak) - before)
    assert peaks[1] - peaks[0] < 100e6, peaks


def prompt_of(file, **inputs):
    """A clip that is compared with itself, at a few frames."""
    return {
        "video": {"class_type": "LoadVideo", "inputs": {"file": file}},
        "part": {
            "class_type": "Video Slice",
            "inputs": {"video": ["video", 0], "start_time": 0.0, "duration": 0.2, "strict_duration": False},
        },
        "metrics": {"class_type": "LIVEditMetrics", "inputs": {"before": ["part", 0], "after": ["part", 0], **inputs}},
        "report": {"class_type": "PreviewAny", "inputs": {"source": ["metrics", 0]}},
        "numbers": {"class_type": "PreviewAny", "inputs": {"source": ["metrics", 3]}},
        "save": {
            "class_type": "SaveVideo",
            "inputs": {"video": ["metrics", 2], "filename_prefix": "map", "format": "auto", "codec": "auto"},
        },
        "plots": {"class_type": "PreviewImage", "inputs": {"images": ["metrics", 1]}},
    }


@pytest.fixture
def random_raft():
    """A file as Load Optical Flow Model takes it; the path."""
    path = host.RUN / "models" / "optical_flow" / RAFT
    path.parent.mkdir(parents=True, exist_ok=True)
    torch.manual_seed(0)
    save_file(raft_large(weights=None, progress=False).state_dict(), path)
    return path


def test_the_whole_node_in_a_server_with_the_host_s_own_loaders(random_raft, client):
    prompt = prompt_of(
        "carphone_pristine.mp4",
        clip=["clips", 0],
        clip_vision=["clips", 1],
        optical_flow=["flow", 0],
        target="a man in a car",
        source_text="a man",
    )
    prompt["clips"] = {"class_type": "TinyClip", "inputs": {"projection": 32}}
    prompt["flow"] = {"class_type": "OpticalFlowLoader", "inputs": {"model_name": RAFT}}
    seen = []
    outputs = client.run(prompt, on_event=lambda message: seen.append(message))
    summary = json.loads(outputs["numbers"]["text"][0])
    assert summary["compared"]["frames"] == 6 and summary["kept"]["identical"] and summary["gate"]["gate"] == 0
    assert summary["flow"]["warp_error_edit"] == summary["flow"]["warp_error_source"]
    assert summary["flow"]["motion_apart"] < 1e-3 * summary["flow"]["motion_edit"]
    assert summary["words"]["gain"] == pytest.approx(0, abs=1e-6) and summary["words"]["direction"] == 0
    (file,) = summary["models"]
    assert file == {
        "used_as": "optical_flow",
        "name": RAFT,
        "sha256": hashlib.sha256(random_raft.read_bytes()).hexdigest(),
    }
    text = outputs["report"]["text"][0]
    assert f"{RAFT}, sha256 {file['sha256'][:12]}" in text and "an unedited copy" in text
    assert outputs["metrics"]["text"][0] == text
    (found,) = outputs["metrics"]["liveditor_metrics"]
    assert found["share"] == 0 and found["identical"] and found["gain"] == summary["words"]["gain"]
    assert host.saved_file({"save": outputs["save"]}).is_file()
    done = [
        m["data"] for m in seen if isinstance(m, dict) and m["type"] == "progress" and m["data"]["node"] == "metrics"
    ]
    assert done and done[-1]["value"] == done[-1]["max"] == 6


def test_the_text_encoder_of_the_edit_itself_is_refused(client):
    """It is T5, which embeds no text as a whole; it is what lies next to hand."""
    prompt = prompt_of("carphone_pristine.mp4", clip=["edits", 1], clip_vision=["clips", 1], target="a man in a car")
    prompt["clips"] = {"class_type": "TinyClip", "inputs": {"projection": 32}}
    nano = {"checkpoint": "", "text_encoder": "_text_encoder", "vae": "_vae"}
    files = {name: f"liveditor_nano{end}.safetensors" for name, end in nano.items()}
    prompt["edits"] = {"class_type": "LoadLIVEditor", "inputs": {**files, "weight_type": "default"}}
    with pytest.raises(host.WorkflowFailed, match="Edit Metrics: CLIP must .*Load .*CLIP"):
        client.run(prompt)


def test_it_stops_when_the_user_says_so(client):
    prompt = prompt_of("bikes.mp4")
    prompt["part"]["inputs"]["duration"] = 0.0

    def stop(message):
        is_progress = isinstance(message, dict) and message["type"] == "progress"
        if is_progress and message["data"]["node"] == "metrics" and message["data"]["value"] >= 2:
            threading.Thread(target=client.post, args=("interrupt", {})).start()

    begun = time.monotonic()
    with pytest.raises(host.WorkflowFailed, match="interrupted"):
        client.run(prompt, on_event=stop)
    assert time.monotonic() - begun < 30


def test_what_edits_and_decodes_by_the_pack_is_measured(client, edit_prompt):
    """The source itself is before: outside the mask every pixel is its own."""
    edit_prompt["nothing"] = {"class_type": "SolidMask", "inputs": {"value": 0.0, "width": 64, "height": 48}}
    edit_prompt["some"] = {"class_type": "SolidMask", "inputs": {"value": 1.0, "width": 32, "height": 48}}
    edit_prompt["mask"] = {
        "class_type": "MaskComposite",
        "inputs": {"destination": ["nothing", 0], "source": ["some", 0], "x": 0, "y": 0, "operation": "add"},
    }
    host.set_inputs(edit_prompt, "LIVEditSampler", mask=["mask", 0])
    edit_prompt["metrics"] = {
        "class_type": "LIVEditMetrics",
        "inputs": {
            "before": [host.key_of(edit_prompt, "EncodeSourceVideo"), 0],
            "after": [host.key_of(edit_prompt, "DecodeVideo"), 0],
            "mask": ["mask", 0],
        },
    }
    edit_prompt["numbers"] = {"class_type": "PreviewAny", "inputs": {"source": ["metrics", 3]}}
    summary = json.loads(client.run(edit_prompt)["numbers"]["text"][0])
    kept, changed = summary["kept"], summary["changed"]
    assert kept["identical"] and kept["exact"] == 1 and kept["pixels"] == 9 * 48 * 32
    assert changed["inside"]["mean"] > 1 and changed["outside"]["mean"] == 0
