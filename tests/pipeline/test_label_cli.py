"""softlabel label and train with labels per view, from the command line."""

from pathlib import Path
from typing import Any

import pytest

STUDENT = ("--student", "convnet-1:width=4")
VIEWS = ("--protocol", "rded", "--epochs", "4")


@pytest.fixture
def label(softlabel: Any, made: Any, small: Any, tmp_path: Path) -> Any:
    def run(*words: str | Path) -> Any:
        return softlabel("label", made.rded, "--teacher", made.teacher, *words, *small, "--store", tmp_path)

    return run


@pytest.fixture
def train(softlabel: Any, made: Any, small: Any, tmp_path: Path) -> Any:
    def run(*words: str | Path, source: Path | None = None) -> Any:
        return softlabel("train", source or made.rded, *STUDENT, *words, *small, "--store", tmp_path)

    return run


@pytest.mark.parametrize("views", ["stored", "seed"])
def test_a_store_is_what_the_teacher_says_online(label: Any, train: Any, made: Any, views: str) -> None:
    said = label("--labels", "replay+fp32", *VIEWS, "--views", views, "--json")
    assert said.code == 0, said.err
    kept = train("--labels", said.json["labels"], *VIEWS, "--json").json
    live = train("--labels", "online", "--teacher", made.teacher, *VIEWS, "--json").json
    assert kept["train_loss"] == live["train_loss"]
    assert kept["bytes"]["labels"] >= said.json["rows"] * 4 * 3
    assert (kept["bytes"]["labeler"], live["bytes"]["labels"]) == (0, 0)
    assert (said.json["bytes"]["views"] > 8) == (views == "stored")


def test_a_spec_is_the_store_without_a_file(label: Any, train: Any, made: Any) -> None:
    path = label("--labels", "replay+topk:k=2,fill=smooth+int8", *VIEWS, "--views", "seed", "--json").json["labels"]
    kept = train("--labels", path, *VIEWS, "--loss", "gift", "--json").json
    spec = ("--labels", "replay+topk:k=2,fill=smooth+int8", "--teacher", made.teacher)
    assert train(*spec, *VIEWS, "--loss", "gift", "--json").json["train_loss"] == kept["train_loss"]


def test_a_store_is_found_and_grown(label: Any) -> None:
    words = ("--labels", "replay+int8", "--protocol", "rded")
    first = label(*words, "--epochs", "2", "--json").json
    again = label(*words, "--epochs", "2", "--json").json
    more = label(*words, "--epochs", "5", "--json").json
    assert first["labels"] == again["labels"] == more["labels"]
    assert (first["epochs"], again["epochs"], more["epochs"]) == (2, 2, 5)
    assert label(*words, "--epochs", "1", "--json").json["epochs"] == 5


def test_what_is_printed(label: Any) -> None:
    said = label("--labels", "replay+vq:codes=4,steps=5", *VIEWS)
    assert said.code == 0, said.err
    for words in ("Labels per view", "vq:codes=4", "of views", "of the codec", "labels: "):
        assert words in said.out
    assert "labels of rded:factor=2,crops=3 images: 4/4" in said.err or "labels of" in said.err


def test_a_plan_writes_nothing(label: Any, tmp_path: Path, files_in: Any) -> None:
    plan = label("--labels", "replay+int4", *VIEWS, "--dry-run", "--json").json
    assert plan["bytes"] == plan["rows"] * (2 + 4)
    assert files_in(tmp_path) == {}


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("--labels", "online"), "keeps fixed labels as they are, or replay ones with a codec"),
        (("--labels", "fixed+int8"), "keeps fixed labels as they are, or replay ones with a codec"),
        (("--labels", "fixed+keep:top=2"), "keeps fixed labels as they are, or replay ones with a codec"),
        (("--labels", "replay+zip"), "There is no label regime, edit or codec named 'zip'"),
        (("--labels", "replay+topk:k=9", "--dry-run"), "labels of 3 classes have no more"),
        (("--labels", "replay:epochs=0"), "a whole number of 1 or more"),
        (("--labels", "some/where"), "There are no labels at some/where"),
        (("--labels", "replay+topk:k=3"), "labels of 3 classes have no more"),
        (("--epochs", "3"), "--epochs and --views are for labels per view. Add --labels replay"),
        (("--protocol", "rded"), "--protocol and --seed are for labels per view. Add --labels replay"),
        (("--seed", "1"), "--protocol and --seed are for labels per view. Add --labels replay"),
        (("--student", "mlp"), "--student is for the pilot of a --budget"),
        (("--labels", "+int4"), "Got '+int4', where one has no name"),
        (("--labels", "replay", "--epochs", "0"), "1 epoch or more"),
        (("--labels", "replay", "--views", "none"), "There is no way to keep views named 'none'"),
        (("--labels", "replay", "--protocol", "rdde"), "There is no protocol named 'rdde'"),
    ],
)
def test_labels_that_cannot_be_kept(label: Any, words: tuple[str, ...], message: str) -> None:
    said = label(*words)
    assert said.code == 2
    assert message in said.error


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("--protocol", "gift", "--epochs", "4"), "Take --protocol rded, or make labels for this one"),
        ((*VIEWS, "--loss", "gift"), "of these labels only the largest are kept"),
        ((*VIEWS, "--loss", "mse"), "of these labels only the largest are kept"),
    ],
)
def test_a_store_that_does_not_fit(label: Any, train: Any, words: tuple[str, ...], message: str) -> None:
    path = label("--labels", "replay+topk:k=1", *VIEWS, "--json").json["labels"]
    said = train("--labels", path, *words)
    assert said.code == 2
    assert message in said.error


