"""One row per trained student, and per seed that failed: CSV, and parquet where pyarrow is installed."""

import csv
import io
from dataclasses import dataclass, fields
from typing import Any

from softlabel.report._facts import Arm, ArmBytes, StudyFacts
from softlabel.report._study import Run, Study
from softlabel.report._tables import csv_text


@dataclass(frozen=True, kw_only=True)
class CellRow:
    """One arm and seed. Accuracies are fractions; what is not known is empty.

    Attributes:
        key: of the run record; empty for a seed that failed.
        set, teacher, student, optimizer, loss, labels: the axes of a grid; in other studies what is known of them.
        error: why the seed failed; empty for a finished one.
    """

    key: str
    arm: str
    role: str
    set: str
    teacher: str
    student: str
    optimizer: str
    loss: str
    labels: str
    seed: int
    final: float | None
    best_test: float | None
    epochs: int
    steps: int | None
    train_seconds: float | None
    images_bytes: int
    labels_bytes: int
    labeler_bytes: int
    total_bytes: int
    error: str


CELL_COLUMNS = tuple(field.name for field in fields(CellRow))


def cell_rows(study: Study) -> list[CellRow]:
    """The rows of every arm, in the study's order: finished seeds first, then those that failed."""
    rows: list[CellRow] = []
    for arm in study.facts.arms:
        known = _known(study.facts, arm)
        rows += [_finished(arm, run, known) for run in study.runs[arm.name]]
        rows += [_row(arm, known, failure.seed, arm.bytes, error=failure.error) for failure in arm.failed]
    return rows


def cells_csv(rows: list[CellRow]) -> str:
    """The rows with all digits; texts are made safe for spreadsheets."""
    buffer = io.StringIO()
    writer = csv.DictWriter(buffer, list(CELL_COLUMNS), lineterminator="\n")
    writer.writeheader()
    writer.writerows(
        {name: csv_text(value) if isinstance(value, str) else value for name, value in vars(row).items()}
        for row in rows
    )
    return buffer.getvalue()


def cells_parquet(rows: list[CellRow]) -> bytes | None:
    """The same rows with their types and their texts as they are; None without pyarrow, which is an extra."""
    try:
        import pyarrow as pa
        import pyarrow.parquet as pq
    except ImportError:
        return None
    types = {"seed": pa.int64(), "epochs": pa.int64(), "steps": pa.int64()}
    types |= {name: pa.float64() for name in ("final", "best_test", "train_seconds")}
    types |= {name: pa.int64() for name in CELL_COLUMNS if name.endswith("_bytes")}
    schema = pa.schema([(name, types.get(name, pa.string())) for name in CELL_COLUMNS])
    sink = io.BytesIO()
    pq.write_table(pa.Table.from_pylist([vars(row) for row in rows], schema=schema), sink)
    return sink.getvalue()


def _known(facts: StudyFacts, arm: Arm) -> dict[str, str]:
    blank = {"set": arm.set or "", "teacher": "", "student": facts.student, "optimizer": "", "loss": arm.loss}
    blank["labels"] = arm.labels
    return {axis: arm.axes.get(axis, value) for axis, value in blank.items()}


def _finished(arm: Arm, run: Run, known: dict[str, str]) -> CellRow:
    return _row(
        arm,
        known,
        run.seed,
        run.bytes or arm.bytes,
        key=run.key,
        final=run.final,
        best_test=run.best_test,
        steps=run.steps,
        train_seconds=run.train_seconds,
    )


def _row(arm: Arm, known: dict[str, str], seed: int, size: ArmBytes, **outcome: Any) -> CellRow:
    blank: dict[str, Any] = {
        "key": "",
        "final": None,
        "best_test": None,
        "steps": None,
        "train_seconds": None,
        "error": "",
    }
    return CellRow(
        arm=arm.name,
        role=arm.role,
        seed=seed,
        epochs=arm.epochs,
        images_bytes=size.images,
        labels_bytes=size.labels,
        labeler_bytes=size.labeler,
        total_bytes=size.total,
        **(known | blank | outcome),
    )
