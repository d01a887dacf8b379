"""The nouns that every layer shares, as frozen dataclasses of plain data and tensors."""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any, Protocol, runtime_checkable

import torch
from torch import Tensor

from softlabel.core.errors import DataError
from softlabel.core.fingerprint import fingerprint, tensor_fingerprint


@dataclass(frozen=True, kw_only=True)
class DatasetInfo:
    """What must agree between a data set, a teacher and a distilled set.

    Attributes:
        name: the spec the data was loaded by, e.g. `cifar10`.
        class_names: one per class; position is the class index.
        channels, height, width: of every image, in pixels.
        mean, std: per channel, of the train split, for pixels in [0, 1].
        digest: fingerprint of the pixels and targets of all splits.
        origin: where the data came from, and what is special about it (for people).
        options: what it was loaded with beside its name, so that it can be loaded again: `spec` with a whole path,
            `image_size`, `channels`, `selection`.
    """

    name: str
    class_names: tuple[str, ...]
    channels: int
    height: int
    width: int
    mean: tuple[float, ...]
    std: tuple[float, ...]
    digest: str
    origin: str = ""
    options: dict[str, Any] = field(default_factory=dict)

    @property
    def classes(self) -> int:
        return len(self.class_names)

    @property
    def image_shape(self) -> tuple[int, int, int]:
        """(channels, height, width)."""
        return (self.channels, self.height, self.width)

    def of_classes(self, classes: Sequence[int]) -> "DatasetInfo":
        """The same data with these classes only; mean and std stay those of the whole."""
        names = tuple(self.class_names[index] for index in classes)
        return replace(self, class_names=names, digest=fingerprint("seen", self.digest, tuple(classes)))

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> "DatasetInfo":
        lists = {key: tuple(data[key]) for key in ("class_names", "mean", "std")}
        return cls(**{**data, **lists})


@dataclass(frozen=True)
class Split:
    """Labelled images: `images` uint8 [N, C, H, W], `targets` int64 [N] (class indices).

    `weights`, float32 [N], are how much each image's loss counts, where they do not all count alike.
    """

    images: Tensor
    targets: Tensor
    weights: Tensor | None = None

    def __post_init__(self) -> None:
        if self.images.dtype != torch.uint8 or self.images.ndim != 4:
            raise DataError(
                f"Images must be a uint8 tensor [N, C, H, W]. Got {self.images.dtype} {tuple(self.images.shape)}."
            )
        if self.targets.dtype != torch.int64 or self.targets.shape != (len(self.images),):
            raise DataError(
                f"Targets must be int64 [{len(self.images)}], one per image. "
                f"Got {self.targets.dtype} {tuple(self.targets.shape)}."
            )
        weights = self.weights
        if weights is not None and (
            weights.dtype != torch.float32 or weights.shape != (len(self.images),) or not bool((weights >= 0).all())
        ):
            raise DataError(f"Weights must be float32 [{len(self.images)}], one of 0 or more per image.")

    def __len__(self) -> int:
        return len(self.images)

    @cached_property
    def digest(self) -> str:
        """Fingerprint of the pixels and targets, and of weights where there are some."""
        return tensor_fingerprint(self.images, self.targets, *([] if self.weights is None else [self.weights]))

    def subset(self, index: Tensor) -> "Split":
        """The images and targets at `index` (int64 [M]), copied."""
        return Split(self.images.index_select(0, index), self.targets[index], self._weights_at(index))

    def of_classes(self, classes: Sequence[int]) -> "Split":
        """The images of some classes, in their order here; targets become places in `classes`."""
        place = torch.full((max(*classes, int(self.targets.max()) if len(self) else 0) + 1,), -1)
        place[list(classes)] = torch.arange(len(classes))
        targets = place[self.targets]
        keep = (targets >= 0).nonzero().flatten()
        return Split(self.images.index_select(0, keep), targets[keep], self._weights_at(keep))

    def _weights_at(self, index: Tensor) -> Tensor | None:
        return None if self.weights is None else self.weights[index]

    def counts(self, classes: int) -> list[int]:
        """How many images each class has."""
        return [int(count) for count in torch.bincount(self.targets, minlength=classes)]


