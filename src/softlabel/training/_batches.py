"""The views that a training sees: batches of images, drawn from named streams of a seed."""

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from softlabel.core import DatasetInfo, Split, stream
from softlabel.training._pixels import Normaliser
from softlabel.training._protocol import Protocol
from softlabel.views import Mix, apply, sample

IMAGES_ON_DEVICE = 100_000


@dataclass(frozen=True)
class Batch:
    """One batch of views.

    Attributes:
        views: normalised float32 [B, C, H, W], channels last, on the device.
        target, index: class indices and positions in the training set, int64 [B], on the device.
        mix: how views were mixed, if they were.
        rows: where these views stand among all views of the training: epoch * N + position in the epoch.
        within: share of the epoch's steps that came before, in [0, 1).
    """

    views: Tensor
    target: Tensor
    index: Tensor
    mix: Mix | None
    rows: slice
    within: float


class Batches:
    """Views of the training images, batch by batch.

    Order and views come from the streams ("order", epoch) and ("views", epoch) of the seed: two trainings with one
    seed, one set and one policy see the same views, whatever else differs.
    """

    def __init__(
        self, split: Split, protocol: Protocol, info: DatasetInfo, factor: int, seed: int, device: torch.device
    ) -> None:
        self.size = protocol.batch_size(len(split), info.classes)
        self.policy = protocol.policy(factor)
        self.seed, self.device = seed, device
        self.normalise = Normaliser(info, device)
        self.images, self.targets = split.images, split.targets
        if len(split) <= IMAGES_ON_DEVICE and device.type != "cpu":
            self.images = split.images.to(device)
        self.height, self.width = split.images.shape[-2:]

    def epoch(self, epoch: int) -> Iterator[Batch]:
        """The batches of an epoch."""
        draws = stream(self.seed, "views", epoch)
        order = self._order(epoch)
        row = epoch * len(self.targets)
        for step, index in enumerate(order):
            views, mix = self._view(index, draws)
            rows = slice(row, row + len(index))
            row = rows.stop
            target = self.targets[index].to(self.device)
            yield Batch(views, target, index.to(self.device), mix, rows, step / len(order))

    def _order(self, epoch: int) -> list[Tensor]:
        """Indices of every batch. A single image left over joins the last batch: batch norm needs two."""
        order = torch.randperm(len(self.targets), generator=stream(self.seed, "order", epoch))
        batches = list(order.split(self.size))
        if len(batches) > 1 and len(batches[-1]) == 1:
            batches[-2:] = [torch.cat(batches[-2:])]
        return batches

    def _view(self, index: Tensor, draws: torch.Generator) -> tuple[Tensor, Mix | None]:
        images = self.normalise(self.images.index_select(0, index.to(self.images.device)))
        params = sample(self.policy, len(index), self.height, self.width, draws).to(self.device)
        return apply(images, params).contiguous(memory_format=torch.channels_last), params.mix
