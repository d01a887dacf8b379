"""A comparison carried out: every cell trained, and what follows from it kept as a study."""

from collections.abc import Mapping, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import torch

from softlabel.core import (
    Dataset,
    DistilledSet,
    NonFiniteLossError,
    Progress,
    Silent,
    TrainingFailedError,
    count_of,
    fingerprint,
    plain,
)
from softlabel.distill import own_loss
from softlabel.evaluation._comparison import (
    AXES,
    Arm,
    Cell,
    Comparison,
    SetPaths,
    Stored,
    Teachers,
    arms,
    cells,
    check_inputs,
    own_labels,
)
from softlabel.evaluation._continual import class_order, continual_facts, seen_after
from softlabel.evaluation._label_facts import label_facts
from softlabel.evaluation._pairs import compare_arms, main_loss
from softlabel.evaluation._rates import tune_rates
from softlabel.evaluation._statistics import summarise_shares
from softlabel.evaluation._students import Record
from softlabel.evaluation._units import STACK_SIZE, Bench, Executor, Failure, LocalExecutor, Outcome, make_units
from softlabel.losses import Loss, refine
from softlabel.store import Store, is_complete, load_distilled, new_artifact
from softlabel.training import (
    Execution,
    Normaliser,
    Protocol,
    Teacher,
    environment,
    mean_logits,
    resolve_stack,
    warn_if_weaker,
)

LABELS_SHOWN_PER_SET = 4
TOP = 5
LARGE = 12  # arms; a study with more is shown as a grid


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
    found = list(dict.fromkeys(cell.arm for cell in plan))
    groups = {arm: [records[cell] for cell in plan if cell.arm == arm and cell in records] for arm in found}
    meta = {
        "name": comparison.name,
        "title": comparison.title,
        "kind": "grid" if len(found) > LARGE else "comparison",
        "command": command,
        "dataset": plain(data.info),
        "protocol": _protocol_facts(comparison.protocol),
        "student": ", ".join(comparison.students),
        "teacher": dict(teacher_facts) if teacher_facts else None,
        "sets": [_set_facts(family, loaded, store) for family in sets],
        "arms": [
            _arm(arm, groups[arm], failed, loaded, paths, 1 / len(data.test))
            | ({"per_class": _per_class(groups[arm])} if comparison.per_class else {})
            for arm in found
        ],
        "comparisons": compare_arms(comparison, groups, _sizes(sets, loaded), resolution=1 / len(data.test)),
        "plots": [plain(plot) for plot in comparison.plots],
        "choosing": comparison.selection,
        "label_facts": label_facts(comparison, data, teachers, execution),
        "labels_shown": _labels_shown(comparison, sets, loaded, teachers, execution),
        "notes": _notes(comparison, data),
        "environment": environment(execution),
    }
    meta |= facts or {}
    if comparison.tuning is not None:
        meta["tuning"] = tried
    if comparison.steps:
        meta["continual"] = _continual(comparison, data, groups)
    path = store.study(comparison.name, fingerprint({key: value for key, value in meta.items() if key != "command"}))
    if not is_complete(path):
        with new_artifact(path, "study", meta):
            pass
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


def _sizes(sets: Sequence[SetPaths], loaded: Mapping[Path, DistilledSet]) -> dict[str, int]:
    return {family.name: len(loaded[family.by_seed[0][1]]) for family in sets}


def _continual(comparison: Comparison, data: Dataset, groups: Mapping[Arm, Sequence[Record]]) -> dict[str, Any]:
    bounds = [0, *seen_after(data.info.classes, comparison.steps)]
    order = class_order(data.info.classes, comparison.seeds[0])
    names = [[data.info.class_names[index] for index in order[start:stop]] for start, stop in pairwise(bounds)]
    lines: dict[str, list[Arm]] = {}
    for arm in groups:
        if arm.seen:
            lines.setdefault(arm.axes["line"], []).append(arm)
    curves = {name: _whole([groups[arm] for arm in steps]) for name, steps in lines.items()}
    curves = {name: curve for name, curve in curves.items() if curve}
    facts = continual_facts(names, curves)
    for told in facts["arms"]:
        first = lines[told["name"]][0]
        told |= {"set": first.axes["set"], "loss": first.axes["loss"]}
    return facts


def _whole(steps: Sequence[Sequence[Record]]) -> list[list[Record]]:
    """Per seed the records of its steps; a seed with a step that failed is left out."""
    by_seed = [{record["seed"]: record for record in records} for records in steps]
    return [[step[seed] for step in by_seed] for seed in by_seed[0] if all(seed in step for step in by_seed)]


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


