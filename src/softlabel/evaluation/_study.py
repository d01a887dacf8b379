"""A comparison carried out: every cell trained, and what follows from it kept as a study."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from softlabel.core import (
    Dataset,
    NonFiniteLossError,
    Progress,
    Silent,
    TrainingFailedError,
    count_of,
    fingerprint,
)
from softlabel.evaluation._checks import check_inputs
from softlabel.evaluation._comparison import (
    Cell,
    Comparison,
    SetLabelers,
    SetPaths,
    Stored,
    Teachers,
    arms,
    cells,
    own_labels,
)
from softlabel.evaluation._manifest import Findings, manifest
from softlabel.evaluation._rates import tune_rates
from softlabel.evaluation._samples import PICTURES, sample_facts
from softlabel.evaluation._students import Record
from softlabel.evaluation._units import STACK_SIZE, Bench, Executor, Failure, LocalExecutor, Outcome, make_units
from softlabel.store import Store, is_complete, load_distilled, new_artifact
from softlabel.training import (
    Execution,
    resolve_stack,
    warn_if_weaker,
)


def compare(
    comparison: Comparison,
    data: Dataset,
    teachers: Teachers,
    sets: Sequence[SetPaths],
    *,
    store: Store,
    execution: Execution,
    command: str,
    teacher_facts: Mapping[str, Any] | None = None,
    own: SetLabelers | None = None,
    stored: Stored | None = None,
    facts: Mapping[str, Any] | None = None,
    executor: Executor | None = None,
    stack: str = "auto",
    stack_size: int = STACK_SIZE,
    retry: bool = False,
    tolerant: bool = False,
    progress: Progress | None = None,
) -> Path:
    """Train every cell that is not finished yet, and keep the study: statistics, verdicts, labels to show.

    Args:
        teachers: label online and fixed arms; those under one name by their mean logits.
        sets: the distilled sets, by name.
        command: what a person types to get this study again.
        teacher_facts: JSON-ready facts about the teacher for the report.
        own: labelers of one set alone, in place of the teachers of that name.
        stored: labels kept beside sets, by the name of the family and the seed; no teacher labels these.
        facts: more to keep in the study's manifest, JSON-ready.
        executor: who trains; this process by default.
        stack, stack_size: how students on the same views are run, and how many at most together.
        retry: train cells again that failed before.
        tolerant: report failed cells in the study; otherwise the first is raised once all others are done.

    Returns:
        the folder of the study artifact.

    Raises:
        ConfigError: see `check_inputs`.
        TeacherMismatchError: a teacher, or a set, for other data.
        TrainingFailedError: a cell failed, unless `tolerant`.
    """
    progress = progress or Silent()
    executor = executor or LocalExecutor()
    resolve_stack(stack, execution)  # an unknown one would fail cell by cell
    loaded = {path: load_distilled(path) for paths in sets for _, path in paths.by_seed}
    check_inputs(comparison, data, teachers, sets, loaded.values(), stored)
    for teacher in (teacher for name in comparison.teachers for teacher in teachers.get(name, ())):
        warn_if_weaker(teacher.to(execution.torch_device), data, execution)
    bench = Bench(
        data=data,
        teachers=teachers,
        own=own or {},
        stored=stored or {},
        store=store,
        execution=execution,
        stack=stack,
        retry=retry or not tolerant,
    )
    paths = {(family.name, seed): path for family in sets for seed, path in family.by_seed}
    tuned, tried = tune_rates(comparison, bench, sets, executor, stack_size, progress)
    names = [family.name for family in sets]
    plan = cells(comparison, arms(comparison, names, data.info.classes, tuned, own_labels(bench.stored)))
    progress.start(f"{comparison.name}: students", len(plan))
    outcomes = _carry_out(plan, paths, executor, bench, stack_size, progress)
    progress.finish()
    records = {cell: result for cell, result in outcomes.items() if not isinstance(result, Failure)}
    failed = {cell: result for cell, result in outcomes.items() if isinstance(result, Failure)}
    if failed and not tolerant:
        raise _first_failure(failed, len(plan))
    lines = dict.fromkeys(cell.arm for cell in plan)
    groups = {arm: [records[cell] for cell in plan if cell.arm == arm and cell in records] for arm in lines}
    found = Findings(comparison, data, teachers, sets, loaded, store, execution, groups, failed, bench.own)
    meta = manifest(found, command=command, teacher=teacher_facts) | dict(facts or {})
    if comparison.tuning is not None:
        meta["tuning"] = tried
    firsts = [(family.name, loaded[family.by_seed[0][1]]) for family in sets]
    labelling = next((group for group in teachers.values() if group), ())
    samples, pictures = sample_facts(firsts, data, labelling, execution)
    if samples:
        meta["samples"] = samples
    path = store.study(comparison.name, fingerprint({key: value for key, value in meta.items() if key != "command"}))
    if not is_complete(path):
        with new_artifact(path, "study", meta) as writer:
            if pictures:
                writer.write_tensors(PICTURES, pictures)
    return path


def _carry_out(
    plan: Sequence[Cell],
    paths: Mapping[tuple[str, int], Path],
    executor: Executor,
    bench: Bench,
    stack_size: int,
    progress: Progress,
) -> dict[Cell, Record | Failure]:
    """What became of every cell, in the plan's order."""
    equal: dict[Any, list[Cell]] = {}  # a tuned rate may be the default one: the same student, trained once
    for cell in plan:
        equal.setdefault(_what_counts(cell), []).append(cell)
    outcomes: dict[Cell, Record | Failure] = {}
    for done in executor.run(make_units([same[0] for same in equal.values()], paths, stack_size), bench, progress):
        for cell, result in done:
            outcomes |= dict.fromkeys(equal[_what_counts(cell)], result)
        progress.advance(sum(len(equal[_what_counts(cell)]) for cell, _ in done), note=_note(done))
    return {cell: outcomes[cell] for cell in plan}


def _first_failure(failed: Mapping[Cell, Failure], planned: int) -> TrainingFailedError:
    cell, failure = next(iter(failed.items()))
    kind = NonFiniteLossError if failure.kind == "NonFiniteLossError" else TrainingFailedError
    return kind(
        f"{count_of(len(failed), 'student')} of {planned} failed; the others are finished and kept. The first, "
        f"{cell.arm.name}, seed {cell.seed}: {failure.error}"
    )


def _what_counts(cell: Cell) -> tuple[Any, ...]:
    """All of a cell that its training depends on, among the cells of one comparison."""
    arm = cell.arm
    teacher = arm.teacher if arm.protocol.loss.needs_teacher else ""
    labels = arm.labels.spec if arm.protocol.loss.needs_teacher else ""
    return (arm.set_name, arm.protocol.fingerprint, arm.student, teacher, labels, arm.seen, arm.role, cell.seed)


def _note(done: Sequence[Outcome]) -> str:
    cell, result = done[-1]
    if isinstance(result, Failure):
        return f"{cell.arm.name}: failed ({result.kind})"
    return f"{cell.arm.name}: {100 * result['accuracy']['final']:.1f} %"
