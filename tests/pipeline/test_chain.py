"""The whole chain on the command line: teach, distill, label, train, evaluate, report, and `run`."""

import csv
import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from softlabel import __version__
from softlabel.cli._lists import KINDS
from softlabel.distill import METHODS
from softlabel.evaluation import PROTOCOLS
from softlabel.losses import LOSSES
from softlabel.recipes import RECIPES
from softlabel.store import Store, load_distilled, read_artifact

STUDENT = ("--student", "convnet-2:width=8", "--epochs", "2")
Files = Callable[[Path], dict[str, int]]


def last_path(out: str, word: str) -> Path:
    """The path in the line `word: PATH`."""
    match = re.search(rf"^{word}:\s+(\S+)$", out, re.MULTILINE)
    assert match is not None, out
    return Path(match[1])


def test_version(softlabel: Any) -> None:
    said = softlabel("--version")
    assert (said.code, said.out.strip()) == (0, f"softlabel {__version__}")


def test_help_without_words(softlabel: Any) -> None:
    said = softlabel()
    assert said.code == 0
    for command in ("run", "teach", "distill", "label", "train", "evaluate", "report", "ls", "fetch"):
        assert re.search(rf"\b{command}\b", said.out)


@pytest.mark.parametrize("command", ["run", "teach", "distill", "label", "train", "evaluate", "report", "ls", "fetch"])
def test_every_command_has_help_and_an_example(command: str, softlabel: Any) -> None:
    said = softlabel(command, "--help")
    assert said.code == 0
    assert f"Example: softlabel {command}" in " ".join(said.out.split())


def test_the_chain(softlabel: Any, pictures: Path, tmp_path: Path, small: tuple[str, ...]) -> None:
    data, store = f"imagefolder:{pictures}", tmp_path / "store"
    here = (*small, "--store", store)

    said = softlabel("teach", "--data", data, "--arch", "convnet-2:width=8", "--epochs", "2", "--batch", "16", *here)
    assert said.code == 0, said.err
    teacher = last_path(said.out, "teacher")
    assert read_artifact(teacher, "teacher").meta["epochs"] == 2
    assert "convnet-2:width=8" in said.out

    # The data need not be named again: the teacher knows them.
    said = softlabel("distill", "--method", "rded:factor=2,crops=3", "--ipc", "2", "--teacher", teacher, *here)
    assert said.code == 0, said.err
    distilled = last_path(said.out, "distilled set")
    made = load_distilled(distilled)
    assert (made.images.shape, made.factor, made.info.class_names) == ((6, 3, 12, 12), 2, ("ant", "bee", "cat"))

    said = softlabel("label", distilled, "--teacher", teacher, *here)
    assert said.code == 0, said.err
    labels = last_path(said.out, "labels")
    assert read_artifact(labels, "labels").tensors("labels.safetensors")["logits"].shape == (6, 3)

    said = softlabel("train", distilled, "--labels", labels, "--loss", "gift", *STUDENT, *here)
    assert said.code == 0, said.err
    record = json.loads(last_path(said.out, "record").read_text())
    assert (record["arm"]["labels"], record["arm"]["loss"]) == ("fixed", "gift")
    assert record["bytes"] == {"images": made.image_bytes, "labels": 6 * 3 * 4, "labeler": 0}

    said = softlabel(
        "evaluate", distilled, "--teacher", teacher, "--losses", "kl", "gift", "--seeds", "2", "--full-epochs", "1",
        *STUDENT, *here,
    )  # fmt: skip
    assert said.code == 0, said.err
    study = last_path(said.out, "study")
    meta = read_artifact(study, "study").meta
    # Random images and hard labels are added: nobody has to ask for the baselines.
    arms = [f"{name} / {loss}" for name in ("random", "rded") for loss in ("ce", "kl", "gift")] + ["full data / ce"]
    assert [arm["name"] for arm in meta["arms"]] == arms
    assert all(arm in said.out for arm in arms)
    assert meta["command"].startswith("softlabel evaluate ")
    assert len(list((store / "records").glob("*.json"))) == 1 + 2 * 6 + 1
    report = last_path(said.out, "report")
    assert report.is_file()

    said = softlabel("report", study, "--out", tmp_path / "report")
    assert said.code == 0, said.err
    names = {file.name for file in (tmp_path / "report").iterdir()}
    assert names - {"cells.parquet"} == {"report.html", "table.csv", "table.md", "cells.csv"}
    assert (tmp_path / "report" / "report.html").read_bytes() == report.read_bytes()
    with (tmp_path / "report" / "table.csv").open() as file:
        assert len(list(csv.DictReader(file))) == len(arms)


