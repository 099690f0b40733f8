"""Checkpoints: check a file before it is loaded, turn the published pickle into safetensors, fetch it when asked.

Run in the pack's folder: `python -m liveditor_core.checkpoint convert IN OUT`, `... download --to FOLDER`.
"""

import argparse
import functools
import json
import os
import re
import shutil
import struct

import safetensors
import torch
from tqdm import tqdm

HUB_REPOSITORY, HUB_FILE = "sst12345/liveditor", "liveditor_ckpt.bin"
SOURCE_EMBEDDING = "source_video_embedding_more_memory"
NESTINGS = ("state_dict", "module", "weights")
PREFIXES = ("wanx_unimodel.guidance_model.feedforward_model.", "model_ema.", "model.")
FOREIGN_KEY = re.compile(r"^vae\.|optimizer|scheduler")
WEIGHT_TYPES = ("bf16", "fp8_e4m3fn_scaled")

# Few numbers, much effect: the gates, the embeddings of both streams and the modulation keep the precision they came
# in.
HIGH_PRECISION = re.compile(r"alpha_[12]|patch_embedding|modulation|" + SOURCE_EMBEDDING)
QUANTISED = re.compile(r"blocks\.\d+\.(self_attn\.[qkvo]|cross_attn\.[qkvo]|ffn\.[02])\.weight$")

ELEMENTS_AT_ONCE = 1 << 20  # what the converter holds in memory, however large a weight is

_LINEAR = ("weight", "bias")
MODEL_KEYS = (
    *(
        f"{name}.{p}"
        for name in (
            "patch_embedding",
            SOURCE_EMBEDDING,
            "text_embedding.0",
            "text_embedding.2",
            "time_embedding.0",
            "time_embedding.2",
            "time_projection.1",
            "head.head",
        )
        for p in _LINEAR
    ),
    "head.modulation",
)
BLOCK_KEYS = (
    "modulation",
    "self_attn.alpha_1.weight",
    "norm3.weight",
    "norm3.bias",
    "ffn.0.weight",
    "ffn.0.bias",
    "ffn.2.weight",
    "ffn.2.bias",
    *(
        f"{attn}.{name}"
        for attn in ("self_attn", "cross_attn")
        for name in ("norm_q.weight", "norm_k.weight", *(f"{x}.{p}" for x in "qkvo" for p in _LINEAR))
    ),
)
TORCH_NAMES = {
    "F64": torch.float64,
    "F32": torch.float32,
    "F16": torch.float16,
    "BF16": torch.bfloat16,
    "F8_E4M3": torch.float8_e4m3fn,
    "F8_E5M2": torch.float8_e5m2,
    "I64": torch.int64,
    "I32": torch.int32,
    "U8": torch.uint8,
}
SAFETENSORS_NAMES = {dtype: name for name, dtype in TORCH_NAMES.items()}


class CheckpointError(ValueError):
    """A file is not what it should be; the message names the file, the rule and the remedy."""


def missing_keys(keys) -> list[str]:
    """Weights that LIVEditor needs and `keys` lack, in the model's order."""
    keys = set(keys)
    blocks = {int(m[1]) for key in keys if (m := re.match(r"blocks\.(\d+)\.", key))}
    wanted = [*MODEL_KEYS, *(f"blocks.{i}.{key}" for i in range(max(blocks, default=0) + 1) for key in BLOCK_KEYS)]
    return [key for key in wanted if key not in keys]


