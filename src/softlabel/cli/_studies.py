"""How commands that train students end: the tables of their study, its findings, and where it is."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from softlabel.cli._output import print_json, print_table
from softlabel.core import count_of
from softlabel.lab import choices
from softlabel.report import (
    REGIME_COLUMNS,
    RESULT_COLUMNS,
    VERDICT_COLUMNS,
    RegimeRow,
    headline,
    regime_notes,
    regime_table,
    result_table,
    verdict_table,
    write_report,
)
from softlabel.store import read_artifact


def show_study(study: Path, as_json: bool) -> bool:
    """Write the report, and end with the result table, the verdicts and the report's path.

    Returns:
        whether every student of the study was trained.
    """
    files = write_report(study)
    meta = read_artifact(study, "study").meta
    if as_json:
        print_json({"study": str(study), "report": str(files.html), "table": str(files.csv), **meta})
        return not any(arm.get("failed") for arm in meta["arms"])
    shown = [column for column in RESULT_COLUMNS if column not in ("labels", "loss", "train time")]
    keep = [RESULT_COLUMNS.index(column) for column in shown]
    rows = [tuple(row.cells[position] for position in keep) for row in result_table(meta)]
    print_table(meta["title"], shown, rows, numbers=len(shown) - 1)
    _show_regimes(regime_table(meta))
    if meta["comparisons"]:
        print_table("Paired by seed", VERDICT_COLUMNS, [row.cells for row in verdict_table(meta)])
    _show_choices(meta)
    print(headline(meta))
    _show_failures(meta)
    print(f"study:  {study}")
    print(f"report: {files.html}")
    return not any(arm.get("failed") for arm in meta["arms"])


def _show_regimes(regimes: Sequence[RegimeRow]) -> None:
    """What is kept of full labels' accuracy, for which bytes; accuracies and totals are in the result table above."""
    if not regimes:
        return
    named = {"set": {row.set for row in regimes}, "who labels": {row.teacher for row in regimes} - {""},
             "loss": {row.loss for row in regimes}}  # fmt: skip
    told = {"accuracy, %", "total", *(column for column, values in named.items() if len(values) < 2)}
    keep = [position for position, column in enumerate(REGIME_COLUMNS) if column not in told]
    rows = [[row.cells[position] for position in keep] for row in regimes]
    print_table("What the bytes buy", [REGIME_COLUMNS[position] for position in keep], rows, numbers=4)
    print(" ".join(regime_notes(regimes)))


def _show_choices(meta: dict[str, Any]) -> None:
    rows = [
        (one.set, one.loss, ", ".join(one.chosen), f"{100 * one.accuracy:.1f}", f"{100 * one.best_accuracy:.1f}")
        for one in choices(meta)
    ]
    if rows:
        columns = ("set", "loss", "chosen on the selection split", "accuracy, %", "best on test, %")
        print_table("What would have been chosen", columns, rows, numbers=2)


def _show_failures(meta: dict[str, Any]) -> None:
    failed = [(arm["name"], entry["seed"], entry["error"]) for arm in meta["arms"] for entry in arm.get("failed", ())]
    for name, seed, error in failed:
        print(f"failed: {name}, seed {seed}: {error}")
    if failed:
        print(f"{count_of(len(failed), 'student')} failed. To train them again: the same command with --retry")
