"""Students trained and tested, as run records: one alone, or several that share their views."""

import time
import warnings
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from typing import Any

from softlabel._version import __version__
from softlabel.core import (
    Dataset,
    DistilledSet,
    LabelSource,
    Progress,
    SoftlabelError,
    SoftlabelWarning,
    TeacherMismatchError,
    fingerprint,
    plain,
    stream_seed,
)
from softlabel.evaluation._student_views import stored_plan
from softlabel.labels import HardLabels, LabelStore, read_from, replayed, unread
from softlabel.models import build_model, model_facts
from softlabel.store import FileCheckpoint, Store
from softlabel.training import (
    Execution,
    History,
    Protocol,
    Trainee,
    ViewPlan,
    environment,
    fit_stack,
    is_out_of_memory,
    measure_accuracy,
    peak_memory,
    resolve_execution,
    resolve_stack,
)

Record = dict[str, Any]


@dataclass(frozen=True, kw_only=True)
class Job:
    """One student of those that share a set, a seed and the views.

    Attributes:
        arm: a name for people, kept in the record.
        student: model spec.
        labels: where soft labels come from; left out when the loss looks at no teacher. Jobs that share one source
            share its logits.
    """

    protocol: Protocol
    student: str
    labels: LabelSource
    arm: str = ""


def train_student(
    distilled: DistilledSet,
    labels: LabelSource,
    *,
    data: Dataset,
    protocol: Protocol,
    student: str,
    seed: int = 0,
    execution: Execution | None = None,
    store: Store | None = None,
    stored: LabelStore | None = None,
    arm: str = "",
    progress: Progress | None = None,
) -> Record:
    """Train one student on a distilled set and test it; with a store, a finished record is found, not repeated.

    Everything random comes from `seed`: the student's initialisation, the order and the views are the same for every
    loss, label source and optimizer. With a store, an interrupted training continues where it was.

    Args:
        distilled: images and targets; its `info` gives the normalisation.
        labels: where soft labels come from; left out when the loss looks at no teacher.
        data: its test split judges.
        student: model spec.
        stored: where `labels` are those of a label store: it has the views that they are for. More epochs than it has
            take batches from it at random.
        arm: a name for people, kept in the record.

    Returns:
        a JSON-ready run record; accuracies are fractions; all times are under `timing`.

    Raises:
        ConfigError: a loss that needs soft labels without them.
        TeacherMismatchError: the set stands for other classes than the data has.
        NonFiniteLossError: training blew up.
    """
    job = Job(protocol=protocol, student=student, labels=labels, arm=arm)
    [result] = train_students(
        distilled, [job], data=data, seed=seed, execution=execution, store=store, stored=stored, progress=progress
    )
    if isinstance(result, SoftlabelError):
        raise result
    return result