# JSON: one document on standard output, and nothing else.


def test_json_of_every_stage(softlabel: Any, made: Any, small: tuple[str, ...], files_in: Files) -> None:
    here = (*small, "--store", made.store, "--json")
    teach = ("teach", "--data", made.data, "--arch", "convnet-2:width=8", "--epochs", "2", "--batch", "16")
    assert softlabel(*teach, *here).json["teacher"] == str(made.teacher)
    rded = ("distill", "--ipc", "2", "--teacher", made.teacher, "--method", "rded:factor=2,crops=3")
    found = softlabel(*rded, *here).json
    assert (found["distilled"], found["ipc"], len(found["entries"])) == (str(made.rded), 2, 6)
    found = softlabel("label", made.rded, "--teacher", made.teacher, *here).json
    assert found == {"labels": str(made.labels), "regime": "fixed", "images": 6, "bytes": 72}
    found = softlabel("train", made.rded, "--teacher", made.teacher, *STUDENT, *here).json
    assert 0 <= found["accuracy"]["final"] <= 1
    assert found == Store(made.store).read_record(found["key"])
    evaluate = ("evaluate", made.rded, "--teacher", made.teacher, "--losses", "ce", "gift", "--seeds", "1", *STUDENT)
    study = softlabel(*evaluate, *here).json
    assert {arm["name"] for arm in study["arms"]} == {"random / ce", "random / gift", "rded / ce", "rded / gift"}
    assert Path(study["report"]).is_file()
    assert Path(study["table"]).is_file()
    [report] = softlabel("report", study["study"], "--json").json
    assert report["html"] == study["report"]
    # All of it a second time: the same answers, and no student, teacher, set or label is made again.
    before = files_in(made.store)
    assert softlabel(*teach, *here).json["teacher"] == str(made.teacher)
    assert softlabel(*rded, *here).json["distilled"] == str(made.rded)
    again = softlabel(*evaluate, *here).json
    assert again == study
    after = files_in(made.store)
    changed = [name for name in after if before.get(name) != after[name]]
    assert all(name.startswith("reports/") for name in changed)


def test_stored_and_made_labels_train_the_same_student(softlabel: Any, made: Any, small: tuple[str, ...]) -> None:
    here = (*STUDENT, *small, "--store", made.store, "--json")
    stored = softlabel("train", made.rded, "--labels", made.labels, *here).json
    fresh = softlabel("train", made.rded, "--labels", "fixed", "--teacher", made.teacher, *here).json
    assert stored == fresh


def test_two_teachers_are_an_ensemble(softlabel: Any, made: Any, small: tuple[str, ...], tmp_path: Path) -> None:
    here = (*small, "--json")
    second = softlabel(
        "teach", "--data", made.data, "--arch", "convnet-1:width=4", "--epochs", "1", "--store", tmp_path, *here
    ).json["teacher"]
    both = softlabel("label", made.rded, "--teacher", made.teacher, "--teacher", second, "--store", tmp_path, *here)
    alone = softlabel("label", made.rded, "--teacher", second, "--store", tmp_path, *here)
    tables = [
        read_artifact(Path(path), "labels").tensors("labels.safetensors")["logits"]
        for path in (both.json["labels"], made.labels, alone.json["labels"])
    ]
    torch.testing.assert_close(tables[0], (tables[1] + tables[2]) / 2)


