"""README's code runs as written: Python blocks in this process, softlabel lines through the command line."""

import re
import shlex
from pathlib import Path

import pytest

from softlabel.cli import main

README = Path(__file__).parents[2] / "README.md"


def blocks(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", README.read_text(encoding="utf-8"), flags=re.DOTALL)


@pytest.fixture
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("SOFTLABEL_CACHE", str(tmp_path / "cache"))
    monkeypatch.delenv("SOFTLABEL_STORE", raising=False)
    return tmp_path


def test_python_blocks_run(elsewhere: Path, capsys: pytest.CaptureFixture[str]) -> None:
    python = blocks("python")
    assert len(python) == 2
    for block in python:
        exec(compile(block, "README.md", "exec"), {})
    printed = capsys.readouterr().out
    assert [line.split()[0] for line in printed.splitlines()] == ["ce", "kl", "gift"]


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # of diffusers, under numpy 2
def test_softlabel_lines_run(elsewhere: Path, capsys: pytest.CaptureFixture[str]) -> None:
    lines = [
        line.partition("#")[0].strip()
        for block in blocks("sh")
        for line in block.splitlines()
        if line.startswith("softlabel ")
    ]
    assert {line.split()[1] for line in lines} >= {"teach", "distill", "label", "train", "evaluate", "run", "ls"}
    for line in lines:
        assert main(shlex.split(line)[1:]) == 0, line
    out = capsys.readouterr().out
    assert "report.html" in out
    assert (elsewhere / "work" / "rded" / "manifest.json").exists()


def test_links_lead_somewhere() -> None:
    for page in [README, *sorted((README.parent / "docs").rglob("*.md"))]:
        for target in re.findall(r"\]\(([^)#:]+)\)", page.read_text(encoding="utf-8")):
            assert (page.parent / target).exists(), f"{page.name} links to {target}, which does not exist"
