"""The data sets that softlabel knows by name: where people keep them, and what must be true of them."""

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import torch

from softlabel.core import DataError
from softlabel.data._cifar import cifar_binary_source
from softlabel.data._folder import folder_source
from softlabel.data._idx import idx_source
from softlabel.data._parquet import parquet_folder
from softlabel.data._raw import Pictures, Raw, RawSplit, Source
from softlabel.data._tiny import tiny_source

FASHION_CLASSES = (
    "T-shirt/top",
    "Trouser",
    "Pullover",
    "Dress",
    "Coat",
    "Sandal",
    "Shirt",
    "Sneaker",
    "Bag",
    "Ankle boot",
)
CIFAR10_CLASSES = (
    "airplane",
    "automobile",
    "bird",
    "cat",
    "deer",
    "dog",
    "frog",
    "horse",
    "ship",
    "truck",
)


@dataclass(frozen=True, kw_only=True)
class Known:
    """A data set with a name.

    Attributes:
        title: its name in a sentence.
        classes: how many it has.
        train_images: how many the whole train split has.
        class_names: in index order; None when they are read from the files and sorted.
        lossless: whether the original pixels are not JPEG, so that JPEG files are a lossy copy.
        places: names of folders and archives in which people keep it.
        refused: names of copies that cannot be read, looked at only to say why.
        detect: the source at a place; None when it is not there.
        advice: what to do when it was not found.
    """

    name: str
    title: str
    classes: int
    train_images: int
    class_names: tuple[str, ...] | None
    lossless: bool
    places: tuple[str, ...]
    refused: tuple[str, ...] = ()
    detect: Callable[[Path], Source | None]
    advice: str

    def source_at(self, place: Path) -> Source | None:
        """The data set at `place`, checked and put in class order when it is read."""
        source = self.detect(place)
        if source is None:
            return None
        read = partial(_read, self, source)
        return dataclasses.replace(source, key=f"{self.name}-{source.key}", read=read)


def _detect_fashion(place: Path) -> Source | None:
    return idx_source(place, FASHION_CLASSES, "")


def _detect_cifar10(place: Path) -> Source | None:
    return parquet_folder(place) or _class_folders(place) or cifar_binary_source(place, CIFAR10_CLASSES)


def _detect_tiny(place: Path) -> Source | None:
    return parquet_folder(place) or tiny_source(place)


def _class_folders(place: Path) -> Source | None:
    return folder_source(place) if (place / "train").is_dir() else None


FASHION_MNIST = Known(
    name="fashion-mnist",
    title="Fashion-MNIST",
    classes=10,
    train_images=60_000,
    class_names=FASHION_CLASSES,
    lossless=True,
    places=("fashion-mnist", "FashionMNIST", "fashion_mnist"),
    detect=_detect_fashion,
    advice="Run `softlabel fetch fashion-mnist`, or install Debian's package dataset-fashion-mnist, or set "
    "SOFTLABEL_DATA to a folder that holds fashion-mnist with the four IDX files in it.",
)
CIFAR10 = Known(
    name="cifar10",
    title="CIFAR-10",
    classes=10,
    train_images=50_000,
    class_names=CIFAR10_CLASSES,
    lossless=True,
    places=("cifar10", "cifar-10", "cifar-10-batches-bin", "cifar-10-binary.tar.gz"),
    refused=("cifar-10-batches-py", "cifar-10-python.tar.gz"),
    detect=_detect_cifar10,
    advice="Get cifar-10-binary.tar.gz from https://www.cs.toronto.edu/~kriz/cifar.html, or train-*.parquet "
    "and test-*.parquet from a Hugging Face copy, put them into a folder named cifar10, and set "
    "SOFTLABEL_DATA to the folder around it.",
)
# The class order is that of the sorted WordNet ids. The data set's own wnids.txt has another order, and both
# are in use; class folders, the parquet copies on the hub and RDED's code all sort, and a teacher or a
# distilled set made in one order is worthless in the other.
TINY_IMAGENET = Known(
    name="tiny-imagenet-200",
    title="Tiny-ImageNet",
    classes=200,
    train_images=100_000,
    class_names=None,
    lossless=False,
    places=("tiny-imagenet-200", "tiny-imagenet", "tiny_imagenet", "tiny-imagenet-200.zip"),
    detect=_detect_tiny,
    advice="Get tiny-imagenet-200.zip from http://cs231n.stanford.edu/tiny-imagenet-200.zip, or "
    "train-*.parquet and validation-*.parquet from a Hugging Face copy, put them into a folder named "
    "tiny-imagenet-200, and set SOFTLABEL_DATA to the folder around it.",
)
KNOWN = {known.name: known for known in (FASHION_MNIST, CIFAR10, TINY_IMAGENET)}


def _read(known: Known, source: Source) -> Raw:
    raw = source.read()
    if raw.test is None:
        raise DataError(f"{source.path} has {known.title}'s train split and no test split. Add the test files.")
    order = _class_order(known, raw.class_names, source.path)
    position = {name: index for index, name in enumerate(order)}
    mapping = torch.tensor([position[name] for name in _named(known, raw.class_names)])
    return Raw(
        class_names=order,
        train=_renumber(raw.train, mapping),
        test=_renumber(raw.test, mapping),
        origin=_origin(known, source, raw),
    )


def _named(known: Known, names: tuple[str, ...]) -> tuple[str, ...]:
    """Files without class names number the classes in the usual order."""
    nameless = names == tuple(str(index) for index in range(known.classes))
    return known.class_names if nameless and known.class_names is not None else names


def _class_order(known: Known, names: tuple[str, ...], path: Path | None) -> tuple[str, ...]:
    found = _named(known, names)
    if known.class_names is not None and set(found) != set(known.class_names):
        raise DataError(
            f"{path} is not {known.title}: expected the classes {', '.join(known.class_names)}; found "
            f"{', '.join(found[:10])}. Name your own data by parquet:PATH or imagefolder:PATH."
        )
    ids = [name for name in found if name.startswith("n") and name[1:].isdigit()]
    if known.class_names is None and (len(set(ids)) != known.classes or len(found) != known.classes):
        raise DataError(
            f"{path} is not {known.title}: expected {known.classes} classes named by WordNet id (like "
            f"n01443537); found {len(found)}: {', '.join(found[:3])}, ... Without the ids the class order "
            f"cannot be known. Name your own data by parquet:PATH or imagefolder:PATH."
        )
    return known.class_names or tuple(sorted(found))


def _renumber(part: RawSplit, mapping: torch.Tensor) -> RawSplit:
    return dataclasses.replace(part, targets=mapping[part.targets])


def _origin(known: Known, source: Source, raw: Raw) -> str:
    sentences = [f"{known.title} from {source.kind}"]
    if known.lossless and _is_jpeg(raw.train):
        sentences.append("its images are JPEG copies, whose pixels differ slightly from the original")
    if len(raw.train) < known.train_images:
        sentences.append(f"a part of {known.title}: {len(raw.train):,} of {known.train_images:,} train images")
    return "; ".join(sentences)


def _is_jpeg(part: RawSplit) -> bool:
    if not isinstance(part, Pictures) or not len(part):
        return False
    with part.open(0) as file:
        return file.read(2) == b"\xff\xd8"
