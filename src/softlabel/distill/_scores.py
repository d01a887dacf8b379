"""Real images, chosen by a score: how hard a teacher finds them, or how training went with them.

Scores of one model: its cross-entropy. Scores of a trajectory: EL2N, forgetting, and CAD-Prune, whose teachers are the
checkpoints of one training, one per epoch, in their order.
"""

from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor

from softlabel.core import ConfigError, Dataset, Progress
from softlabel.distill._common import BATCH, Images, class_indices, selected
from softlabel.training import Execution, Normaliser, Teacher, renormalise

DECILES = 10


@dataclass(frozen=True, kw_only=True)
class DecileConfig:
    """Images of one decile of difficulty.

    Attributes:
        decile: 0 the easiest tenth of each class, 9 the hardest.
    """

    decile: int = 0

    def __post_init__(self) -> None:
        if not 0 <= self.decile < DECILES:
            raise ConfigError(f"The option 'decile' of the method 'ce-decile' goes from 0 to 9. Got {self.decile}.")


@dataclass(frozen=True, kw_only=True)
class StratifiedConfig:
    """Stratified choice has no settings."""


@dataclass(frozen=True, kw_only=True)
class El2nConfig:
    """EL2N.

    Attributes:
        epochs: early checkpoints over which the score is averaged.
        easy: take the lowest scores instead of the highest, as PCA does at few images per class.
    """

    epochs: int = 10
    easy: bool = False

    def __post_init__(self) -> None:
        if self.epochs < 1:
            raise ConfigError(f"The option 'epochs' of the method 'el2n' must be 1 or more. Got {self.epochs}.")

    @property
    def least_epochs(self) -> int:
        return self.epochs


@dataclass(frozen=True, kw_only=True)
class ForgettingConfig:
    """Forgetting events.

    Attributes:
        easy: take the images forgotten least instead of most.
    """

    easy: bool = False

    @property
    def least_epochs(self) -> int:
        return 2


@dataclass(frozen=True, kw_only=True)
class CadConfig:
    """CAD-Prune.

    Attributes:
        span: consecutive epochs J over which the spread of the true class's probability is taken.
        window: how many such spreads W, up to the end of training, are averaged. The paper's values are not known to
            us; these are ours.
    """

    span: int = 3
    window: int = 3

    def __post_init__(self) -> None:
        if self.span < 2 or self.window < 1:
            raise ConfigError(
                f"The method 'cad-prune' needs a span of 2 or more and a window of 1 or more. Got {self.span} and "
                f"{self.window}."
            )

    @property
    def least_epochs(self) -> int:
        return self.span + self.window


@dataclass(frozen=True)
class Outlook:
    """What one model says of the train images: `true` [N], the probability of the true class; `error` [N], the length
    of probabilities minus one-hot; `right` [N], whether the true class is the most likely."""

    true: Tensor
    error: Tensor
    right: Tensor


_seen: OrderedDict[tuple[str, str, Execution], Outlook] = OrderedDict()
_MOST_SEEN = 64  # of 12 bytes per image: several methods look at one trajectory


def outlook(data: Dataset, teacher: Teacher, execution: Execution) -> Outlook:
    """The model's outlook on every train image as it is, float32 on the CPU; the latest ones are remembered."""
    key = (data.train.digest, teacher.fingerprint, execution)
    if key not in _seen:
        _seen[key] = _look(data, teacher, execution)
    _seen.move_to_end(key)
    while len(_seen) > _MOST_SEEN:
        _seen.popitem(last=False)
    return _seen[key]


def _look(data: Dataset, teacher: Teacher, execution: Execution) -> Outlook:
    normalise = Normaliser(data.info, execution.torch_device)
    teacher = teacher.to(execution.torch_device)
    parts: list[Tensor] = []
    with execution.autocast(), execution.deterministic():
        for start in range(0, len(data.train), BATCH):
            views = renormalise(normalise(data.train.images[start : start + BATCH]), data.info, teacher.info)
            target = data.train.targets[start : start + BATCH]
            probabilities = F.softmax(teacher.logits(views), dim=-1).cpu()
            true = probabilities.gather(-1, target[:, None])[:, 0]
            right = (probabilities.argmax(dim=-1) == target).float()
            # From the vector itself: sums of squares cancel where the model is sure, which is where ranks are close.
            error = (probabilities - F.one_hot(target, probabilities.shape[-1])).norm(dim=-1)
            parts.append(torch.stack([true, error, right]))
    true, error, right = torch.cat(parts, dim=1)
    return Outlook(true, error, right > 0)


