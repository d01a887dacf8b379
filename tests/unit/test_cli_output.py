"""What the command line prints, and the small pieces that it parses."""

import io
import json
import os
import re
import shlex
import signal
import subprocess
import sys
import time
import warnings
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from softlabel.cli import _interruptions_not_lost, main
from softlabel.cli._options import Data, Machine, Session, Teachers
from softlabel.cli._output import ConsoleProgress, print_json, print_table
from softlabel.core import ConfigError, SoftlabelWarning, StoreError
from softlabel.data import load_dataset
from softlabel.evaluation import DataOptions
from softlabel.report import ReportFiles


@pytest.fixture(autouse=True)
def nobodys_folders(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for variable in ("SOFTLABEL_CACHE", "SOFTLABEL_DATA", "SOFTLABEL_STORE"):
        monkeypatch.setenv(variable, str(tmp_path / variable.lower()))


@pytest.mark.parametrize(
    ("text", "size"),
    [(None, None), ("64", (64, 64)), ("48x64", (48, 64)), ("48X64", (48, 64)), ("1x1", (1, 1))],
)
def test_image_sizes(text: str | None, size: tuple[int, int] | None) -> None:
    assert Data(data="digits", image_size=text).options().image_size == size


@pytest.mark.parametrize("text", ["", "x", "x64", "a", "64x64x64", "-64", "6.4", "64 x 64", "²", "64x²", "64,64"])
def test_image_sizes_that_cannot_be_read(text: str) -> None:
    with pytest.raises(ConfigError, match="--image-size must look like 64x64"):
        Data(data="digits", image_size=text).options()


def test_the_data_of_an_artifact_are_the_default() -> None:
    info = load_dataset("digits", image_size=(10, 12), selection=0.1).info
    before = DataOptions(spec="digits", image_size=(10, 12), selection=0.1)
    assert Data().options(info) == before
    assert Data(image_size="9x9", channels=3).options(info) == replace(before, image_size=(9, 9), channels=3)
    assert Data(data="cifar10").options(info) == DataOptions(spec="cifar10")
    with pytest.raises(ConfigError, match="Which data"):
        Data().options()


def test_the_command_can_be_typed_again() -> None:
    words = ("train", "my set", "--loss", "kl:temperature=4", "--data", "imagefolder:it's here")
    command = Session(words, ConsoleProgress()).command
    assert tuple(shlex.split(command)) == ("softlabel", *words)


def test_stores(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert Machine(store=tmp_path).open_store().root == tmp_path
    assert Machine(dry_run=True).open_store().root == tmp_path / "softlabel_store"
    monkeypatch.delenv("SOFTLABEL_STORE")
    assert Machine(dry_run=True).open_store().root == Path("softlabel-store")
    fresh = Machine(store=tmp_path, resume=False, dry_run=True)
    assert fresh.open_store().root == tmp_path / "again-1"
    assert list(tmp_path.iterdir()) == []  # neither a dry run nor the look whether one may write leaves anything
    (tmp_path / "again-1").mkdir()
    (tmp_path / "again-3").mkdir()
    assert fresh.open_store().root == tmp_path / "again-2"
    with pytest.raises(ConfigError, match=r"again-3 is there already\. Choose another --out"):
        fresh.open_store(tmp_path / "again-3")


def test_a_store_that_cannot_be_written_is_refused_before_work() -> None:
    with pytest.raises(StoreError, match=r"/proc/nowhere.* cannot be written"):
        Machine(store=Path("/proc/nowhere")).open_store()


def test_no_teachers_are_no_teachers() -> None:
    assert Teachers().load() == []


# Printing.


def test_a_table_in_a_pipe_keeps_every_cell(capsys: pytest.CaptureFixture[str]) -> None:
    rows = [(f"rded:factor={n} / gift", *(f"{n}{column}.5 %" for column in range(8))) for n in range(3)]
    print_table("Results [bold]", ("arm", *(f"a long column {c}" for c in range(8))), rows, numbers=8)
    out = capsys.readouterr().out
    assert "Results [bold]" in out
    assert all(cell in out for row in rows for cell in row)
    assert "\x1b" not in out


def test_heads_of_numbers_are_folded_in_a_terminal(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in (("FORCE_COLOR", "1"), ("COLUMNS", "60"), ("TERM", "xterm")):
        monkeypatch.setenv(name, value)
    monkeypatch.delenv("NO_COLOR", raising=False)
    names, cells = ("gift on random images", "ce on random images"), ("93.7 to 98.6", "104", "1.15 MB")
    columns = ("arm", "95 % interval of that", "times fewer bytes", "labels and labeler")
    print_table("T", columns, [(name, *cells) for name in names], numbers=3)
    out = re.sub("\x1b[^m]*m", "", capsys.readouterr().out)
    assert all(text in out for text in (*names, *cells, "95 %", "interval of", "labeler"))  # none cut short or folded
    assert max(map(len, out.splitlines())) <= 60


def test_square_brackets_are_not_markup(capsys: pytest.CaptureFixture[str]) -> None:
    print_table("[b]t[/b]", ("[red]a[/red]",), [("[bold]x[/bold] \\[z] my.kit:bee:n=1",)])
    out = capsys.readouterr().out
    assert all(text in out for text in ("[b]t[/b]", "[red]a[/red]", "[bold]x[/bold] \\[z] my.kit:bee:n=1"))


def test_json_is_one_document(capsys: pytest.CaptureFixture[str]) -> None:
    print_json({"path": Path("a/b"), "numbers": (1, 2.5, None, True), "text": "ü"})
    assert json.loads(capsys.readouterr().out) == {"path": "a/b", "numbers": [1, 2.5, None, True], "text": "ü"}


def test_progress_in_a_pipe_is_plain_lines_on_stderr(capsys: pytest.CaptureFixture[str]) -> None:
    progress = ConsoleProgress()
    progress.start("students [3] :bee:", 2)
    for _ in range(2):
        progress.start("one student", 5)
        for step in range(5):
            progress.advance(note=f"loss {step}")
        progress.finish()
        progress.advance(note="done")
    progress.finish("all [well]")
    progress.close()
    said = capsys.readouterr()
    assert said.out == ""
    assert said.err.splitlines() == [
        "  one student: 5/5, loss 4",
        "  one student: 5/5, loss 4",
        "students [3] :bee:: 2/2, done",
        "all [well]",
    ]


def test_progress_in_a_pipe_says_something_now_and_then(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("softlabel.cli._output.PLAIN_SECONDS", 0.0)
    progress = ConsoleProgress()
    progress.start("work", 1000)
    progress.advance(3)
    progress.advance(0)  # nothing new, nothing said
    progress.advance(4, note="on the way")
    assert capsys.readouterr().err.splitlines() == ["work: 3/1000", "work: 7/1000, on the way"]


# Ends.


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_progress_in_a_terminal_is_cleared_after_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    screen = Terminal()
    monkeypatch.setattr(sys, "stderr", screen)
    monkeypatch.setenv("TERM", "xterm")
    progress = ConsoleProgress()
    assert progress.live
    progress.start("work [x]", 10)
    progress.advance(2, note="[y] :bee:")
    progress.bars.refresh()
    progress.close()
    assert "\x1b[?25h" in screen.getvalue()  # the cursor is shown again
    assert not progress.bars.live.is_started
    assert "work [x]" in screen.getvalue()
    assert "[y] :bee:" in screen.getvalue()


@pytest.mark.filterwarnings("always")
def test_a_warning_is_a_line_on_stderr(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    def warn(self: Any, session: Any) -> None:
        warnings.warn("the teacher is weak", SoftlabelWarning, stacklevel=1)

    monkeypatch.setattr("softlabel.cli._lists.Ls.run", warn)
    shown = warnings.showwarning
    assert main(["ls"]) == 0
    assert capsys.readouterr().err.splitlines() == ["warning: the teacher is weak"]
    assert warnings.showwarning is shown


def test_an_interruption(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupt(self: Any, session: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("softlabel.cli._lists.Ls.run", interrupt)
    assert main(["ls"]) == 130
    assert "finished work is kept" in capsys.readouterr().err


def test_a_bug_is_not_hidden(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is no mistake of the user's shows where it happened."""

    def fail(self: Any, session: Any) -> None:
        raise RuntimeError("a bug")

    monkeypatch.setattr("softlabel.cli._lists.Ls.run", fail)
    with pytest.raises(RuntimeError, match="a bug"):
        main(["ls"])


def test_progress_in_a_pipe_tells_the_time_left(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = [0.0]
    monkeypatch.setattr("softlabel.cli._output.time.monotonic", lambda: clock[0])
    progress = ConsoleProgress()
    progress.start("work", 100)
    clock[0] = 0.5
    progress.advance(40)  # found, not done: it tells nothing of the pace
    for step in range(10):
        clock[0] = 2.0 + 2.0 * step
        progress.advance(note="busy")
    progress.finish()
    # 40 steps by 0.5 s, then one every two seconds, the first after 1.5 s.
    assert capsys.readouterr().err.splitlines() == [
        "work: 45/100, busy, 1 min 44 s left",
        "work: 50/100, busy, 1 min 37 s left",
    ]


def test_a_report_path_stays_on_one_line(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    html = tmp_path / ("long" * 50) / "report.html"
    files = ReportFiles(html=html, csv=html, markdown=html, cells=html)
    monkeypatch.setattr("softlabel.cli._run.write_report", lambda study, out: files)
    assert main(["report", "anything"]) == 0
    assert capsys.readouterr().out.splitlines() == [f"report: {html}"]


def run_module(*words: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "softlabel", *words],
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        timeout=120,
    )


def test_as_a_module_in_a_poor_terminal() -> None:
    done = run_module("ls", "protocols", PYTHONIOENCODING="ascii", PYTHONWARNINGS="error")
    assert (done.returncode, done.stderr) == (0, "")
    assert "no-distillation" in done.stdout
    assert done.stdout.isascii()


@pytest.mark.parametrize("words", [("ls", "protocols", "--json"), ("train", "--help"), ("--version",)])
def test_a_reader_that_goes_away(words: tuple[str, ...]) -> None:
    """softlabel ls ... | head -0"""
    reading, writing = os.pipe()
    os.close(reading)
    with os.fdopen(writing, "w") as pipe:
        done = subprocess.run(
            [sys.executable, "-m", "softlabel", *words],
            stdout=pipe,
            stderr=subprocess.PIPE,
            text=True,
            timeout=120,
        )
    assert done.returncode == 141
    assert done.stderr == ""


@pytest.mark.parametrize(
    "error",
    [
        MemoryError(),
        torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB"),
        RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory: you tried to allocate 9 bytes."),
    ],
)
def test_no_memory_is_said_in_one_sentence(
    error: BaseException, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(self: Any, session: Session) -> None:
        raise error

    monkeypatch.setattr("softlabel.cli._lists.Ls.run", refuse)
    assert main(["ls", "losses"]) == 2
    said = capsys.readouterr().err
    assert said.startswith("error: Out of memory (")
    assert "Choose a smaller model or batch" in said
    assert said.count("\n") == 1


def test_an_interruption_while_loading_is_no_traceback() -> None:
    process = subprocess.Popen(
        [sys.executable, "-X", "importtime", "-m", "softlabel", "ls"], stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    assert process.stderr is not None
    said = b""
    while b"torch" not in said:  # importing has begun
        line = process.stderr.readline()
        assert line, "ended before torch was imported"
        said += line
    process.send_signal(signal.SIGINT)
    rest = process.communicate(timeout=60)[1]
    assert process.returncode == 130
    assert b"interrupted before any work" in rest
    assert b"Traceback" not in said + rest


def drop_an_interruption() -> None:
    class Dying:
        def __del__(self) -> None:
            raise KeyboardInterrupt

    with _interruptions_not_lost():
        victim = Dying()
        del victim  # dropped here
        deadline = time.monotonic() + 10
        while time.monotonic() < deadline:
            time.sleep(0.001)


def test_an_interruption_that_python_drops_is_raised_again() -> None:
    with pytest.raises(KeyboardInterrupt):
        drop_an_interruption()
