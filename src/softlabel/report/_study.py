"""What a report shows, read from the store: the study, its run records and its distilled sets."""

import statistics
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from softlabel.core import DataError, DistilledSet, StoreError
from softlabel.report._facts import Arm, ArmBytes, SetFacts, StudyFacts, parse_facts
from softlabel.store import Store, load_distilled, read_artifact


@dataclass(frozen=True, kw_only=True)
class Run:
    """What a report shows of one run record.

    Attributes:
        key: the record's name.
        seed: of the run.
        final: accuracy at the last epoch, in 0..1.
        best_test: best accuracy over epochs; None when the record has none. So `steps` and `bytes`.
        curve: (epoch, test accuracy) pairs.
        train_loss: one mean loss per epoch.
        train_seconds: None when the record has no timing.
    """

    key: str
    seed: int
    final: float
    best_test: float | None
    curve: tuple[tuple[int, float], ...]
    train_loss: tuple[float, ...]
    train_seconds: float | None
    steps: int | None
    bytes: ArmBytes | None


@dataclass(frozen=True, kw_only=True)
class Study:
    """A study with its evidence.

    Attributes:
        path: of the study's folder, absolute.
        root: of the store it lies in.
        meta: of its manifest, as stored.
        facts: the same, typed.
        runs: per arm name, in the order of its records.
        sets: per set name; a sentence in place of a set that cannot be read.
    """

    path: Path
    root: Path
    meta: dict[str, Any]
    facts: StudyFacts
    runs: Mapping[str, tuple[Run, ...]]
    sets: Mapping[str, DistilledSet | str]

    @property
    def train_seconds(self) -> dict[str, float]:
        """Mean training time of each arm that has any timing."""
        times = {
            name: [run.train_seconds for run in runs if run.train_seconds is not None]
            for name, runs in self.runs.items()
        }
        return {name: statistics.fmean(values) for name, values in times.items() if values}


def read_study(path: Path) -> Study:
    """Read the study at `path`, its run records and its distilled sets.

    A set that is missing or damaged does not stop the report: the numbers do not depend on its pictures.

    Raises:
        StoreError: the study is missing or damaged, or a run record it lists is.
    """
    path = Path(path).resolve()
    artifact = read_artifact(path, "study")
    facts = parse_facts(artifact.meta, f"The study {path}")
    root = path.parent.parent
    return Study(
        path=path,
        root=root,
        meta=artifact.meta,
        facts=facts,
        runs={arm.name: _runs(Store(root), arm, path) for arm in facts.arms},
        sets={entry.name: _load(entry, root) for entry in facts.sets},
    )


def _runs(store: Store, arm: Arm, study: Path) -> tuple[Run, ...]:
    return tuple(_run(store, key, arm, study) for key in arm.records)


def _run(store: Store, key: str, arm: Arm, study: Path) -> Run:
    record = store.read_record(key)
    if record is None:
        raise StoreError(
            f"The study {study} lists the run record {key} for the arm {arm.name!r}, and there is none at "
            f"{store.record(key)}. Copy the record there, or run the command that made the study again."
        )
    try:
        timing = record.get("timing") or {}
        size = record.get("bytes")
        return Run(
            key=key,
            seed=record["seed"],
            final=float(record["accuracy"]["final"]),
            best_test=record["accuracy"].get("best_test"),
            curve=tuple((int(point["epoch"]), float(point["test_accuracy"])) for point in record["curve"]),
            train_loss=tuple(float(loss) for loss in record["train_loss"]),
            train_seconds=timing.get("train_seconds"),
            steps=record.get("steps"),
            bytes=ArmBytes(images=size["images"], labels=size["labels"], labeler=size["labeler"]) if size else None,
        )
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise StoreError(
            f"{store.record(key)} is no run record that this version can read ({error!r}). "
            f"Delete it and run the command that made the study again."
        ) from error


def _load(entry: SetFacts, root: Path) -> DistilledSet | str:
    # An absolute path replaces the root.
    try:
        return load_distilled(root / entry.path)
    except (StoreError, DataError) as error:
        return str(error)