def test_an_earlier_epoch_of_the_teacher(softlabel: Any, made: Any, small: tuple[str, ...], tmp_path: Path) -> None:
    words = ("label", made.rded, "--teacher", made.teacher, *small, "--store", tmp_path, "--json")
    early, late = (softlabel(*words, "--teacher-epoch", epoch).json["labels"] for epoch in ("1", "2"))
    assert early != late
    assert Path(late).name == made.labels.name


# `--out`, `--no-resume` and `--dry-run`.


def test_out_and_nothing_overwritten(softlabel: Any, made: Any, small: tuple[str, ...], tmp_path: Path) -> None:
    store, out = tmp_path / "store", tmp_path / "mine"
    words = ("distill", "--data", made.data, "--method", "random", "--ipc", "2", "--out", out, *small, "--store", store)
    said = softlabel(*words)
    assert (said.code, last_path(said.out, "distilled set")) == (0, out)
    assert not store.exists()
    written = load_distilled(out)
    assert softlabel(*words).code == 0  # the same again is found
    refused = softlabel(*words, "--seed", "1")
    assert refused.code == 2
    assert "Nothing is overwritten" in refused.error
    assert load_distilled(out).digest == written.digest


def test_no_resume_makes_it_again_elsewhere(
    softlabel: Any, made: Any, small: tuple[str, ...], tmp_path: Path, files_in: Files
) -> None:
    words = ("distill", "--data", made.data, "--method", "random", "--ipc", "2", *small, "--store", tmp_path, "--json")
    first = Path(softlabel(*words).json["distilled"])
    before = files_in(tmp_path)
    again = [Path(softlabel(*words, "--no-resume").json["distilled"]) for _ in range(2)]
    assert [path.relative_to(tmp_path).parts[0] for path in again] == ["again-1", "again-2"]
    assert [path.name for path in again] == [first.name] * 2
    assert {name: when for name, when in files_in(tmp_path).items() if name in before} == before
    assert load_distilled(again[1]).digest == load_distilled(first).digest


@pytest.mark.parametrize("form", ["table", "json"])
@pytest.mark.parametrize("stage", ["teach", "distill", "label", "train", "train-fixed", "evaluate", "fixed", "run"])
def test_dry_run_writes_nothing(
    stage: str, form: str, softlabel: Any, made: Any, small: tuple[str, ...], tmp_path: Path, files_in: Files
) -> None:
    teacher = ("--teacher", made.teacher)
    words: dict[str, tuple[Any, ...]] = {
        "teach": ("teach", "--data", made.data, "--arch", "convnet-1:width=4"),
        "distill": ("distill", "--method", "rded", "--ipc", "2", *teacher),
        "label": ("label", made.random, *teacher),
        "train": ("train", made.random, "--student", "convnet-1:width=4", *teacher),
        "train-fixed": ("train", made.random, "--student", "convnet-1:width=4", "--labels", "fixed", *teacher),
        "evaluate": ("evaluate", made.rded, "--student", "convnet-1:width=4", "--full-epochs", "1", *teacher),
        "fixed": ("evaluate", made.rded, "--student", "convnet-1:width=4", "--protocol", "no-distillation", *teacher),
        "run": ("run", "digits-quick", "--seeds", "1"),
    }
    before = files_in(made.store)
    options = ("--json",) if form == "json" else ()
    said = softlabel(*words[stage], *small, "--store", tmp_path / "store", "--dry-run", *options)
    assert said.code == 0, said.err
    if form == "json":
        assert isinstance(said.json, dict)
    else:
        assert said.out.strip()
    assert not (tmp_path / "store").exists()
    assert files_in(made.store) == before


def test_a_plan_counts_what_is_done(softlabel: Any, made: Any, small: tuple[str, ...], tmp_path: Path) -> None:
    words = (
        "evaluate", made.rded, "--teacher", made.teacher, "--losses", "ce", "gift", "--seeds", "2", *STUDENT,
        "--store", tmp_path, *small, "--json",
    )  # fmt: skip
    plan = softlabel(*words, "--dry-run").json
    assert [(line["done"], line["total"]) for line in plan["plan"]] == [(0, 2)] * 5  # the random sets, four arms
    assert plan["seconds"] > 0
    assert plan["disk_bytes"] > 0
    assert plan["memory_bytes"] > 0
    assert softlabel(*words).code == 0
    done = softlabel(*words, "--dry-run").json
    assert [(line["done"], line["total"]) for line in done["plan"]] == [(2, 2)] * 5
    assert (done["seconds"], done["disk_bytes"]) == (0, 0)