def train_students(
    distilled: DistilledSet,
    jobs: Sequence[Job],
    *,
    data: Dataset,
    seed: int = 0,
    execution: Execution | None = None,
    store: Store | None = None,
    stored: LabelStore | None = None,
    stack: str = "auto",
    progress: Progress | None = None,
) -> list[Record | SoftlabelError]:
    """Train students that share a set, a seed and the views as one stack (`softlabel.training.fit_stack`).

    The teacher's logits for the views are computed once; with a store they are kept there and replayed by every later
    student on the same views (`softlabel.labels.replayed`). When the stack does not fit into memory it is halved, and
    a warning says so.

    Args:
        stored: as for `train_student`; of all jobs.

    Returns:
        per job its record, as `train_student`'s, or the error that ended its training; the others go on.

    Raises:
        ConfigError: jobs whose protocols do not share views, or a loss that needs soft labels without them.
        TeacherMismatchError: the set stands for other classes than the data has.
    """
    execution = execution or resolve_execution()
    check_classes(distilled, data)
    cells = [PlannedJob(job, distilled, data, seed, execution) for job in jobs]
    plan = stored_plan(stored, [cell.labels for cell in cells], cells[0].protocol, distilled, seed) if cells else None
    results: list[Record | SoftlabelError | None] = [cell.found(store, data) for cell in cells]
    left = [position for position, result in enumerate(results) if result is None]
    with ExitStack() as context:
        sources: dict[int, LabelSource] = {}
        for cell in (cells[position] for position in left):
            taught = unread(cell.labels)  # every edit and codec reads the same replayed logits
            if taught.regime == "online" and id(taught) not in sources:
                replay = _replayed(taught, cell.protocol, distilled, seed, execution, store)
                sources[id(taught)] = context.enter_context(replay)
        at_once = len(left)
        while left:
            now, rest = left[:at_once], left[at_once:]
            chosen = [cells[position] for position in now]
            try:
                trained = _train(chosen, sources, distilled, data, seed, execution, store, stack, plan, progress)
            except (MemoryError, RuntimeError) as error:
                if not is_out_of_memory(error) or len(now) == 1:
                    raise
                at_once = -(-len(now) // 2)
                warnings.warn(
                    f"A stack of {len(now)} students does not fit into memory; going on with {at_once} at a time.",
                    SoftlabelWarning,
                    stacklevel=2,
                )
                continue
            for position, result in zip(now, trained, strict=True):
                results[position] = result
            left = rest
    return [result for result in results if result is not None]


def _public(labels: LabelSource) -> dict[str, int]:
    """Bytes of public weights that the labels need, which count for nothing else, where they need any."""
    found = getattr(unread(labels), "public_bytes", 0)
    return {"public": found} if found and labels.labeler_bytes else {}


class PlannedJob:
    """A job with the labels and the protocol it really has, and the key of its record."""

    def __init__(self, job: Job, distilled: DistilledSet, data: Dataset, seed: int, execution: Execution) -> None:
        self.labels = job.labels if job.protocol.loss.needs_teacher else HardLabels()
        self.protocol = replace(job.protocol, labels=self.labels.regime)
        self.student, self.arm = job.student, job.arm
        self.identity = cell_identity(distilled, self.labels, data, self.protocol, job.student, seed, execution)
        self.key = fingerprint(self.identity)
        self.facts = {
            "arm": {"name": job.arm, "method": distilled.method, "ipc": distilled.ipc,
                    "loss": self.protocol.loss.spec, "labels": self.labels.regime},
            "bytes": {"images": distilled.image_bytes, "labels": self.labels.label_bytes,
                      "labeler": self.labels.labeler_bytes, **_public(self.labels)},
            "protocol": {"name": self.protocol.name, "fingerprint": self.protocol.fingerprint,
                         "settings": plain(self.protocol)},
        }  # fmt: skip

    def found(self, store: Store | None, data: Dataset) -> Record | None:
        # The training is the same; what it is called, and how its images are stored, can differ.
        record = finished_record(store, self.key, data) if store is not None else None
        return None if record is None else {**record, **self.facts}


def finished_record(store: Store, key: str, data: Dataset) -> Record | None:
    """The record of that key; None where there is none, or none that was judged on the selection split of `data`."""
    record = store.read_record(key)
    if record is None or data.selection is None:
        return record
    judged = "selection" in record["accuracy"] and record.get("judged", data.selection.digest) == data.selection.digest
    return record if judged else None


def _replayed(
    labels: LabelSource,
    protocol: Protocol,
    distilled: DistilledSet,
    seed: int,
    execution: Execution,
    store: Store | None,
) -> Any:
    info = distilled.info
    views = {
        "distilled": distilled.digest,
        "policy": repr(protocol.policy(distilled.factor)),
        "batch": protocol.batch_size(len(distilled), info.classes),
        "seed": seed,
        "labels": labels.fingerprint,
        "execution": execution.identity,
        "softlabel": __version__,
    }
    shape = (protocol.labelled_epochs * len(distilled), info.classes)
    return replayed(labels, shape=shape, views=views, store=store)


def _train(
    cells: Sequence[PlannedJob],
    sources: dict[int, LabelSource],
    distilled: DistilledSet,
    data: Dataset,
    seed: int,
    execution: Execution,
    store: Store | None,
    stack: str,
    plan: ViewPlan | None,
    progress: Progress | None,
) -> list[Record | SoftlabelError]:
    results: list[Record | SoftlabelError | None] = [None] * len(cells)
    trainees: dict[int, Trainee] = {}
    for position, cell in enumerate(cells):
        try:
            model = build_model(
                cell.student,
                image_shape=data.info.image_shape,
                classes=data.info.classes,
                seed=stream_seed(seed, "student", "init"),
            )
        except SoftlabelError as error:  # an image too small for this model is no reason to stop the others
            results[position] = error
            continue
        trainees[position] = Trainee(
            model=model,
            protocol=cell.protocol,
            labels=read_from(cell.labels, sources.get(id(unread(cell.labels)))),
            checkpoint=FileCheckpoint(store.student(cell.key)) if store is not None else None,
        )
    histories = _fit(cells, trainees, distilled, data, seed, execution, stack, plan, progress) if trainees else []
    for position, history in zip(trainees, histories, strict=True):
        cell = cells[position]
        if isinstance(history, SoftlabelError):
            if store is not None:  # nothing to go on from: it would fail again
                FileCheckpoint(store.student(cell.key)).clear()
            results[position] = history
            continue
        outcome = _outcome(history, execution, len(cells), resolve_stack(stack, execution))
        if data.selection is not None:
            model = trainees[position].model
            outcome["accuracy"]["selection"] = measure_accuracy(model, data.selection, distilled.info, execution)
            outcome["judged"] = data.selection.digest
        record = {"key": cell.key, **cell.facts, "seed": seed, "identity": cell.identity, **outcome}
        if store is not None:
            store.write_record(cell.key, record)
            FileCheckpoint(store.student(cell.key)).clear()
        results[position] = record
    return [result for result in results if result is not None]


def _fit(
    cells: Sequence[PlannedJob],
    trainees: dict[int, Trainee],
    distilled: DistilledSet,
    data: Dataset,
    seed: int,
    execution: Execution,
    stack: str,
    plan: ViewPlan | None,
    progress: Progress | None,
) -> Sequence[History | SoftlabelError]:
    return fit_stack(
        list(trainees.values()),
        distilled.split,
        info=distilled.info,
        seed=stream_seed(seed, "student"),
        execution=execution,
        factor=distilled.factor,
        test=data.test,
        plan=plan,
        stack=stack,
        progress=progress,
        what=f"{_what([cells[position] for position in trainees])}, seed {seed}",
    )


def _what(cells: Sequence[PlannedJob]) -> str:
    names = [cell.arm or cell.protocol.loss.spec for cell in cells]
    return names[0] if len(names) == 1 else f"{names[0]} and {len(names) - 1} more"


def _outcome(history: History, execution: Execution, together: int, stack: str) -> Record:
    """What a training told; everything that two equal runs may differ in stands under `timing`."""
    return {
        "accuracy": {"final": history.final, "best_test": history.best_test, "per_class": history.per_class},
        "curve": history.curve,
        "train_loss": history.train_loss,
        "steps": history.steps,
        "images_seen": history.images_seen,
        "environment": environment(execution),
        "timing": {
            "stack": stack,
            "train_seconds": history.train_seconds,
            "test_seconds": history.test_seconds,
            "trained_together": together,
            "peak_memory_bytes": peak_memory(execution),
            "finished": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        },
    }


def cell_identity(
    distilled: DistilledSet,
    labels: LabelSource,
    data: Dataset,
    protocol: Protocol,
    student: str,
    seed: int,
    execution: Execution,
) -> dict[str, Any]:
    """What a run record depends on; its fingerprint is the record's key."""
    foreign = model_facts(student)  # empty for our own models
    return {
        **({"model": foreign} if foreign else {}),
        "distilled": distilled.digest,
        "labels": labels.fingerprint,
        "factor": distilled.factor,
        "test": data.test.digest,
        "protocol": protocol.fingerprint,
        "student": student,
        "seed": seed,
        "execution": execution.identity,
        "softlabel": __version__,
    }


def full_data(data: Dataset) -> DistilledSet:
    """The whole train split in the shape of a distilled set: the upper baseline. Bytes are those of raw pixels."""
    return DistilledSet(
        images=data.train.images,
        targets=data.train.targets,
        info=data.info,
        method="full",
        ipc=0,
        seed=0,
        image_bytes=data.train.images.numel(),
    )


def check_classes(distilled: DistilledSet, data: Dataset) -> None:
    """Refuse to judge a distilled set on data with other classes or other images.

    Raises:
        TeacherMismatchError: naming both.
    """
    if (distilled.info.class_names, distilled.info.image_shape) != (data.info.class_names, data.info.image_shape):
        raise TeacherMismatchError(
            f"The distilled set stands for {distilled.info.name} ({distilled.info.classes} classes, images of "
            f"{'x'.join(map(str, distilled.info.image_shape))}); it cannot be judged on {data.info.name} "
            f"({data.info.classes} classes, {'x'.join(map(str, data.info.image_shape))}). Give the "
            f"data it was made from."
        )
