"""What a reader of one format hands over, before anything is decoded."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import torch
from torch import Tensor

from softlabel.core import DataError, Split


@dataclass(frozen=True, kw_only=True)
class Pictures:
    """The encoded images (JPEG, PNG, ...) of one split.

    Attributes:
        targets: int64 [N], class indices.
        open: the bytes of image i as a file; called from several threads.
        where: how to name image i in a message.
    """

    targets: Tensor
    open: Callable[[int], BinaryIO]
    where: Callable[[int], str]

    def __len__(self) -> int:
        return len(self.targets)


RawSplit = Pictures | Split


@dataclass(frozen=True, kw_only=True)
class Raw:
    """A data set as its files have it. `test` is None when there is none and one must be carved out of train."""

    class_names: tuple[str, ...]
    train: RawSplit
    test: RawSplit | None
    origin: str


@dataclass(frozen=True, kw_only=True)
class Source:
    """A data set that was found and not yet read.

    Attributes:
        key: how the files are read; the same files under another key are another data set.
        kind: what the files are, for people.
        path: where it was found; None when it ships inside a package.
        files: what the decoded cache depends on; empty when there is nothing to cache.
        decoded: the files hold plain pixels and are read as quickly as the cache.
        read: read labels and locate images.
    """

    key: str
    kind: str
    path: Path | None = None
    files: tuple[Path, ...] = ()
    decoded: bool = False
    read: Callable[[], Raw]


def check_targets(targets: Tensor, classes: int, where: str) -> None:
    """Refuse labels outside 0..classes-1 and a split with no images.

    Raises:
        DataError: naming `where`, the first bad label and its position.
    """
    if not len(targets):
        raise DataError(f"{where} holds no images. Check that the download is complete.")
    bad = ((targets < 0) | (targets >= classes)).nonzero()
    if not len(bad):
        return
    row = int(bad[0])
    hidden = " A label of -1 usually means that labels are withheld: remove those files." if targets[row] == -1 else ""
    raise DataError(
        f"{where} has the label {int(targets[row])} at row {row}: labels must lie in 0..{classes - 1} "
        f"for {classes} classes ({len(bad)} rows are wrong).{hidden}"
    )


def check_classes(raw: Raw) -> None:
    """Refuse a single class, classes without a training image, and an empty test split.

    Raises:
        DataError: naming the classes.
    """
    names = raw.class_names
    if len(names) < 2:
        raise DataError(f"Only one class was found ({', '.join(names)}); classification needs at least two.")
    counts = torch.bincount(raw.train.targets, minlength=len(names)).tolist()
    empty = [name for name, count in zip(names, counts, strict=True) if not count]
    if empty:
        raise DataError(
            f"{len(empty)} of {len(names)} classes have no training images: {', '.join(empty[:5])}"
            f"{', ...' if len(empty) > 5 else ''}. Add images, or remove the classes."
        )
    if raw.test is not None and not len(raw.test):
        raise DataError("The test split holds no images. Check that the download is complete.")


def index_names(targets: Tensor, where: str) -> tuple[str, ...]:
    """The class names "0", "1", ... of data that has none; as many as the labels need.

    Raises:
        DataError: labels that leave most classes empty: more classes than images.
    """
    check_targets(targets, max(2, len(targets)), where)
    return tuple(str(index) for index in range(max(2, int(targets.max()) + 1)))
