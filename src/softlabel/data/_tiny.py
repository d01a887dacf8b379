"""Tiny-ImageNet in its original form: a folder or a zip archive."""

import io
import zipfile
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import BinaryIO

import torch

from softlabel.core import DataError
from softlabel.data._folder import folder_source
from softlabel.data._raw import Pictures, Raw, Source

ARCHIVE = "tiny-imagenet-200.zip"
_ANNOTATIONS = "val/val_annotations.txt"
_ROOT = "tiny-imagenet-200"


@dataclass(frozen=True, kw_only=True)
class _Files:
    """A folder or an archive as names and bytes. `names` are relative, with forward slashes."""

    where: str
    names: list[str]
    open: Callable[[str], BinaryIO]


def tiny_source(place: Path) -> Source | None:
    """The data set at `place`; None when it is not there.

    Besides the original layout (`train/<id>/images`, `val/val_annotations.txt`) this reads the usual
    rearrangement into class folders (`train/<id>`, `val/<id>`).
    """
    for folder in (place, place / _ROOT):
        if (folder / _ANNOTATIONS).is_file() and (folder / "train").is_dir():
            if _rearranged(folder):
                return folder_source(folder)
            names = sorted(file.relative_to(folder).as_posix() for file in _image_files(folder))
            files = _Files(where=str(folder), names=[_ANNOTATIONS, *names], open=partial(_open_in, folder))
            paths = tuple(folder / name for name in files.names)
            return Source(key="tiny", kind="original folders", path=folder, files=paths, read=partial(_read, files))
        if (folder / "train").is_dir() and (folder / "val").is_dir():
            return folder_source(folder)
    for archive in (place, place / ARCHIVE):
        if archive.name == ARCHIVE and archive.is_file():
            read = partial(_read_archive, archive)
            return Source(key="tiny", kind="original archive", path=archive, files=(archive,), read=read)
    return None


def _rearranged(folder: Path) -> bool:
    """Class folders in val beside a left-over annotation file."""
    return not (folder / "val" / "images").is_dir()


def _image_files(folder: Path) -> list[Path]:
    return [*folder.glob("train/*/images/*.JPEG"), *folder.glob("val/images/*.JPEG")]


def _open_in(folder: Path, name: str) -> BinaryIO:
    return (folder / name).open("rb")


def _read_archive(archive: Path) -> Raw:
    try:
        opened = zipfile.ZipFile(archive)
        prefix = f"{_ROOT}/"
        names = [name[len(prefix) :] for name in opened.namelist() if name.startswith(prefix)]
    except (zipfile.BadZipFile, OSError) as error:
        raise DataError(f"{archive} cannot be read ({error}). It is damaged or cut off: fetch it again.") from error

    def open_member(name: str) -> BinaryIO:
        try:
            return io.BytesIO(opened.read(prefix + name))
        except (KeyError, zipfile.BadZipFile, zlib.error, EOFError) as error:
            raise DataError(f"{archive}: {name} cannot be read ({error}). Fetch the archive again.") from error

    return _read(_Files(where=str(archive), names=sorted(names), open=open_member))


def _read(files: _Files) -> Raw:
    train = [name for name in files.names if _is_train_image(name)]
    class_names = tuple(sorted({name.split("/")[1] for name in train}))
    index = {name: position for position, name in enumerate(class_names)}
    if not train:
        raise DataError(f"{files.where} holds no train/<id>/images/*.JPEG. It is not the original Tiny-ImageNet.")
    return Raw(
        class_names=class_names,
        train=_pictures(files, train, [index[name.split("/")[1]] for name in train]),
        test=_val(files, index),
        origin="original files",
    )


def _is_train_image(name: str) -> bool:
    parts = name.split("/")
    return len(parts) == 4 and parts[0] == "train" and parts[2] == "images" and name.endswith(".JPEG")


def _val(files: _Files, index: dict[str, int]) -> Pictures:
    """The validation images, by the table `val_annotations.txt`: file name, class, box; tab-separated."""
    with files.open(_ANNOTATIONS) as file:
        rows = [line.split("\t") for line in file.read().decode("utf-8", "replace").splitlines() if line.strip()]
    names, targets = [], []
    for number, row in enumerate(rows, start=1):
        if len(row) < 2 or row[1] not in index:
            raise DataError(
                f"{files.where}: line {number} of {_ANNOTATIONS} must name an image and one of the {len(index)} "
                f"train classes, separated by a tab. Found: {' '.join(row)[:60]!r}. Fetch the data set again."
            )
        names.append(f"val/images/{row[0]}")
        targets.append(index[row[1]])
    if not names:
        raise DataError(f"{files.where}: {_ANNOTATIONS} is empty. Fetch the data set again.")
    return _pictures(files, names, targets)


def _pictures(files: _Files, names: list[str], targets: list[int]) -> Pictures:
    return Pictures(
        targets=torch.tensor(targets, dtype=torch.int64),
        open=lambda position: files.open(names[position]),
        where=lambda position: f"{files.where}: {names[position]}",
    )
