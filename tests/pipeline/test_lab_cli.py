"""`softlabel lab` on the command line."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from softlabel.recipes import LAB, find_lab
from softlabel.store import load_distilled

TINY = ("--quick", "--arch", "convnet-1:width=4", "--expert-epochs", "2", "--epochs", "2", "--seeds", "1")


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A store whose experts the tests of this module share."""
    return tmp_path_factory.mktemp("lab")


@pytest.mark.parametrize("study", sorted(set(LAB) - {"scaling"}))
def test_a_study_on_somebody_s_pictures(study: str, softlabel: Any, made: Any, small: Any, home: Path) -> None:
    ipc = ("1",) if study == "zero-shot" else ("1", "2")
    words = ("lab", study, *TINY, "--data", made.data, "--ipc", *ipc, *small, "--store", home)
    said = softlabel(*words)
    assert said.code == 0, said.err
    report = Path(said.out.split("report: ")[1].strip())
    page = report.read_text()
    assert "No arm of this study belongs in this plot" not in page
    assert ("What would have been chosen" in page) == (study in ("epochs", "temperatures"))
    assert ("What would have been chosen" in said.out) == (study in ("epochs", "temperatures"))
    assert 'id="labels-said"' in page
    again = softlabel(*words, "--json")
    assert {arm["set"] for arm in again.json["arms"]} >= {"random, IPC 1"} or study == "images"
    assert len(list((home / "teachers").iterdir())) <= 2  # of the ensemble; the first serves all studies


