"""Fetch the published checkpoint; nothing else here reaches the network."""

from .weights import CheckpointError

HUB_REPOSITORY, HUB_FILE = "sst12345/liveditor", "liveditor_ckpt.bin"


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
