"""The unit of work of a grid: cells that share their views, trained as one stack; and who carries units out."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Protocol as Interface

from softlabel.core import (
    Dataset,
    DiskFullError,
    DistilledSet,
    LabelSource,
    Progress,
    SoftlabelError,
    StoreError,
    fingerprint,
)
from softlabel.evaluation._comparison import Arm, Cell, SetLabelers, Stored, Teachers, arm_labels
from softlabel.evaluation._continual import SeenLabels, class_order, seen_data, seen_set
from softlabel.evaluation._student_views import student_views
from softlabel.evaluation._students import Job, PlannedJob, Record, full_data, train_students
from softlabel.labels import read_labels
from softlabel.store import Store, load_distilled
from softlabel.training import Execution, is_out_of_memory

STACK_SIZE = 8


@dataclass(frozen=True)
class Unit:
    """Cells of one set, one seed and the same views; `path` is the distilled set's, None for the full data."""

    cells: tuple[Cell, ...]
    path: Path | None


@dataclass(frozen=True)
class Failure:
    """Why a cell has no record. `kind` is the exception's name."""

    error: str
    kind: str


Outcome = tuple[Cell, Record | Failure]


@dataclass(frozen=True, kw_only=True)
class Bench:
    """All that a unit needs besides itself.

    Attributes:
        own: labelers of one set alone, in place of the teachers of that name.
        stored: labels kept beside sets, by family and seed.
        retry: train cells again that failed before.
        stack: see `softlabel.training.STACKS`.
    """

    data: Dataset
    teachers: Teachers
    own: SetLabelers = field(default_factory=dict)
    stored: Stored = field(default_factory=dict)
    store: Store
    execution: Execution
    stack: str = "auto"
    retry: bool = False


class Executor(Interface):
    """Carries units out, in any order, and tells what became of their cells."""

    def run(self, units: Sequence[Unit], bench: Bench, progress: Progress) -> Iterator[Sequence[Outcome]]: ...


class LocalExecutor:
    """One unit after another in this process."""

    def run(self, units: Sequence[Unit], bench: Bench, progress: Progress) -> Iterator[Sequence[Outcome]]:
        for unit in units:
            yield run_unit(unit, bench, progress)


def make_units(cells: Sequence[Cell], paths: Mapping[tuple[str, int], Path], at_most: int = STACK_SIZE) -> list[Unit]:
    """Cells that share a set, a seed, their classes and their views, at most so many together.

    Args:
        paths: the distilled set by (family, seed).
    """
    groups: dict[str, list[Cell]] = {}
    for cell in cells:
        arm, protocol = cell.arm, cell.arm.protocol
        views = [[repr(protocol.policy(factor)) for factor in (1, 2)], protocol.batch]
        lengths = [protocol.total_epochs, protocol.labelled_epochs, *protocol.hard_epochs]
        key = fingerprint(arm.role, arm.set_name, cell.seed, arm.seen, views, lengths)
        groups.setdefault(key, []).append(cell)
    return [
        Unit(tuple(group[start : start + at_most]), paths.get((group[0].arm.set_name, group[0].seed)))
        for group in groups.values()
        for start in range(0, len(group), at_most)
    ]


@dataclass(frozen=True)
class Prepared:
    """A unit's inputs: what trains and judges its students, and every cell's job and the key of its record."""

    data: Dataset
    distilled: DistilledSet
    jobs: Mapping[Cell, Job]
    keys: Mapping[Cell, str]


