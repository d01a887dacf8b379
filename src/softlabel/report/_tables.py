"""The result and verdict tables: rows for a console, Markdown and CSV."""

import csv
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from softlabel.core import human_bytes
from softlabel.report._facts import Arm, ArmBytes, Comparison, Score, parse_facts
from softlabel.report._frontier import REGIME_COLUMNS, RegimeRow, regime_notes, regime_rows
from softlabel.report._text import NO_VALUE, arm_note, duration, interval, plus_minus, points, seed_count

RESULT_COLUMNS = (
    "arm",
    "labels",
    "loss",
    "final accuracy, %",
    "95 % interval",
    "seeds",
    "best on test, %",
    "epochs",
    "images",
    "labels, bytes",
    "labeler",
    "total",
    "train time",
)
VERDICT_COLUMNS = ("arm", "against", "difference, points", "95 % interval", "seeds", "verdict")


@dataclass(frozen=True, kw_only=True)
class ResultRow:
    """One arm. Accuracies are fractions; `cells` is the row as text, under `RESULT_COLUMNS`.

    Attributes:
        final: accuracy at the last epoch, on the test split: the headline number. None when every seed failed.
        best_test: best accuracy over epochs. It is chosen on the test split, and so is optimistic.
        train_seconds: mean over seeds; None when the run records are not at hand.
        note: with what the seeds that failed said.
        seed_count: as text: `3`, or `2 of 3` when a seed failed.
    """

    arm: str
    set: str | None
    role: str
    labels: str
    loss: str
    final: Score | None
    best_test: Score | None
    epochs: int
    bytes: ArmBytes
    train_seconds: float | None
    note: str
    seed_count: str
    seeds: tuple[int, ...]
    records: tuple[str, ...]

    @property
    def is_baseline(self) -> bool:
        return self.role == "baseline"

    @property
    def cells(self) -> tuple[str, ...]:
        return (
            f"{self.arm} (baseline)" if self.is_baseline else self.arm,
            self.labels,
            self.loss,
            plus_minus(self.final) if self.final else "failed",
            interval(self.final),
            self.seed_count,
            plus_minus(self.best_test),
            str(self.epochs),
            *(
                human_bytes(size) if self.final else NO_VALUE  # no record tells what it was trained on
                for size in (self.bytes.images, self.bytes.labels, self.bytes.labeler, self.bytes.total)
            ),
            duration(self.train_seconds),
        )


@dataclass(frozen=True, kw_only=True)
class VerdictRow:
    """One paired comparison; `cells` is the row as text, under `VERDICT_COLUMNS`."""

    arm: str
    against: str
    difference: Score | None
    verdict: str

    @property
    def cells(self) -> tuple[str, ...]:
        difference = self.difference
        if difference is None:
            return (self.arm, self.against, NO_VALUE, NO_VALUE, "0", self.verdict)
        low, high = difference.low, difference.high
        shown = NO_VALUE if low is None or high is None else f"{points(low)} to {points(high)}"
        return (self.arm, self.against, points(difference.mean), shown, str(difference.n), self.verdict)


def result_table(meta: Mapping[str, Any], train_seconds: Mapping[str, float] | None = None) -> list[ResultRow]:
    """One row per arm, in the study's order. `train_seconds` are per arm name, from the run records.

    Raises:
        StoreError: `meta` is no study manifest.
    """
    seconds = train_seconds or {}
    return [result_row(arm, seconds.get(arm.name)) for arm in parse_facts(meta).arms]


def result_row(arm: Arm, train_seconds: float | None) -> ResultRow:
    """The row of one arm."""
    return ResultRow(
        arm=arm.name,
        set=arm.set,
        role=arm.role,
        labels=arm.labels,
        loss=arm.loss,
        final=arm.final,
        best_test=arm.best_test,
        epochs=arm.epochs,
        bytes=arm.bytes,
        train_seconds=train_seconds,
        note=arm_note(arm),
        seed_count=seed_count(arm),
        seeds=arm.seeds,
        records=arm.records,
    )


def verdict_table(meta: Mapping[str, Any]) -> list[VerdictRow]:
    """One row per comparison, in the study's order.

    Raises:
        StoreError: `meta` is no study manifest.
    """
    return [verdict_row(comparison) for comparison in parse_facts(meta).comparisons]


