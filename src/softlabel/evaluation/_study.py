"""A comparison: sets x losses x seeds under one protocol, its baselines, and what follows from it."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import combinations
from pathlib import Path
from typing import Any

import torch

from softlabel.core import (
    ConfigError,
    Dataset,
    DistilledSet,
    LabelSource,
    Progress,
    Silent,
    fingerprint,
    plain,
)
from softlabel.evaluation._statistics import paired_difference, summarise, verdict
from softlabel.evaluation._students import Record, check_classes, full_data, train_student
from softlabel.labels import HardLabels, make_labels
from softlabel.losses import Loss, refine
from softlabel.models import check_model
from softlabel.store import Store, is_complete, load_distilled, new_artifact
from softlabel.training import Execution, Normaliser, Protocol, Teacher, check_teacher, environment, mean_logits

LABELS_SHOWN_PER_SET = 4
TOP = 5


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
        if len(set(self.seeds)) < len(self.seeds) or len(set(self.losses)) < len(self.losses):
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
        """The full-data baseline's: the same, with hard labels and its own number of epochs."""
        return replace(self.protocol.with_loss("ce"), epochs=self.full_epochs)


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


def compare(
    comparison: Comparison,
    data: Dataset,
    teachers: Sequence[Teacher],
    sets: Sequence[SetPaths],
    *,
    store: Store,
    execution: Execution,
    command: str,
    teacher_facts: Mapping[str, Any] | None = None,
    progress: Progress | None = None,
) -> Path:
    """Train every cell that is not finished yet, and keep the study: statistics, verdicts, labels to show.

    Args:
        teachers: label online and fixed arms, by their mean logits.
        sets: the distilled sets, by name.
        command: what a person types to get this study again.
        teacher_facts: JSON-ready facts about the teacher for the report.

    Returns:
        the folder of the study artifact.

    Raises:
        ConfigError: two families of sets of one name, or soft losses without a teacher.
        TeacherMismatchError: a teacher, or a set, for other data.
    """
    progress = progress or Silent()
    loaded = {path: load_distilled(path) for paths in sets for _, path in paths.by_seed}
    check_inputs(comparison, data, teachers, sets, loaded.values())
    plan = cells(comparison, sets)
    progress.start(f"{comparison.name}: students", len(plan))
    records: dict[str, list[Record]] = {}
    for cell in plan:
        distilled = full_data(data) if cell.role == "baseline" else _set_of(cell, sets, loaded)
        record = train_student(
            distilled,
            cell_labels(cell, teachers, distilled, execution),
            data=data,
            protocol=cell.protocol,
            student=comparison.student,
            seed=cell.seed,
            execution=execution,
            store=store,
            arm=cell.arm,
            progress=progress,
        )
        records.setdefault(cell.arm, []).append(record)
        progress.advance(note=f"{cell.arm}: {100 * record['accuracy']['final']:.1f} %")
    progress.finish()
    inputs = {
        "comparison": plain(comparison),
        "records": {arm: [record["key"] for record in group] for arm, group in records.items()},
        "teachers": [teacher.fingerprint for teacher in teachers],
    }
    path = store.study(comparison.name, fingerprint(inputs))
    if is_complete(path):
        return path
    meta = {
        "name": comparison.name,
        "title": comparison.title,
        "command": command,
        "dataset": plain(data.info),
        "protocol": _protocol_facts(comparison.protocol),
        "student": comparison.student,
        "teacher": dict(teacher_facts) if teacher_facts else None,
        "sets": [_set_facts(paths, loaded, store) for paths in sets],
        "arms": [_arm(name, group, plan) for name, group in records.items()],
        "comparisons": _comparisons(comparison, sets, records),
        "labels_shown": _labels_shown(sets, loaded, teachers, execution),
        "notes": _notes(comparison, data),
        "environment": environment(execution),
    }
    with new_artifact(path, "study", meta):
        pass
    return path


def _set_of(cell: Cell, sets: Sequence[SetPaths], loaded: Mapping[Path, DistilledSet]) -> DistilledSet:
    paths = next(paths for paths in sets if paths.name == cell.set_name)
    return loaded[paths.path(cell.seed)]


def cell_labels(cell: Cell, teachers: Sequence[Teacher], distilled: DistilledSet, execution: Execution) -> LabelSource:
    """The labels of a cell: its regime, or hard ones when its loss looks at no teacher."""
    if not cell.protocol.loss.needs_teacher:
        return HardLabels()
    return make_labels(cell.protocol.labels, teachers=teachers, distilled=distilled, execution=execution)


def _protocol_facts(protocol: Protocol) -> dict[str, Any]:
    settings = plain(protocol)
    return {
        "name": settings.pop("name"),
        "fingerprint": protocol.fingerprint,
        "source": settings.pop("source"),
        "settings": settings,
    }


