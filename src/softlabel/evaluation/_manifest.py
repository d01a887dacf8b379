"""What a comparison found, as the JSON-ready manifest of its study."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import Any

import torch

from softlabel.core import Dataset, DistilledSet, count_of, human_bytes, plain
from softlabel.distill import own_loss
from softlabel.evaluation._comparison import AXES, Arm, Cell, Comparison, SetLabelers, SetPaths, Teachers, soft_families
from softlabel.evaluation._continual import class_order, continual_facts, seen_after
from softlabel.evaluation._label_facts import label_facts
from softlabel.evaluation._pairs import compare_arms, main_loss
from softlabel.evaluation._statistics import summarise_shares
from softlabel.evaluation._students import Record
from softlabel.evaluation._units import Failure
from softlabel.labels import load_labeler, online_labels
from softlabel.losses import Loss, refine
from softlabel.store import Store, image_file_bytes
from softlabel.training import Execution, Normaliser, Protocol, Teacher, environment

LABELS_SHOWN_PER_SET = 4
TOP = 5
BARELY = 1.5  # times the agreement of a guess
LARGE = 12  # arms; a study with more is shown as a grid


@dataclass(frozen=True)
class Findings:
    """A comparison that was carried out.

    Attributes:
        loaded: the distilled sets, by their path.
        groups: every arm's records.
        failed: the cells without one, and why.
    """

    comparison: Comparison
    data: Dataset
    teachers: Teachers
    sets: Sequence[SetPaths]
    loaded: Mapping[Path, DistilledSet]
    store: Store
    execution: Execution
    groups: Mapping[Arm, Sequence[Record]]
    failed: Mapping[Cell, Failure]
    own: SetLabelers = field(default_factory=dict)


def manifest(found: Findings, *, command: str, teacher: Mapping[str, Any] | None) -> dict[str, Any]:
    """All that a report needs to know: settings, sets, arms with their statistics, verdicts, labels to show."""
    comparison, data, sets, loaded = found.comparison, found.data, found.sets, found.loaded
    resolution = 1 / len(data.test)
    single = {name for name, _, _ in found.own}  # labelers of one set: those that they are made of are not they
    general = {name: group for name, group in found.teachers.items() if name not in single}
    said = label_facts(comparison, data, general, found.execution)
    meta = {
        "name": comparison.name,
        "title": comparison.title,
        "kind": "grid" if len(found.groups) > LARGE else "comparison",
        "command": command,
        "dataset": plain(data.info),
        "protocol": _protocol_facts(comparison.protocol),
        "student": ", ".join(comparison.students),
        "teacher": dict(teacher) if teacher else None,
        "sets": [_set_facts(found, family) for family in sets],
        "arms": [
            _arm(arm, records, found, resolution) | ({"per_class": _per_class(records)} if comparison.per_class else {})
            for arm, records in found.groups.items()
        ],
        "comparisons": compare_arms(
            comparison, found.groups, _sizes(sets, loaded), resolution=resolution, twins=_twins(sets)
        ),
        "plots": [plain(plot) for plot in comparison.plots],
        "choosing": comparison.selection,
        "label_facts": said,
        "labels_shown": _labels_shown(comparison, sets, loaded, found.teachers, found.own, found.execution),
        "notes": [*comparison.notes, *_notes(comparison, data), *_unlearned(said, data)],
        "environment": environment(found.execution),
    }
    if comparison.steps:
        meta["continual"] = _continual(comparison, data, found.groups)
    return meta


def _twins(sets: Sequence[SetPaths]) -> dict[str, str]:
    """Families that are the very sets of an earlier one, and its name."""
    first: dict[Any, str] = {}
    for family in sets:
        first.setdefault(family.by_seed, family.name)
    return {family.name: first[family.by_seed] for family in sets if first[family.by_seed] != family.name}


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


def _set_facts(found: Findings, paths: SetPaths) -> dict[str, Any]:
    store, first = found.store, found.loaded[paths.by_seed[0][1]]
    asked = any(plot.get("kind") == "bytes" for plot in found.comparison.plots)
    forms = image_file_bytes(first.images) if asked else {}
    return {
        "name": paths.name,
        "path": _relative(paths.by_seed[0][1], store.root),
        "paths": [_relative(path, store.root) for _, path in paths.by_seed],
        "method": first.method,
        "ipc": first.ipc,
        "images": len(first),
        "image_bytes": first.image_bytes,
        "digest": first.digest,
        **({"image_forms": forms} if first.image_bytes in forms.values() else {}),  # JPEG's pixels have no other form
    }


def _relative(path: Path, root: Path) -> str:
    path, root = path.resolve(), root.resolve()
    return path.relative_to(root).as_posix() if path.is_relative_to(root) else str(path)


def _arm(
    arm: Arm,
    group: Sequence[Record],
    found: Findings,
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
    public = max((record["bytes"].get("public", 0) for record in group), default=0)
    kinds = ("images", "labels", "labeler")
    size = {kind: round(sum(record["bytes"][kind] for record in group) / len(group)) if group else 0 for kind in kinds}
    if public:
        size["public"] = public
        note = " ".join(filter(None, (note, f"beside {human_bytes(public)} of public weights")))
    method = next((found.loaded[one.by_seed[0][1]].method for one in found.sets if one.name == arm.set_name), "")
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
    mine = [{"seed": cell.seed, "error": failure.error} for cell, failure in found.failed.items() if cell.arm == arm]
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
    own: SetLabelers,
    execution: Execution,
) -> list[dict[str, Any]]:
    """Top-5 soft labels of one image of some classes, before and after GIFT's refinement; none where no arm has it."""
    last, gift = comparison.teachers[-1], main_loss(comparison)
    if not teachers.get(last) or gift is None:
        return []
    mix = Loss.parse(gift)
    single = any(name == last for name, _, _ in own)
    soft = soft_families(comparison, [paths.name for paths in sets])
    shown = []
    for paths in sets:
        place = own.get((last, paths.name, paths.by_seed[0][0]))
        if (single and place is None) or paths.name not in soft:
            continue
        group = teachers[last] if place is None else [load_labeler(place)]
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
    source = online_labels(teachers, distilled.info, distilled=distilled).to(device)
    logits = source.logits(views, torch.tensor([position], device=device)).cpu()
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


def _unlearned(said: Sequence[Mapping[str, Any]], data: Dataset) -> list[str]:
    """Teachers whose labels name the class of hardly more train images than a guess would."""
    guess = 1 / data.info.classes
    return [
        f"The labels of {entry['name']!r} agree with the class of {100 * entry['agreement']:.1f} % of train images, "
        f"where a guess does with {100 * guess:.1f} %: that teacher has learned next to nothing, and its labels say as "
        f"much. Train it longer."
        for entry in said
        if entry["agreement"] < BARELY * guess
    ]
