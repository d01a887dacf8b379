"""A comparison carried out: every cell trained, and what follows from it kept as a study."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from itertools import combinations
from pathlib import Path
from typing import Any

import torch

from softlabel.core import Dataset, DistilledSet, Progress, Silent, count_of, fingerprint, plain
from softlabel.evaluation._comparison import Cell, Comparison, SetPaths, arm_name, cell_labels, cells, check_inputs
from softlabel.evaluation._statistics import paired_difference, summarise, verdict
from softlabel.evaluation._students import Record, full_data, train_student
from softlabel.losses import Loss, refine
from softlabel.store import Store, is_complete, load_distilled, new_artifact
from softlabel.training import (
    Execution,
    Normaliser,
    Protocol,
    Teacher,
    environment,
    mean_logits,
    warn_if_weaker,
)

LABELS_SHOWN_PER_SET = 4
TOP = 5
MOST_IN_PAIRS = 3  # beyond, not every pair is compared: the table would hide its own point


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
    for teacher in teachers:
        warn_if_weaker(teacher.to(execution.torch_device), data, execution)
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
        "comparisons": _comparisons(comparison, sets, loaded, records, resolution=1 / len(data.test)),
        "labels_shown": _labels_shown(comparison, sets, loaded, teachers, execution),
        "notes": _notes(comparison, data),
        "environment": environment(execution),
    }
    path = store.study(comparison.name, fingerprint({key: value for key, value in meta.items() if key != "command"}))
    if not is_complete(path):
        with new_artifact(path, "study", meta):
            pass
    return path


def _set_of(cell: Cell, sets: Sequence[SetPaths], loaded: Mapping[Path, DistilledSet]) -> DistilledSet:
    paths = next(paths for paths in sets if paths.name == cell.set_name)
    return loaded[paths.path(cell.seed)]


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
    note = ""
    if cell.role == "baseline":
        note = (
            f"{count_of(cell.protocol.epochs, 'epoch')} of the whole train split, hard labels, the rate rising and "
            f"falling linearly; image bytes are raw pixels"
        )
    return {
        "name": name,
        "set": cell.set_name,
        "loss": cell.protocol.loss.spec,
        "labels": cell.protocol.labels,
        "role": cell.role,
        "epochs": cell.protocol.total_epochs,
        "protocol": cell.protocol.fingerprint,
        "seeds": [record["seed"] for record in group],
        "final": _accuracy([record["accuracy"]["final"] for record in group]),
        "best_test": _accuracy([record["accuracy"]["best_test"] for record in group]),
        "bytes": {
            kind: round(sum(record["bytes"][kind] for record in group) / len(group)) for kind in group[0]["bytes"]
        },
        "records": [record["key"] for record in group],
        "note": note,
    }


def _accuracy(values: Sequence[float]) -> dict[str, Any]:
    """A summary of accuracies; the interval ends where accuracies do."""
    summary = summarise(values)
    low = None if summary.low is None else max(summary.low, 0.0)
    high = None if summary.high is None else min(summary.high, 1.0)
    return vars(replace(summary, low=low, high=high))


def _comparisons(
    comparison: Comparison,
    sets: Sequence[SetPaths],
    loaded: Mapping[Path, DistilledSet],
    records: Mapping[str, Sequence[Record]],
    *,
    resolution: float,
) -> list[dict[str, Any]]:
    """Losses against each other on one set, and sets of one size under one loss; the later against the earlier."""
    size = {paths.name: len(loaded[paths.by_seed[0][1]]) for paths in sets}
    names, losses = [paths.name for paths in sets], comparison.losses
    main_loss = next((loss for loss in losses if Loss.parse(loss).name == "gift"), losses[-1])
    main_set = next((name for name in names if not name.startswith("random")), names[-1])
    pairs = [
        (arm_name(name, later), arm_name(name, earlier))
        for name in names
        for earlier, later in _loss_pairs(losses, main_loss)
    ]
    pairs += [
        (arm_name(later, loss), arm_name(earlier, loss))
        for loss in losses
        for earlier, later in combinations(names, 2)
        if size[earlier] == size[later] and (len(names) <= MOST_IN_PAIRS or earlier == names[0])
    ]
    # The main question first: what the main loss gains over the first, on the first set that is not a baseline.
    main = (arm_name(main_set, main_loss), arm_name(main_set, losses[0]))
    pairs.sort(key=lambda pair: pair != main)
    return [_paired(arm, against, records, resolution) for arm, against in pairs]


def _loss_pairs(losses: Sequence[str], main: str) -> list[tuple[str, str]]:
    """Up to three losses: all pairs. More: each against the first, and the main one against each."""
    if len(losses) <= MOST_IN_PAIRS:
        return list(combinations(losses, 2))
    against_first = [(losses[0], loss) for loss in losses[1:]]
    return against_first + [(loss, main) for loss in losses[1:] if loss != main]


def _paired(arm: str, against: str, records: Mapping[str, Sequence[Record]], resolution: float) -> dict[str, Any]:
    difference = paired_difference(
        [record["accuracy"]["final"] for record in records[arm]],
        [record["accuracy"]["final"] for record in records[against]],
        resolution=resolution,
    )
    return {"arm": arm, "against": against, "difference": vars(difference), "verdict": verdict(difference)}


def _labels_shown(
    comparison: Comparison,
    sets: Sequence[SetPaths],
    loaded: Mapping[Path, DistilledSet],
    teachers: Sequence[Teacher],
    execution: Execution,
) -> list[dict[str, Any]]:
    """Top-5 soft labels of one image of some classes, before and after GIFT's refinement."""
    if not teachers:
        return []
    mix = next((loss for loss in map(Loss.parse, comparison.losses) if loss.name == "gift"), Loss("gift"))
    shown = []
    for paths in sets:
        distilled = loaded[paths.by_seed[0][1]]
        step = max(1, distilled.info.classes // LABELS_SHOWN_PER_SET)
        for target in range(0, distilled.info.classes, step)[:LABELS_SHOWN_PER_SET]:
            positions = (distilled.targets == target).nonzero().flatten()
            if len(positions):
                bars = _bars(distilled, int(positions[0]), target, teachers, mix, execution)
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
    if comparison.full_epochs:
        epochs = count_of(comparison.full_epochs, "epoch")
        notes.append(
            f"The full-data baseline runs {epochs} of {len(data.train)} images under the same protocol otherwise; it "
            f"is not trained to convergence."
        )
    return notes
