"""One cell: one student, trained and tested, as a run record."""

import time
from dataclasses import replace
from typing import Any

from softlabel._version import __version__
from softlabel.core import (
    Dataset,
    DistilledSet,
    LabelSource,
    Progress,
    Split,
    TeacherMismatchError,
    fingerprint,
    plain,
    stream_seed,
)
from softlabel.labels import HardLabels
from softlabel.models import build_model
from softlabel.store import FileCheckpoint, Store
from softlabel.training import Execution, History, Protocol, environment, fit, peak_memory, resolve_execution

Record = dict[str, Any]


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
        arm: a name for people, kept in the record.

    Returns:
        a JSON-ready run record; accuracies are fractions; all times are under `timing`.

    Raises:
        ConfigError: a loss that needs soft labels without them.
        TeacherMismatchError: the set stands for other classes than the data has.
        NonFiniteLossError: training blew up.
    """
    execution = execution or resolve_execution()
    check_classes(distilled, data)
    if not protocol.loss.needs_teacher:
        labels = HardLabels()
    protocol = replace(protocol, labels=labels.regime)
    identity = cell_identity(distilled, labels, data, protocol, student, seed, execution)
    key = fingerprint(identity)
    facts = {
        "arm": {"name": arm, "method": distilled.method, "ipc": distilled.ipc, "loss": protocol.loss.spec,
                "labels": labels.regime},
        "bytes": {"images": distilled.image_bytes, "labels": labels.label_bytes, "labeler": labels.labeler_bytes},
        "protocol": {"name": protocol.name, "fingerprint": protocol.fingerprint, "settings": plain(protocol)},
    }  # fmt: skip
    if store is not None and (found := store.read_record(key)) is not None:
        # The training is the same; what it is called, and how its images are stored, can differ.
        return {**found, **facts}
    checkpoint = FileCheckpoint(store.student(key)) if store is not None else None
    model = build_model(
        student,
        image_shape=data.info.image_shape,
        classes=data.info.classes,
        seed=stream_seed(seed, "student", "init"),
    )
    history = fit(
        model,
        Split(distilled.images, distilled.targets),
        protocol=protocol,
        info=distilled.info,
        seed=stream_seed(seed, "student"),
        execution=execution,
        labels=labels,
        factor=distilled.factor,
        test=data.test,
        checkpoint=checkpoint,
        progress=progress,
        what=f"{arm or protocol.loss.spec}, seed {seed}",
    )
    record = {"key": key, **facts, "seed": seed, "identity": identity, **_outcome(history, execution)}
    if store is not None and checkpoint is not None:
        store.write_record(key, record)
        checkpoint.clear()
    return record


def _outcome(history: History, execution: Execution) -> Record:
    """What a training told; everything that two equal runs may differ in stands under `timing`."""
    return {
        "accuracy": {"final": history.final, "best_test": history.best_test},
        "curve": history.curve,
        "train_loss": history.train_loss,
        "steps": history.steps,
        "images_seen": history.images_seen,
        "environment": environment(execution),
        "timing": {
            "train_seconds": history.train_seconds,
            "test_seconds": history.test_seconds,
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
    return {
        "distilled": distilled.digest,
        "labels": labels.fingerprint,
        "factor": distilled.factor,
        "test": data.test.digest,
        "protocol": protocol.fingerprint,
        "student": student,
        "seed": seed,
        "execution": plain(execution),
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
