"""`softlabel grid`: every study in a tiny setting, its plan, its mistakes, and a grid that is killed."""

import html
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from softlabel.recipes import STUDIES

PATIENCE = 120.0
TINY = ("--quick", "--data", "digits", "--arch", "convnet-2:width=8", "--teacher-epochs", "2", "--ipc", "1",
        "--epochs", "2", "--seeds", "1")  # fmt: skip
Files = Callable[[Path], dict[str, int]]

# study -> (further options, the number of arms, of records, and the axes that vary)
RUNS: dict[str, tuple[tuple[str, ...], int, int, set[str]]] = {
    "losses": (("--methods", "random", "herding"), 2 * 9, 2 * 9, {"set", "loss"}),
    "optimizers": (("--losses", "kl", "gift"), 5 * 2, 5 * 2, {"optimizer", "loss"}),
    "architectures": (("--students", "convnet-1:width=4", "mlp:width=8"), 2 * 2, 2 * 2, {"student", "loss"}),
    "refinement": ((), 7, 7, {"loss"}),
    "teachers": (("--teacher-epochs", "3"), 4 * 2, 4 * 2, {"teacher", "loss"}),
    "continual": (("--steps", "2"), 2 * 3, 2 * 3, {"loss"}),
    "many-classes": ((), 5, 5, {"loss"}),
}


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A store in which the studies find each other's teacher and sets."""
    return tmp_path_factory.mktemp("grid") / "store"


def told(store: Path) -> dict[str, str]:
    """Records and failures, but for their times."""
    found = {}
    for kind in ("records", "failures"):
        for file in (store / kind).glob("*.json"):
            kept = json.loads(file.read_text())
            found[f"{kind} {file.stem}"] = json.dumps({k: v for k, v in kept.items() if k != "timing"}, sort_keys=True)
    return found


def test_every_study_is_tried() -> None:
    assert RUNS.keys() == STUDIES.keys()


@pytest.mark.parametrize("study", RUNS)
def test_a_study(study: str, softlabel: Any, small: tuple[str, ...], home: Path) -> None:
    options, arms, records, axes = RUNS[study]
    before = told(home)
    said = softlabel("grid", study, *TINY, *options, *small, "--store", home, "--json")
    assert said.code == 0, said.err
    meta = said.json
    assert len(meta["arms"]) == arms
    assert all("failed" not in arm for arm in meta["arms"])
    keys = {key for arm in meta["arms"] for key in arm["records"]}
    assert len(keys) == records
    assert {f"records {key}" for key in keys} <= told(home).keys()
    assert before.items() <= told(home).items()
    assert {axis for axis in axes | {"set", "student"} if len({arm["axes"][axis] for arm in meta["arms"]}) > 1} == axes
    assert meta["dataset"]["name"] == "digits"
    assert meta["command"].startswith(f"softlabel grid {study} --quick")
    page = html.unescape(Path(meta["report"]).read_text())
    assert meta["title"] in page
    for plot in meta["plots"]:
        assert plot["title"] in page


def test_a_study_in_words(softlabel: Any, small: tuple[str, ...], home: Path) -> None:
    """A second time: found, and told as a table."""
    words = ("grid", "losses", *TINY, "--losses", "ce", "gift", "--methods", "random", *small, "--store", home)
    said = softlabel(*words)
    assert said.code == 0, said.err
    for line in ("Every loss on every set", "random / ce", "random / gift", "study:  ", "report: "):
        assert line in said.out
    again = softlabel(*words)
    assert (again.code, again.out) == (0, said.out)


def test_a_failing_optimizer_is_told_and_the_rest_is_there(
    softlabel: Any, small: tuple[str, ...], tmp_path: Path
) -> None:
    words = ("grid", "optimizers", *TINY, "--losses", "kl", "gift", "--optimizers", "adamw", "sgd:lr=1e30",
             *small, "--store", tmp_path)  # fmt: skip
    said = softlabel(*words)
    assert said.code == 3, said.err
    failed = [line for line in said.out.splitlines() if line.startswith("failed: ")]
    assert len(failed) == 2
    assert all("sgd:lr=1e30" in line and "learning rate 1e+30" in line for line in failed)
    assert "2 students failed. To train them again: the same command with --retry" in said.out
    times = {file: file.stat().st_mtime_ns for file in (tmp_path / "failures").iterdir()}
    assert softlabel(*words, "--json").json["arms"][2]["failed"]
    assert {file: file.stat().st_mtime_ns for file in (tmp_path / "failures").iterdir()} == times
    assert softlabel(*words, "--retry", "--json").code == 3
    assert all(file.stat().st_mtime_ns > before for file, before in times.items())


