"""What is compared: sets x teachers x students x optimizers x losses x seeds, and the checks before work."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import lru_cache
from itertools import product
from pathlib import Path
from typing import Any

from softlabel.core import ConfigError, DistilledSet, LabelSource
from softlabel.evaluation._continual import seen_after
from softlabel.evaluation._tuning import Tuning
from softlabel.labels import HardLabels, LabelSpec, OnlineLabels, load_labeler, make_labels
from softlabel.losses import Loss
from softlabel.models import check_model
from softlabel.training import Execution, Optimizer, Protocol, Schedule, Teacher

OWN_LABELS = "own labels"
"""On the axis of teachers: labels that no teacher made."""

AXES = ("set", "teacher", "labels", "student", "optimizer", "loss")

Teachers = Mapping[str, Sequence[Teacher]]
"""Labelling teachers by name; several under one name are an ensemble."""

SetLabelers = Mapping[tuple[str, str, int], Path]
"""Labelers of one set alone: where they are kept, by a teacher's name, the set's family and the seed."""

Stored = Mapping[tuple[str, int], LabelSource]
"""Labels that are kept beside a set, by the name of its family and the seed."""


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """What is compared.

    Attributes:
        name, title: for people and folders.
        protocol: shared by every arm; the losses and optimizers of the arms replace its own.
        students: model specs.
        losses: loss specs, each an arm on every set.
        optimizers: optimizer specs (`Optimizer.parse`); none: the protocol's.
        labels: label specs (`softlabel.labels.LabelSpec`), each an arm for the losses that look at a teacher; none: the
            protocol's.
        teachers: names of the teachers that label; a loss that looks at no teacher has one arm for all.
        seeds: one student per arm and seed.
        tuning: search every (optimizer, loss)'s learning rate on the selection split, as further arms.
        steps: class-incremental steps with the set as memory; 0 for all classes at once.
        selection: choose among the arms on the selection split, which the data must have.
        keep: which of all these arms there are: those that agree with one of these, each the values allowed on some
            axes; none: all.
        pairs: arms to be compared beside those that always are: the values that one has on some axes, and the other
            that it is compared with, on the same axes (of `AXES`); all else is equal.
        notes: what the report has to say beside the numbers.
        per_class: tell every arm's accuracy per class too.
        full_epochs: epochs of the full-data baseline with hard labels; 0 leaves it out.
        full_seeds: seeds of that baseline.
        plots: what the report draws, as plain data (`softlabel.report`).
    """

    name: str
    title: str
    protocol: Protocol
    students: tuple[str, ...]
    losses: tuple[str, ...]
    optimizers: tuple[str, ...] = ()
    labels: tuple[str, ...] = ()
    teachers: tuple[str, ...] = ("teacher",)
    seeds: tuple[int, ...] = (0, 1, 2)
    tuning: Tuning | None = None
    steps: int = 0
    selection: bool = False
    keep: tuple[Mapping[str, Sequence[str]], ...] = ()
    pairs: tuple[tuple[Mapping[str, str], Mapping[str, str]], ...] = ()
    notes: tuple[str, ...] = ()
    per_class: bool = False
    full_epochs: int = 0
    full_seeds: tuple[int, ...] = (0,)
    plots: tuple[Mapping[str, Any], ...] = ()

    def __post_init__(self) -> None:
        for student in self.students:
            check_model(student)
        losses = [Loss.parse(loss) for loss in self.losses]
        optimizers = [Optimizer.parse(spec) for spec in self.optimizers]
        for what, some in (("loss", losses), ("seed", self.seeds), ("student", self.students),
                           ("teacher's name", self.teachers)):  # fmt: skip
            if not some:
                raise ConfigError(f"A comparison needs at least one {what}, and got none.")
        for what, given in (("Seeds", self.seeds), ("losses", losses), ("optimizers", optimizers),
                            ("students", self.students), ("teachers", self.teachers),
                            ("labels", self.label_specs)):  # fmt: skip
            if len(set(given)) < len(given):
                shown = {"losses": self.losses, "optimizers": self.optimizers, "labels": self.labels}.get(what, given)
                raise ConfigError(f"{what} must differ. Got {', '.join(map(str, shown))}.")
        self._check_labels()
        if self.tuning is not None and (self.labels or self.keep):
            raise ConfigError("Learning rates are searched for the protocol's own labels. Leave the others out.")
        if self.steps and self.selection:
            raise ConfigError(
                "Class-incremental students are not judged on the selection split. Choose one of the two."
            )
        if self.steps < 0:
            raise ConfigError(f"The number of class-incremental steps must be 1 or more. Got {self.steps} instead.")
        for own, other in self.pairs:
            if own.keys() != other.keys() or not own.keys() <= {*AXES} or own == other:
                raise ConfigError(
                    f"Both sides of a pair must have values, different ones, on the same of the axes "
                    f"{', '.join(AXES)}. Got {dict(own)} and {dict(other)}."
                )

    def _check_labels(self) -> None:
        for loss in self.losses:
            self.protocol.with_loss(loss)  # which refuses what the protocol cannot train
        regimes = [spec.regime or self.protocol.labels for spec in self.label_specs]
        if self.soft_losses and "hard" in regimes and not any(spec.regime == "hard" for spec in self.label_specs):
            raise ConfigError(
                f"The losses {', '.join(self.soft_losses)} need soft labels, and would get hard ones under the "
                f"protocol {self.protocol.name!r} here. Choose --labels online or fixed and give a --teacher, or "
                f"compare under ce alone."
            )
        for spec in self.label_specs:
            if spec.regime == "hard":
                raise ConfigError("Hard labels are what the loss ce has. Name it among the losses.")
            if self.soft_losses:
                spec.require(self.protocol.with_labels(spec.regime, spec.epochs))
            stored = (spec.regime or self.protocol.labels) == "replay" or spec.codec is not None
            if (spec.edits or stored) and self.steps:
                raise ConfigError(
                    "Edited and stored labels are for all classes at once. Leave the class-incremental steps out."
                )
            for loss in self.soft_losses if spec.edits or spec.codec else ():
                if self._meet(spec, loss):
                    self.protocol.with_loss(loss).require_space(spec.space("logits"))

    def check_spaces(self, families: Collection[str], stored: Mapping[tuple[str, int], LabelSource]) -> None:
        """Raises ConfigError when a loss cannot use the labels that a family has: logits, but for stored ones."""
        spaces = {source.space for source in stored.values()}
        spaces |= {"logits"} if set(families) - {name for name, _ in stored} else set()
        for spec, loss, space in product(self.label_specs, self.soft_losses, spaces):
            if self._meet(spec, loss):
                self.protocol.with_loss(loss).require_space(spec.space(space))

    def _meet(self, spec: LabelSpec, loss: str) -> bool:
        """Whether any arm may have these labels under this loss."""
        axes = {"labels": _told(spec, self), "loss": loss}
        return _is_kept(axes, [{axis: values for axis, values in one.items() if axis in axes} for one in self.keep])

    @property
    def soft_losses(self) -> tuple[str, ...]:
        """The losses that look at a teacher."""
        return tuple(loss for loss in self.losses if Loss.parse(loss).needs_teacher)

    @property
    def optimizer_specs(self) -> tuple[str, ...]:
        """The optimizers, or the protocol's own."""
        return self.optimizers or (self.protocol.optimizer.spec,)

    @property
    def label_specs(self) -> tuple[LabelSpec, ...]:
        """The labels, or the protocol's own."""
        return tuple(LabelSpec.parse(spec) for spec in self.labels) or (LabelSpec(),)

    def optimizer(self, spec: str) -> Optimizer:
        """The settings behind a spec; the protocol's own keeps all of them."""
        return Optimizer.parse(spec) if self.optimizers else self.protocol.optimizer

    def full_protocol(self) -> Protocol:
        """The full-data baseline's: the same with hard labels, its own epochs, and a schedule made for few epochs.

        A protocol for hundreds of epochs of a tiny set steps its rate down at shares of the epochs; in one or a few
        epochs of the whole data that would keep the rate near zero and cripple the baseline.
        """
        schedule = Schedule(name="warmup_linear", warmup=0.2)
        plain = replace(self.protocol.with_loss("ce"), label_epochs=0, hard_phase=None, renew_optimizer=False)
        return replace(plain, epochs=self.full_epochs, extra_epoch=False, schedule=schedule)


