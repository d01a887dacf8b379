"""Labels as a codec would give them back: what students see of stored labels, without a file between."""

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from functools import cached_property

import torch
from torch import Tensor

from softlabel.core import DistilledSet, LabelSource, fingerprint, stream_seed
from softlabel.labels._codecs import Codec, FittedCodec
from softlabel.labels._sources import FixedLabels
from softlabel.labels._wrapped import WrappedLabels
from softlabel.training import Batches, DrawnViews, Execution

SAMPLE = 4096
"""Labels that a codec which learns something is fitted to."""
SEED_BYTES = 8
"""What tells every view of a training: the seed that they are drawn from."""


@dataclass(frozen=True)
class CodedLabels(WrappedLabels):
    """The labels of `source`, written down by a codec and read again.

    Attributes:
        classes: of every label.
        targets: int64 [N], the class of every image of the set.
        rows: how many labels are stored: one per image, or one per view of a training.
        sample: gives labels [S, C] for the codec to be fitted to; asked when labels are read.
    """

    codec: Codec
    classes: int
    targets: Tensor
    rows: int
    sample: Callable[[], Tensor] = field(compare=False)

    @property
    def regime(self) -> str:
        return "replay" if self.source.regime == "online" else self.source.regime

    @property
    def space(self) -> str:
        return self.codec.space if self.source.space == "logits" else self.source.space

    @property
    def fingerprint(self) -> str:
        return fingerprint("coded", self.source.fingerprint, self.codec.identity, self.rows)

    @property
    def label_bytes(self) -> int:
        seed = SEED_BYTES if self.regime == "replay" else 0
        return self.rows * self.codec.row_bytes(self.classes) + self.codec.shared_bytes(self.classes) + seed

    @property
    def labeler_bytes(self) -> int:
        return 0

    def to(self, device: torch.device) -> "CodedLabels":
        return replace(self, source=self.source.to(device), targets=self.targets.to(device))

    def logits(self, views: Tensor, index: Tensor, rows: slice | None = None) -> Tensor | None:
        """The labels [B, C] as they come back, in `space` (probabilities as logarithms)."""
        logits = self.source.logits(views, index, rows)
        if logits is None:
            return None
        target = self.targets[index]
        return self._fitted.decode(self._fitted.encode(logits, target=target), target=target)

    @cached_property
    def _fitted(self) -> FittedCodec:
        return self.codec.fit(self.sample()).to(self.targets.device)


def coded_labels(
    source: LabelSource, codec: Codec, distilled: DistilledSet, plan: DrawnViews, epochs: int, execution: Execution
) -> CodedLabels:
    """`source` through `codec`: fixed labels one per image, online ones one per view of so many epochs of `plan`.

    A codec that learns is fitted to fixed labels themselves, and to those of other views of the same images (another
    stream of the plan's seed): nothing is seen twice before it is needed.

    Raises:
        ConfigError: a codec that does not fit the number of classes.
    """
    classes = distilled.info.classes
    codec.check(classes)

    def sample() -> Tensor:
        if isinstance(source, FixedLabels):
            return source.table
        return sample_labels(source, distilled, plan, execution)

    rows = len(distilled) * (epochs if source.regime == "online" else 1)
    return CodedLabels(source, codec, classes, distilled.targets, rows, sample)


def sample_labels(source: LabelSource, distilled: DistilledSet, plan: DrawnViews, execution: Execution) -> Tensor:
    """Labels of `SAMPLE` views or a few more, of another stream of the plan's seed."""
    plan = replace(plan, seed=stream_seed(plan.seed, "codec"))
    batches = Batches(distilled.split, distilled.info, execution.torch_device)
    source = source.to(execution.torch_device)
    found: list[Tensor] = []
    epoch = 0
    while sum(len(some) for some in found) < SAMPLE:
        with execution.autocast(), execution.deterministic():
            for batch in batches.epoch(plan, epoch):
                logits = source.logits(batch.views, batch.index)
                assert logits is not None  # labels that are coded have a teacher
                found.append(logits.cpu())
                if sum(len(some) for some in found) >= SAMPLE:
                    break
        epoch += 1
    return torch.cat(found)
