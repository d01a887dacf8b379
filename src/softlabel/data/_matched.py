"""Class folders of images made from a known data set, such as other tools' distilled sets."""

import os
from pathlib import Path

import torch

from softlabel.core import DataError, DatasetInfo, Progress, Silent, Split
from softlabel.data._folder import class_files, class_folders, file_pictures
from softlabel.data._pictures import to_tensors


def read_class_folders(path: Path, info: DatasetInfo, progress: Progress | None = None) -> Split:
    """The images of the class folders at `path`, with the class indices of the data that `info` describes.

    A folder's class is its name among `info.class_names`; where no name is known and all are whole numbers (`00000` and
    so on, as RDED and SRe2L write), it is the number.

    Args:
        path: one sub-folder per class; any number of images in each.

    Returns:
        images of `info`'s shape, class after class.

    Raises:
        DataError: classes that are missing or unknown, or images of another size.
    """
    if not os.path.exists(path):
        raise DataError(f"There is nothing at {path}. Check the path.")
    if not path.is_dir():
        raise DataError(f"{path} is no folder. A distilled set needs one sub-folder per class with images in it.")
    names = class_folders(path)
    index = _class_indices(path, names, info)
    ordered = sorted(names, key=lambda name: index[name])
    raw = file_pictures([class_files(path / name) for name in ordered])
    [split] = to_tensors([raw], image_size=None, channels=info.channels, what=str(path), progress=progress or Silent())
    if split.images.shape[1:] != info.image_shape:
        height, width = split.images.shape[-2:]
        raise DataError(
            f"The images in {path} are {height}x{width}, those of {info.name} {info.height}x{info.width}. Load the "
            f"data in the size of the images with --image-size {height}x{width}, and take a teacher trained on that."
        )
    return Split(split.images, torch.tensor([index[ordered[target]] for target in split.targets.tolist()]))


def _class_indices(path: Path, names: tuple[str, ...], info: DatasetInfo) -> dict[str, int]:
    by_name = {name: index for index, name in enumerate(info.class_names)}
    found = {name: by_name[name] for name in names if name in by_name}
    if not found and all(name.isascii() and name.isdigit() for name in names):
        found = {name: int(name) for name in names}
    unknown = [name for name in names if not 0 <= found.get(name, -1) < info.classes]
    missing = [name for index, name in enumerate(info.class_names) if index not in found.values()]
    if unknown or missing:
        raise DataError(
            f"The class folders in {path} are not the {info.classes} classes of {info.name}"
            + (f"; unknown: {_some(unknown)}" if unknown else "")
            + (f"; missing: {_some(missing)}" if missing else "")
            + f". Name them as the classes are ({_some(list(info.class_names))}), or by index from 0 to "
            f"{info.classes - 1}."
        )
    return found


def _some(names: list[str]) -> str:
    return ", ".join(names[:3]) + (", ..." if len(names) > 3 else "")
