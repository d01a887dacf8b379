"""What is compared: sets x losses x seeds under one protocol, cell by cell, and the checks before work."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from softlabel.core import ConfigError, Dataset, DistilledSet, LabelSource
from softlabel.evaluation._students import check_classes
from softlabel.labels import HardLabels, make_labels
from softlabel.losses import Loss
from softlabel.models import check_model
from softlabel.training import Execution, Protocol, Schedule, Teacher, check_teacher


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """What is compared.

    Attributes:
        name, title: for people and folders.
        protocol: shared by every arm; the losses of the arms replace its loss.
        student: model spec.
        losses: loss specs, each an arm on every set.
        seeds: one student per arm and seed.
        full_epochs: epochs of the full-data baseline with hard labels; 0 leaves it out.
        full_seeds: seeds of that baseline.
    """

    name: str
    title: str
    protocol: Protocol
    student: str
    losses: tuple[str, ...]
    seeds: tuple[int, ...] = (0, 1, 2)
    full_epochs: int = 0
    full_seeds: tuple[int, ...] = (0,)

    def __post_init__(self) -> None:
        check_model(self.student)
        for loss in self.losses:
            Loss.parse(loss)
        if not self.losses or not self.seeds:
            raise ConfigError("A comparison needs at least one loss and one seed.")
        if len(set(self.seeds)) < len(self.seeds) or len({Loss.parse(loss) for loss in self.losses}) < len(self.losses):
            raise ConfigError(f"Seeds and losses must differ. Got seeds {self.seeds} and losses {self.losses}.")
        if self.soft_losses and self.protocol.labels == "hard":
            raise ConfigError(
                f"The losses {', '.join(self.soft_losses)} need soft labels, and the protocol {self.protocol.name!r} "
                f"has hard ones. Choose --labels online or fixed and give a --teacher, or compare under ce alone."
            )

    @property
    def soft_losses(self) -> tuple[str, ...]:
        """The losses that look at a teacher."""
        return tuple(loss for loss in self.losses if Loss.parse(loss).needs_teacher)

    def arm_protocol(self, loss: str) -> Protocol:
        """The protocol of the arm with this loss."""
        return self.protocol.with_loss(loss)

    def full_protocol(self) -> Protocol:
        """The full-data baseline's: the same with hard labels, its own epochs, and a schedule made for few epochs.

        A protocol for hundreds of epochs of a tiny set steps its rate down at shares of the epochs; in one or a few
        epochs of the whole data that would keep the rate near zero and cripple the baseline.
        """
        schedule = Schedule(name="warmup_linear", warmup=0.2)
        return replace(self.protocol.with_loss("ce"), epochs=self.full_epochs, extra_epoch=False, schedule=schedule)


@dataclass(frozen=True)
class Cell:
    """One student to be trained: an arm and a seed."""

    arm: str
    set_name: str
    protocol: Protocol
    seed: int
    role: str = "arm"


@dataclass(frozen=True)
class SetPaths:
    """The distilled sets of one arm family: the artifact for every seed (the same one, or one drawn per seed)."""

    name: str
    by_seed: tuple[tuple[int, Path], ...]

    def path(self, seed: int) -> Path:
        return dict(self.by_seed)[seed]


def cells(comparison: Comparison, sets: Sequence[SetPaths]) -> list[Cell]:
    """Every cell, baselines last."""
    plan = [
        Cell(arm_name(paths.name, loss), paths.name, comparison.arm_protocol(loss), seed)
        for paths in sets
        for loss in comparison.losses
        for seed in comparison.seeds
    ]
    if comparison.full_epochs:
        protocol = comparison.full_protocol()
        plan += [Cell("full data / ce", "full data", protocol, seed, "baseline") for seed in comparison.full_seeds]
    return plan


def check_inputs(
    comparison: Comparison,
    data: Dataset,
    teachers: Sequence[Teacher],
    sets: Sequence[SetPaths],
    loaded: Iterable[DistilledSet] = (),
) -> None:
    """Refuse what would fail, or mix up arms, after hours of training.

    Args:
        loaded: those of the distilled sets that are there already.

    Raises:
        ConfigError: two families of sets of one name, or soft losses without a teacher.
        TeacherMismatchError: a teacher, or a set, for other data.
    """
    for distilled in loaded:
        check_classes(distilled, data)
    names = [paths.name for paths in sets]
    if len(set(names)) < len(names):
        raise ConfigError(f"Every family of distilled sets needs a name of its own. Got {', '.join(names)}.")
    if comparison.soft_losses and not teachers:
        raise ConfigError(
            f"The losses {', '.join(comparison.soft_losses)} need a teacher. Give one with --teacher, or compare under "
            f"the loss ce alone."
        )
    for teacher in teachers if comparison.soft_losses else ():
        check_teacher(teacher, data.info)


def arm_name(set_name: str, loss: str) -> str:
    return f"{set_name} / {loss}"


def cell_labels(cell: Cell, teachers: Sequence[Teacher], distilled: DistilledSet, execution: Execution) -> LabelSource:
    """The labels of a cell: its regime, or hard ones when its loss looks at no teacher."""
    if not cell.protocol.loss.needs_teacher:
        return HardLabels()
    return make_labels(cell.protocol.labels, teachers=teachers, distilled=distilled, execution=execution)