def verdict_row(comparison: Comparison) -> VerdictRow:
    """The row of one comparison."""
    return VerdictRow(
        arm=comparison.arm,
        against=comparison.against,
        difference=comparison.difference,
        verdict=comparison.verdict,
    )


def regime_table(meta: Mapping[str, Any]) -> list[RegimeRow]:
    """The arms of a study of bytes of which no seed failed, by their bytes, beside what full labels make of them.

    None for other studies, and none for baselines.

    Raises:
        StoreError: `meta` is no study manifest.
    """
    return regime_rows(parse_facts(meta).regimes)


def markdown_table(meta: Mapping[str, Any], train_seconds: Mapping[str, float] | None = None) -> str:
    """The result table and, where there are some, label regimes by their bytes and the verdicts, as Markdown."""
    results = [row.cells for row in result_table(meta, train_seconds)]
    tables = [_markdown(RESULT_COLUMNS, results, left=3)]
    if regimes := regime_table(meta):
        notes = markdown_text(" ".join(regime_notes(regimes)))
        tables += [f"What the bytes buy: {notes}\n", _markdown(REGIME_COLUMNS, [row.cells for row in regimes], left=4)]
    if verdicts := [row.cells for row in verdict_table(meta)]:
        tables.append(_markdown(VERDICT_COLUMNS, verdicts, left=2))
    return "\n".join(tables)


def csv_table(meta: Mapping[str, Any], train_seconds: Mapping[str, float] | None = None) -> str:
    """One line per arm, for machines: accuracies as fractions with all their digits, bytes, seconds."""
    buffer = io.StringIO()
    lines = [_csv_row(row) for row in result_table(meta, train_seconds)]
    writer = csv.DictWriter(buffer, list(_CSV_COLUMNS), lineterminator="\n")
    writer.writeheader()
    writer.writerows(lines)
    return buffer.getvalue()


_CSV_COLUMNS = (
    *("arm", "set", "role", "labels", "loss", "epochs", "n", "seeds"),
    *(f"{which}_{part}" for which in ("final", "best_test") for part in ("mean", "std", "low", "high")),
    *(
        "images_bytes",
        "labels_bytes",
        "labeler_bytes",
        "public_bytes",
        "total_bytes",
        "train_seconds",
        "note",
        "records",
    ),
)


def _csv_row(row: ResultRow) -> dict[str, Any]:
    return {
        "arm": csv_text(row.arm),
        "set": csv_text(row.set or ""),
        "role": csv_text(row.role),
        "labels": csv_text(row.labels),
        "loss": csv_text(row.loss),
        "epochs": row.epochs,
        "n": row.final.n if row.final else 0,
        "seeds": " ".join(str(seed) for seed in row.seeds),
        **_csv_score("final", row.final),
        **_csv_score("best_test", row.best_test),
        "images_bytes": row.bytes.images,
        "labels_bytes": row.bytes.labels,
        "labeler_bytes": row.bytes.labeler,
        "public_bytes": row.bytes.public,
        "total_bytes": row.bytes.total,
        "train_seconds": row.train_seconds,
        "note": csv_text(row.note),
        "records": " ".join(row.records),
    }


def _csv_score(name: str, score: Score | None) -> dict[str, float | None]:
    parts = ("mean", "std", "low", "high")
    return {f"{name}_{part}": getattr(score, part) if score else None for part in parts}


def csv_text(text: str) -> str:
    """`text` for a cell that a spreadsheet may open."""
    # A spreadsheet runs a cell that begins like a formula; a quote in front makes it text.
    return f"'{text}" if text.startswith(("=", "+", "-", "@", "\t", "\r")) else text


def _markdown(columns: Sequence[str], rows: Sequence[Sequence[str]], left: int) -> str:
    rule = ["---" if position < left else "---:" for position in range(len(columns))]
    lines = [columns, rule, *([markdown_text(cell) for cell in row] for row in rows)]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


def markdown_text(text: str) -> str:
    """`text` with the characters that Markdown or HTML would read as markup made harmless, on one line."""
    escaped = text.replace("\\", "\\\\").replace("&", "&amp;").replace("<", "&lt;")
    for character in "|`*[]":
        escaped = escaped.replace(character, f"\\{character}")
    return " ".join(escaped.split())
