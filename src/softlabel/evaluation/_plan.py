"""What work will be done, before it is done: each part, what is finished, and a forecast from a short measurement."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch

from softlabel.core import ConfigError, Dataset, LabelSource, Split, build_config, stream_seed
from softlabel.distill import ImageUpdate, RdedConfig, check_work, find_method, tiles
from softlabel.evaluation._comparison import (
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
from softlabel.evaluation._given import read_given
from softlabel.evaluation._recipe import LearnedSet, Recipe, TeacherOptions
from softlabel.evaluation._sets import SetOptions, learned_path, set_path, set_seed, set_teachers, updated_path
from softlabel.evaluation._students import finished_record
from softlabel.evaluation._units import Bench, Unit, prepare
from softlabel.labels import (
    FixedLabels,
    HelloConfig,
    labeler_path,
    labeler_step_seconds,
    learning_step_seconds,
    load_labeler,
    load_labels,
    online_labels,
    replay_bytes,
    stand_in_labeler,
)
from softlabel.losses import Loss
from softlabel.models import build_model
from softlabel.store import Store, is_complete, load_distilled
from softlabel.training import Execution, Optimizer, Protocol, Teacher, fit, load_teacher, teacher_path

PROBE_STEPS = 3
RECORD_BYTES = 4_000
FORWARD_SHARE = 1 / 3  # of a training step: one pass of three


@dataclass(frozen=True)
class PlanLine:
    """One part of the work.

    Attributes:
        what: for people.
        done, total: pieces finished, and in all.
        seconds: forecast for what is left.
        disk_bytes: forecast of what it will add to the store.
    """

    what: str
    done: int
    total: int
    seconds: float
    disk_bytes: int


def plan_recipe(recipe: Recipe, data: Dataset, *, store: Store, execution: Execution) -> list[PlanLine]:
    """The parts of a recipe. Trains a few steps of each kind to measure their pace; writes nothing."""
    line, teacher = plan_teacher(recipe.teacher, data, store=store, execution=execution)
    kept = _teacher_at(recipe.teacher, data, store, execution)

    def looked_at(options: SetOptions) -> list[Teacher]:
        if is_complete(kept):
            return set_teachers(options.method, kept)
        follows = find_method(options.method)[0].teacher == "trajectory"
        return [teacher] * (recipe.teacher.protocol.total_epochs if follows else 1)

    seeds = recipe.comparison.seeds
    lines, paths = [line], []
    for options in recipe.sets:
        drawn = ((seed, set_seed(options, seeds, seed)) for seed in seeds)
        places = ((seed, set_path(options, data, looked_at(options), draw, store, execution)) for seed, draw in drawn)
        paths.append(SetPaths(options.name, tuple(places)))
        lines.append(plan_set(options, paths[-1], data, looked_at(options), execution))
    sizes = {options.name: options.ipc * data.info.classes for options in recipe.sets}
    paths += [SetPaths(one.name, tuple((seed, one.path) for seed in seeds)) for one in recipe.given]
    sizes |= {one.name: len(read_given(one.path, data.info)) for one in recipe.given}
    stored: dict[tuple[str, int], FixedLabels] = {}
    for one in recipe.learned:
        family = next(family for family in paths if family.name == one.of)
        line, labels = _plan_learned(one, family, data, sizes[one.of], store, execution)
        lines.append(line)
        paths.append(SetPaths(one.name, family.by_seed))
        sizes[one.name] = sizes[one.of]
        stored |= {(one.name, seed): found for seed, found in labels.items()}
    labelers, planned = {}, {recipe.teacher.seed}
    for labeler in recipe.labelers:
        group = []
        for seed in labeler.seeds or (recipe.teacher.seed,):
            taught = replace(recipe.teacher, seed=seed)
            line, stand_in = plan_teacher(taught, data, store=store, execution=execution)
            if seed not in planned:
                planned.add(seed)
                lines.append(replace(line, what=f"{line.what}, seed {seed}"))
            group += [_finished(taught, epoch, data, store, execution) or stand_in for epoch in labeler.epochs]
        if labeler.hello is not None:
            line, group = _plan_labeler(labeler.name, labeler.hello, group, data, recipe.teacher.seed, store, execution)
            lines.append(line)
        labelers[labeler.name] = group
    for updated in recipe.updated:
        family = next(family for family in paths if family.name == updated.of)
        labeler = next(one for one in recipe.labelers if one.name == updated.labeler)
        options = next(options for options in recipe.sets if options.name == updated.of)
        patches = sizes[updated.of] * tiles(options.method)
        line, made = _plan_updated(
            updated.name, updated.update, labeler.hello, labelers[labeler.name], patches, family, data, store, execution
        )
        lines.append(line)
        paths.append(made)
        sizes[updated.name] = sizes[updated.of]
    comparison = recipe.comparison
    return lines + plan_students(
        comparison, data, paths, sizes, labelers, store=store, execution=execution, stored=stored
    )


def _plan_learned(
    one: LearnedSet, family: SetPaths, data: Dataset, images: int, store: Store, execution: Execution
) -> tuple[PlanLine, dict[int, FixedLabels]]:
    """The part of one family of learned labels, and the labels: those that are there, or stand-ins."""
    labels, done = {}, 0
    for seed, path in family.by_seed:
        kept = learned_path(one.learning, path, data, seed, store, execution) if is_complete(path) else None
        if kept is not None and is_complete(kept):
            labels[seed], done = load_labels(kept, load_distilled(path)), done + 1
        else:
            labels[seed] = FixedLabels(torch.zeros(images, data.info.classes))
    left = len(family.by_seed) - done
    step = learning_step_seconds(data, images, one.learning, execution) if left else 0.0
    seconds = left * one.learning.steps * step
    what = f"{one.name}: {one.learning.steps} steps of labels"
    return PlanLine(what, done, done + left, seconds, left * images * data.info.classes * 4), labels


def _plan_labeler(
    name: str, config: HelloConfig, group: list[Teacher], data: Dataset, seed: int, store: Store, execution: Execution
) -> tuple[PlanLine, list[Teacher]]:
    """The part of one projector, and who labels: it, or an untrained one of the same cost."""
    path = labeler_path(data, group, config, store=store, execution=execution, seed=seed)
    what = f"labeler {name}"
    if is_complete(path):
        return PlanLine(what, 1, 1, 0.0, 0), [load_labeler(path)]
    steps = config.epochs * -(-len(data.train) // config.batch)
    seconds = steps * labeler_step_seconds(data, group, config, execution)
    labeler = stand_in_labeler(data, config)
    return PlanLine(what, 0, 1, seconds, labeler.size), [labeler]


def plan_labeler(
    config: HelloConfig,
    update: ImageUpdate | None,
    group: list[Teacher],
    family: SetPaths,
    patches: int,
    data: Dataset,
    seed: int,
    store: Store,
    execution: Execution,
) -> list[PlanLine]:
    """The parts of a set's own labeler, and of the update of its images, where there is one."""
    line, group = _plan_labeler(config.backbone, config, group, data, seed, store, execution)
    if update is None:
        return [line]
    name = f"{family.name}, updated"
    return [line, _plan_updated(name, update, config, group, patches, family, data, store, execution)[0]]