def test_two_sets_of_one_method_keep_their_own_names(
    softlabel: Any, made: Any, small: tuple[str, ...], tmp_path: Path
) -> None:
    here = (*small, "--store", tmp_path, "--json")
    other = softlabel("distill", "--method", "rded:factor=1,crops=2", "--ipc", "2", "--teacher", made.teacher, *here)
    words = ("--losses", "ce", "--seeds", "1", "--no-baselines", *STUDENT, *here)
    study = softlabel("evaluate", made.rded, other.json["distilled"], made.random, *words).json
    mosaics, plain = "rded factor=2 crops=3", "rded factor=1 crops=2"
    assert [arm["name"] for arm in study["arms"]] == [f"{mosaics} / ce", f"{plain} / ce", "random / ce"]
    digests = {entry["name"]: entry["digest"] for entry in study["sets"]}
    assert digests[mosaics] == load_distilled(made.rded).digest
    assert digests[plain] == load_distilled(Path(other.json["distilled"])).digest


# Lists.


@pytest.mark.parametrize("kind", sorted(KINDS))
def test_ls(kind: str, softlabel: Any) -> None:
    found = softlabel("ls", kind, "--json").json
    assert found
    assert all(isinstance(line, str) and line for line in found.values() if kind != "views")
    said = softlabel("ls", kind)
    assert said.code == 0
    assert all(name in said.out for name in found)


def test_ls_lists_the_tables(softlabel: Any) -> None:
    for kind, table in (("methods", METHODS), ("losses", LOSSES), ("protocols", PROTOCOLS), ("recipes", RECIPES)):
        assert softlabel("ls", kind, "--json").json.keys() == table.keys()
    assert softlabel("ls").out == softlabel("ls", "recipes").out


# A recipe.


def test_run(quick: tuple[Path, Any]) -> None:
    store, said = quick
    assert said.code == 0, said.err
    study = last_path(said.out, "study")
    meta = read_artifact(study, "study").meta
    assert [arm["name"] for arm in meta["arms"]] == [
        *(f"{name} / {loss}" for name in ("random", "rded") for loss in ("ce", "kl", "gift")),
        "full data / ce",
    ]
    assert {arm["epochs"] for arm in meta["arms"]} == {2, 30}
    assert meta["teacher"]["test_accuracy"] > 0.9
    assert {path.name for path in store.iterdir()} == {
        "teachers", "distilled", "replay", "records", "studies", "reports"
    }  # fmt: skip
    assert [path.name for path in store.rglob(".*")] == []
    report = last_path(said.out, "report").read_text()
    assert meta["title"] in report
    assert "softlabel run digits-quick --epochs 2 --seeds 1" in meta["command"]


def test_a_second_run_repeats_nothing(
    quick: tuple[Path, Any], softlabel: Any, small: tuple[str, ...], files_in: Files
) -> None:
    store, first = quick
    before = files_in(store)
    words = ("run", "digits-quick", "--epochs", "2", "--seeds", "1", *small, "--store", store)
    again = softlabel(*words)
    assert again.code == 0
    assert last_path(again.out, "study") == last_path(first.out, "study")
    after = files_in(store)
    assert before.keys() == after.keys()
    assert all(name.startswith("reports/") for name in after if before[name] != after[name])
    plan = softlabel(*words, "--dry-run", "--json").json
    assert all(line["done"] == line["total"] for line in plan["plan"])
    document = softlabel(*words, "--json").json
    assert document["study"] == str(last_path(first.out, "study"))


# Class folders, and labels kept beside sets.


