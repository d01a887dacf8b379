"""Class folders: one folder per class with the images in it."""

import os
from functools import partial
from pathlib import Path
from typing import BinaryIO

import torch

from softlabel.core import DataError
from softlabel.data._pictures import SUFFIXES
from softlabel.data._raw import Pictures, Raw, Source

TEST_NAMES = ("test", "val", "validation")
_CLUTTER = frozenset({".ds_store", "thumbs.db", "desktop.ini", ".gitkeep"})


def folder_source(path: Path) -> Source:
    """The class folders at `path`: in `path/train` and `path/test` (or `val`, `validation`), or directly in it.

    Raises:
        DataError: no such folder, no class folders, fewer than two classes, an empty class, a stray file, or
            train and test with different classes.
    """
    if not path.is_dir():
        raise DataError(f"{path} is no folder. imagefolder:PATH needs a folder with one sub-folder per class.")
    train = path / "train" if (path / "train").is_dir() else path
    test = next((path / name for name in TEST_NAMES if train != path and (path / name).is_dir()), None)
    names = class_folders(train)
    train_files = _files(train, names)
    test_files = None if test is None else _test_files(train, test, names)
    files = [file for group in (*train_files, *(test_files or [])) for file in group]
    read = partial(_read, names, train_files, test_files)
    return Source(key="imagefolder", kind="class folders", path=path, files=tuple(files), read=read)


def class_folders(folder: Path) -> tuple[str, ...]:
    """The class names, in the order of their indices.

    Sorted as text, or by value when every name is a whole number: as text, 10 would come before 2 and every
    label after it would be wrong.

    Raises:
        DataError: fewer than two class folders.
    """
    entries = _list(folder)
    names = [name for name in entries if (folder / name).is_dir()]
    stray = [name for name in entries if name not in names and Path(name).suffix.lower() in SUFFIXES]
    if stray:
        raise DataError(
            f"{folder} holds images outside class folders, for example {stray[0]} ({len(stray)} in all). "
            f"Each image must lie in the folder of its class."
        )
    if not names:
        raise DataError(f"{folder} holds no class folders. It needs one sub-folder per class with images in it.")
    if len(names) < 2:
        raise DataError(f"{folder} holds only one class folder ({names[0]}); classification needs at least two.")
    return tuple(sort_names(names))


def sort_names(names: list[str]) -> list[str]:
    """Class names in index order. See `class_folders`."""
    if all(name.isascii() and name.isdigit() for name in names):
        return sorted(names, key=lambda name: (int(name), name))
    return sorted(names)


def _list(folder: Path) -> list[str]:
    try:
        return sorted(name for name in os.listdir(folder) if not _is_clutter(name))
    except OSError as error:
        raise DataError(f"{folder} cannot be listed ({error}). Check its permissions.") from error


def _is_clutter(name: str) -> bool:
    return name.startswith(".") or name.lower() in _CLUTTER or name == "__MACOSX"


def _files(folder: Path, names: tuple[str, ...]) -> list[list[Path]]:
    return [class_files(folder / name) for name in names]


def class_files(folder: Path) -> list[Path]:
    names = _list(folder)
    for name in names:
        if Path(name).suffix.lower() not in SUFFIXES or (folder / name).is_dir():
            raise DataError(
                f"{folder / name} is no image file; a class folder may hold only images "
                f"({', '.join(sorted(SUFFIXES))}). Move it elsewhere."
            )
    if not names:
        raise DataError(f"The class folder {folder} is empty. Add images, or remove the folder.")
    return [folder / name for name in names]


def _test_files(train: Path, test: Path, names: tuple[str, ...]) -> list[list[Path]]:
    found = set(class_folders(test))
    missing, extra = sorted(set(names) - found), sorted(found - set(names))
    if missing or extra:
        raise DataError(
            f"{train} and {test} have different classes: "
            + "; ".join(
                f"only in {where}: {', '.join(group[:5])}{', ...' if len(group) > 5 else ''}"
                for where, group in ((train.name, missing), (test.name, extra))
                if group
            )
            + ". Both need the same class folders."
        )
    return _files(test, names)


def _read(names: tuple[str, ...], train: list[list[Path]], test: list[list[Path]] | None) -> Raw:
    return Raw(
        class_names=names,
        train=file_pictures(train),
        test=None if test is None else file_pictures(test),
        origin="class folders",
    )


def file_pictures(groups: list[list[Path]]) -> Pictures:
    """Image files as a split; `groups` has the files of class 0, then of class 1, and so on."""
    files = [file for group in groups for file in group]
    targets = torch.tensor([index for index, group in enumerate(groups) for _ in group], dtype=torch.int64)

    def open_file(position: int) -> BinaryIO:
        return files[position].open("rb")

    return Pictures(targets=targets, open=open_file, where=lambda position: str(files[position]))