def check_safetensors(path, what="LIVEditor checkpoint") -> dict:
    """Read a safetensors file's header; the weights stay on disk.

    Returns:
        {"keys": [...], "metadata": {...}}.

    Raises:
        CheckpointError: the file is missing, of another format, empty, truncated or damaged.
    """
    name = os.path.basename(path)
    if not os.path.isfile(path):
        raise CheckpointError(f"{name}: there is no such file. Put the {what} there or choose another.")
    if not name.lower().endswith((".safetensors", ".sft")):
        raise CheckpointError(
            f"{name}: a {what} must be a safetensors file, got {os.path.splitext(name)[1] or 'no file type'}. "
            f"Convert the published file first: python -m liveditor_core.checkpoint convert {name} OUT.safetensors"
        )
    try:
        with safetensors.safe_open(path, framework="pt") as file:
            return {"keys": list(file.keys()), "metadata": file.metadata() or {}}
    except (safetensors.SafetensorError, OSError) as error:
        raise CheckpointError(
            f"{name}: the file is truncated or damaged ({error}). Download or convert it again."
        ) from error


def check_liveditor(path) -> dict:
    """Refuse a file that LIVEditor cannot be loaded from, before anything of it is loaded.

    Returns:
        As `check_safetensors`.

    Raises:
        CheckpointError: see `check_safetensors`; also for another model, or for missing weights, which it names.
    """
    header = check_safetensors(path)
    name, keys = os.path.basename(path), header["keys"]
    if not any(key.endswith("head.modulation") for key in keys):
        raise CheckpointError(f"{name}: this is no Wan-type video model. Choose a LIVEditor checkpoint.")
    if not any(key.endswith(f"{SOURCE_EMBEDDING}.weight") for key in keys):
        raise CheckpointError(
            f"{name}: this is a Wan model without a source stream ({SOURCE_EMBEDDING}.weight is missing). "
            "Choose a LIVEditor checkpoint, or load this one with Load Diffusion Model."
        )
    prefix = next(key for key in keys if key.endswith("head.modulation"))[: -len("head.modulation")]
    missing = missing_keys(key[len(prefix) :] for key in keys if key.startswith(prefix))
    if missing:
        raise CheckpointError(
            f"{name}: {len(missing)} weights are missing: "
            f"{', '.join(missing[:5])}{', ...' if len(missing) > 5 else ''}. "
            "Download or convert the checkpoint again."
        )
    return header


def convert_checkpoint(source, destination, *, weight_type="bf16", prefix=None, progress=True) -> None:
    """Write a published or converted LIVEditor checkpoint as safetensors that ComfyUI's loaders read.

    Weights are read, cast and written a million numbers at a time; the file appears under its name only when it is
    whole.

    Args:
        source: the published PyTorch pickle, or a safetensors file.
        destination: file to write.
        weight_type: `bf16`, or `fp8_e4m3fn_scaled` (ComfyUI's scaled fp8: one scale per weight matrix of the blocks).
        prefix: of the keys to take, where the file holds several copies of the model.
        progress: show a progress bar.

    Raises:
        CheckpointError: not a LIVEditor checkpoint, weights missing, unreadable, or a pickle that holds code (which
            is not run); or the disk is full.
    """
    if weight_type not in WEIGHT_TYPES:
        raise CheckpointError(f"weight type must be one of {', '.join(WEIGHT_TYPES)}, got {weight_type}.")
    name = os.path.basename(source)
    tensors = _model_tensors(_open_tensors(source), name, prefix)
    missing = missing_keys(tensors)
    if missing:
        raise CheckpointError(
            f"{name}: not a whole LIVEditor checkpoint, {len(missing)} weights are missing: "
            f"{', '.join(missing[:5])}, ..."
        )
    quantised = [key for key in sorted(tensors) if weight_type != "bf16" and QUANTISED.fullmatch(key)]
    layers = {key.removesuffix(".weight"): {"format": "float8_e4m3fn"} for key in quantised}
    metadata = {"format": "pt", "liveditor": f"LIVEditor, {weight_type}"}
    dtypes, shapes = {}, {}
    for key in tensors:
        tensor = tensors[key]
        dtypes[key], shapes[key] = tensor.dtype, tensor.shape
    if layers:
        metadata["_quantization_metadata"] = json.dumps({"format_version": "1.0", "layers": layers})

    entries = []  # (key, dtype, shape, function that gives the numbers piece by piece)
    for key in sorted(tensors):
        if key in quantised:
            scale = functools.cache(lambda key=key: fp8_scale(tensors[key]))
            entries.append(
                (
                    key,
                    torch.float8_e4m3fn,
                    shapes[key],
                    lambda key=key, scale=scale: (to_fp8(piece, scale()) for piece in _pieces(tensors[key])),
                )
            )
            entries.append((f"{key}_scale", torch.float32, (), lambda scale=scale: [torch.tensor(scale())]))
        else:
            entries.append(
                (
                    key,
                    dtypes[key] if HIGH_PRECISION.search(key) or not dtypes[key].is_floating_point else torch.bfloat16,
                    shapes[key],
                    lambda key=key: _pieces(tensors[key]),
                )
            )

    _write_safetensors(destination, entries, metadata, progress)


