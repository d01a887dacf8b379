"""Writing a report's files."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from softlabel.report._cells import cell_rows, cells_csv, cells_parquet
from softlabel.report._headline import headline_of
from softlabel.report._page import render
from softlabel.report._study import Study, read_study
from softlabel.report._tables import csv_table, markdown_table, markdown_text
from softlabel.store import disk_errors, write_bytes


@dataclass(frozen=True, kw_only=True)
class ReportFiles:
    """Where a report was written. `csv` has a row per arm, `cells` one per trained student."""

    html: Path
    csv: Path
    markdown: Path
    cells: Path


def write_report(study: Path, target: Path | None = None) -> ReportFiles:
    """Write `report.html`, `table.csv`, `table.md` and `cells.csv` for the study at `study`; each appears whole or not.

    `cells.parquet` holds the same as `cells.csv`, where pyarrow is installed.

    `target` is a folder; by default `reports/<study folder's name>` in the store, because a study's own
    folder is sealed. An earlier report there is replaced.

    Raises:
        StoreError: the study or a run record is missing or damaged, or the files cannot be written.
    """
    found = read_study(study)
    folder = Path(target) if target is not None else found.root / "reports" / found.path.name
    seconds = found.train_seconds
    rows = cell_rows(found)
    contents: Mapping[str, str] = {
        "report.html": render(found),
        "table.csv": csv_table(found.meta, seconds),
        "table.md": _markdown_page(found, seconds),
        "cells.csv": cells_csv(rows),
    }
    for name, content in contents.items():
        write_bytes(folder / name, content.encode("utf-8"))
    _write_parquet(folder / "cells.parquet", cells_parquet(rows))
    html, csv, markdown, cells = (folder / name for name in contents)
    return ReportFiles(html=html, csv=csv, markdown=markdown, cells=cells)


def _write_parquet(path: Path, content: bytes | None) -> None:
    if content is not None:
        write_bytes(path, content)
        return
    # One that an earlier report left, made where pyarrow was, would tell of other numbers.
    with disk_errors(path):
        path.unlink(missing_ok=True)


def _markdown_page(study: Study, seconds: Mapping[str, float]) -> str:
    facts = study.facts
    protocol = f"{facts.protocol.name} ({facts.protocol.fingerprint})"
    lines = [
        f"# {markdown_text(facts.title)}",
        markdown_text(headline_of(facts)),
        f"Data {markdown_text(facts.info.name)}, student {markdown_text(facts.student)}, protocol "
        f"{markdown_text(protocol)}. Final accuracy is that of the last epoch on the test split; "
        f"best on test is chosen on the test split and so is optimistic.",
        markdown_table(study.meta, seconds).rstrip("\n"),
        f"Made by: {markdown_text(facts.command)}",
    ]
    return "\n\n".join(lines) + "\n"
