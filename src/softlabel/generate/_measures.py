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
    teachers = [teacher.to(execution.torch_device) for teacher in teachers]
    found = []
    with execution.autocast(), execution.deterministic():
        for part in images.split(BATCH):
            found.append(mean_logits(teachers, normalise(part), info).softmax(dim=-1).cpu())
    return torch.cat(found)


def image_features(teacher: Teacher, images: Tensor, info: DatasetInfo, execution: Execution) -> Tensor:
    """What a teacher's last layer sees of uint8 images of data with `info`, float32 [N, features]."""
    normalise = Normaliser(info, execution.torch_device)
    teacher = teacher.to(execution.torch_device)
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
    means = (one.mean(dim=0) - other.mean(dim=0)).square().sum()
    first, second = (side - side.mean(dim=0) for side in (one, other))
    first, second = first / (len(one) - 1) ** 0.5, second / (len(other) - 1) ** 0.5
    # With C = X'X the trace of the root is the sum of singular values of X1 X2', for X = QR those of R1 R2'.
    short = [torch.linalg.qr(side, mode="r").R for side in (first, second)]
    between = torch.linalg.svdvals(short[0] @ short[1].T).sum()
    return float(means + first.square().sum() + second.square().sum() - 2 * between)


@dataclass(frozen=True)
class Nearest:
    """The nearest real image of the same class to each of some images.

    Attributes:
        index: positions in the real split, int64 [N].
        distance: root mean square difference of pixels, 0 to 255, float32 [N].
        mirrored: where the real image is meant mirrored, bool [N].
    """

    index: Tensor
    distance: Tensor
    mirrored: Tensor


def nearest_real(images: Tensor, classes: Tensor, real: Split) -> Nearest:
    """The nearest image of the same class in `real`, as it is or mirrored, to each uint8 image [N, C, H, W]."""
    index = torch.zeros(len(images), dtype=torch.int64)
    distance, mirrored = torch.full((len(images),), torch.inf), torch.zeros(len(images), dtype=torch.bool)
    for label in classes.unique().tolist():
        members, own = (real.targets == label).nonzero().flatten(), (classes == label).nonzero().flatten()
        if not len(members):
            continue
        kept = real.images[members].float()
        for flipped in (False, True):
            pixels = (kept.flip(3) if flipped else kept).flatten(1)
            for part in own.split(BATCH):
                apart = torch.cdist(images[part].float().flatten(1), pixels) / pixels.shape[1] ** 0.5
                closest = apart.min(dim=1)
                nearer = closest.values < distance[part]
                place = part[nearer]
                index[place], distance[place] = members[closest.indices[nearer]], closest.values[nearer]
                mirrored[place] = flipped
    return Nearest(index, distance, mirrored)