def fp8_scale(weight):
    """What a weight is divided by so that its largest number becomes fp8's largest."""
    largest = max(max(abs(x.item()) for x in piece.aminmax()) for piece in _pieces(weight))
    return max(largest / torch.finfo(torch.float8_e4m3fn).max, 1e-12)


def to_fp8(weight, scale):
    """A weight as ComfyUI's scaled fp8 keeps it: `weight_scale` times the fp8 numbers gives it back."""
    return (weight.float() / scale).to(torch.float8_e4m3fn)


def _pieces(tensor):
    return tensor.reshape(-1).split(ELEMENTS_AT_ONCE)


def download(folder, *, repository=HUB_REPOSITORY, file=HUB_FILE) -> str:
    """Fetch the published checkpoint from the Hugging Face hub; runs only when called.

    Returns:
        Path of the downloaded file.

    Raises:
        CheckpointError: huggingface_hub is not installed.
    """
    try:
        from huggingface_hub import hf_hub_download
    except ImportError as error:
        raise CheckpointError(
            "download: the package huggingface_hub is needed. Run: pip install huggingface_hub"
        ) from error
    return hf_hub_download(repository, file, local_dir=folder)


def _open_tensors(path):
    """All tensors of a file as a flat dict, mapped from disk where the format allows it."""
    name = os.path.basename(path)
    if name.lower().endswith((".safetensors", ".sft")):
        check_safetensors(path)
        return _SafetensorsFile(path)
    try:
        try:
            loaded = torch.load(path, map_location="cpu", weights_only=True, mmap=True)
        except RuntimeError:  # the old, non-zip format cannot be mapped
            loaded = torch.load(path, map_location="cpu", weights_only=True)
    except FileNotFoundError as error:
        raise CheckpointError(f"{name}: there is no such file.") from error
    except Exception as error:  # the unpickler raises many types on damaged files
        raise CheckpointError(
            f"{name}: cannot be read as a PyTorch file of plain weights; it is damaged or holds code, and none "
            "of it was run "
            f"({str(error).splitlines()[0]}). Download it again from {HUB_REPOSITORY}."
        ) from error
    while isinstance(loaded, dict):
        inner = next((loaded[n] for n in NESTINGS if isinstance(loaded.get(n), dict)), None)
        if inner is None:
            return {key: value for key, value in loaded.items() if isinstance(value, torch.Tensor)}
        loaded = inner
    raise CheckpointError(f"{name}: holds a {type(loaded).__name__} instead of named weights.")


class _SafetensorsFile(dict):
    """Tensors of a safetensors file, each read when it is asked for."""

    def __init__(self, path):
        self._file = safetensors.safe_open(path, framework="pt")
        super().__init__(dict.fromkeys(self._file.keys()))

    def __getitem__(self, key):
        return self._file.get_tensor(key)


