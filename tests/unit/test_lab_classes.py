"""Which classes labels mix up, beside a hierarchy; and what labels look like."""

import math
from pathlib import Path

import pytest
import torch

from softlabel.core import ConfigError, Dataset, stream
from softlabel.distill import distill
from softlabel.evaluation import Comparison, find_protocol
from softlabel.evaluation._label_facts import label_facts
from softlabel.evaluation._manifest import _unlearned
from softlabel.lab import HIERARCHIES, check_hierarchy, kinship, read_hierarchy
from softlabel.models import build_model
from softlabel.training import Execution, Normaliser, Teacher

CLASSES = 6
GROUPS = ["a", "b", "a", "c", "b", "a"]


def test_kinship_against_loops() -> None:
    rows = torch.rand(CLASSES, CLASSES, generator=stream(0, "rows")).tolist()
    rows[0][1] = rows[0][2]  # a tie counts half
    pairs = [(i, j) for i in range(CLASSES) for j in range(CLASSES) if i != j]
    within = [rows[i][j] for i, j in pairs if GROUPS[i] == GROUPS[j]]
    across = [rows[i][j] for i, j in pairs if GROUPS[i] != GROUPS[j]]
    wins = sum(1.0 if w > a else 0.5 if w == a else 0.0 for w in within for a in across)
    found = kinship(rows, GROUPS)
    assert found is not None
    assert found.within == pytest.approx(sum(within) / len(within))
    assert found.across == pytest.approx(sum(across) / len(across))
    assert found.ranked == pytest.approx(wins / len(within) / len(across))


def test_kinship_of_labels_that_follow_the_groups() -> None:
    rows = [[0.1 if GROUPS[i] == GROUPS[j] else 0.01 for j in range(CLASSES)] for i in range(CLASSES)]
    found = kinship(rows, GROUPS)
    assert found is not None
    assert found.ranked == 1
    assert kinship(rows, ["a"] * CLASSES) is None
    assert kinship(rows, list("abcdef")) is None


@pytest.mark.parametrize("name", HIERARCHIES)
def test_known_hierarchies_have_groups_of_several(name: str) -> None:
    groups = list(HIERARCHIES[name].values())
    assert len(groups) == 10
    assert kinship(torch.rand(10, 10).tolist(), groups) is not None


def test_a_hierarchy_from_a_file(tmp_path: Path) -> None:
    path = tmp_path / "groups.json"
    path.write_text('{"cat": "animal", "dog": "animal", "car": "machine"}')
    assert read_hierarchy(path, ("car", "cat", "dog")) == {"car": "machine", "cat": "animal", "dog": "animal"}
    for text, message in (
        ('{"cat": "animal", "dog": "animal"}', "does not fit the 3 classes of the data: it lacks car"),
        ('{"cat": "a", "dog": "a", "car": "b", "bus": "b"}', "it names bus, which the data does not have"),
        ('["cat"]', r"must be one JSON object \{class: group\} of texts"),
        ('{"cat": 1}', "must be one JSON object"),
        ("{", r"cannot be read \(.*\)\. Give a JSON file \{class: group\}"),
    ):
        path.write_text(text)
        with pytest.raises(ConfigError, match=message):
            read_hierarchy(path, ("car", "cat", "dog"))
    with pytest.raises(ConfigError, match="cannot be read"):
        read_hierarchy(tmp_path / "none.json", ("car",))
    with pytest.raises(ConfigError, match="lacks car"):
        check_hierarchy({}, ("car",), "here")


# Facts of labels.


def teacher_of(data: Dataset, seed: int) -> Teacher:
    model = build_model("convnet-1:width=4", image_shape=data.info.image_shape, classes=data.info.classes, seed=seed)
    model.eval().requires_grad_(False)
    return Teacher(model, data.info, "convnet-1:width=4", f"test-{seed}", 0.25, 0, 0)


def test_facts_of_labels_against_loops(tiny_data: Dataset, execution: Execution) -> None:
    teachers = {"one": [teacher_of(tiny_data, 0)], "both": [teacher_of(tiny_data, 0), teacher_of(tiny_data, 1)]}
    comparison = Comparison(name="x", title="x", protocol=find_protocol("no-distillation", epochs=1),
                            students=("mlp",), losses=("soft_ce",), teachers=("one", "both"))  # fmt: skip
    facts = {fact["name"]: fact for fact in label_facts(comparison, tiny_data, teachers, execution)}
    assert list(facts) == ["one", "both"]
    per_class = min(tiny_data.train.counts(4))
    images = distill("random", tiny_data, ipc=per_class, execution=execution)
    views = Normaliser(tiny_data.info, torch.device("cpu"))(images.images)
    for name, group in teachers.items():
        rows = torch.stack([teacher.model(views) for teacher in group]).mean(dim=0).softmax(dim=-1).tolist()
        pairs = list(zip(rows, images.targets.tolist(), strict=True))
        slow = {
            "entropy": [-sum(p * math.log(p) for p in row) for row in rows],
            "confidence": [max(row) for row in rows],
            "agreement": [
                float(row.index(max(row)) == y) for row, y in zip(rows, images.targets.tolist(), strict=True)
            ],
        }
        for key, values in slow.items():
            assert facts[name][key] == pytest.approx(sum(values) / len(values), abs=1e-5)
        for c in range(4):
            mine = [row for row, y in pairs if y == c]
            mean = [sum(column) / len(mine) for column in zip(*mine, strict=True)]
            assert facts[name]["classes"][c] == pytest.approx(mean, abs=1e-5)


def test_one_teacher_alone_has_no_facts_unless_asked(tiny_data: Dataset, execution: Execution) -> None:
    settings = {"name": "x", "title": "x", "protocol": find_protocol("no-distillation", epochs=1), "students": ("mlp",)}
    teachers = {"teacher": [teacher_of(tiny_data, 0)]}
    plain = Comparison(losses=("soft_ce",), **settings)
    assert label_facts(plain, tiny_data, teachers, execution) == []
    asked = Comparison(losses=("soft_ce",), plots=({"kind": "classes"},), **settings)
    assert len(label_facts(asked, tiny_data, teachers, execution)) == 1
    assert label_facts(Comparison(losses=("ce",), **settings), tiny_data, {}, execution) == []


@pytest.mark.parametrize("groups", [{"a": "x", "b": "x", "c": "x"}, {"a": "x", "b": "y", "c": "z"}])
def test_groups_that_compare_nothing_are_refused(groups: dict[str, str]) -> None:
    with pytest.raises(ConfigError, match="needs two groups or more, and one of them with two classes"):
        check_hierarchy(groups, ("a", "b", "c"), "toy.json")


def test_a_teacher_that_learned_nothing_is_noted(tiny_data: Dataset) -> None:
    guess = 1 / tiny_data.info.classes
    said = [{"name": "early", "agreement": 1.2 * guess}, {"name": "late", "agreement": 2 * guess}]
    [note] = _unlearned(said, tiny_data)
    assert note.startswith(f"The labels of 'early' agree with the class of {120 * guess:.1f} % of train images")