def _set_facts(paths: SetPaths, loaded: Mapping[Path, DistilledSet], store: Store) -> dict[str, Any]:
    first = loaded[paths.by_seed[0][1]]
    return {
        "name": paths.name,
        "path": _relative(paths.by_seed[0][1], store.root),
        "paths": [_relative(path, store.root) for _, path in paths.by_seed],
        "method": first.method,
        "ipc": first.ipc,
        "images": len(first),
        "image_bytes": first.image_bytes,
        "digest": first.digest,
    }


def _relative(path: Path, root: Path) -> str:
    path, root = path.resolve(), root.resolve()
    return path.relative_to(root).as_posix() if path.is_relative_to(root) else str(path)


def _arm(name: str, group: Sequence[Record], plan: Sequence[Cell]) -> dict[str, Any]:
    cell = next(cell for cell in plan if cell.arm == name)
    first = group[0]
    note = ""
    if cell.role == "baseline":
        note = f"{cell.protocol.epochs} epochs of the whole train split, hard labels; image bytes are raw pixels"
    return {
        "name": name,
        "set": cell.set_name,
        "loss": cell.protocol.loss.spec,
        "labels": cell.protocol.labels,
        "role": cell.role,
        "epochs": cell.protocol.total_epochs,
        "protocol": cell.protocol.fingerprint,
        "seeds": [record["seed"] for record in group],
        "final": vars(summarise([record["accuracy"]["final"] for record in group])),
        "best_test": vars(summarise([record["accuracy"]["best_test"] for record in group])),
        "bytes": first["bytes"],
        "records": [record["key"] for record in group],
        "note": note,
    }


def _comparisons(
    comparison: Comparison, sets: Sequence[SetPaths], records: Mapping[str, Sequence[Record]]
) -> list[dict[str, Any]]:
    """Every pair of losses on one set, and every pair of sets under one loss; the later against the earlier."""
    pairs = [
        (arm_name(paths.name, later), arm_name(paths.name, earlier))
        for paths in sets
        for earlier, later in combinations(comparison.losses, 2)
    ]
    pairs += [
        (arm_name(later.name, loss), arm_name(earlier.name, loss))
        for loss in comparison.losses
        for earlier, later in combinations(sets, 2)
    ]
    # The main question first: what the last loss gains over the first, on the last family of sets.
    main = (arm_name(sets[-1].name, comparison.losses[-1]), arm_name(sets[-1].name, comparison.losses[0]))
    pairs.sort(key=lambda pair: pair != main)
    return [_paired(arm, against, records) for arm, against in pairs]


def _paired(arm: str, against: str, records: Mapping[str, Sequence[Record]]) -> dict[str, Any]:
    difference = paired_difference(
        [record["accuracy"]["final"] for record in records[arm]],
        [record["accuracy"]["final"] for record in records[against]],
    )
    return {"arm": arm, "against": against, "difference": vars(difference), "verdict": verdict(difference)}


def _labels_shown(
    sets: Sequence[SetPaths],
    loaded: Mapping[Path, DistilledSet],
    teachers: Sequence[Teacher],
    execution: Execution,
) -> list[dict[str, Any]]:
    """Top-5 soft labels of one image of some classes, before and after GIFT's refinement."""
    if not teachers:
        return []
    shown = []
    for paths in sets:
        distilled = loaded[paths.by_seed[0][1]]
        step = max(1, distilled.info.classes // LABELS_SHOWN_PER_SET)
        for target in range(0, distilled.info.classes, step)[:LABELS_SHOWN_PER_SET]:
            positions = (distilled.targets == target).nonzero().flatten()
            if len(positions):
                bars = _bars(distilled, int(positions[0]), target, teachers, execution)
                shown.append({"set": paths.name, "image": int(positions[0]), "target": target, "bars": bars})
    return shown


def _bars(
    distilled: DistilledSet, position: int, target: int, teachers: Sequence[Teacher], execution: Execution
) -> list[dict[str, Any]]:
    device = execution.torch_device
    views = Normaliser(distilled.info, device)(distilled.images[position : position + 1])
    logits = mean_logits([teacher.to(device) for teacher in teachers], views, distilled.info).cpu()
    probabilities = logits.softmax(dim=-1)[0]
    before = torch.nn.functional.normalize(logits, dim=-1)[0]
    after = torch.nn.functional.normalize(refine(teacher=logits, target=torch.tensor([target])), dim=-1)[0]
    top = probabilities.argsort(descending=True)[:TOP].tolist()
    return [
        {"class": c, "probability": float(probabilities[c]), "before": float(before[c]), "after": float(after[c])}
        for c in top
    ]


def _notes(comparison: Comparison, data: Dataset) -> list[str]:
    notes = [
        "The headline is the accuracy after the last epoch. Best-on-test is chosen on the test split, as papers "
        "report it, and is optimistic.",
        "Arms of one seed share initialisation, order and views; differences are paired by seed. Intervals are 95 % "
        "Student's t, one comparison at a time: with many comparisons some will look different by chance.",
    ]
    if comparison.full_epochs:
        notes.append(
            f"The full-data baseline runs {comparison.full_epochs} epochs of {len(data.train)} images under the same "
            f"protocol otherwise; it is not trained to convergence."
        )
    return notes