def ce_decile(
    config: DecileConfig,
    data: Dataset,
    teachers: Sequence[Teacher],
    *,
    ipc: int,
    generator: torch.Generator,
    execution: Execution,
    progress: Progress,
) -> Images:
    """Random images of one decile of the first teacher's cross-entropy in each class.

    The study of "A label is worth a thousand images"; its released code feeds probabilities into a cross-entropy that
    takes a softmax again, and picks the first images of a decile by index. Here the cross-entropy is one, the choice
    random, and a decile with fewer images than are wanted is widened towards the harder ones, or, at the hard end,
    towards the easier.
    """
    scores = _scored("ce-decile", data, teachers[:1], execution, progress, lambda seen: -seen[0].true)
    chosen = []
    for members in class_indices(data.train, data.info.classes):
        ranked = members[scores[members].argsort(stable=True)]
        size = max(ipc, -(-len(ranked) // DECILES))
        start = min(config.decile * len(ranked) // DECILES, len(ranked) - size)
        bucket = ranked[start : start + size]
        chosen.append(bucket[torch.randperm(len(bucket), generator=generator)[:ipc]])
    return selected(data, chosen, decile=config.decile)


def stratified(
    config: StratifiedConfig,
    data: Dataset,
    teachers: Sequence[Teacher],
    *,
    ipc: int,
    generator: torch.Generator,
    execution: Execution,
    progress: Progress,
) -> Images:
    """One random image from each of `ipc` equal strata of the first teacher's cross-entropy in each class."""
    scores = _scored("stratified", data, teachers[:1], execution, progress, lambda seen: -seen[0].true)
    chosen = []
    for members in class_indices(data.train, data.info.classes):
        ranked = members[scores[members].argsort(stable=True)]
        edges = [stratum * len(ranked) // ipc for stratum in range(ipc + 1)]
        places = [
            start + int(torch.randint(stop - start, (1,), generator=generator)) for start, stop in pairwise(edges)
        ]
        chosen.append(ranked[places])
    return selected(data, chosen)


def el2n(
    config: El2nConfig,
    data: Dataset,
    teachers: Sequence[Teacher],
    *,
    ipc: int,
    generator: torch.Generator,
    execution: Execution,
    progress: Progress,
) -> Images:
    """The images with the largest mean error vector early in training (Paul et al. 2021, "Deep Learning on a Data
    Diet", Definition 2.2): the L2 norm of softmax minus one-hot. The paper averages over several trainings; here it is
    averaged over the first checkpoints of one."""
    early = teachers[: config.epochs]

    def score(seen: Sequence[Outlook]) -> Tensor:
        return torch.stack([one.error for one in seen]).mean(dim=0)

    scores = _scored("el2n", data, early, execution, progress, score)
    return _largest(data, -scores if config.easy else scores, ipc)


def forgetting(
    config: ForgettingConfig,
    data: Dataset,
    teachers: Sequence[Teacher],
    *,
    ipc: int,
    generator: torch.Generator,
    execution: Execution,
    progress: Progress,
) -> Images:
    """The images that are most often forgotten along training: right after one epoch, wrong after the next (Toneva et
    al. 2019, "An Empirical Study of Example Forgetting"). Images never right count as forgotten most. The paper looks
    whenever an image is in a batch; here it is after every epoch that was kept."""
    scores = _scored("forgetting", data, teachers, execution, progress, forgetting_events)
    return _largest(data, -scores if config.easy else scores, ipc)


def cad_prune(
    config: CadConfig,
    data: Dataset,
    teachers: Sequence[Teacher],
    *,
    ipc: int,
    generator: torch.Generator,
    execution: Execution,
    progress: Progress,
) -> Images:
    """The images whose true class's probability still moves at the end of training (Hard Truths, CVPR 2026): with
    U_k the standard deviation over the J epochs from k on, the mean of U_k over k = K - J - W .. K - J - 1 of K epochs
    counted from 0. The formula leaves the very last epoch out."""
    late = teachers[-config.least_epochs :]
    scores = _scored(
        "cad-prune", data, late, execution, progress, lambda seen: spread_late(seen, config.span, config.window)
    )
    return _largest(data, scores, ipc)


def forgetting_events(seen: Sequence[Outlook]) -> Tensor:
    """How often each image goes from right to wrong between neighbours in `seen`; never right counts len(seen)."""
    right = torch.stack([one.right for one in seen])
    events = (right[:-1] & ~right[1:]).sum(dim=0).float()
    return torch.where(right.any(dim=0), events, float(len(seen)))


def spread_late(seen: Sequence[Outlook], span: int, window: int) -> Tensor:
    """Mean over k = K - J - W .. K - J - 1 of the standard deviation of the true class's probability over epochs
    k .. k + J - 1, of K = len(seen) epochs counted from 0 (population form)."""
    true = torch.stack([one.true for one in seen])
    last = len(seen) - span
    return torch.stack([true[k : k + span].std(dim=0, correction=0) for k in range(last - window, last)]).mean(dim=0)


def _scored(
    name: str,
    data: Dataset,
    teachers: Sequence[Teacher],
    execution: Execution,
    progress: Progress,
    score: Callable[[Sequence[Outlook]], Tensor],
) -> Tensor:
    progress.start(f"{name} on {data.info.name}", len(teachers))
    seen = []
    for teacher in teachers:
        seen.append(outlook(data, teacher, execution))
        progress.advance()
    progress.finish()
    return score(seen)


def _largest(data: Dataset, scores: Tensor, ipc: int) -> Images:
    """Per class the images with the largest scores; of equal ones the earlier."""
    chosen = []
    for members in class_indices(data.train, data.info.classes):
        order = scores[members].argsort(descending=True, stable=True)
        chosen.append(members[order[:ipc]])
    return selected(data, chosen)