@dataclass(frozen=True)
class Dataset:
    """A real data set. `selection` is carved out of train, for choosing anything; test is never for choosing."""

    info: DatasetInfo
    train: Split
    test: Split
    selection: Split | None = None

    def of_classes(self, classes: Sequence[int]) -> "Dataset":
        """The same data with these classes only, numbered by their place in `classes`."""
        selection = None if self.selection is None else self.selection.of_classes(classes)
        return Dataset(
            self.info.of_classes(classes), self.train.of_classes(classes), self.test.of_classes(classes), selection
        )


@dataclass(frozen=True, kw_only=True)
class DistilledSet:
    """A tiny training set and how it was made.

    Attributes:
        images: uint8 [N, C, H, W], class after class (all of class 0 first).
        targets: int64 [N], class indices.
        info: the data set it stands for (classes, normalisation).
        method: spec of the method, e.g. `rded:factor=2`.
        ipc: images per class asked for.
        seed: of the stream that made it.
        factor: tiles per side of a mosaic; 1 when an image is one picture. Views need it.
        provenance: JSON-ready facts: configuration, teacher fingerprints, original indices.
        image_bytes: size of the images as stored; 0 before storing.
        weights: how much each image's loss counts, float32 [N] of mean 1; None where all count alike.
    """

    images: Tensor
    targets: Tensor
    info: DatasetInfo
    method: str
    ipc: int
    seed: int
    factor: int = 1
    provenance: dict[str, Any] = field(default_factory=dict)
    image_bytes: int = 0
    weights: Tensor | None = None

    def __post_init__(self) -> None:
        Split(self.images, self.targets, self.weights)  # the same checks
        if len(self.targets) and not 0 <= int(self.targets.min()) <= int(self.targets.max()) < self.info.classes:
            raise DataError(
                f"Targets must lie in 0..{self.info.classes - 1} for {self.info.classes} classes. "
                f"Got {int(self.targets.min())}..{int(self.targets.max())}."
            )

    def __len__(self) -> int:
        return len(self.images)

    @property
    def split(self) -> Split:
        """The images as what a student is trained on."""
        return Split(self.images, self.targets, self.weights)

    @property
    def digest(self) -> str:
        """Fingerprint of images, targets, weights, classes and normalisation: what a student can see, and no path."""
        info = self.info
        return fingerprint(self.split.digest, info.digest, info.class_names, info.mean, info.std)

    def without(self, classes: Sequence[int]) -> "DistilledSet":
        """The same set without the images of some classes, which it still stands for; bytes by their share."""
        left = ~torch.isin(self.targets, torch.tensor(list(classes), dtype=torch.int64))
        share = int(left.sum()) / max(1, len(self))
        return replace(
            self,
            images=self.images[left],
            targets=self.targets[left],
            weights=None if self.weights is None else self.weights[left],
            provenance={**self.provenance, "without": list(classes)},
            image_bytes=round(share * self.image_bytes),
        )


@runtime_checkable
class LabelSource(Protocol):
    """Anything that gives soft labels for a batch of views.

    Attributes:
        regime: `hard`, `fixed` (one label per image), `online` (one per view) or `replay` (one per view, stored).
        space: of the labels: `logits`; `top logits`, where all but the largest are missing (a softmax of them is a
            label, their values are not to be compared); or `probabilities` (whose logarithms `logits` then gives: for
            losses that need no more than a softmax of them).
        fingerprint: names the labels; part of every run record's identity.
        label_bytes: bytes of stored labels.
        labeler_bytes: bytes of the models that must be shipped to make the labels.
    """

    @property
    def regime(self) -> str: ...
    @property
    def space(self) -> str: ...
    @property
    def fingerprint(self) -> str: ...
    @property
    def label_bytes(self) -> int: ...
    @property
    def labeler_bytes(self) -> int: ...

    def to(self, device: torch.device) -> "LabelSource": ...

    def logits(self, views: Tensor, index: Tensor, rows: slice | None = None) -> Tensor | None:
        """Teacher logits [B, classes], float32, for views [B, C, H, W] (normalised) of the images at `index` [B].

        None when there is no teacher. For `fixed` the views are ignored. `rows` is where these views stand among all
        views of a training (epoch * N + position in the epoch): a source may keep what it said there before.
        """
        ...
