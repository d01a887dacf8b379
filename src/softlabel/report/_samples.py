"""Generated images beside real ones, and the real ones that they are nearest to."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from softlabel.core import StoreError
from softlabel.report._pictures import Strip, strip_of
from softlabel.store import read_artifact

PICTURES = "samples.safetensors"
"""Of a study's artifact (`softlabel.evaluation`)."""
ROUNDING = 1.0
"""Mean difference of pixels, in levels, below which pictures are the same: in bfloat16 single ones differ by more."""


@dataclass(frozen=True, kw_only=True)
class SampleFacts:
    """What a study knows of a generated set.

    Attributes:
        images: how many it has.
        nearest, nearest_real: median root mean square difference of pixels (0 to 255) to the nearest training image of
            the class: of its images, and of as many test images.
        shown, classes, distances: positions of the images that are shown, their classes, and their own differences.
        real_classes: of the real images beside them.
        pictures: what the study's pictures of it begin with.
        agreement: share of its images that the teacher takes for their class.
        frechet, frechet_real: distance to the test images in the teacher's features: of its images, and of as many
            training images.
    """

    set: str
    images: int
    nearest: float
    nearest_real: float
    shown: Sequence[int]
    classes: Sequence[int]
    distances: Sequence[float]
    real_classes: Sequence[int]
    pictures: str
    agreement: float | None = None
    frechet: float | None = None
    frechet_real: float | None = None


@dataclass(frozen=True, kw_only=True)
class SampleRow:
    """One class: real images, generated ones, and under each of these the nearest real one."""

    name: str
    real: Strip
    samples: Strip
    nearest: Strip
    distances: str


@dataclass(frozen=True, kw_only=True)
class SampleSheet:
    """The pictures of one set; `same_as` names an earlier one whose first images are the same."""

    set: str
    rows: tuple[SampleRow, ...]
    same_as: str = ""


@dataclass(frozen=True, kw_only=True)
class SamplesView:
    """The part of the page on generated images; `problem` says why there are no pictures."""

    facts: tuple[SampleFacts, ...]
    sheets: tuple[SampleSheet, ...]
    problem: str = ""


def samples_view(samples: tuple[SampleFacts, ...], class_name: Callable[[int], str], path: Path) -> SamplesView | None:
    """What the study at `path` says of its generated sets, with their pictures; None where it has none."""
    if not samples:
        return None
    try:
        pictures = read_artifact(path, "study").tensors(PICTURES)
        sheets: list[SampleSheet] = []
        drawn: dict[str, Tensor] = {}
        for one in samples:
            parts = {name: pictures[f"{one.pictures}/{name}"] for name in ("real", "samples", "nearest")}
            same = next((name for name, before in drawn.items() if _alike(before, parts["samples"])), "")
            drawn[one.set] = parts["samples"]
            sheets.append(SampleSheet(set=one.set, rows=() if same else _rows(one, parts, class_name), same_as=same))
    except (StoreError, KeyError) as error:
        return SamplesView(facts=samples, sheets=(), problem=str(error))
    return SamplesView(facts=samples, sheets=tuple(sheets))


def _alike(one: Tensor, other: Tensor) -> bool:
    """Whether two sets of pictures are the same but for rounding: images made in other batches differ a little."""
    return one.shape == other.shape and float((one.float() - other.float()).abs().mean()) < ROUNDING


def _rows(one: SampleFacts, parts: dict[str, Tensor], class_name: Callable[[int], str]) -> tuple[SampleRow, ...]:
    classes = torch.tensor(list(one.classes))
    real = torch.tensor(list(one.real_classes))
    rows = []
    for label in dict.fromkeys(one.classes):
        own = classes == label
        distances = [value for value, kept in zip(one.distances, own.tolist(), strict=True) if kept]
        rows.append(
            SampleRow(
                name=class_name(label),
                real=strip_of(parts["real"][real == label], label),
                samples=strip_of(parts["samples"][own], label),
                nearest=strip_of(parts["nearest"][own], label),
                distances=", ".join(f"{value:.0f}" for value in distances),
            )
        )
    return tuple(rows)
