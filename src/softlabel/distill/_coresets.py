"""Real images, chosen: random, herding and k-centre."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from softlabel.core import Dataset, Progress
from softlabel.distill._common import Images, class_indices, selected, teacher_features
from softlabel.training import Execution, Teacher


@dataclass(frozen=True, kw_only=True)
class RandomConfig:
    """Random real images have no settings."""


@dataclass(frozen=True, kw_only=True)
class HerdingConfig:
    """Herding.

    Attributes:
        unit: scale every feature vector to unit length first, as iCaRL does.
    """

    unit: bool = False


@dataclass(frozen=True, kw_only=True)
class KCentreConfig:
    """Greedy k-centre has no settings."""


def random_images(
    config: RandomConfig,
    data: Dataset,
    teachers: Sequence[Teacher],
    *,
    ipc: int,
    generator: torch.Generator,
    execution: Execution,
    progress: Progress,
) -> Images:
    """The first `ipc` of a random permutation of each class, so that sets of one seed are nested."""
    chosen = [
        members[torch.randperm(len(members), generator=generator)[:ipc]]
        for members in class_indices(data.train, data.info.classes)
    ]
    return selected(data, chosen)


def herding(
    config: HerdingConfig,
    data: Dataset,
    teachers: Sequence[Teacher],
    *,
    ipc: int,
    generator: torch.Generator,
    execution: Execution,
    progress: Progress,
) -> Images:
    """Greedily keep the mean of the chosen features near the class mean (Welling 2009; iCaRL, Algorithm 4).

    Features are the inputs of the first teacher's last layer. No random choice is made.
    """

    def choose(features: Tensor) -> Tensor:
        return herd(F.normalize(features, dim=1) if config.unit else features, ipc)

    return _by_features("herding", choose, data, teachers[0], ipc, execution, progress)


def k_centre(
    config: KCentreConfig,
    data: Dataset,
    teachers: Sequence[Teacher],
    *,
    ipc: int,
    generator: torch.Generator,
    execution: Execution,
    progress: Progress,
) -> Images:
    """Greedy k-centre in each class (Sener and Savarese 2018, Algorithm 1): always take the farthest image.

    Features as in `herding`; the first image of each class is random.
    """

    def choose(features: Tensor) -> Tensor:
        first = int(torch.randint(len(features), (1,), generator=generator))
        return farthest_first(features, ipc, first)

    return _by_features("k-centre", choose, data, teachers[0], ipc, execution, progress)


def herd(features: Tensor, count: int) -> Tensor:
    """Positions int64 [count] of the greedy herding choice among `features` [N, F], in the order chosen."""
    mean = features.mean(dim=0)
    total = torch.zeros_like(mean)
    free = torch.ones(len(features), dtype=torch.bool)
    chosen = []
    for step in range(count):
        distance = (mean - (total + features) / (step + 1)).square().sum(dim=1)
        best = int(distance.masked_fill(~free, torch.inf).argmin())
        chosen.append(best)
        free[best] = False
        total = total + features[best]
    return torch.tensor(chosen, dtype=torch.int64)


def farthest_first(features: Tensor, count: int, first: int) -> Tensor:
    """Positions int64 [count]: `first`, then each time the one farthest from all chosen (Euclidean, [N, F])."""
    chosen = [first]
    distance = (features - features[first]).square().sum(dim=1)
    for _ in range(count - 1):
        distance[chosen[-1]] = -1.0  # never again, not even among equal images
        chosen.append(int(distance.argmax()))
        nearer = (features - features[chosen[-1]]).square().sum(dim=1)
        distance = torch.where(distance < 0, distance, torch.minimum(distance, nearer))
    return torch.tensor(chosen, dtype=torch.int64)


def _by_features(
    name: str,
    choose: Callable[[Tensor], Tensor],
    data: Dataset,
    teacher: Teacher,
    ipc: int,
    execution: Execution,
    progress: Progress,
) -> Images:
    progress.start(f"{name} on {data.info.name}", data.info.classes)
    chosen = []
    for members in class_indices(data.train, data.info.classes):
        chosen.append(members[choose(teacher_features(data, members, teacher, execution))])
        progress.advance()
    progress.finish()
    return selected(data, chosen)