def test_data_options_reach_the_study_s_own_data(
    softlabel: Any, small: Any, home: Path, made: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without --data, what is said of the data counts all the same."""
    usual = find_lab("epochs").data
    monkeypatch.setattr("softlabel.recipes._lab_study.LAB_DATA", replace(usual, spec=made.data))
    words = ("lab", "epochs", *TINY, "--ipc", "1", *small, "--store", home, "--json")
    info = softlabel(*words, "--classes", "2", "--image-size", "8x8", "--channels", "1", "--selection", "0.3").json
    assert len(info["dataset"]["class_names"]) == 2
    assert (info["dataset"]["channels"], info["dataset"]["height"]) == (1, 8)
    assert info["dataset"]["options"]["selection"] == 0.3
    assert softlabel(*words).json["dataset"]["options"]["selection"] == 0.1
    said = softlabel(*words, "--selection", "0")
    assert said.code == 2
    assert "This study chooses on the selection split, and there is none" in said.error


def test_sets_that_are_not_drawn_are_made_once(softlabel: Any, made: Any, small: Any, home: Path) -> None:
    words = ("lab", "images", *TINY, "--seeds", "2", "--data", made.data, "--ipc", "1", *small, "--store", home)
    sets = {entry["name"]: entry["paths"] for entry in softlabel(*words, "--json").json["sets"]}
    assert [len(set(paths)) for name, paths in sets.items() if name.startswith("el2n")] == [1]
    assert len(set(sets["random"])) == 2


def test_a_hierarchy_of_one_s_own(softlabel: Any, made: Any, small: Any, home: Path, tmp_path: Path) -> None:
    words = ("lab", "epochs", *TINY, "--data", made.data, "--ipc", "1", *small, "--store", home)
    names = softlabel(*words, "--json").json["dataset"]["class_names"]
    path = tmp_path / "groups.json"
    path.write_text(json.dumps(dict(zip(names, ("x", "x", "y"), strict=True))))
    meta = softlabel(*words, "--hierarchy", path, "--json").json
    assert meta["plots"][0]["groups"] == dict(zip(names, ("x", "x", "y"), strict=True))
    assert "to classes of<br>the own group, %" in Path(meta["report"]).read_text()
    path.write_text(json.dumps(dict.fromkeys(names[1:], "x")))
    said = softlabel(*words, "--hierarchy", path)
    assert said.code == 2
    assert f"does not fit the 3 classes of the data: it lacks {names[0]}" in said.error


def test_a_class_without_its_images(softlabel: Any, made: Any, small: Any, home: Path) -> None:
    words = ("lab", "zero-shot", *TINY, "--epochs", "30", "--data", made.data, "--ipc", "3", *small, "--store", home)
    meta = softlabel(*words, "--json").json
    assert len(meta["arms"]) == 1 + 2 * 3  # three classes: control, and each class's images or entries removed
    images = {entry["name"]: entry["images"] for entry in meta["sets"]}
    assert set(images.values()) == {9, 6}
    [plot] = [entry for entry in meta["plots"] if entry["kind"] == "absent"]
    arms = {(arm["axes"]["set"], arm["axes"]["labels"]): arm for arm in meta["arms"]}
    for place, name in plot["images"].items():
        left = load_distilled(home / next(entry["path"] for entry in meta["sets"] if entry["name"] == name))
        assert int(place) not in left.targets
        assert left.info.classes == 3
        record = json.loads((home / "records" / f"{arms[name, plot['labels']]['records'][0]}.json").read_text())
        assert arms[name, plot["labels"]]["per_class"] == record["accuracy"]["per_class"]
    page = Path(meta["report"]).read_text()
    control = arms[plot["set"], plot["labels"]]["per_class"]
    assert f">{100 * sum(control) / 3:.1f}</td>" in page.split('id="absent"')[1]


@pytest.mark.parametrize("study", sorted(LAB))
def test_a_plan_before_and_after(
    study: str, softlabel: Any, made: Any, small: Any, home: Path, tmp_path: Path, files_in: Any
) -> None:
    words = ("lab", study, *TINY, "--data", made.data, "--ipc", "1", *small, "--dry-run", "--json", "--store")
    plan = softlabel(*words, tmp_path).json["plan"]
    assert files_in(tmp_path) == {}
    assert all(line["done"] == 0 for line in plan)
    assert len({line["what"] for line in plan}) == len(plan)  # nothing is counted twice
    assert ("random, IPC 1, learned: 30 steps of labels" in {line["what"] for line in plan}) == (study == "learned")
    assert softlabel(*words[:-3], "--store", home).code == 0
    assert {line["done"] - line["total"] for line in softlabel(*words, home).json["plan"]} == {0}


@pytest.fixture(scope="module")
def surface(softlabel: Any, made: Any, small: Any, home: Path) -> dict[str, Any]:
    said = softlabel("lab", "scaling", *TINY, "--seeds", "2", "--epochs", "20", "--data", made.data, *small,
                     "--store", home, "--json")  # fmt: skip
    assert said.code == 0, said.err
    return dict(said.json)


def test_a_surface_and_its_advice(softlabel: Any, surface: dict[str, Any]) -> None:
    page = Path(surface["report"]).read_text()
    assert 'id="surface"' in page
    # An accuracy in the middle of the hard labels' line, which rises with images.
    hard = sorted(arm["final"]["mean"] for arm in surface["arms"] if arm["loss"] == "ce")
    wanted = 100 * (hard[0] + hard[-1]) / 2
    said = softlabel("lab", "advise", surface["study"], "--accuracy", wanted, "--json")
    assert said.code == 0, said.err
    answers = {one["labels"]: one for one in said.json["advice"]}
    assert set(answers) == {"hard labels", *(f"top {k} of epoch {e}" for k in (1, 3) for e in (1, 2))}
    assert any(one["images"] for one in answers.values())
    for one in answers.values():
        assert bool(one["images"]) != bool(one["note"])
        if one["images"]:
            assert 1 <= one["images"]["value"] <= 10
    assert said.json["held_out"] is None  # four sizes a line: none can be spared
    shown = softlabel("lab", "advise", surface["study"], "--accuracy", wanted)
    assert "hard labels" in shown.out
    json.dumps(said.json)


@pytest.mark.parametrize("accuracy", ["99.99", "0", "-3", "1e9"])
def test_advice_is_not_extrapolated(accuracy: str, softlabel: Any, surface: dict[str, Any]) -> None:
    said = softlabel("lab", "advise", surface["study"], "--accuracy", accuracy)
    assert said.code == 2
    assert "extrapolated" in said.error or "between 0 and 100" in said.error


def test_advice_from_what_is_no_surface(softlabel: Any, made: Any, small: Any, home: Path, tmp_path: Path) -> None:
    assert "There is nothing at" in softlabel("lab", "advise", tmp_path / "x", "--accuracy", "50").error
    assert "Expected an artifact of kind 'study'" in softlabel("lab", "advise", made.teacher, "--accuracy", "50").error
    words = ("lab", "scaling", *TINY, "--data", made.data, "--ipc", "1", "2", "4", *small, "--store", home, "--json")
    sparse = softlabel(*words)
    assert sparse.code == 0, sparse.err
    assert "too sparse to fit" in Path(sparse.json["report"]).read_text()
    said = softlabel("lab", "advise", sparse.json["study"], "--accuracy", "50")
    assert said.code == 2
    assert "too sparse to fit" in said.error


MISTAKES: dict[str, tuple[tuple[str, ...], list[str]]] = {
    "ipc": (("scaling", "--ipc", "1000"), ["IPC 1000 needs 1000 training images in every class"]),
    "ipc-twice": (("scaling", "--ipc", "1", "1"), ["--ipc takes different numbers"]),
    "stops": (("epochs", "--stops", "9"), ["--stops asks for epoch 9", "trained for 2"]),
    "protocol": (("baseline", "--protocol", "gfit"), ["no protocol named 'gfit'"]),
    "arch": (("baseline", "--arch", "vgg"), ["no model named 'vgg'"]),
    "cad": (("images", "--no-quick", "--ipc", "1"), ["needs a trajectory of 6 epochs, and there are 2"]),
}


@pytest.mark.parametrize("case", MISTAKES)
def test_a_mistake_is_one_sentence(case: str, softlabel: Any, made: Any, small: Any, home: Path) -> None:
    words, expected = MISTAKES[case]
    said = softlabel("lab", words[0], *TINY, "--data", made.data, *words[1:], *small, "--store", home)
    assert said.code == 2, said.err
    assert all(part in said.error for part in expected), said.error


def test_a_study_that_does_not_exist(softlabel: Any) -> None:
    said = softlabel("lab", "epoch", "--quick")
    assert (said.code, said.out) == (2, "")
    assert "There is no study of labels named 'epoch'. Did you mean 'epochs'" in said.error