def _arm(
    arm: Arm,
    group: Sequence[Record],
    failed: Mapping[Cell, Failure],
    loaded: Mapping[Path, DistilledSet],
    paths: Mapping[tuple[str, int], Path],
    resolution: float,
) -> dict[str, Any]:
    protocol = arm.protocol
    note = ""
    if arm.role == "baseline":
        note = (
            f"{count_of(protocol.epochs, 'epoch')} of the whole train split, hard labels, the rate rising and "
            f"falling linearly; image bytes are raw pixels"
        )
    elif arm.axes["optimizer"].endswith("(tuned)"):
        note = f"learning rate {protocol.optimizer.lr:g}, chosen on the selection split"
    kinds = ("images", "labels", "labeler")
    size = {kind: round(sum(record["bytes"][kind] for record in group) / len(group)) if group else 0 for kind in kinds}
    method = next((loaded[path].method for (name, _), path in paths.items() if name == arm.set_name), "")
    told = {
        "name": arm.name,
        "set": arm.set_name,
        "loss": protocol.loss.spec,
        "labels": protocol.labels,
        "role": arm.role,
        "epochs": protocol.total_epochs,
        "protocol": protocol.fingerprint,
        "seeds": [record["seed"] for record in group],
        "final": _accuracy([record["accuracy"]["final"] for record in group], resolution),
        "best_test": _accuracy([record["accuracy"]["best_test"] for record in group], resolution),
        "selection": _accuracy([r["accuracy"]["selection"] for r in group if "selection" in r["accuracy"]]),
        "bytes": size,
        "records": [record["key"] for record in group],
        "note": note,
        "axes": {axis: arm.axes[axis] for axis in AXES},
        "seen": arm.seen,
        "own_loss": arm.role == "arm" and own_loss(method) == protocol.loss.spec,
    }
    mine = [{"seed": cell.seed, "error": failure.error} for cell, failure in failed.items() if cell.arm == arm]
    return {**told, "failed": mine} if mine else told


def _per_class(group: Sequence[Record]) -> list[float | None]:
    """Mean accuracy per class over the records; None for a class without test images."""
    rows = [record["accuracy"]["per_class"] for record in group]
    return [None if None in column else sum(column) / len(column) for column in zip(*rows, strict=True)]


def _accuracy(values: Sequence[float], resolution: float = 0.0) -> dict[str, Any] | None:
    """A summary of accuracies; None where all seeds failed."""
    return vars(summarise_shares(values, resolution)) if values else None


def _labels_shown(
    comparison: Comparison,
    sets: Sequence[SetPaths],
    loaded: Mapping[Path, DistilledSet],
    teachers: Teachers,
    execution: Execution,
) -> list[dict[str, Any]]:
    """Top-5 soft labels of one image of some classes, before and after GIFT's refinement."""
    group = teachers.get(comparison.teachers[-1], ())
    if not group:
        return []
    mix = Loss.parse(main_loss(comparison) or "gift")
    shown = []
    for paths in sets:
        distilled = loaded[paths.by_seed[0][1]]
        step = max(1, distilled.info.classes // LABELS_SHOWN_PER_SET)
        for target in range(0, distilled.info.classes, step)[:LABELS_SHOWN_PER_SET]:
            positions = (distilled.targets == target).nonzero().flatten()
            if len(positions):
                bars = _bars(distilled, int(positions[0]), target, group, mix, execution)
                shown.append({"set": paths.name, "image": int(positions[0]), "target": target, "bars": bars})
    return shown


def _bars(
    distilled: DistilledSet,
    position: int,
    target: int,
    teachers: Sequence[Teacher],
    mix: Loss,
    execution: Execution,
) -> list[dict[str, Any]]:
    device = execution.torch_device
    views = Normaliser(distilled.info, device)(distilled.images[position : position + 1])
    logits = mean_logits([teacher.to(device) for teacher in teachers], views, distilled.info).cpu()
    probabilities = logits.softmax(dim=-1)[0]
    before = torch.nn.functional.normalize(logits, dim=-1)[0]
    settings: dict[str, Any] = dict(mix.options)
    refined = refine(teacher=logits, target=torch.tensor([target]), **settings)
    after = torch.nn.functional.normalize(refined, dim=-1)[0]
    top = probabilities.argsort(descending=True)[:TOP].tolist()
    return [
        {"class": c, "probability": float(probabilities[c]), "before": float(before[c]), "after": float(after[c])}
        for c in top
    ]


def _notes(comparison: Comparison, data: Dataset) -> list[str]:
    notes = [
        "The headline is the accuracy after the last epoch. Best-on-test is chosen on the test split, as papers "
        "report it, and is optimistic.",
        "Arms of one seed share initialisation, and on sets of one size order and views; differences are paired by "
        "seed. Intervals are 95 % Student's t, one comparison at a time: with many comparisons some will look "
        "different by chance. They cover the students' seeds, and the choice of images where a set is drawn per seed; "
        "the teacher, and a set given from disk, are one draw each. Bytes are means over the seeds.",
    ]
    protocol = comparison.protocol
    if not any(protocol.checks.at(epoch, protocol.total_epochs) for epoch in range(protocol.total_epochs - 1)):
        notes.append("Students were tested once, after the last epoch: best-on-test says nothing more here.")
    if comparison.full_epochs:
        epochs = count_of(comparison.full_epochs, "epoch")
        notes.append(
            f"The full-data baseline runs {epochs} of {len(data.train)} images under the same protocol otherwise; it "
            f"is not trained to convergence."
        )
    return notes
