"""The parts that all work is made of, with a forecast of each from a short measurement: teachers, sets, students."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch

from softlabel.core import ConfigError, Dataset, LabelSource, Split, build_config, stream_seed
from softlabel.distill import RdedConfig, check_work, find_method, latent_config, needs_generator, plain_sampling
from softlabel.evaluation._checks import check_inputs
from softlabel.evaluation._comparison import (
    Arm,
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
from softlabel.evaluation._generated import GeneratorOptions, TimedSet, timed_path
from softlabel.evaluation._recipe import TeacherOptions
from softlabel.evaluation._sets import SetOptions
from softlabel.evaluation._students import finished_record
from softlabel.evaluation._units import Bench, Unit, prepare
from softlabel.generate import (
    Forecast,
    forecast_generator,
    generator_places,
    image_seconds,
    load_generator,
)
from softlabel.labels import FixedLabels, online_labels, replay_bytes
from softlabel.losses import Loss
from softlabel.models import build_model
from softlabel.store import Store, is_complete
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


def plan_generator(
    options: GeneratorOptions, data: Dataset, *, store: Store, execution: Execution, out: Path | None = None
) -> tuple[list[PlanLine], Path, Forecast]:
    """The parts of a generator, where it stands or will stand, and what it and its images cost.

    Raises:
        ConfigError: data that no such generator can be trained on.
        StoreError: something else stands at `out`.
    """
    options.check(data)
    coder, path = generator_places(
        data, options.autoencoder, options.denoiser, store=store, execution=execution, seed=options.seed, out=out
    )
    cost = forecast_generator(data, options.autoencoder, options.denoiser, execution)
    parts = (
        (f"autoencoder, {options.autoencoder.epochs} epochs", coder, cost.coder_seconds, cost.coder_bytes),
        (f"denoiser, {options.denoiser.epochs} epochs", path, cost.denoiser_seconds, cost.bytes),
    )
    lines = [
        PlanLine(what, 1, 1, 0.0, 0) if is_complete(place) else PlanLine(what, 0, 1, seconds, size)
        for what, place, seconds, size in parts
    ]
    return lines, path, cost


def plan_set(
    options: SetOptions,
    paths: SetPaths,
    data: Dataset,
    teachers: Sequence[Teacher],
    execution: Execution,
    checked: bool = True,
) -> PlanLine:
    """The part of one family of distilled sets; refuses what `distill` would refuse, unless `checked` is False."""
    if checked:
        check_work(options.method, data, teachers, ipc=options.ipc)
    done = sum(is_complete(path) for _, path in paths.by_seed)
    left = len(paths.by_seed) - done
    forwards = _forwards(options, data)
    seconds = 0.0
    if forwards and left and teachers:
        probe = Protocol(name="probe", epochs=1, batch=256, optimizer=Optimizer(), labels="hard", loss=Loss("ce"))
        step = _step_seconds(teachers[0].arch, probe, data, None, execution, len(data.train))
        seconds = left * forwards * step / probe.batch_size(len(data.train), data.info.classes) * FORWARD_SHARE
    if left and checked and find_method(options.method)[0].computes:
        config = latent_config(options.method)
        images = options.ipc * data.info.classes * config.samples
        seconds = left * images * image_seconds(load_generator(Path(config.generator)), config.sampling, execution)
    # PNG keeps about what the pixels weigh; a file and its line in the manifest have a size of their own.
    size = options.ipc * data.info.classes * (data.train.images[0].numel() + 300)
    what = f"{options.name}: {options.method}, IPC {options.ipc}"
    return PlanLine(what, done, done + left, seconds, left * size)


def plan_timed(
    options: TimedSet,
    generator: Path | None,
    data: Dataset,
    seeds: Sequence[int],
    store: Store,
    execution: Execution,
    per_image: float | None = None,
) -> tuple[PlanLine, SetPaths, int]:
    """The part of one timed family, where its sets stand or will stand, and about how many images one has.

    Args:
        generator: of a method that names none; None when it is still to be trained.
        per_image: seconds that an image takes; None measures a batch.
    """
    named, sampling = plain_sampling(options.method)
    made = generator if needs_generator(options.method) else named
    places = [
        (seed, timed_path(options, made, seed, store, execution)
         if made is not None else store.distilled("generated", f"{options.name}-{seed}"))
        for seed in seeds
    ]  # fmt: skip
    done = sum(is_complete(path) for _, path in places)
    if per_image is None and made is not None:
        per_image = image_seconds(load_generator(made), sampling, execution)
    images = max(data.info.classes, round(options.seconds / (per_image or 1.0)))
    left = len(places) - done
    size = images * (data.train.images[0].numel() + 300)
    what = f"{options.name}: all that {options.seconds:g} seconds give"
    line = PlanLine(what, done, len(places), left * options.seconds, left * size)
    return line, SetPaths(options.name, tuple(places)), images


def plan_students(
    comparison: Comparison,
    data: Dataset,
    paths: Sequence[SetPaths],
    sizes: dict[str, int],
    teachers: Teachers,
    *,
    store: Store,
    execution: Execution,
    own: SetLabelers | None = None,
    stored: Stored | None = None,
) -> list[PlanLine]:
    """The students' parts, one line per arm; `sizes` gives the number of images of each family of sets.

    Rates that are to be tuned are not known before: of the search and its arms, the least is forecast.
    """
    check_inputs(comparison, data, teachers, paths, stored=stored)
    lines: dict[str, PlanLine] = {}
    bench = Bench(data=data, teachers=teachers, own=own or {}, stored=stored or {}, store=store, execution=execution)
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
    return 0 if method.teacher == "no" or method.computes else len(data.train)


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
    own = bench.own.get((cell.arm.axes["teacher"], cell.arm.set_name, cell.seed))
    if own is not None and not is_complete(own):
        return False
    made = prepare(Unit((cell,), path), bench)
    return finished_record(bench.store, made.keys[cell], made.data) is not None
