"""`load_dataset`: from a spec to uint8 tensors."""

import dataclasses
import os
from collections.abc import Callable
from pathlib import Path

from softlabel.core import (
    ConfigError,
    DataError,
    Dataset,
    DatasetInfo,
    Progress,
    Silent,
    UnknownNameError,
    tensor_fingerprint,
)
from softlabel.data._cache import decoded_path, keep_decoded, read_decoded
from softlabel.data._digits import read_digits
from softlabel.data._folder import folder_source
from softlabel.data._hub import hub_source
from softlabel.data._known import KNOWN
from softlabel.data._parquet import parquet_source
from softlabel.data._pictures import to_tensors
from softlabel.data._raw import Raw, Source, check_classes
from softlabel.data._search import cache_root, find_source
from softlabel.data._splits import carve, moments

DIGITS = "digits"
NAMES = (DIGITS, *KNOWN)
MAX_SIDE = 4096
_SILENT = Silent()
_FORMS = "imagefolder:PATH, parquet:PATH or hf:NAME"


def load_dataset(
    spec: str,
    *,
    image_size: tuple[int, int] | None = None,
    channels: int | None = None,
    selection: float = 0.0,
    classes: int | None = None,
    seed: int = 0,
    test_fraction: float = 0.2,
    cache: Path | None = None,
    progress: Progress = _SILENT,
) -> Dataset:
    """A real data set as uint8 tensors [N, C, H, W].

    Args:
        spec: `digits`, `fashion-mnist`, `cifar10`, `tiny-imagenet-200`, `imagefolder:PATH`, `parquet:PATH` or
            `hf:NAME[@revision]`. Names are looked for on `search_path()`; only `hf:` may touch the network.
        image_size: (height, width) in pixels to scale (short side, antialiased bilinear) and centre-crop
            every image to; None keeps their own size, which must then be one.
        channels: 1 (grey) or 3 (RGB); None is 1 if every image is grey, else 3.
        selection: the share of each class, 0 to 0.5, to carve out of train for choosing anything.
        classes: keep only so many classes, the first by index; None keeps all.
        seed: of the carve.
        test_fraction: the share of each class that becomes the test split of data that has none. Which
            images is fixed and does not depend on `seed`.
        cache: the folder for decoded images; None is `cache_root()`.
        progress: told about decoding.

    Returns:
        The data set. Digest, mean and standard deviation in `info` are those before the carve.

    Raises:
        UnknownNameError: no such name.
        ConfigError: an option out of range.
        DataError: the data was not found, or cannot be read as labelled images.
        MissingExtraError: pyarrow or datasets is needed and absent.
    """
    _check_options(image_size, channels, selection, test_fraction, classes)
    source = _source(spec)
    options: dict[str, object] = {"image_size": image_size, "channels": channels, "test_fraction": test_fraction}
    whole = _cached(
        spec,
        source,
        options,
        cache or cache_root(),
        lambda: _read(spec, source.read(), image_size, channels, test_fraction, progress),
    )
    again = {"spec": _whole_path(spec), "image_size": image_size, "channels": channels, "selection": selection,
             "classes": classes}  # fmt: skip
    given = {key: value for key, value in again.items() if value}
    whole = dataclasses.replace(whole, info=dataclasses.replace(whole.info, name=spec, options=given))
    if classes is not None:
        if classes > whole.info.classes:
            raise ConfigError(f"{spec} has {whole.info.classes} classes. Ask for fewer than {classes}.")
        whole = whole.of_classes(range(classes))
    if not selection:
        return whole
    names = whole.info.class_names
    train, selected = carve(whole.train, selection, names, seed=seed, purpose="selection")
    return dataclasses.replace(whole, train=train, selection=selected)