def _model_tensors(tensors, name, wanted_prefix):
    """Strip the prefix under which the model lies; drop what is not the model's."""
    prefixes = {}
    for key in tensors:
        if not FOREIGN_KEY.search(key):
            prefix = next((p for p in PREFIXES if key.startswith(p)), "")
            prefixes.setdefault(prefix, []).append(key)
    if wanted_prefix is None and len(prefixes) > 1:
        whole = [p for p, keys in prefixes.items() if any(key.endswith(f"{SOURCE_EMBEDDING}.weight") for key in keys)]
        if len(whole) > 1:
            raise CheckpointError(
                f"{name}: holds several copies of the model, under {', '.join(repr(p) for p in sorted(whole))}. "
                "Choose one with --prefix."
            )
        wanted_prefix = whole[0] if whole else ""
    elif wanted_prefix is None:
        wanted_prefix = next(iter(prefixes), "")
    return _Renamed(tensors, {key[len(wanted_prefix) :]: key for key in prefixes.get(wanted_prefix, [])})


class _Renamed(dict):
    """Another dict's values under other names, looked up only when asked for."""

    def __init__(self, tensors, names):
        super().__init__(names)
        self._tensors = tensors

    def __getitem__(self, key):
        return self._tensors[super().__getitem__(key)]


def _write_safetensors(path, entries, metadata, progress):
    """Stream tensors into a safetensors file (its own writer wants them all at once), then rename it into place."""
    header, offset = {"__metadata__": metadata}, 0
    for key, dtype, shape, _ in entries:
        size = torch.Size(shape).numel() * dtype.itemsize
        header[key] = {"dtype": SAFETENSORS_NAMES[dtype], "shape": list(shape), "data_offsets": [offset, offset + size]}
        offset += size
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    name, partial = os.path.basename(path), f"{path}.partial"
    free = shutil.disk_usage(os.path.dirname(os.path.abspath(path))).free
    if free < offset:
        raise CheckpointError(
            f"{name}: needs {offset / 1e9:.1f} GB of disk, {free / 1e9:.1f} GB are free there. Free some or "
            "write it to another disk."
        )
    try:
        with (
            open(partial, "wb") as file,
            tqdm(total=offset, unit="B", unit_scale=True, desc=name, disable=not progress) as bar,
        ):
            file.write(struct.pack("<Q", len(text)) + text)
            for _, dtype, _, pieces in entries:
                for piece in pieces():
                    data = piece.detach().to(dtype).reshape(-1).view(torch.uint8).numpy()
                    file.write(data)
                    bar.update(data.nbytes)
        os.replace(partial, path)
    except BaseException as error:
        if os.path.exists(partial):
            os.remove(partial)
        if isinstance(error, OSError):
            raise CheckpointError(
                f"{name}: could not be written ({error.strerror or error}); the part that was is removed. It "
                f"needs {offset / 1e9:.1f} GB of disk."
            ) from error
        raise


def main(arguments=None):
    parser = argparse.ArgumentParser(
        prog="python -m liveditor_core.checkpoint", description="LIVEditor checkpoints for ComfyUI."
    )
    commands = parser.add_subparsers(dest="command", required=True)
    convert = commands.add_parser("convert", help="turn the published checkpoint into safetensors")
    convert.add_argument("source")
    convert.add_argument("destination")
    convert.add_argument("--weight-type", choices=WEIGHT_TYPES, default="bf16")
    convert.add_argument("--prefix", help="prefix of the keys to take, where the file holds several copies")
    fetch = commands.add_parser("download", help=f"fetch {HUB_FILE} from {HUB_REPOSITORY} on the Hugging Face hub")
    fetch.add_argument("--to", required=True, help="folder to put it in")
    check = commands.add_parser("check", help="say whether a file is a whole LIVEditor checkpoint")
    check.add_argument("file")
    options = parser.parse_args(arguments)
    try:
        if options.command == "convert":
            convert_checkpoint(
                options.source, options.destination, weight_type=options.weight_type, prefix=options.prefix
            )
        elif options.command == "download":
            print(download(options.to))
        else:
            print(f"{options.file}: a whole LIVEditor checkpoint, {len(check_liveditor(options.file)['keys'])} tensors")
    except (CheckpointError, OSError) as error:
        parser.exit(1, f"{error}\n")


if __name__ == "__main__":
    main()
