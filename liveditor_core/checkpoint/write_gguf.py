"""Write a GGUF file as ComfyUI-GGUF reads it; the gguf package writes the header, the numbers are streamed."""

import numpy as np

from .quantise import gguf_library
from .write import whole_file, write_pieces

ARCHITECTURE = "wan"  # of Wan video models
MOST_DIMENSIONS = 4  # that a tensor may have
ORIGINAL_SHAPE = "comfy.gguf.orig_shape."  # before a tensor's name: its shape, where it has more dimensions


def write_gguf(path, entries, file_type, progress=None):
    """Args: entries, see quantise.Entry, stored under GGML names; file_type, the name of most of them."""
    library = gguf_library()
    with whole_file(path, sum(entry.size for entry in entries)) as partial:
        writer = library.GGUFWriter(partial, ARCHITECTURE)
        try:
            writer.add_quantization_version(library.GGML_QUANT_VERSION)
            writer.add_file_type(library.LlamaFileType[f"MOSTLY_{file_type}"])
            for key, kind, shape, size, _ in entries:
                if len(shape) > MOST_DIMENSIONS:
                    writer.add_array(f"{ORIGINAL_SHAPE}{key}", list(shape))
                    shape = (shape[0], int(np.prod(shape[1:])))
                writer.add_tensor_info(key, shape, np.dtype(np.float32), size, library.GGMLQuantizationType[kind])
            writer.write_header_to_file()
            writer.write_kv_data_to_file()
            writer.write_ti_data_to_file()
            (file,) = writer.fout
            writer.write_padding(file, file.tell())
            write_pieces(file, entries, progress, lambda entry: writer.write_padding(file, entry.size))
        finally:
            writer.close()
