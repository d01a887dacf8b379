"""Class-incremental learning with a distilled set as the memory.

Classes arrive in equal steps, in an order drawn from the seed. After every step a student is trained from scratch on
the distilled images of all classes seen so far, and judged on the test images of those classes: the protocol of DSA's,
DM's and later methods' continual-learning tables. GIFT names this application without publishing its code or settings;
five steps follow its authors' later work. The teacher knows all classes; its logits for classes not seen yet are left
out, so that no label tells of the future.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from softlabel.core import Dataset, DistilledSet, fingerprint, stream
from softlabel.evaluation._statistics import summarise, summarise_shares
from softlabel.labels import WrappedLabels


@dataclass(frozen=True)
class SeenLabels(WrappedLabels):
    """The logits of `source` for some classes, in their order."""

    classes: tuple[int, ...]

    @property
    def fingerprint(self) -> str:
        return fingerprint("seen", self.source.fingerprint, self.classes)

    def to(self, device: torch.device) -> "SeenLabels":
        return replace(self, source=self.source.to(device))

    def logits(self, views: Tensor, index: Tensor, rows: slice | None = None) -> Tensor | None:
        """Logits [B, seen classes]."""
        logits = self.source.logits(views, index, rows)
        return None if logits is None else logits[:, list(self.classes)]


def class_order(classes: int, seed: int) -> tuple[int, ...]:
    """The order in which classes arrive."""
    return tuple(torch.randperm(classes, generator=stream(seed, "class order")).tolist())


def seen_after(classes: int, steps: int) -> list[int]:
    """How many classes are seen after every step; the first steps take one more where they do not divide evenly."""
    base, more = divmod(classes, steps)
    sizes = [base + (step < more) for step in range(steps)]
    return [sum(sizes[: step + 1]) for step in range(steps)]


def seen_data(data: Dataset, classes: tuple[int, ...]) -> Dataset:
    """What judges a student of these classes: their test images. The train split, which nobody needs, is empty."""
    nobody = data.train.subset(torch.empty(0, dtype=torch.int64))
    return Dataset(data.info.of_classes(classes), nobody, data.test.of_classes(classes))


def seen_set(distilled: DistilledSet, classes: tuple[int, ...]) -> DistilledSet:
    """`distilled` with these classes only; its bytes by their share of the images."""
    part = distilled.split.of_classes(classes)
    share = len(part) / max(1, len(distilled))
    return replace(
        distilled,
        images=part.images,
        targets=part.targets,
        weights=part.weights,
        info=distilled.info.of_classes(classes),
        image_bytes=round(share * distilled.image_bytes),
    )


def continual_facts(
    order_names: Sequence[Sequence[str]], curves: Mapping[str, Sequence[Sequence[Mapping[str, Any]]]]
) -> dict[str, Any]:
    """Per-step accuracy, average accuracy and forgetting.

    Average accuracy is the mean of the steps' accuracies. Forgetting of a step's classes is the best accuracy that
    they had at any earlier step minus the one after the last; the mean over all steps but the last, in 0..1. With
    one step there is nothing to forget: None.

    Args:
        order_names: names of the classes of every step, for people (those of the first seed).
        curves: per arm, per seed, the records of its steps.
    """
    told = []
    for name, by_seed in curves.items():
        accuracies = [[record["accuracy"]["final"] for record in steps] for steps in by_seed]
        forgotten = [_forgetting(steps) for steps in by_seed] if len(by_seed[0]) > 1 else None
        told.append(
            {
                "name": name,
                "steps": [vars(summarise_shares(list(values))) for values in zip(*accuracies, strict=True)],
                "average": vars(summarise_shares([sum(values) / len(values) for values in accuracies])),
                "forgetting": None if forgotten is None else vars(summarise(forgotten)),
            }
        )
    return {"classes": [list(names) for names in order_names], "arms": told}


def _forgetting(steps: Sequence[Mapping[str, Any]]) -> float:
    """Mean over the steps' class groups, from the records' accuracies per class."""
    per_class = [record["accuracy"]["per_class"] for record in steps]
    bounds = [0, *(len(row) for row in per_class)]
    drops = []
    for group in range(len(steps) - 1):
        mine = slice(bounds[group], bounds[group + 1])
        history = [_mean(row[mine]) for row in per_class[group:]]
        drops.append(max(history[:-1]) - history[-1])
    return _mean(drops)


def _mean(values: Sequence[float | None]) -> float:
    known = [value for value in values if value is not None]
    return sum(known) / len(known) if known else 0.0