@dataclass(frozen=True, kw_only=True)
class Arm:
    """What all students of one line of the result table share; only their seeds differ.

    Attributes:
        name: unique, for people.
        labels: what is done with the teacher's labels.
        axes: the value on each of `AXES`.
        seen: how many classes it is trained and judged on; 0 for all.
    """

    name: str
    set_name: str
    protocol: Protocol
    student: str
    teacher: str
    labels: LabelSpec = field(default_factory=LabelSpec)
    axes: Mapping[str, str] = field(default_factory=dict, hash=False)
    seen: int = 0
    role: str = "arm"


@dataclass(frozen=True)
class Cell:
    """One student to be trained: an arm and a seed."""

    arm: Arm
    seed: int


@dataclass(frozen=True)
class SetPaths:
    """The distilled sets of one arm family: the artifact for every seed (the same one, or one drawn per seed)."""

    name: str
    by_seed: tuple[tuple[int, Path], ...]

    def path(self, seed: int) -> Path:
        return dict(self.by_seed)[seed]


def arms(
    comparison: Comparison,
    set_names: Sequence[str],
    classes: int,
    tuned: Mapping[tuple[str, str, str, str], Optimizer] | None = None,
    own: Collection[str] = (),
) -> list[Arm]:
    """Every arm, baselines last.

    Args:
        classes: of the data.
        own: families with labels that no teacher made (`own_labels`).
        tuned: optimizers with a searched learning rate, by (set, student, optimizer, loss); each adds an arm.
    """
    found = []
    for set_name, student, spec, loss in product(
        set_names, comparison.students, comparison.optimizer_specs, comparison.losses
    ):
        settings = [(spec, comparison.optimizer(spec))]
        if tuned and (set_name, student, spec, loss) in tuned:
            settings.append((f"{spec} (tuned)", tuned[set_name, student, spec, loss]))
        soft = Loss.parse(loss).needs_teacher
        teachers = (OWN_LABELS,) if set_name in own else comparison.teachers
        labelled = list(product(teachers, comparison.label_specs)) if soft else [("none", LabelSpec())]
        for (teacher, labels), (label, optimizer) in product(labelled, settings):
            axes = {"set": set_name, "teacher": teacher, "labels": _told(labels, comparison) if soft else "hard",
                    "student": student, "optimizer": label, "loss": loss}  # fmt: skip
            protocol = comparison.protocol.with_labels(labels.regime, labels.epochs).with_loss(loss)
            if _is_kept(axes, comparison.keep):
                found.append(_arm(comparison, axes, replace(protocol, optimizer=optimizer), labels))
    if comparison.steps:
        found = [_seen_arm(arm, seen) for arm in found for seen in seen_after(classes, comparison.steps)]
    if comparison.full_epochs:
        found.append(_full_arm(comparison))
    return found


