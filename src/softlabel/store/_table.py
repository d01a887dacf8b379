"""One large float32 table in a safetensors file, written row by row through a memory map."""

import json
import os
import struct
from pathlib import Path

import numpy
import torch
from torch import Tensor

from softlabel.store._files import disk_errors


def new_table(path: Path, name: str, shape: tuple[int, int]) -> Tensor:
    """Make a safetensors file with the one float32 tensor `name`, and return it, mapped for writing.

    What is written to the tensor goes to the file; the system keeps in memory what fits. The file takes its full size
    at once, so that a full disk is found here and not in the middle of a training.

    Raises:
        DiskFullError: no room for it.
    """
    size = 4 * shape[0] * shape[1]
    entry = {name: {"dtype": "F32", "shape": list(shape), "data_offsets": [0, size]}}
    header = json.dumps(entry, separators=(",", ":")).encode()
    header += b" " * (-len(header) % 8)  # the format wants the data aligned
    with disk_errors(path), path.open("wb") as file:
        file.write(struct.pack("<Q", len(header)) + header)
        file.flush()
        _reserve(file.fileno(), file.tell(), size)
    mapped = numpy.memmap(path, dtype=numpy.float32, mode="r+", offset=8 + len(header), shape=shape)
    return torch.from_numpy(mapped)


def _reserve(handle: int, start: int, size: int) -> None:
    if hasattr(os, "posix_fallocate"):
        os.posix_fallocate(handle, start, size)
    else:  # macOS
        os.truncate(handle, start + size)
