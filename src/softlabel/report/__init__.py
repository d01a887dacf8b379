"""Studies as reports: one HTML file that opens offline, CSV, Markdown, rows for a console. Never trains."""

from softlabel.report._facts import ArmBytes, Score
from softlabel.report._frontier import REGIME_COLUMNS, RegimeRow, regime_notes
from softlabel.report._headline import headline
from softlabel.report._page import render_html
from softlabel.report._tables import (
    RESULT_COLUMNS,
    VERDICT_COLUMNS,
    ResultRow,
    VerdictRow,
    csv_table,
    markdown_table,
    regime_table,
    result_table,
    verdict_table,
)
from softlabel.report._write import ReportFiles, write_report

__all__ = [
    "REGIME_COLUMNS",
    "RESULT_COLUMNS",
    "VERDICT_COLUMNS",
    "ArmBytes",
    "RegimeRow",
    "ReportFiles",
    "ResultRow",
    "Score",
    "VerdictRow",
    "csv_table",
    "headline",
    "markdown_table",
    "regime_notes",
    "regime_table",
    "render_html",
    "result_table",
    "verdict_table",
    "write_report",
]