def own_labels(stored: Stored) -> set[str]:
    """The families whose stored labels no teacher made: they were learned."""
    return {name for (name, _), source in stored.items() if not getattr(source, "teachers", ())}


def _is_kept(axes: Mapping[str, str], keep: Sequence[Mapping[str, Sequence[str]]]) -> bool:
    return not keep or any(all(axes[axis] in allowed for axis, allowed in one.items()) for one in keep)


def _seen_arm(arm: Arm, seen: int) -> Arm:
    return replace(arm, name=f"{arm.name} / {seen} classes", axes={**arm.axes, "line": arm.name}, seen=seen)


def _told(labels: LabelSpec, comparison: Comparison) -> str:
    return labels.spec or comparison.protocol.labels


def _arm(comparison: Comparison, axes: Mapping[str, str], protocol: Protocol, labels: LabelSpec) -> Arm:
    soft = axes["teacher"] != "none"
    varying = {
        "teacher": len(comparison.teachers) > 1 and soft,
        "labels": len(comparison.label_specs) > 1 and soft,
        "student": len(comparison.students) > 1,
        "optimizer": len(comparison.optimizer_specs) > 1 or comparison.tuning is not None,
    }
    name = " / ".join(axes[axis] for axis in AXES if varying.get(axis, True))
    return Arm(
        name=name, set_name=axes["set"], protocol=protocol, student=axes["student"], labels=labels, axes=dict(axes),
        teacher=axes["teacher"] if soft else comparison.teachers[0],
    )  # fmt: skip