def _plan_updated(
    name: str,
    update: ImageUpdate,
    config: HelloConfig | None,
    group: list[Teacher],
    patches: int,
    family: SetPaths,
    data: Dataset,
    store: Store,
    execution: Execution,
) -> tuple[PlanLine, SetPaths]:
    """The part of one family of updated images, and where its sets stand or will stand."""
    trained = len(group) == 1 and group[0].public > 0  # otherwise its teachers stand in for it
    places = [
        (seed, updated_path(update, path, data, group[0], store, execution)
         if trained and is_complete(path) else store.distilled("updated", f"of {path.name}"))
        for seed, path in family.by_seed
    ]  # fmt: skip
    left, what = sum(not is_complete(path) for _, path in places), f"{name}: {update.steps} steps of images"
    if not left or config is None:
        return PlanLine(what, len(places), len(places), 0.0, 0), SetPaths(name, tuple(places))
    step = labeler_step_seconds(data, group, config, execution) / config.batch
    seconds = left * patches * update.steps * step
    return PlanLine(what, len(places) - left, len(places), seconds, left * patches * 1000), SetPaths(
        name, tuple(places)
    )


def _finished(
    options: TeacherOptions, epoch: int | None, data: Dataset, store: Store, execution: Execution
) -> Teacher | None:
    path = _teacher_at(options, data, store, execution)
    return load_teacher(path, epoch) if is_complete(path) else None


