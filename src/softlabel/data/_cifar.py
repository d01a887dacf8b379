"""CIFAR-10 in its binary form: records of one label byte and 3,072 pixel bytes."""

import tarfile
import zlib
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
import torch

from softlabel.core import DataError, Split
from softlabel.data._raw import Raw, Source, check_targets

FOLDER = "cifar-10-batches-bin"
ARCHIVE = "cifar-10-binary.tar.gz"
_PICKLED = ("cifar-10-batches-py", "cifar-10-python.tar.gz")
_TRAIN = tuple(f"data_batch_{number}.bin" for number in range(1, 6))
_TEST = "test_batch.bin"
_RECORD = 1 + 3 * 32 * 32


def cifar_binary_source(place: Path, class_names: tuple[str, ...]) -> Source | None:
    """The binary version at `place` (the folder, its parent, or the archive); None when it is not there.

    Raises:
        DataError: the folder is not complete, or only the Python version is here, which would have to be
            unpickled.
    """
    for folder in (place, place / FOLDER):
        files = tuple(folder / name for name in (*_TRAIN, _TEST))
        missing = [file.name for file in files if not file.is_file()]
        if missing and len(missing) < len(files):
            raise DataError(f"{folder} is not complete: it lacks {', '.join(missing)}. Unpack {ARCHIVE} again.")
        if not missing:
            read = partial(_read, partial(_from_folder, folder), str(folder), class_names)
            return _source("binary batches", folder, files, read)
    for archive in (place, place / ARCHIVE):
        if archive.name == ARCHIVE and archive.is_file():
            read = partial(_read, partial(_from_archive, archive), str(archive), class_names)
            return _source("binary archive", archive, (archive,), read)
    _refuse_pickled(place)
    return None


def _source(kind: str, path: Path, files: tuple[Path, ...], read: Callable[[], Raw]) -> Source:
    return Source(key="binary", kind=kind, path=path, files=files, decoded=True, read=read)


def _refuse_pickled(place: Path) -> None:
    for found in (place, *(place / name for name in _PICKLED)):
        if found.name in _PICKLED and found.exists():
            raise DataError(
                f"{found} is the Python version of CIFAR-10: reading it means unpickling, which can run any "
                f"code, and softlabel does not. Get the binary version instead: {ARCHIVE} (folder {FOLDER}) "
                f"from the same page."
            )


def _read(content: Callable[[tuple[str, ...]], list[bytes]], where: str, class_names: tuple[str, ...]) -> Raw:
    *train, test = content((*_TRAIN, _TEST))
    parts = [_batch(data, f"{where}: {name}") for data, name in zip(train, _TRAIN, strict=True)]
    whole = Split(torch.cat([part.images for part in parts]), torch.cat([part.targets for part in parts]))
    return Raw(
        class_names=class_names,
        train=whole,
        test=_batch(test, f"{where}: {_TEST}"),
        origin="CIFAR-10, the original pixels (binary version)",
    )


def _batch(data: bytes, where: str) -> Split:
    if not data or len(data) % _RECORD:
        raise DataError(
            f"{where} has the wrong length: expected whole records of {_RECORD} bytes, found {len(data)} "
            f"bytes. It was probably cut off while it was copied: fetch it again."
        )
    records = np.frombuffer(data, dtype=np.uint8).reshape(-1, _RECORD)
    targets = torch.from_numpy(records[:, 0].astype(np.int64))
    check_targets(targets, 10, where)
    return Split(torch.from_numpy(records[:, 1:].reshape(-1, 3, 32, 32).copy()), targets)


def _from_folder(folder: Path, names: tuple[str, ...]) -> list[bytes]:
    try:
        return [(folder / name).read_bytes() for name in names]
    except OSError as error:
        raise DataError(f"{folder} cannot be read ({error}). Check its permissions.") from error


def _from_archive(archive: Path, names: tuple[str, ...]) -> list[bytes]:
    try:
        with tarfile.open(archive, "r:gz") as tar:
            content = {
                Path(member.name).name: file.read() for member in tar if (file := tar.extractfile(member)) is not None
            }
    except (tarfile.TarError, OSError, EOFError, zlib.error) as error:
        raise DataError(f"{archive} cannot be read ({error}). It is damaged or cut off: fetch it again.") from error
    missing = [name for name in names if name not in content]
    if missing:
        raise DataError(f"{archive} lacks {', '.join(missing)}. It is not the binary version: get {ARCHIVE}.")
    return [content[name] for name in names]