def _full_arm(comparison: Comparison) -> Arm:
    protocol, student = comparison.full_protocol(), comparison.students[0]
    axes = {"set": "full data", "teacher": "none", "labels": "hard", "student": student,
            "optimizer": protocol.optimizer.spec, "loss": "ce"}  # fmt: skip
    return Arm(
        name="full data / ce", set_name="full data", protocol=protocol, student=student,
        teacher=comparison.teachers[0], axes=axes, role="baseline",
    )  # fmt: skip


def labelled(comparison: Comparison, set_names: Sequence[str], own: Collection[str] = ()) -> set[tuple[str, str]]:
    """Which teachers label which families, by name, in any arm.

    Args:
        own: families with labels that no teacher made (`own_labels`).
    """
    every = arms(replace(comparison, steps=0), set_names, 0, own=own)
    return {(arm.axes["teacher"], arm.set_name) for arm in every}


def soft_families(comparison: Comparison, set_names: Sequence[str]) -> set[str]:
    """The families that have soft labels in any arm."""
    return {name for teacher, name in labelled(comparison, set_names) if teacher != "none"}


def cells(comparison: Comparison, found: Sequence[Arm]) -> list[Cell]:
    """Every cell of the arms."""
    return [
        Cell(arm, seed)
        for arm in found
        for seed in (comparison.full_seeds if arm.role == "baseline" else comparison.seeds)
    ]


@lru_cache(maxsize=4)
def _set_labeler(path: Path) -> Teacher:
    """A labeler of one set; the few that are asked for by many arms are loaded once."""
    return load_labeler(path)


def arm_labels(
    arm: Arm,
    seed: int,
    teachers: Teachers,
    own: SetLabelers,
    stored: Stored,
    distilled: DistilledSet,
    execution: Execution,
) -> LabelSource:
    """The labels of an arm before any edits and codecs: hard ones when its loss looks at no teacher, those stored for
    its set, those of a labeler of its set alone (`own`), or its teacher's.

    Raises:
        ConfigError: its teacher is a labeler of single sets, and there is none for this one.
    """
    if not arm.protocol.loss.needs_teacher:
        return HardLabels()
    source = stored.get((arm.set_name, seed))
    if source is not None:
        return source
    group = teachers.get(arm.teacher, ())
    if any(name == arm.teacher for name, _, _ in own):
        place = own.get((arm.teacher, arm.set_name, seed))
        if place is None:
            raise ConfigError(
                f"The labeler {arm.teacher!r} is made for single sets, and there is none for {arm.set_name!r} of seed "
                f"{seed}."
            )
        group = [_set_labeler(place)]
    made = make_labels(arm.protocol.labels, teachers=group, distilled=distilled, execution=execution)
    if isinstance(made, OnlineLabels):
        made.check_views(arm.protocol)
    return made
