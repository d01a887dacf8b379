"""How good generated images are: what a teacher says of them, how far they are from real ones, and from which."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from softlabel.core import ConfigError, DatasetInfo, Split
from softlabel.training import Execution, Normaliser, Teacher, mean_logits, renormalise

BATCH = 512


def confidences(teachers: Sequence[Teacher], images: Tensor, info: DatasetInfo, execution: Execution) -> Tensor:
    """Probabilities [N, classes] that teachers give uint8 images, by their mean logits."""
    normalise = Normaliser(info, execution.torch_device)
    found = []
    with execution.autocast(), execution.deterministic():
        for part in images.split(BATCH):
            found.append(mean_logits(teachers, normalise(part), info).softmax(dim=-1).cpu())
    return torch.cat(found)


def image_features(teacher: Teacher, images: Tensor, info: DatasetInfo, execution: Execution) -> Tensor:
    """What a teacher's last layer sees of uint8 images of data with `info`, float32 [N, features]."""
    normalise = Normaliser(info, execution.torch_device)
    found = []
    with execution.autocast(), execution.deterministic():
        for part in images.split(BATCH):
            found.append(teacher.features(renormalise(normalise(part), info, teacher.info)).cpu())
    return torch.cat(found)


def agreement(probabilities: Tensor, classes: Tensor) -> float:
    """Share of images whose most probable class is their own."""
    return float((probabilities.argmax(dim=1) == classes).float().mean())


def frechet_distance(one: Tensor, other: Tensor) -> float:
    """The Frechet distance of two sets of features [N, D] and [M, D], each taken as normally distributed.

    |m1 - m2|^2 + tr(C1 + C2 - 2 (C1 C2)^(1/2)) (Heusel et al. 2017, there of Inception features and called FID).
    Numbers of different features, or of different numbers of images, do not compare.

    Raises:
        ConfigError: fewer than two images on a side.
    """
    if min(len(one), len(other)) < 2:
        raise ConfigError("A Frechet distance takes two images or more on each side.")
    one, other = one.double(), other.double()
    first, second = (torch.atleast_2d(torch.cov(side.T)) for side in (one, other))
    root = _root(first)
    between = torch.linalg.eigvalsh(root @ second @ root).clamp_min(0).sqrt().sum()
    means = (one.mean(dim=0) - other.mean(dim=0)).square().sum()
    return float(means + first.trace() + second.trace() - 2 * between)


@dataclass(frozen=True)
class Nearest:
    """The nearest real image of the same class to each of some images.

    Attributes:
        index: positions in the real split, int64 [N].
        distance: root mean square difference of pixels, 0 to 255, float32 [N].
    """

    index: Tensor
    distance: Tensor


def nearest_real(images: Tensor, classes: Tensor, real: Split) -> Nearest:
    """The nearest image of the same class in `real` to each uint8 image [N, C, H, W], by its pixels."""
    index = torch.zeros(len(images), dtype=torch.int64)
    distance = torch.full((len(images),), torch.inf)
    for label in classes.unique().tolist():
        members, own = (real.targets == label).nonzero().flatten(), (classes == label).nonzero().flatten()
        if not len(members):
            continue
        pixels = real.images[members].float().flatten(1)
        for part in own.split(BATCH):
            apart = torch.cdist(images[part].float().flatten(1), pixels) / pixels.shape[1] ** 0.5
            closest = apart.min(dim=1)
            index[part], distance[part] = members[closest.indices], closest.values
    return Nearest(index, distance)


def _root(matrix: Tensor) -> Tensor:
    values, vectors = torch.linalg.eigh(matrix)
    root: Tensor = vectors @ values.clamp_min(0).sqrt().diag() @ vectors.T
    return root
