"""Distilled sets that somebody brings: artifacts, or plain class folders of images."""

import re
from collections.abc import Mapping
from pathlib import Path

from softlabel.core import DatasetInfo, DistilledSet, Progress, fingerprint
from softlabel.data import read_class_folders
from softlabel.store import Store, is_complete, load_distilled, save_distilled


def read_given(path: Path, info: DatasetInfo, progress: Progress | None = None) -> DistilledSet:
    """The distilled set at `path`: an artifact, or class folders of images.

    Class folders are what most tools write or can write. Images alone are enough: hard labels are the folders', and
    soft ones come from a teacher.

    Args:
        info: the data that the set stands for.

    Raises:
        StoreError: a damaged artifact.
        DataError: the folder does not hold images of these classes and this size.
    """
    if is_complete(path):
        return load_distilled(path)
    split = read_class_folders(path, info, progress)
    counts = split.counts(info.classes)
    return DistilledSet(
        images=split.images,
        targets=split.targets,
        info=info,
        method=re.sub(r"[^a-zA-Z0-9]+", "-", f"folder {path.resolve().name}").strip("-"),
        ipc=min(counts),
        seed=0,
        provenance={"folder": path.resolve().name, "images_per_class": counts},
    )


def keep_given(path: Path, made: DistilledSet, store: Store) -> Path:
    """The artifact of what `read_given` found: `path` itself, or, for class folders, a lossless copy in the store.

    What was decoded trains; the folder is left as it is.
    """
    if is_complete(path):
        return path
    copy = store.distilled(f"{made.info.name}-{made.method}", fingerprint("given", made.digest, made.method))
    save_distilled(made, copy)
    return copy


def set_names(methods: Mapping[Path, str]) -> dict[Path, str]:
    """A name for each set: its method, with the options in which it differs from others of that method, and a number
    where several are still called the same."""
    parts = {path: (method.partition(":")[0], _options(method)) for path, method in methods.items()}
    names: dict[Path, str] = {}
    for path, (method, own) in parts.items():
        rest = [options for name, options in parts.values() if name == method]
        shared = set(own).intersection(*rest)
        plain = " ".join([method, *(option for option in own if option not in shared)])
        name, number = plain, 2
        while name in names.values():
            name, number = f"{plain} {number}", number + 1
        names[path] = name
    return names


def _options(method: str) -> list[str]:
    """The options of a method's spec, as written; of paths the last part."""
    written = (option.partition("=") for option in method.partition(":")[2].split(","))
    return [f"{name}={value.rpartition('/')[2]}" for name, equals, value in written if equals]
