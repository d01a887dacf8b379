"""What every method shares: the shape of its result, classes apart, features, and the checks before work."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from softlabel.core import Dataset, DistillError, Split
from softlabel.training import Execution, Normaliser, Teacher, renormalise

BATCH = 512


@dataclass(frozen=True)
class Images:
    """What a method makes.

    Attributes:
        images: uint8 [classes * ipc, C, H, W], class after class.
        targets: int64 [classes * ipc].
        factor: tiles per side, when an image is a mosaic.
        provenance: JSON-ready facts, such as the indices of the real images used.
        weights: how much each image counts, float32 of mean 1; None where all count alike.
    """

    images: Tensor
    targets: Tensor
    factor: int = 1
    provenance: dict[str, Any] = field(default_factory=dict)
    weights: Tensor | None = None


def class_indices(split: Split, classes: int) -> list[Tensor]:
    """For every class, the positions of its images in `split`, ascending."""
    return [(split.targets == c).nonzero().flatten() for c in range(classes)]


def require_images(data: Dataset, per_class: int, reason: str) -> None:
    """Refuse to start when some class has fewer images than are needed.

    Raises:
        DistillError: naming the smallest class, what it has and what is needed.
    """
    counts = data.train.counts(data.info.classes)
    smallest = min(range(len(counts)), key=counts.__getitem__)
    if counts[smallest] < per_class:
        raise DistillError(
            f"{reason} needs {per_class} training images in every class. The class "
            f"{data.info.class_names[smallest]!r} of {data.info.name} has {counts[smallest]}. "
            f"Choose a smaller --ipc (or a smaller factor), or add images."
        )


def check_ipc(config: object, data: Dataset, ipc: int) -> None:
    """`require_images` for methods that keep real images as they are."""
    require_images(data, ipc, f"IPC {ipc}")


def selected(data: Dataset, index_by_class: Sequence[Tensor], **facts: Any) -> Images:
    """Real images as they are, at the given positions of the train split."""
    index = torch.cat(list(index_by_class))
    chosen = data.train.subset(index)
    return Images(chosen.images, chosen.targets, provenance={"train_indices": index.tolist(), **facts})


def teacher_features(data: Dataset, index: Tensor, teacher: Teacher, execution: Execution) -> Tensor:
    """Inputs of the teacher's last layer for the train images at `index`: float32 [len(index), F], on the CPU."""
    normalise = Normaliser(data.info, execution.torch_device)
    teacher = teacher.to(execution.torch_device)
    blocks = []
    with execution.autocast(), execution.deterministic():
        for part in index.split(BATCH):
            views = renormalise(normalise(data.train.images[part]), data.info, teacher.info)
            blocks.append(teacher.features(views).cpu())
    return torch.cat(blocks)