def _teacher_at(options: TeacherOptions, data: Dataset, store: Store, execution: Execution) -> Path:
    return teacher_path(
        data, arch=options.arch, protocol=options.protocol, store=store, execution=execution, seed=options.seed
    )


def plan_teacher(
    options: TeacherOptions,
    data: Dataset,
    *,
    store: Store,
    execution: Execution,
    save_every: int = 1,
    out: Path | None = None,
) -> tuple[PlanLine, Teacher]:
    """The teacher's part, and the teacher: the finished one, or an untrained stand-in of the same cost."""
    if save_every < 1:
        raise ConfigError(f"--save-every must be 1 or more. Got {save_every} instead.")
    protocol = options.protocol
    path = teacher_path(
        data,
        arch=options.arch,
        protocol=protocol,
        store=store,
        execution=execution,
        seed=options.seed,
        save_every=save_every,
        out=out,
    )
    what = f"teacher {options.arch}, {protocol.epochs} epochs"
    if is_complete(path):
        return PlanLine(what, 1, 1, 0.0, 0), load_teacher(path)
    teacher = _untrained(options.arch, data)
    seconds = protocol.epochs * _epoch_seconds(options.arch, protocol, data, len(data.train), None, execution)
    kept = protocol.epochs // save_every + 2
    return PlanLine(what, 0, 1, seconds, kept * teacher.size), teacher


def plan_set(
    options: SetOptions, paths: SetPaths, data: Dataset, teachers: Sequence[Teacher], execution: Execution
) -> PlanLine:
    """The part of one family of distilled sets; refuses what `distill` would refuse."""
    check_work(options.method, data, teachers, ipc=options.ipc)
    done = sum(is_complete(path) for _, path in paths.by_seed)
    left = len(paths.by_seed) - done
    forwards = _forwards(options, data)
    seconds = 0.0
    if forwards and left and teachers:
        probe = Protocol(name="probe", epochs=1, batch=256, optimizer=Optimizer(), labels="hard", loss=Loss("ce"))
        step = _step_seconds(teachers[0].arch, probe, data, None, execution, len(data.train))
        seconds = left * forwards * step / probe.batch_size(len(data.train), data.info.classes) * FORWARD_SHARE
    # PNG keeps about what the pixels weigh; a file and its line in the manifest have a size of their own.
    size = options.ipc * data.info.classes * (data.train.images[0].numel() + 300)
    what = f"{options.name}: {options.method}, IPC {options.ipc}"
    return PlanLine(what, done, done + left, seconds, left * size)


def plan_students(
    comparison: Comparison,
    data: Dataset,
    paths: Sequence[SetPaths],
    sizes: dict[str, int],
    teachers: Teachers,
    *,
    store: Store,
    execution: Execution,
    stored: Stored | None = None,
) -> list[PlanLine]:
    """The students' parts, one line per arm; `sizes` gives the number of images of each family of sets.

    Rates that are to be tuned are not known before: of the search and its arms, the least is forecast.
    """
    check_inputs(comparison, data, teachers, paths, stored=stored)
    lines: dict[str, PlanLine] = {}
    bench = Bench(data=data, teachers=teachers, stored=stored or {}, store=store, execution=execution)
    by_seed = {(family.name, seed): path for family in paths for seed, path in family.by_seed}
    paces: dict[str, float] = {}
    replays: set[str] = set()
    names = [family.name for family in paths]
    for cell in cells(comparison, arms(comparison, names, data.info.classes, own=own_labels(stored or {}))):
        arm, protocol = cell.arm, cell.arm.protocol
        count = sizes.get(arm.set_name, len(data.train))
        if arm.seen:
            count = round(count * arm.seen / data.info.classes)
        pace = f"{arm.student} {protocol.fingerprint} {count}"
        if pace not in paces:
            labels = _stand_in(arm, teachers.get(arm.teacher, ()), data, execution)
            paces[pace] = protocol.total_epochs * _epoch_seconds(arm.student, protocol, data, count, labels, execution)
        done = _is_finished(cell, bench, by_seed)
        before = lines.get(arm.name, PlanLine(f"students {arm.name}", 0, 0, 0.0, 0))
        disk = RECORD_BYTES + 25 * protocol.total_epochs
        views = f"{arm.set_name} {arm.teacher} {arm.seen} {cell.seed}"
        if not done and protocol.labels in ("online", "replay") and views not in replays:
            replays.add(views)
            disk += replay_bytes((protocol.labelled_epochs * count, arm.seen or data.info.classes))
        lines[arm.name] = replace(
            before,
            done=before.done + int(done),
            total=before.total + 1,
            seconds=before.seconds + (0.0 if done else paces[pace]),
            disk_bytes=before.disk_bytes + (0 if done else disk),
        )
    return [*_search(comparison, len(paths), max(paces.values(), default=0.0)), *lines.values()]