def _source(spec: str) -> Source:
    form, colon, rest = spec.partition(":")
    forms: dict[str, Callable[[str], Source]] = {
        "imagefolder": lambda path: folder_source(_path(path)),
        "parquet": lambda path: parquet_source(_path(path)),
        "hf": hub_source,
    }
    if colon and form in forms:
        if not rest.strip():
            raise ConfigError(f"{spec!r} lacks what follows the colon. Write {_FORMS}.")
        return forms[form](rest)
    if spec == DIGITS:
        return Source(key=DIGITS, kind="scikit-learn", read=read_digits)
    if spec in KNOWN:
        return find_source(KNOWN[spec])
    hint = f"Or name your own data: {_FORMS}."
    if os.path.exists(spec):
        hint = f"For the data at this path write imagefolder:{spec} (class folders) or parquet:{spec}."
    raise UnknownNameError("data set", spec, NAMES, hint)


def _whole_path(spec: str) -> str:
    form, _, rest = spec.partition(":")
    return f"{form}:{Path(rest).expanduser().absolute()}" if form in ("imagefolder", "parquet") else spec


def _path(text: str) -> Path:
    path = Path(text).expanduser()
    if not os.path.exists(path):  # unlike Path.exists, False where looking is forbidden
        raise DataError(f"There is nothing at {path.absolute()}. Check the path.")
    return path


def _cached(
    spec: str, source: Source, options: dict[str, object], root: Path | None, make: Callable[[], Dataset]
) -> Dataset:
    as_is = options["image_size"] is None and options["channels"] is None
    if not source.files or root is None or (source.decoded and as_is):
        return make()
    path = decoded_path(root, Path(spec.partition(":")[2] or spec).name, source, options)
    dataset = read_decoded(path)
    if dataset is None:
        dataset = make()
        keep_decoded(path, dataset)
    return dataset


def _read(
    spec: str,
    raw: Raw,
    image_size: tuple[int, int] | None,
    channels: int | None,
    fraction: float,
    progress: Progress,
) -> Dataset:
    check_classes(raw)
    parts = [raw.train] if raw.test is None else [raw.train, raw.test]
    tensors = to_tensors(parts, image_size=image_size, channels=channels, what=spec, progress=progress)
    origin = raw.origin
    if raw.test is None:
        tensors = list(carve(tensors[0], fraction, raw.class_names, seed=0, purpose="test"))
        origin = f"{origin}; {fraction:.0%} of each class set aside as the test split"
    train, test = tensors
    mean, std = moments(train.images)
    info = DatasetInfo(
        name=spec,
        class_names=raw.class_names,
        channels=train.images.shape[1],
        height=train.images.shape[2],
        width=train.images.shape[3],
        mean=mean,
        std=std,
        digest=tensor_fingerprint(train.images, train.targets, test.images, test.targets),
        origin=origin,
    )
    return Dataset(info=info, train=train, test=test)


def _check_options(
    image_size: tuple[int, int] | None,
    channels: int | None,
    selection: float,
    test_fraction: float,
    classes: int | None,
) -> None:
    if classes is not None and classes < 2:
        raise ConfigError(f"classes must be 2 or more. Got {classes!r} instead.")
    if image_size is not None and not _is_size(image_size):
        raise ConfigError(
            f"image_size must be (height, width), two whole numbers from 1 to {MAX_SIDE}. Got {image_size!r} instead."
        )
    if channels not in (None, 1, 3):
        raise ConfigError(f"channels must be 1 (grey) or 3 (RGB). Got {channels!r} instead.")
    if not 0 <= selection <= 0.5:
        raise ConfigError(f"selection must be a share of train from 0 to 0.5. Got {selection!r} instead.")
    if not 0 < test_fraction < 1:
        raise ConfigError(f"test_fraction must lie between 0 and 1. Got {test_fraction!r} instead.")


def _is_size(value: object) -> bool:
    return (
        isinstance(value, tuple)
        and len(value) == 2
        and all(isinstance(side, int) and not isinstance(side, bool) and 1 <= side <= MAX_SIDE for side in value)
    )
