"""Fetch the published checkpoint; nothing else here reaches the network, and this only when it is called."""

import contextlib
import hashlib
import http.client
import os
import re
import time
import urllib.error
import urllib.request

from .weights import CheckpointError
from .write import PARTIAL, needs_disk

HUB_REPOSITORY, HUB_FILE = "sst12345/liveditor", "liveditor_ckpt.bin"
AT_ONCE = 1 << 20  # bytes
TIMEOUT = 10.0  # seconds without a byte
TRIES = 5  # without a byte in between
SHA256 = re.compile(r"[0-9a-f]{64}")  # what the hub's tag of a large file is


def download(folder, *, repository=HUB_REPOSITORY, file=HUB_FILE, beside=0.0, progress=None) -> str:
    """Fetch the published checkpoint from the Hugging Face hub, or go on with a download that was cut off.

    huggingface_hub says where it is; its own download begins anew each time (2.x), so the bytes are fetched here.

    Args:
        folder: to put it in.
        beside: what else will be written there, in parts of the file; that there is disk for both is seen to first.
        progress: called with bytes done and bytes in all; what it raises ends the download, what is there is kept.

    Returns:
        Path of the file. One of that name and size that is there already is taken.

    Raises:
        CheckpointError: huggingface_hub is not installed, the hub cannot be reached, there is not enough disk, or
            what came is not what the hub has.
    """
    try:
        from huggingface_hub import get_hf_file_metadata, hf_hub_url
    except ImportError as error:
        raise CheckpointError(
            "download: the package huggingface_hub is needed. Run: pip install huggingface_hub"
        ) from error
    path = os.path.join(folder, file)
    url = hf_hub_url(repository, file)
    try:
        remote = get_hf_file_metadata(url)
    except Exception as error:  # the library's errors are of many types, and differ between its versions
        raise CheckpointError(
            f"{file}: the hub cannot be reached at {url} ({_first_line(error)}). Try again later, or download it by "
            f"your browser into {folder}."
        ) from error
    if os.path.isfile(path) and os.path.getsize(path) == remote.size:
        return path
    partial = f"{path}.{remote.etag[:12]}{PARTIAL}"  # of this version of the file
    _remove_other_versions(path, partial)
    there = os.path.getsize(partial) if os.path.isfile(partial) else 0
    needs_disk(path, int((1 + beside) * remote.size) - there)
    _fetch(url, partial, remote.size, progress)
    if SHA256.fullmatch(remote.etag) and _sha256(partial, progress) != remote.etag:
        os.remove(partial)
        raise CheckpointError(f"{file}: what came is not what the hub has, and is removed. Download it again.")
    os.replace(partial, path)
    return path


def _fetch(url, partial, size, progress):
    """Append what is missing, from where it stopped, as often as something comes."""
    tries = TRIES
    while True:
        with open(partial, "ab") as out:
            begun = done = out.tell()
            if done >= size:
                return
            try:
                request = urllib.request.Request(url, headers={"Range": f"bytes={done}-"})
                with urllib.request.urlopen(request, timeout=TIMEOUT) as answer:
                    if answer.status != 206 and done:  # a server that knows no ranges begins anew
                        out.truncate(0)
                        done = 0
                    while done < size and (data := answer.read(AT_ONCE)):
                        out.write(data)
                        done += len(data)
                        if progress is not None:
                            progress(done, size)
                problem = "the connection was closed"
            except (urllib.error.URLError, http.client.HTTPException, TimeoutError, ConnectionError) as error:
                problem = _first_line(error)
            except OSError as error:
                raise CheckpointError(
                    f"{os.path.basename(partial)}: could not be written ({error.strerror or error}). Free some disk "
                    "and run again: what is there is kept."
                ) from error
        if done >= size:
            return
        tries = TRIES if done > begun else tries - 1
        if not tries:
            raise CheckpointError(
                f"{HUB_FILE}: the network is gone ({problem}); {done / 1e9:.1f} of {size / 1e9:.1f} GB are kept. Run "
                "again to go on."
            )
        for _ in range(10 * (TRIES - tries)):  # longer each time
            time.sleep(0.1)
            if progress is not None:
                progress(done, size)


def _sha256(path, progress):
    digest, done, size = hashlib.sha256(), 0, os.path.getsize(path)
    with open(path, "rb") as file:
        while data := file.read(AT_ONCE):
            digest.update(data)
            done += len(data)
            if progress is not None:
                progress(done, size)
    return digest.hexdigest()


def _remove_other_versions(path, partial):
    folder, name = os.path.split(path)
    for other in os.listdir(folder):
        if re.fullmatch(re.escape(name) + r"\.[^.]{1,12}" + re.escape(PARTIAL), other) and other != os.path.basename(
            partial
        ):
            with contextlib.suppress(FileNotFoundError):
                os.remove(os.path.join(folder, other))


def _first_line(error):
    return (str(getattr(error, "reason", "")) or str(error) or type(error).__name__).splitlines()[0]