def _search(comparison: Comparison, families: int, pace: float) -> list[PlanLine]:
    """The least that the search for learning rates takes: all decades, the two half decades, and the tuned arms."""
    tuning = comparison.tuning
    if tuning is None:
        return []
    searched = families * len(comparison.students) * len(comparison.optimizer_specs) * len(comparison.losses)
    count = searched * (tuning.below + 1 + tuning.above + 2 + len(comparison.seeds))
    disk = count * (RECORD_BYTES + 25 * comparison.protocol.total_epochs)
    return [PlanLine("learning rates and tuned arms, at least", 0, count, count * pace, disk)]


def _stand_in(arm: Arm, teachers: Sequence[Teacher], data: Dataset, execution: Execution) -> LabelSource:
    """Labels of about the same cost, in the same space."""
    if arm.labels.edits:
        return FixedLabels(torch.full((len(data.train), data.info.classes), 0.1), space="probabilities")
    if arm.protocol.labels in ("online", "replay") and teachers:
        return online_labels(teachers, data.info, execution)
    return FixedLabels(torch.zeros(len(data.train), data.info.classes))


def _forwards(options: SetOptions, data: Dataset) -> int:
    """Forward passes of single images that a method needs."""
    method, given = find_method(options.method)
    if method.config is RdedConfig:
        config: RdedConfig = build_config(RdedConfig, given, "the method 'rded'")
        return config.images * config.crops * data.info.classes
    if method.teacher == "trajectory":
        followed: Any = build_config(method.config, given, f"the method {method.name!r}")
        return int(followed.least_epochs) * len(data.train)
    return 0 if method.teacher == "no" else len(data.train)


def _untrained(arch: str, data: Dataset) -> Teacher:
    model = build_model(arch, image_shape=data.info.image_shape, classes=data.info.classes, seed=0)
    size = sum(tensor.numel() * tensor.element_size() for tensor in model.state_dict().values())
    return Teacher(model.eval().requires_grad_(False), data.info, arch, "untrained", None, 0, size)


def _epoch_seconds(
    model: str, protocol: Protocol, data: Dataset, images: int, labels: LabelSource | None, execution: Execution
) -> float:
    step = _step_seconds(model, protocol, data, labels, execution, images)
    batch = protocol.batch_size(images, data.info.classes)
    epochs = protocol.total_epochs
    tests = sum(protocol.checks.at(epoch, epochs) for epoch in range(epochs)) / epochs
    return step * -(-images // batch) + len(data.test) * tests * step / batch * FORWARD_SHARE


def _step_seconds(
    model: str, protocol: Protocol, data: Dataset, labels: LabelSource | None, execution: Execution, images: int
) -> float:
    batch = protocol.batch_size(images, data.info.classes)
    count = min(len(data.train), PROBE_STEPS * batch)
    split = Split(data.train.images[:count], data.train.targets[:count])
    network = build_model(model, image_shape=data.info.image_shape, classes=data.info.classes, seed=0)
    short = replace(protocol, epochs=1, extra_epoch=False, batch=batch)
    # The second of two short trainings counts: the first warms up.
    _, second = (
        fit(
            network,
            split,
            protocol=short,
            info=data.info,
            seed=stream_seed(turn, "probe"),
            execution=execution,
            labels=labels,
        )
        for turn in range(2)
    )
    return second.train_seconds / second.steps


def _is_finished(cell: Cell, bench: Bench, paths: dict[tuple[str, int], Path]) -> bool:
    path = paths.get((cell.arm.set_name, cell.seed))
    if cell.arm.role != "baseline" and (path is None or not is_complete(path)):
        return False
    made = prepare(Unit((cell,), path), bench)
    return finished_record(bench.store, made.keys[cell], made.data) is not None
