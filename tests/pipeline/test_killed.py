"""A killed or interrupted run goes on where it was: nothing is lost, nothing is trained twice."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from softlabel.store import read_artifact

PATIENCE = 120.0
EPOCHS = 40
Files = Callable[[Path], dict[str, int]]


def begin(words: tuple[str | Path, ...]) -> subprocess.Popen[str]:
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    return subprocess.Popen(
        [sys.executable, "-m", "softlabel", *(str(word) for word in words)],
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def stop(process: subprocess.Popen[str], when: Callable[[], bool], how: signal.Signals) -> str:
    """Wait for `when`, send the signal, and return what the process said on stderr."""
    deadline = time.monotonic() + PATIENCE
    try:
        while not when():
            assert process.poll() is None, f"ended too soon: {process.communicate()}"
            assert time.monotonic() < deadline, "took too long"
            time.sleep(0.005)
        process.send_signal(how)
        return process.communicate(timeout=PATIENCE)[1]
    finally:
        process.kill()
        process.wait()


def records(store: Path) -> dict[str, str]:
    """Every record but for its times."""
    found = {}
    for file in (store / "records").glob("*.json"):
        record = json.loads(file.read_text())
        found[file.stem] = json.dumps({key: value for key, value in record.items() if key != "timing"}, sort_keys=True)
    return found


def half_done(quick: tuple[Path, Any], store: Path) -> Path:
    """A store in which all is done but the students on distilled sets."""
    source = quick[0]
    for kind in ("teachers", "distilled"):
        shutil.copytree(source / kind, store / kind)
    (store / "records").mkdir()
    for file in (source / "records").glob("*.json"):
        if json.loads(file.read_text())["arm"]["method"] == "full":
            shutil.copy2(file, store / "records")
    assert len(list((store / "records").iterdir())) == 1
    return store


@pytest.fixture(scope="module")
def unbroken(
    quick: tuple[Path, Any], softlabel: Any, small: tuple[str, ...], tmp_path_factory: pytest.TempPathFactory
) -> tuple[dict[str, str], Any]:
    """The records and the study of a run that nobody disturbed."""
    store = half_done(quick, tmp_path_factory.mktemp("unbroken"))
    said = softlabel(*command(store, small), "--json")
    return records(store), said.json


def command(store: Path, small: tuple[str, ...]) -> tuple[str | Path, ...]:
    return ("run", "digits-quick", "--epochs", str(EPOCHS), "--seeds", "1", *small, "--store", store)


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGINT, signal.SIGTERM], ids=lambda how: how.name)
def test_a_run(
    how: signal.Signals,
    quick: tuple[Path, Any],
    unbroken: tuple[dict[str, str], Any],
    softlabel: Any,
    small: tuple[str, ...],
    tmp_path: Path,
    files_in: Files,
) -> None:
    store = half_done(quick, tmp_path)
    words = command(store, small)
    process = begin(words)
    said = stop(process, lambda: len(list((store / "records").glob("*.json"))) >= 3, how)
    if how is not signal.SIGKILL:
        assert process.returncode == 130
        assert "interrupted: finished work is kept; run the same command again" in said
        assert "Traceback" not in said
    else:
        assert process.returncode == -signal.SIGKILL
    kept = records(store)  # every record that is visible is whole
    assert 3 <= len(kept) < 7
    assert not (store / "studies").exists()
    before = {name: when for name, when in files_in(store).items() if "/." not in f"/{name}"}

    again = softlabel(*words, "--json")
    assert again.code == 0, again.err
    after = files_in(store)
    assert {name: after[name] for name in before} == before  # neither written nor trained again
    assert records(store) == unbroken[0]
    paths = ("study", "report", "table", "command")
    mine, theirs = ({key: value for key, value in study.items() if key not in paths}
                    for study in (again.json, unbroken[1]))  # fmt: skip
    assert mine == theirs
    assert [path.name for path in store.rglob(".*") if path.name.endswith(".safetensors")] == []


def test_a_teacher(made: Any, softlabel: Any, small: tuple[str, ...], tmp_path: Path, files_in: Files) -> None:
    words = (
        "teach", "--data", made.data, "--arch", "convnet-2:width=16", "--epochs", "20", "--batch", "8", *small,
    )  # fmt: skip
    broken, whole = tmp_path / "broken", tmp_path / "whole"
    process = begin((*words, "--store", broken))
    stop(process, lambda: len(list(broken.rglob("epochs/*.safetensors"))) >= 4, signal.SIGKILL)
    assert process.returncode == -signal.SIGKILL
    [partial] = (broken / "teachers").iterdir()
    assert partial.name.startswith(".")  # what is half-made is not visible
    early = {name: when for name, when in files_in(partial).items() if name.startswith("epochs/00")}
    assert len(early) >= 4

    teachers = [Path(softlabel(*words, "--store", store, "--json").json["teacher"]) for store in (broken, whole)]
    after = files_in(teachers[0])
    # The epoch that was being written may be written again; those before it are not.
    assert [name for name, when in sorted(early.items())[1:-1] if after[name] != when] == []
    assert [path.name for path in (broken / "teachers").iterdir()] == [teachers[0].name]
    first, second = (read_artifact(path, "teacher") for path in teachers)
    assert first.files.keys() == second.files.keys()
    for name in first.names("epochs/"):
        one, other = first.tensors(name), second.tensors(name)
        assert all(torch.equal(one[key], other[key]) for key in one), name
    assert first.meta["curve"] == second.meta["curve"]