def test_a_store_of_other_images_and_a_broken_one(label: Any, train: Any, made: Any) -> None:
    path = Path(label("--labels", "replay", *VIEWS, "--json").json["labels"])
    said = train("--labels", path, *VIEWS, source=made.random)
    assert (said.code, "were made for another distilled set" in said.error) == (2, True)
    file = next((path / "labels").iterdir())
    data = bytearray(file.read_bytes())
    data[-1] ^= 1
    file.write_bytes(data)
    said = train("--labels", path, *VIEWS)
    assert (said.code, f"{file.name} is corrupt: its SHA-256 is" in said.error) == (2, True)
    file.write_bytes(data[:-1])
    assert "is corrupt" in train("--labels", path, *VIEWS).error


def test_a_folder_that_holds_no_labels(train: Any, made: Any, tmp_path: Path) -> None:
    said = train("--labels", made.random, *VIEWS)
    assert (said.code, "Expected an artifact of kind 'labels'" in said.error) == (2, True)
    (tmp_path / "empty").mkdir()
    assert "is no softlabel artifact" in train("--labels", tmp_path / "empty", *VIEWS).error


def test_labels_of_plain_images_are_replayed(
    label: Any, train: Any, softlabel: Any, made: Any, small: Any, tmp_path: Path, draw_pictures: Any
) -> None:
    folder = draw_pictures(tmp_path / "plain", 2)
    words = ("label", folder, "--teacher", made.teacher, "--labels", "replay", *VIEWS, *small, "--store", tmp_path)
    path = softlabel(*words, "--json").json["labels"]
    told = train("--labels", path, "--data", made.data, *VIEWS, source=folder)
    assert told.code == 0, told.err
    assert "stored, fp16" in told.out
    other = train("--labels", path, "--teacher", made.teacher, "--data", made.data, *VIEWS, source=folder)
    assert (other.code, "Leave --teacher out" in other.error) == (2, True), other.err
    judged = softlabel("evaluate", folder, "--labels", path, "--data", made.data, *small, "--store", tmp_path)
    assert (judged.code, "which softlabel train replays" in judged.error) == (2, True), judged.err


def test_the_protocols_that_save_labels(train: Any, made: Any) -> None:
    for name in ("lpld", "lpqld", "hald"):
        record = train("--protocol", name, "--epochs", "4", "--teacher", made.teacher, "--json")
        assert record.code == 0, record.err
        assert record.json["arm"]["labels"] == "replay"
        rows = (2 if name == "hald" else 1) * 6  # a tenth of four epochs is one, half of them two
        assert record.json["bytes"]["labels"] == rows * 2 * 3 + 8


def test_labels_for_a_budget(label: Any, train: Any, made: Any) -> None:
    words = ("--budget", "2kB", *VIEWS, *STUDENT, "--data", made.data)
    said = label(*words, "--json")
    assert said.code == 0, said.err
    assert said.json["bytes"]["labels"] + said.json["bytes"]["codec"] <= 2000
    assert said.json["bytes"]["views"] == 8
    tried = label(*words, "--dry-run", "--json").json["candidates"]
    assert {one["labels"] for one in tried} >= {f"replay:epochs={said.json['epochs']}+{said.json['codec']}"}
    assert "Would be tried, with a student of 4 epochs each" in label(*words, "--dry-run").out
    again = label(*words)
    assert "Pilot on real training images" in again.out
    assert again.out.rstrip().endswith(f"labels: {said.json['labels']}")
    kept = train("--labels", said.json["labels"], *VIEWS, "--json")
    assert kept.code == 0, kept.err


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("--budget", "3 B"), "holds no labels for"),
        (("--budget", "lots"), "is written like 2MB"),
        (("--budget", "1kB", "--labels", "replay+int8"), "--budget chooses the labels"),
    ],
)
def test_budgets_that_make_no_sense(label: Any, words: tuple[str, ...], message: str) -> None:
    said = label(*words, *VIEWS)
    assert (said.code, message in said.error) == (2, True), said.error
