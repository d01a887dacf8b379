"""`runs/paired.py`: arms of two studies compared seed by seed, and what the pages say of such."""

import runpy
from collections.abc import Callable
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
OFFSET = "random, IPC 10 / + an offset per image / online / gift"
LOW_RANK = "random, IPC 10 / + low-rank updates / online / gift"


@pytest.fixture(scope="module")
def paired() -> Callable[[list[str]], None]:
    main: Callable[[list[str]], None] = runpy.run_path(str(ROOT / "runs" / "paired.py"))["main"]
    return main


def cells(path: Path, *rows: str) -> str:
    path.write_text("\n".join(("arm,seed,final", *rows)))
    return str(path)


def test_seeds_are_paired_whatever_their_order(
    tmp_path: Path, paired: Callable[[list[str]], None], capsys: pytest.CaptureFixture[str]
) -> None:
    one = cells(tmp_path / "one.csv", "a,0,0.5", "a,1,0.7", "a,2,0.3", "b,0,0.9")
    two = cells(tmp_path / "two.csv", "c,2,0.26", "c,1,0.67", "c,0,0.48")
    paired([one, two, "a", "c"])  # 2, 3 and 4 points: mean 3, standard error 1 / sqrt(3), t 4.3027
    assert capsys.readouterr().out == "+3.00 points (+0.52 to +5.48), 3 seeds: better\n"
    paired([two, one, "c", "a"])
    assert capsys.readouterr().out == "-3.00 points (-5.48 to -0.52), 3 seeds: worse\n"


@pytest.mark.parametrize(
    ("first", "second", "arm", "said"),
    [
        ("tiny200-class", "tiny200", LOW_RANK, "+0.2 -0.4 +0.9"),
        ("tiny200-longer", "tiny200-offset", OFFSET, "+0.4 -0.6 +1.3"),
        ("tiny200-refit", "tiny200-offset", OFFSET, "-0.1 -0.7 +0.6"),
        ("tiny200-clip-longer", "tiny200-clip", OFFSET, "+0.9 +0.7 +1.2"),
        ("tiny200-clip-longer", "tiny200-offset", OFFSET, "-0.5 -0.9 -0.0"),
    ],
)
def test_what_the_page_of_bytes_says_across_studies(
    paired: Callable[[list[str]], None],
    capsys: pytest.CaptureFixture[str],
    first: str,
    second: str,
    arm: str,
    said: str,
) -> None:
    paired([*(str(ROOT / "results" / f"lab-hello-{name}" / "cells.csv") for name in (first, second)), arm])
    mean, _, low, _, high = capsys.readouterr().out.replace("(", "").replace(")", "").replace(",", "").split()[:5]
    assert f"{float(mean):+.1f} {float(low):+.1f} {float(high):+.1f}" == said


def test_what_cannot_be_compared_is_told(tmp_path: Path, paired: Callable[[list[str]], None]) -> None:
    one = cells(tmp_path / "one.csv", "a,0,0.5", "a,1,0.7", "b,0,0.9", "f,0,")
    for arguments, told in (
        ([one, one], "python runs/paired.py"),
        ([one, str(tmp_path / "none.csv"), "a"], "none.csv is not a report's cells.csv .FileNotFoundError"),
        ([one, str(ROOT / "README.md"), "a"], "README.md is not a report's cells.csv"),
        ([one, one, "a", "A"], "one.csv has no arm 'A'. It has:\n  a\n  b"),
        ([one, one, "a", "b"], r"other seeds: \[0, 1\] and \[0\]"),
        ([one, one, "f"], "Seeds of 'f' in .* failed"),
    ):
        with pytest.raises(SystemExit, match=told):
            paired(arguments)
