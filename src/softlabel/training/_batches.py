"""The views that a training sees: which images a batch has and how they are augmented, and then the pixels."""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Protocol as Interface

import torch
from torch import Tensor

from softlabel.core import DatasetInfo, Split, stream, stream_seed
from softlabel.training._pixels import Normaliser
from softlabel.training._protocol import Protocol
from softlabel.views import Mix, Policy, ViewParams, apply, sample

IMAGES_ON_DEVICE = 100_000


@dataclass(frozen=True, eq=False)
class Drawn:
    """One batch as numbers.

    Attributes:
        index: positions in the training set, int64 [B].
        params: how each of these images is augmented.
        rows: where these views stand among all views of the plan.
    """

    index: Tensor
    params: ViewParams
    rows: slice


class ViewPlan(Interface):
    """The batches of every epoch, as numbers."""

    def steps(self, epoch: int) -> int:
        """How many batches an epoch has."""

    def epoch(self, epoch: int) -> Iterator[Drawn]:
        """The batches of an epoch, in their order."""


@dataclass(frozen=True)
class DrawnViews:
    """Batches drawn from a seed: the same seed, images, batch size and policy give the same views.

    Order and views come from the streams ("order", epoch) and ("views", epoch); a row is epoch * images + position in
    the epoch.

    Attributes:
        images: how many there are.
        height, width: of an image.
    """

    policy: Policy
    batch: int
    images: int
    height: int
    width: int
    seed: int

    @classmethod
    def of(cls, protocol: Protocol, split: Split, info: DatasetInfo, factor: int, seed: int) -> "DrawnViews":
        """What a protocol draws for training images of `factor` tiles per side."""
        height, width = split.images.shape[-2:]
        batch = protocol.batch_size(len(split), info.classes)
        return cls(protocol.policy(factor), batch, len(split), height, width, seed)

    def steps(self, epoch: int) -> int:
        return len(self._order(epoch))

    def epoch(self, epoch: int) -> Iterator[Drawn]:
        draws = stream(self.seed, "views", epoch)
        row = epoch * self.images
        for index in self._order(epoch):
            params = sample(self.policy, len(index), self.height, self.width, draws)
            yield Drawn(index, params, slice(row, row + len(index)))
            row += len(index)

    def _order(self, epoch: int) -> list[Tensor]:
        """Indices of every batch. A single image left over joins the last batch: batch norm needs two."""
        order = torch.randperm(self.images, generator=stream(self.seed, "order", epoch))
        batches = list(order.split(self.batch))
        if len(batches) > 1 and len(batches[-1]) == 1:
            batches[-2:] = [torch.cat(batches[-2:])]
        return batches


@dataclass(frozen=True)
class PooledViews:
    """Batches taken at random from those of the first `kept` epochs of another plan, each epoch anew.

    That is how LPLD (2410.15919, section 3.2) reuses the labels of few epochs in many: whole batches, within an epoch
    none twice. A batch keeps the rows of the plan it is from, so its labels are stored once.

    Attributes:
        seed: of what is taken, from the stream ("pool", epoch).
    """

    source: ViewPlan
    kept: int
    seed: int

    def steps(self, epoch: int) -> int:
        return self.source.steps(0)

    def epoch(self, epoch: int) -> Iterator[Drawn]:
        pool = self._pool
        order = torch.randperm(len(pool), generator=stream(self.seed, "pool", epoch))
        return (pool[int(place)] for place in order[: self.steps(epoch)])

    @cached_property
    def _pool(self) -> list[Drawn]:
        return [drawn for epoch in range(self.kept) for drawn in self.source.epoch(epoch)]


@dataclass(frozen=True)
class PhasedViews:
    """The views of a training with a hard phase: `soft` ones with labels, one after another, and `hard` ones between.

    Attributes:
        phase: the epochs that are hard.
    """

    soft: ViewPlan
    hard: ViewPlan
    phase: range

    def steps(self, epoch: int) -> int:
        return self.soft.steps(0)

    def epoch(self, epoch: int) -> Iterator[Drawn]:
        if epoch in self.phase:
            return self.hard.epoch(epoch)
        return self.soft.epoch(epoch - len(self.phase) if epoch >= self.phase.stop else epoch)


def plan_of(
    protocol: Protocol, split: Split, info: DatasetInfo, factor: int, seed: int, *,
    labelled: ViewPlan | None = None, epochs: int | None = None,
) -> ViewPlan:  # fmt: skip
    """The views of a training under a protocol: drawn from `seed`, and taken from a pool where labels are too few.

    Args:
        labelled: the views that there are labels for, where these were made before; None draws them.
        epochs: of `labelled`.
    """
    drawn = DrawnViews.of(protocol, split, info, factor, seed)
    hard = protocol.hard_epochs
    soft = protocol.total_epochs - len(hard)
    kept = min(protocol.labelled_epochs, epochs or soft)
    source = labelled or drawn
    plan: ViewPlan = source if kept == soft else PooledViews(source, kept, seed)
    if not hard:
        return plan
    return PhasedViews(plan, replace(drawn, seed=stream_seed(seed, "hard phase")), hard)


@dataclass(frozen=True)
class Batch:
    """One batch of views.

    Attributes:
        views: normalised float32 [B, C, H, W], channels last, on the device.
        target, index: class indices and positions in the training set, int64 [B], on the device.
        weight: how much each example counts, float32 [B] on the device; None where all count alike.
        mix: how views were mixed, if they were.
        rows: where these views stand among all views of the plan.
        within: share of the epoch's steps that came before, in [0, 1).
    """

    views: Tensor
    target: Tensor
    index: Tensor
    weight: Tensor | None
    mix: Mix | None
    rows: slice
    within: float


class Batches:
    """The pixels of a plan's views."""

    def __init__(self, split: Split, info: DatasetInfo, device: torch.device) -> None:
        self.device = device
        self.normalise = Normaliser(info, device)
        self.images, self.targets, self.weights = split.images, split.targets, split.weights
        if len(split) <= IMAGES_ON_DEVICE and device.type != "cpu":
            self.images = split.images.to(device)

    def epoch(self, plan: ViewPlan, epoch: int) -> Iterator[Batch]:
        """The batches of an epoch of `plan`."""
        steps = plan.steps(epoch)
        for step, drawn in enumerate(plan.epoch(epoch)):
            index = drawn.index
            images = self.normalise(self.images.index_select(0, index.to(self.images.device)))
            params = drawn.params.to(self.device)
            views = apply(images, params).contiguous(memory_format=torch.channels_last)
            target = self.targets[index].to(self.device)
            weight = None if self.weights is None else self.weights[index].to(self.device)
            yield Batch(views, target, index.to(self.device), weight, params.mix, drawn.rows, step / steps)
