"""What the command line shows: progress on stderr, one small table or JSON on stdout."""

import json
import sys
import time
from collections.abc import Iterable, Sequence
from textwrap import wrap
from typing import Any

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TaskID,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from rich.table import Table
from rich.text import Text

from softlabel.core import human_bytes, human_seconds, plain
from softlabel.evaluation import PlanLine
from softlabel.training import Execution, peak_memory


def print_json(value: Any) -> None:
    """One JSON value on stdout."""
    sys.stdout.write(json.dumps(plain(value), indent=1) + "\n")


def print_table(title: str, columns: Sequence[str], rows: Iterable[Sequence[str]], numbers: int = 0) -> None:
    """A table on stdout; the last `numbers` columns are right-aligned."""
    # Text, not str: rich would read square brackets as markup, and :words: as emoji.
    table = Table(title=Text(title) if title else None, title_justify="left", title_style="bold")
    console, lines = Console(file=sys.stdout), list(rows)
    for position, column in enumerate(columns):
        right = position >= len(columns) - numbers
        folded = right and console.is_terminal
        head = _folded(column, [row[position] for row in lines]) if folded else column
        table.add_column(Text(head), justify="right" if right else "left", no_wrap=right)
    for row in lines:
        table.add_row(*(Text(cell) for cell in row))
    # A pipe has no width of its own: tables of numbers get all they need, so that no name or number is folded away.
    console.width = console.width if console.is_terminal else 10_000 if numbers else 160
    console.print(table)


def _folded(head: str, cells: Sequence[str]) -> str:
    """A column's head in as many lines as make it no wider than the column has to be."""
    width = max((len(text) for text in (*head.split(), *cells)), default=1)
    return "\n".join(wrap(head, width, break_on_hyphens=False))


def print_plan(lines: Sequence[PlanLine], execution: Execution, as_json: bool, *, report: bool = False) -> None:
    """What would be done, with the forecast of time, memory and disk.

    Args:
        report: whether there will be one.
    """
    seconds, disk = sum(line.seconds for line in lines), sum(line.disk_bytes for line in lines)
    memory = peak_memory(execution)
    if as_json:
        print_json({"plan": lines, "seconds": seconds, "disk_bytes": disk, "memory_bytes": memory, "on": execution})
        return
    rows = [
        (line.what, f"{line.done}/{line.total}", human_seconds(line.seconds), human_bytes(line.disk_bytes))
        for line in lines
    ]
    print_table("Plan", ("part", "done", "time", "disk"), rows, numbers=3)
    beside = " beside the report (5 MB)" if report else ""
    how = f"{execution.precision}{', compiled' if execution.compiled else ''}"
    print(
        f"in all about {human_seconds(seconds)} and {human_bytes(disk)} of disk{beside}, on "
        f"{execution.device} in {how}; measuring this took {human_bytes(memory)} of memory"
    )


PLAIN_SECONDS = 10.0


class ConsoleProgress:
    """Progress as bars in a terminal, as plain lines elsewhere; always on stderr."""

    def __init__(self) -> None:
        self.console = Console(stderr=True)
        self.live = self.console.is_terminal
        self.stack: list[tuple[str, TaskID | None, int]] = []
        self.done: list[int] = []
        self.began: list[float] = []
        self.pace: list[tuple[float, int]] = []  # when, and from which step on, it is measured
        self.spoken = time.monotonic()
        self.bars = Progress(
            TextColumn("{task.description}", markup=False),
            BarColumn(bar_width=24),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            TimeRemainingColumn(),
            TextColumn("{task.fields[note]}", markup=False),
            console=self.console,
            transient=True,
        )

    def start(self, what: str, total: int) -> None:
        """Work named `what` begins; it has `total` steps."""
        if self.live and not self.stack:
            self.bars.start()
        task = self.bars.add_task(what, total=total, note="") if self.live else None
        self.stack.append((what, task, total))
        self.done.append(0)
        self.began.append(time.monotonic())
        self.pace.append((time.monotonic(), 0))

    def advance(self, steps: int = 1, note: str = "") -> None:
        """`steps` more are done; plain output says so at the end of a piece of work, and every few seconds."""
        what, task, total = self.stack[-1]
        self.done[-1] += steps
        now = time.monotonic()
        if task is not None:
            self.bars.update(task, advance=steps, note=note)
            return
        left = self._left(total, now)
        if steps and (now - self.spoken >= PLAIN_SECONDS or self.done[-1] == total):
            self.spoken = now
            indent = "  " * (len(self.stack) - 1)
            parts = (f"{indent}{what}: {self.done[-1]}/{total}", note, left)
            self._line(", ".join(part for part in parts if part))

    def finish(self, summary: str = "") -> None:
        """The innermost work ended."""
        _, task, _ = self.stack.pop()
        self.done.pop()
        self.began.pop()
        self.pace.pop()
        if task is not None:
            self.bars.remove_task(task)
        if summary:
            self._line(summary)
        if self.live and not self.stack:
            self.bars.stop()

    def _left(self, total: int, now: float) -> str:
        """The time left at the pace so far. Steps of the first second, such as work that was found, do not count."""
        done = self.done[-1]
        if now - self.began[-1] < 1.0:
            self.pace[-1] = (now, done)
        began, first = self.pace[-1]
        return f"{human_seconds((now - began) / (done - first) * (total - done))} left" if first < done < total else ""

    def close(self) -> None:
        """Leave the terminal clean after an error or an interruption."""
        if self.live:
            self.bars.stop()

    def _line(self, text: str) -> None:
        self.console.print(Text(text), highlight=False, soft_wrap=True)
