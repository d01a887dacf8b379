"""Data sets by their name on the Hugging Face hub. The only reader that may touch the network."""

from functools import partial
from pathlib import Path
from types import ModuleType
from typing import Any

from softlabel.core import DataError, MissingExtraError
from softlabel.data._arrow import find_columns, pictures_of
from softlabel.data._parquet import TEST_NAMES, TRAIN
from softlabel.data._raw import Pictures, Raw, Source, check_targets, index_names


def hub_source(name: str) -> Source:
    """The data set `NAME`, `NAME@revision` or a local folder, as the `datasets` library loads it.

    Raises:
        MissingExtraError: `datasets` is not installed.
        DataError: the name cannot be loaded, or has no train split.
    """
    try:
        import datasets
    except ImportError as error:
        raise MissingExtraError("datasets", "hf", f"hf:{name}") from error
    splits = _load(datasets, name)
    if TRAIN not in splits:
        raise DataError(f"hf:{name} has no train split; it has: {', '.join(splits)}. Choose another data set.")
    test = next((split for split in TEST_NAMES if split in splits), None)
    chosen = [TRAIN] if test is None else [TRAIN, test]
    files = tuple(Path(entry["filename"]) for split in chosen for entry in splits[split].cache_files)
    read = partial(_read, datasets, f"hf:{name}", splits[TRAIN], None if test is None else splits[test])
    return Source(key="hf", kind="Hugging Face data set", files=files, read=read)


def _load(datasets: ModuleType, name: str) -> Any:
    path, _, revision = (name, "", "") if Path(name).exists() else name.partition("@")
    try:
        return datasets.load_dataset(path, revision=revision or None)
    except (OSError, ValueError, RuntimeError, datasets.exceptions.DatasetsError) as error:
        raise DataError(
            f"hf:{name} cannot be loaded ({type(error).__name__}: {error}). Check the name, the revision "
            f"and the network; data that is gated or has several configurations must be downloaded first "
            f"and named by parquet:PATH or imagefolder:PATH."
        ) from error


def _read(datasets: ModuleType, where: str, train: Any, test: Any) -> Raw:
    columns = find_columns(train.column_names, where)
    feature = train.features[columns.label]
    train_part = _pictures(datasets, train, f"{where} train")
    if isinstance(feature, datasets.ClassLabel):
        names = tuple(feature.names)
    else:
        names = index_names(train_part.targets, f"{where} train")
    check_targets(train_part.targets, len(names), f"{where} train")
    test_part = None
    if test is not None:
        test_part = _pictures(datasets, test, f"{where} test")
        check_targets(test_part.targets, len(names), f"{where} test")
    return Raw(class_names=names, train=train_part, test=test_part, origin="Hugging Face data set")


def _pictures(datasets: ModuleType, part: Any, where: str) -> Pictures:
    columns = find_columns(part.column_names, where)
    if isinstance(part.features[columns.image], datasets.Image):
        part = part.cast_column(columns.image, datasets.Image(decode=False))
    return pictures_of([(where, part.with_format("arrow")[:])], columns)