def test_a_set_from_disk_beside_those_of_the_study(
    softlabel: Any, small: tuple[str, ...], home: Path, tmp_path: Path
) -> None:
    made = [
        softlabel("distill", "--data", "digits", "--selection", "0.1", "--method", "random", "--ipc", "1", "--seed",
                  seed, *small, "--store", tmp_path, "--json").json["distilled"]
        for seed in ("7", "8")
    ]  # fmt: skip
    said = softlabel("grid", "losses", *TINY, "--losses", "ce", "kl", "--methods", "random", "--sets", *made, *small,
                     "--store", home, "--json")  # fmt: skip
    assert said.code == 0, said.err
    sets = {entry["name"]: entry for entry in said.json["sets"]}
    assert len(sets) == 3
    assert set(sets) == {"random", "random from disk", "random 2"}
    assert len({entry["digest"] for entry in sets.values()}) == 3
    assert len(said.json["arms"]) == 6


def test_a_plan_writes_nothing(softlabel: Any, small: tuple[str, ...], tmp_path: Path, files_in: Files) -> None:
    store = tmp_path / "store"
    words = ("grid", "teachers", *TINY, *small, "--store", store, "--dry-run")
    said = softlabel(*words)
    assert said.code == 0, said.err
    assert "students random / ensemble / gift" in said.out
    assert files_in(store) == {}
    plan = softlabel(*words, "--json").json
    students = [line for line in plan["plan"] if line["what"].startswith("students")]
    assert len(students) == 3 * 2  # after one epoch, after the last, the ensemble
    assert all((line["done"], line["total"]) == (0, 1) for line in students)
    assert plan["seconds"] > 0
    assert plan["disk_bytes"] > 0


def test_a_plan_knows_what_is_done(softlabel: Any, small: tuple[str, ...], tmp_path: Path) -> None:
    words = ("grid", "losses", *TINY, "--methods", "random", *small, "--store", tmp_path)
    assert softlabel(*words, "--losses", "ce", "gift").code == 0
    plan = softlabel(*words, "--losses", "ce", "gift", "kl", "--dry-run", "--json").json["plan"]
    done = {line["what"]: (line["done"], line["total"]) for line in plan}
    assert {what: found for what, found in done.items() if what.startswith("students")} == {
        "students random / ce": (1, 1), "students random / gift": (1, 1), "students random / kl": (0, 1)}  # fmt: skip
    assert all(done == (1, 1) for what, done in done.items() if not what.startswith("students"))


def test_tuned_rates_on_demand(softlabel: Any, small: tuple[str, ...], home: Path) -> None:
    words = ("grid", "losses", *TINY, "--losses", "gift", "--methods", "random", *small, "--store", home, "--json")
    tuned = softlabel(*words, "--tune").json
    assert [arm["axes"]["optimizer"] for arm in tuned["arms"]] == ["adamw", "adamw (tuned)"]
    assert "chosen on the selection split" in tuned["arms"][1]["note"]
    plain = softlabel(*words, "--default-rates").json
    assert [arm["axes"]["optimizer"] for arm in plain["arms"]] == ["adamw"]


