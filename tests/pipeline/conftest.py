"""The command line in this process, a small folder of pictures, and one artifact of each kind made from it."""

import contextlib
import io
import json
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from softlabel.cli import main

SIZE = 12
CLASSES = ("ant", "bee", "cat")
SMALL = ("--device", "cpu", "--precision", "fp32")


@dataclass(frozen=True)
class Said:
    """What a command printed, and its exit status."""

    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        """Standard output as exactly one JSON document."""
        assert self.out, (self.code, self.err)
        return json.loads(self.out)

    @property
    def error(self) -> str:
        """The one line that says what is wrong."""
        lines = [line for line in self.err.splitlines() if line.startswith("error: ")]
        assert len(lines) == 1, self.err
        assert self.err.rstrip().endswith(lines[0]), self.err
        assert "Traceback" not in self.err
        return lines[0]


Command = Callable[..., Said]


def run(*words: str | Path) -> Said:
    """`softlabel WORDS` in this process."""
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        try:
            code = main([str(word) for word in words])
        except SystemExit as stop:  # tyro leaves this way for --help and for words it does not know
            code = stop.code if isinstance(stop.code, int) else 1
    return Said(code, out.getvalue(), err.getvalue())


@pytest.fixture(scope="session")
def softlabel() -> Command:
    """Runs a command; see `Said`."""
    return run


@pytest.fixture(scope="session", autouse=True)
def quiet_machine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """One thread, which such small work is fastest with, and nobody's cache, data or store."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    home = tmp_path_factory.mktemp("home")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SOFTLABEL_CACHE", str(home / "cache"))
        patch.setenv("SOFTLABEL_DATA", str(home / "data"))
        patch.setenv("SOFTLABEL_STORE", str(home / "store"))
        patch.setenv("OMP_NUM_THREADS", "1")
        patch.setenv("COLUMNS", "160")
        yield
    torch.set_num_threads(threads)


def draw(folder: Path, per_class: int, names: tuple[str, ...] = CLASSES, size: int = SIZE) -> Path:
    """Class folders of PNG files: each class is bright in its own colour and place."""
    draws = np.random.default_rng(len(names) * 1000 + per_class)
    for index, name in enumerate(names):
        (folder / name).mkdir(parents=True)
        for number in range(per_class):
            pixels = draws.integers(0, 120, (size, size, 3))
            pixels[index * 2 : index * 2 + 5, :, index % 3] += 100
            Image.fromarray(pixels.astype(np.uint8)).save(folder / name / f"{number:02d}.png")
    return folder


@pytest.fixture(scope="session")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three classes, 12 px, colour: 20 training and 10 test images per class."""
    folder = tmp_path_factory.mktemp("pictures")
    draw(folder / "train", 20)
    draw(folder / "test", 10)
    return folder


@dataclass(frozen=True)
class Made:
    """One artifact of each kind, made by the command line."""

    store: Path
    data: str
    teacher: Path
    random: Path
    rded: Path
    labels: Path


def make_all(store: Path, pictures: Path) -> Made:
    data = f"imagefolder:{pictures}"
    here = (*SMALL, "--store", store, "--json")
    teach = run("teach", "--data", data, "--arch", "convnet-2:width=8", "--epochs", "2", "--batch", "16", *here)
    teacher = teach.json["teacher"]
    common = ("distill", "--data", data, "--ipc", "2", "--teacher", teacher, *here)
    random, rded = (
        run(*common, "--method", method).json["distilled"] for method in ("random", "rded:factor=2,crops=3")
    )
    labels = run("label", rded, "--teacher", teacher, *here).json["labels"]
    return Made(store, data, *(Path(path) for path in (teacher, random, rded, labels)))


@pytest.fixture(scope="session")
def made(tmp_path_factory: pytest.TempPathFactory, pictures: Path, quiet_machine: None) -> Made:
    """Shared by many tests: read it, do not change it."""
    return make_all(tmp_path_factory.mktemp("made") / "store", pictures)


@pytest.fixture(scope="session")
def quick(tmp_path_factory: pytest.TempPathFactory, quiet_machine: None) -> tuple[Path, Said]:
    """`softlabel run digits-quick` with few epochs and one seed: its store, and what it said."""
    store = tmp_path_factory.mktemp("quick") / "store"
    return store, run("run", "digits-quick", "--epochs", "2", "--seeds", "1", *SMALL, "--store", store)


def listing(folder: Path) -> dict[str, int]:
    """Every file under `folder`, hidden ones too, with the time it was written."""
    return {
        str(Path(root, name).relative_to(folder)): Path(root, name).stat().st_mtime_ns
        for root, _, names in os.walk(folder)
        for name in names
    }


@pytest.fixture(scope="session")
def files_in() -> Callable[[Path], dict[str, int]]:
    return listing


@pytest.fixture(scope="session")
def draw_pictures() -> Callable[..., Path]:
    return draw


@pytest.fixture(scope="session")
def small() -> tuple[str, ...]:
    """Options that settle device and precision."""
    return SMALL