@pytest.fixture
def folder(draw_pictures: Any, tmp_path: Path) -> Path:
    """A set as anybody has it: pictures in class folders; one class has fewer."""
    path: Path = draw_pictures(tmp_path / "mine", 3)
    next(iter(sorted(path.iterdir())[0].iterdir())).unlink()
    return path


@pytest.mark.filterwarnings("default::softlabel.core.SoftlabelWarning")
def test_labels_for_class_folders(softlabel: Any, made: Any, folder: Path, tmp_path: Path) -> None:
    store = ("--store", tmp_path / "store")
    kept = softlabel("label", folder, "--teacher", made.teacher, *store, "--json")
    assert kept.code == 0, kept.err
    labels = kept.json["labels"]
    words = (
        "evaluate",
        folder,
        "--labels",
        labels,
        "--loss",
        "gift",
        "--seeds",
        "1",
        "--epochs",
        "2",
        *STUDENT,
        *store,
    )
    said = softlabel(*words, "--data", made.data, "--json")
    assert said.code == 0, said.err
    assert "Random images have hard labels alone: stored labels are for the set given alone" in said.err
    arms = {(arm["set"], arm["loss"]) for arm in said.json["arms"]}
    assert arms == {("folder-mine", "ce"), ("folder-mine", "gift"), ("random", "ce")}
    both = softlabel(*words, "--teacher", made.teacher, "--json")
    assert both.code == 0, both.err
    assert "has 2 to 3 images per class. The random images have 2, and the two are not compared" in both.err
    assert {arm["set"] for arm in both.json["arms"]} == {"folder-mine", "random"}


@pytest.mark.parametrize("protocol", ["lpqld", "challenge-2024", "rded"])
def test_every_protocol_is_evaluated_by_default(protocol: str, softlabel: Any, made: Any, tmp_path: Path) -> None:
    words = ("evaluate", made.random, "--teacher", made.teacher, "--protocol", protocol, "--epochs", "20",
             "--student", "convnet-2:width=8")  # fmt: skip
    said = softlabel(*words, "--full-epochs", "1", "--store", tmp_path, "--dry-run", "--json")
    assert said.code == 0, said.err


def test_labels_of_another_teacher_are_not_mixed_in(softlabel: Any, made: Any, tmp_path: Path) -> None:
    store = ("--store", tmp_path / "store")
    labels = softlabel("label", made.random, "--teacher", made.teacher, "--teacher-epoch", "0", *store, "--json")
    said = softlabel("evaluate", made.random, "--labels", labels.json["labels"], "--teacher", made.teacher,
                     "--seeds", "1", *STUDENT, *store)  # fmt: skip
    assert said.code == 2
    assert "were not made by the --teacher given" in said.error
    assert not (tmp_path / "store" / "studies").exists()


def test_experts_and_what_their_trajectory_chooses(softlabel: Any, made: Any, tmp_path: Path) -> None:
    store = ("--store", tmp_path / "store", "--json")
    words = ("teach", "--data", made.data, "--arch", "convnet-1:width=4", "--protocol", "expert", "--epochs", "3")
    experts = softlabel(*words, "--experts", "2", *store)
    assert experts.code == 0, experts.err
    assert [(found["seed"], found["epochs"]) for found in experts.json] == [(0, 3), (1, 3)]
    assert experts.json[0]["settings"]["schedule"]["name"] == "constant"
    paths = [found["teacher"] for found in experts.json]
    # One of them alone is the same teacher, and is found.
    assert softlabel(*words, *store).json["teacher"] == paths[0]
    common = ("distill", "--data", made.data, "--ipc", "2", *store)
    chosen = softlabel(*common, "--method", "el2n:epochs=3", "--teacher", paths[0])
    assert chosen.code == 0, chosen.err
    assert len(chosen.json["provenance"]["teachers"]) == 3
    for more in (("--teacher", paths[1]), ("--teacher-epoch", "2")):
        said = softlabel(*common, "--method", "el2n:epochs=3", "--teacher", paths[0], *more)
        assert said.code == 2
        assert "follows one training from its start" in said.error
    said = softlabel(*words, "--experts", "2", "--out", tmp_path / "x")
    assert "--out is the folder of one teacher" in said.error