def prepare(unit: Unit, bench: Bench) -> Prepared:
    """Load and cut what a unit needs. Cells of one teacher share one label source, and so its logits."""
    first = unit.cells[0]
    whole = full_data(bench.data) if unit.path is None else load_distilled(unit.path)
    data, distilled = bench.data, whole
    seen = class_order(data.info.classes, first.seed)[: first.arm.seen]
    if seen:
        data, distilled = seen_data(data, seen), seen_set(whole, seen)
    sources: dict[tuple[str, str], LabelSource] = {}
    read: dict[tuple[str, ...], LabelSource] = {}
    jobs = {}
    for cell in unit.cells:
        arm, named = cell.arm, replace(distilled, info=whole.info)
        regime = "online" if arm.protocol.labels == "replay" else arm.protocol.labels  # replayed is what was online
        name = (regime, arm.teacher) if arm.protocol.loss.needs_teacher else ("hard", "")
        if name not in sources:
            made = arm_labels(arm, cell.seed, bench.teachers, bench.own, bench.stored, named, bench.execution)
            sources[name] = SeenLabels(made, seen) if seen and made.regime != "hard" else made
        reading = (*name, arm.protocol.labels, arm.labels.spec)
        if reading not in read:
            read[reading] = _read(arm, sources[name], named, cell.seed, bench.execution)
        labels = read[reading]
        jobs[cell] = Job(protocol=arm.protocol, student=arm.student, labels=labels, arm=arm.name)
    keys = {cell: PlannedJob(job, distilled, data, cell.seed, bench.execution).key for cell, job in jobs.items()}
    return Prepared(data, distilled, jobs, keys)


def _read(arm: Arm, source: LabelSource, distilled: DistilledSet, seed: int, execution: Execution) -> LabelSource:
    """A source as an arm reads it: edited, or stored by a codec."""
    protocol = arm.protocol
    if not protocol.loss.needs_teacher:
        return source
    return read_labels(
        source,
        arm.labels,
        distilled,
        regime=protocol.labels,
        plan=student_views(distilled, protocol, seed),
        epochs=protocol.labelled_epochs,
        execution=execution,
    )


def run_unit(unit: Unit, bench: Bench, progress: Progress) -> list[Outcome]:
    """Train the cells of a unit that have no record and did not fail before.

    A training that fails is told, and the others go on: when a stack breaks, its students are trained one by one. What
    the training itself brought about (a loss that is not finite, images too small for a model) is kept beside the
    records; what may be the machine's doing (memory, a device) is tried again the next time.

    Raises:
        StoreError, DiskFullError: nothing can be kept.
    """
    ready = prepare(unit, bench)
    outcomes: dict[Cell, Record | Failure] = {}
    left = []
    for cell in unit.cells:
        before = None if bench.retry or _is_done(ready.keys[cell], bench) else _failed(ready.keys[cell], bench)
        if before is None:
            left.append(cell)
        else:
            outcomes[cell] = before
    for cell, result in _trained(left, ready, bench, progress):
        outcomes[cell] = _kept(result, cell, ready.keys[cell], bench)
    return [(cell, outcomes[cell]) for cell in unit.cells]


def _trained(
    cells: Sequence[Cell], ready: Prepared, bench: Bench, progress: Progress
) -> list[tuple[Cell, Record | Exception]]:
    """The cells' records or errors: trained together, or one by one when that breaks."""
    try:
        found = train_students(
            ready.distilled,
            [ready.jobs[cell] for cell in cells],
            data=ready.data,
            seed=cells[0].seed if cells else 0,
            execution=bench.execution,
            store=bench.store,
            stack=bench.stack,
            progress=progress,
        )
    except (DiskFullError, StoreError):
        raise
    except Exception as error:  # a student of any package may raise anything; the grid goes on
        if len(cells) == 1:
            return [(cells[0], error)]
        return [pair for cell in cells for pair in _trained([cell], ready, bench, progress)]
    return list(zip(cells, found, strict=True))


def _is_done(key: str, bench: Bench) -> bool:
    return bench.store.record(key).exists()


def _failed(key: str, bench: Bench) -> Failure | None:
    before = bench.store.read_failure(key)
    return None if before is None else Failure(before["error"], before["kind"])


def _kept(result: Record | Exception, cell: Cell, key: str, bench: Bench) -> Record | Failure:
    if not isinstance(result, Exception):
        bench.store.clear_failure(key)
        return result
    told = "it does not fit into memory" if is_out_of_memory(result) else str(result)
    failure = Failure(told or type(result).__name__, type(result).__name__)
    if isinstance(result, SoftlabelError):
        bench.store.write_failure(key, {"key": key, "arm": cell.arm.name, "seed": cell.seed, **vars(failure)})
    return failure