MISTAKES: dict[str, tuple[tuple[str, ...], list[str]]] = {
    "study": (("optimisers",), ["no study named 'optimisers'", "Did you mean 'optimizers'", "architectures"]),
    "optimizer": (("optimizers", "--optimizers", "adamww"), ["no optimizer named 'adamww'", "Did you mean 'adamw'"]),
    "optimizer-option": (("optimizers", "--optimizers", "sgd:rate=1"), ["no option 'rate'", "momentum"]),
    "optimizer-value": (("optimizers", "--optimizers", "sgd:lr=-1"), ["learning rate must be a number above 0"]),
    "student": (("losses", "--students", "convnett-3"), ["no model named 'convnett-3'", "Did you mean 'convnet-3'"]),
    "loss": (("losses", "--losses", "gifd"), ["no loss named 'gifd'", "Did you mean 'gift'"]),
    "method": (("losses", "--methods", "randon"), ["no method named 'randon'", "random"]),
    "executor": (("losses", "--executor", "rays"), ["no executor named 'rays'", "local, ray"]),
    "address": (("losses", "--address", "auto"), ["--address and --workers are Ray's", "--executor ray"]),
    "workers": (("losses", "--workers", "2"), ["--address and --workers are Ray's", "--executor ray"]),
    "no-workers": (("losses", "--executor", "ray", "--workers", "0"), ["--workers must be 1 or more. Got 0"]),
    "tune": (("optimizers", "--tune", "--default-rates"), ["--tune and --default-rates exclude each other"]),
    "stack": (("losses", "--stack", "pile"), ["no stack named 'pile'", "auto, loop, vmap"]),
    "stack-size": (("losses", "--stack-size", "0"), ["--stack-size must be 1 or more. Got 0"]),
    "seeds": (("losses", "--seeds", "0"), ["at least one seed, and got none"]),
    "epochs": (("losses", "--epochs", "0"), ["1 epoch or more. Got 0"]),
    "ipc": (("losses", "--ipc", "0"), ["--ipc must be 1 or more. Got 0"]),
    "steps": (("continual", "--steps", "11"), ["11 class-incremental steps need as many classes", "digits has 10"]),
    "twins": (("losses", "--losses", "gift", "gift"), ["losses must differ"]),
    "sets": (("losses", "--sets", "nowhere"), ["nowhere"]),
    "data": (("losses", "--data", "digitz"), ["no data set named 'digitz'", "Did you mean 'digits'"]),
}


@pytest.mark.parametrize("name", MISTAKES)
def test_a_mistake_is_one_sentence(
    name: str, softlabel: Any, small: tuple[str, ...], tmp_path: Path, files_in: Files
) -> None:
    (study, *options), fragments = MISTAKES[name]
    given = {word for word in options if word.startswith("--")}
    pairs = [(TINY[i], TINY[i + 1]) for i in range(1, len(TINY), 2)]
    rest = [word for pair in pairs if pair[0] not in given for word in pair]
    store = tmp_path / "store"
    said = softlabel("grid", study, "--quick", *rest, *options, *small, "--store", store)
    assert said.code == 2, said.err
    assert said.out == ""
    for fragment in fragments:
        assert fragment in said.error
    if name != "steps":  # whether classes suffice is known when the data, teacher and sets are there
        assert files_in(store) == {}


def start(words: tuple[str | Path, ...]) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "softlabel", *(str(word) for word in words)],
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def test_a_killed_grid_goes_on(softlabel: Any, small: tuple[str, ...], tmp_path: Path, files_in: Files) -> None:
    """Two seeds, stacks of two, half of the optimizers blow up; killed when it has some results."""
    words = ("grid", "optimizers", *TINY, "--epochs", "40", "--seeds", "2", "--losses", "kl", "gift", "--optimizers",
             "adamw", "adam", "sgd:lr=1e30", "--stack-size", "2", *small)  # fmt: skip
    store, whole = tmp_path / "broken", tmp_path / "whole"
    process = start((*words, "--store", store))
    deadline = time.monotonic() + PATIENCE
    try:
        while len(list((store / "records").glob("*.json"))) < 2:
            assert process.poll() is None, f"ended too soon: {process.communicate()}"
            assert time.monotonic() < deadline, "took too long"
            time.sleep(0.005)
    finally:
        process.kill()
        process.communicate()
    assert process.returncode == -signal.SIGKILL
    kept = told(store)
    assert 2 <= len(kept) < 12
    assert not (store / "studies").exists()
    before = {name: when for name, when in files_in(store).items() if "/." not in f"/{name}"}

    studies = [softlabel(*words, "--store", place, "--json") for place in (store, whole)]
    assert [said.code for said in studies] == [3, 3], studies[0].err
    after = files_in(store)
    assert {name: after[name] for name in before} == before  # neither written nor trained again
    assert told(store) == told(whole)
    assert len(told(store)) == 12
    paths = ("study", "report", "table", "command")
    mine, theirs = ({key: value for key, value in said.json.items() if key not in paths} for said in studies)
    assert mine == theirs
    assert [path.name for path in store.rglob(".*.safetensors")] == []
