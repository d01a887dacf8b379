"""IDX files, plain or gzipped: the format of MNIST and its kin."""

import gzip
import math
import struct
import zlib
from functools import partial
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from softlabel.core import DataError, Split
from softlabel.data._raw import Raw, Source, check_targets

IMAGES_MAGIC = 2051
LABELS_MAGIC = 2049
FILES = {
    "train": ("train-images-idx3-ubyte", "train-labels-idx1-ubyte"),
    "test": ("t10k-images-idx3-ubyte", "t10k-labels-idx1-ubyte"),
}


def idx_source(place: Path, class_names: tuple[str, ...], origin: str) -> Source | None:
    """The four IDX files in `place` or its sub-folder `raw`; None when there is none of them.

    Raises:
        DataError: some of the four are missing.
    """
    for folder in (place, place / "raw"):
        names = [name for pair in FILES.values() for name in pair]
        found = {name: file for name in names if (file := _file(folder, name)) is not None}
        if found and len(found) < len(names):
            missing = ", ".join(name for name in names if name not in found)
            raise DataError(f"{folder} is not complete: it lacks {missing} (plain or .gz). Fetch the data set again.")
        if found:
            read = partial(_read, found, class_names, origin)
            return Source(
                key="idx", kind="IDX files", path=folder, files=tuple(found.values()), decoded=True, read=read
            )
    return None


def _file(folder: Path, name: str) -> Path | None:
    return next((file for file in (folder / name, folder / f"{name}.gz") if file.is_file()), None)


def _read(found: dict[str, Path], class_names: tuple[str, ...], origin: str) -> Raw:
    train, test = (_split(found[images], found[labels], len(class_names)) for images, labels in FILES.values())
    return Raw(class_names=class_names, train=train, test=test, origin=origin)


def _split(images_file: Path, labels_file: Path, classes: int) -> Split:
    images = read_idx(images_file, IMAGES_MAGIC)
    targets = read_idx(labels_file, LABELS_MAGIC).long()
    if len(images) != len(targets):
        raise DataError(
            f"{images_file} holds {len(images)} images and {labels_file.name} {len(targets)} labels: they "
            f"do not belong together. Fetch the data set again."
        )
    check_targets(targets, classes, str(labels_file))
    return Split(images[:, None].contiguous(), targets)


def read_idx(file: Path, magic: int) -> Tensor:
    """The uint8 tensor in an IDX file, [N, H, W] for images (magic 2051) and [N] for labels (2049).

    Raises:
        DataError: a wrong magic number, a length that the header does not announce, or broken gzip.
    """
    data = _content(file)
    found = struct.unpack(">I", data[:4])[0] if len(data) >= 4 else None
    if found != magic:
        raise DataError(f"{file} is no IDX file of this kind: it must begin with {magic}, found {found}. Replace it.")
    axes = magic & 0xFF
    start = 4 + 4 * axes
    shape = struct.unpack(f">{axes}I", data[4:start]) if len(data) >= start else ()
    expected = start + math.prod(shape)
    if not shape or len(data) != expected:
        raise DataError(
            f"{file} has the wrong length: its header announces {expected} bytes, found {len(data)}. "
            f"It was probably cut off while it was copied: fetch it again."
        )
    return torch.from_numpy(np.frombuffer(data, dtype=np.uint8, offset=start).reshape(shape).copy())


def _content(file: Path) -> bytes:
    try:
        if file.suffix == ".gz":
            with gzip.open(file, "rb") as stream:
                return stream.read()
        return file.read_bytes()
    except (OSError, EOFError, zlib.error) as error:
        raise DataError(f"{file} cannot be read ({error}). It is damaged or cut off: fetch it again.") from error
