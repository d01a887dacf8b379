"""Writing a report's three files."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from softlabel.report._headline import headline_of
from softlabel.report._page import render
from softlabel.report._study import Study, read_study
from softlabel.report._tables import csv_table, markdown_table, markdown_text
from softlabel.store import write_bytes


@dataclass(frozen=True, kw_only=True)
class ReportFiles:
    """Where a report was written."""

    html: Path
    csv: Path
    markdown: Path


def write_report(study: Path, target: Path | None = None) -> ReportFiles:
    """Write `report.html`, `table.csv` and `table.md` for the study at `study`; each appears whole or not.

    `target` is a folder; by default `reports/<study folder's name>` in the store, because a study's own
    folder is sealed. An earlier report there is replaced.

    Raises:
        StoreError: the study or a run record is missing or damaged, or the files cannot be written.
    """
    found = read_study(study)
    folder = Path(target) if target is not None else found.root / "reports" / found.path.name
    seconds = found.train_seconds
    contents: Mapping[str, str] = {
        "report.html": render(found),
        "table.csv": csv_table(found.meta, seconds),
        "table.md": _markdown_page(found, seconds),
    }
    for name, content in contents.items():
        write_bytes(folder / name, content.encode("utf-8"))
    html, csv, markdown = (folder / name for name in contents)
    return ReportFiles(html=html, csv=csv, markdown=markdown)


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
