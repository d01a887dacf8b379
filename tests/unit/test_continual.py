"""Class-incremental learning: which classes are seen, with which labels, and what is told of it."""

from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import torch

from softlabel.core import ConfigError, Dataset, Split
from softlabel.distill import distill
from softlabel.evaluation import Comparison, SetPaths, compare, find_protocol, plan_students, train_student
from softlabel.evaluation._continual import (
    SeenLabels,
    class_order,
    continual_facts,
    seen_after,
    seen_set,
)
from softlabel.evaluation._manifest import _whole
from softlabel.labels import FixedLabels, fixed_labels, online_labels
from softlabel.models import build_model
from softlabel.store import Store, read_artifact, save_distilled
from softlabel.training import Execution, Normaliser, Optimizer, Teacher

STUDENT = "convnet-1:width=4"


def untrained(data: Dataset) -> Teacher:
    model = build_model(STUDENT, image_shape=data.info.image_shape, classes=data.info.classes, seed=0)
    return Teacher(model.eval().requires_grad_(False), data.info, STUDENT, "test", 0.25, 0, 1000)


# Which classes.


@pytest.mark.parametrize("classes", [1, 2, 10, 200])
def test_the_order_is_a_permutation(classes: int) -> None:
    assert sorted(class_order(classes, 0)) == list(range(classes))


def test_the_order_depends_on_the_seed_alone() -> None:
    expected = class_order(10, 3)
    torch.manual_seed(5)
    torch.rand(7)
    assert class_order(10, 3) == expected
    assert len({class_order(10, seed) for seed in range(20)}) == 20


@pytest.mark.parametrize(
    ("classes", "steps", "expected"),
    [(10, 5, [2, 4, 6, 8, 10]), (10, 3, [4, 7, 10]), (7, 5, [2, 4, 5, 6, 7]), (4, 4, [1, 2, 3, 4]), (4, 1, [4])],
)
def test_how_many_are_seen(classes: int, steps: int, expected: list[int]) -> None:
    assert seen_after(classes, steps) == expected


def test_every_step_brings_something_new() -> None:
    for classes in range(1, 30):
        for steps in range(1, classes + 1):
            sizes = [after - before for before, after in pairwise([0, *seen_after(classes, steps)])]
            assert sum(sizes) == classes
            assert len(sizes) == steps
            assert sizes == sorted(sizes, reverse=True)
            assert min(sizes) >= max(sizes) - 1 >= 0


def same_split(found: Split, whole: Split, classes: tuple[int, ...]) -> None:
    keep = [position for position, target in enumerate(whole.targets.tolist()) if target in classes]
    assert torch.equal(found.images, whole.images[keep])
    assert found.targets.tolist() == [classes.index(whole.targets[position].item()) for position in keep]


@pytest.mark.parametrize("classes", [(2, 0), (3,), (1, 3, 0, 2)])
def test_data_of_the_seen_classes(classes: tuple[int, ...], tiny_data: Dataset) -> None:
    data = replace(tiny_data, selection=Split(tiny_data.train.images[:30], tiny_data.train.targets[:30]))
    found = data.of_classes(classes)
    for part in ("train", "test", "selection"):
        same_split(getattr(found, part), getattr(data, part), classes)
    assert found.info.class_names == tuple(data.info.class_names[index] for index in classes)
    assert found.info.classes == len(classes)
    assert (found.info.mean, found.info.std) == (data.info.mean, data.info.std)
    assert found.info.digest != data.info.digest
    assert tiny_data.of_classes(classes).selection is None


def test_other_classes_are_other_data(tiny_data: Dataset) -> None:
    """An order of classes is part of what a record depends on."""
    digests = {tiny_data.of_classes(classes).info.digest for classes in ((0, 1), (1, 0), (0, 2), (0,))}
    assert len(digests) == 4


def test_a_split_that_lacks_a_class(tiny_data: Dataset) -> None:
    few = (tiny_data.test.targets < 2).nonzero().flatten()
    data = replace(tiny_data, test=Split(tiny_data.test.images[few], tiny_data.test.targets[few]))
    same_split(data.of_classes((3, 1)).test, data.test, (3, 1))
    assert len(data.of_classes((3, 2)).test) == 0


def test_a_set_of_the_seen_classes(tiny_data: Dataset, execution: Execution) -> None:
    whole = replace(distill("random", tiny_data, ipc=3, seed=0, execution=execution), image_bytes=1000)
    found = seen_set(whole, (2, 0, 1))
    same_split(Split(found.images, found.targets), Split(whole.images, whole.targets), (2, 0, 1))
    assert found.image_bytes == 750
    assert (found.ipc, found.factor, found.method) == (whole.ipc, whole.factor, whole.method)
    assert found.info == tiny_data.of_classes((2, 0, 1)).info
    assert found.digest != whole.digest
    assert torch.equal(seen_set(whole, (0, 1, 2, 3)).images, whole.images)


# With which labels.


def test_labels_of_the_seen_classes(tiny_data: Dataset) -> None:
    table = torch.arange(12.0).reshape(3, 4)
    labels = SeenLabels(FixedLabels(table), (2, 0))
    assert labels.logits(torch.empty(2, 3, 16, 16), torch.tensor([2, 0])).tolist() == [[10, 8], [2, 0]]  # type: ignore[union-attr]
    assert labels.regime == "fixed"
    assert (labels.label_bytes, labels.labeler_bytes) == (48, 0)
    prints = {labels.fingerprint, SeenLabels(FixedLabels(table), (0, 2)).fingerprint, FixedLabels(table).fingerprint}
    assert len(prints) == 3
    assert isinstance(labels.to(torch.device("cpu")), SeenLabels)


def test_online_labels_of_the_seen_classes(tiny_data: Dataset) -> None:
    online = online_labels([untrained(tiny_data)], tiny_data.info)
    views = Normaliser(tiny_data.info, torch.device("cpu"))(tiny_data.test.images[:5])
    whole = online.logits(views, torch.arange(5))
    assert torch.equal(SeenLabels(online, (3, 1)).logits(views, torch.arange(5)), whole[:, [3, 1]])  # type: ignore[arg-type]


# What is told.


def record(*per_class: float | None, final: float) -> dict[str, Any]:
    return {"accuracy": {"per_class": list(per_class), "final": final}}


def forgetting_slowly(steps: list[list[float]]) -> float:
    """Per group of classes: its best mean before the last step, minus its mean after it; averaged over the groups."""
    drops = []
    for group in range(len(steps) - 1):
        start = len(steps[group - 1]) if group else 0
        stop = len(steps[group])
        best = -1.0
        for step in range(group, len(steps) - 1):
            best = max(best, sum(steps[step][start:stop]) / (stop - start))
        drops.append(best - sum(steps[-1][start:stop]) / (stop - start))
    return sum(drops) / len(drops)


def test_forgetting_and_average_by_hand() -> None:
    """Two classes, then one, then one. Group 1: 0.9, 0.6 and 0.5 on average; group 2: 0.8, then 0.3."""
    steps = [
        record(1.0, 0.8, final=0.9),
        record(0.7, 0.5, 0.8, final=0.7),
        record(0.6, 0.4, 0.3, 0.9, final=0.55),
    ]
    facts = continual_facts([["a", "b"], ["c"], ["d"]], {"x": [steps]})
    assert facts["classes"] == [["a", "b"], ["c"], ["d"]]
    [told] = facts["arms"]
    assert told["name"] == "x"
    assert told["forgetting"]["mean"] == pytest.approx(((0.9 - 0.5) + (0.8 - 0.3)) / 2)
    assert told["average"]["mean"] == pytest.approx((0.9 + 0.7 + 0.55) / 3)
    assert [step["mean"] for step in told["steps"]] == pytest.approx([0.9, 0.7, 0.55])


def test_the_best_before_need_not_be_the_first() -> None:
    steps = [record(0.2, final=0.2), record(0.6, 0.5, final=0.55), record(0.1, 0.9, 1.0, final=0.7)]
    [told] = continual_facts([["a"], ["b"], ["c"]], {"x": [steps]})["arms"]
    assert told["forgetting"]["mean"] == pytest.approx(((0.6 - 0.1) + (0.5 - 0.9)) / 2)  # learning later counts, too


def test_forgetting_against_a_slow_restatement() -> None:
    draws = torch.Generator().manual_seed(0)
    for classes, steps in ((10, 5), (7, 3), (4, 4), (9, 2)):
        by_seed, expected = [], []
        for _ in range(3):
            rows = [torch.rand(seen, generator=draws, dtype=torch.float64).tolist()
                    for seen in seen_after(classes, steps)]  # fmt: skip
            by_seed.append([record(*row, final=sum(row) / len(row)) for row in rows])
            expected.append(forgetting_slowly(rows))
        [told] = continual_facts([], {"x": by_seed})["arms"]
        assert told["forgetting"]["mean"] == pytest.approx(sum(expected) / 3)
        assert told["forgetting"]["n"] == 3


def test_one_step_forgets_nothing() -> None:
    [told] = continual_facts([["a", "b"]], {"x": [[record(0.5, 0.7, final=0.6)]]})["arms"]
    assert told["forgetting"] is None
    assert told["average"]["mean"] == 0.6


def test_a_class_without_test_images_is_left_out() -> None:
    steps = [record(0.8, None, final=0.8), record(0.6, None, 0.5, final=0.55)]
    [told] = continual_facts([["a", "b"], ["c"]], {"x": [steps]})["arms"]
    assert told["forgetting"]["mean"] == pytest.approx(0.2)


# A comparison.


@pytest.fixture(scope="module")
def families(tiny_data: Dataset, execution: Execution, tmp_path_factory: pytest.TempPathFactory) -> list[SetPaths]:
    root = tmp_path_factory.mktemp("sets")
    for seed in (0, 1):
        save_distilled(distill("random", tiny_data, ipc=2, seed=seed, execution=execution), root / str(seed))
    return [SetPaths("random", tuple((seed, root / str(seed)) for seed in (0, 1)))]


@pytest.fixture
def comparison() -> Comparison:
    return Comparison(
        name="continual",
        title="Continual",
        protocol=replace(find_protocol("gift", epochs=2), batch=4),
        students=(STUDENT,),
        losses=("ce", "gift"),
        seeds=(0, 1),
        steps=3,
    )


def test_a_comparison_in_steps(
    comparison: Comparison, families: list[SetPaths], tiny_data: Dataset, execution: Execution, store: Store
) -> None:
    path = compare(
        comparison, tiny_data, {"teacher": [untrained(tiny_data)]}, families, store=store, execution=execution,
        command="softlabel grid continual",
    )  # fmt: skip
    meta = read_artifact(path, "study").meta
    arms = {arm["name"]: arm for arm in meta["arms"]}
    assert list(arms) == [f"random / {loss} / {seen} classes" for loss in ("ce", "gift") for seen in (2, 3, 4)]
    facts = meta["continual"]
    order = [tiny_data.info.class_names[index] for index in class_order(4, 0)]
    assert facts["classes"] == [order[:2], order[2:3], order[3:]]
    assert [(told["name"], told["set"], told["loss"]) for told in facts["arms"]] == [
        ("random / ce", "random", "ce"), ("random / gift", "random", "gift")]  # fmt: skip
    for told in facts["arms"]:
        assert [step["mean"] for step in told["steps"]] == [
            arms[f"{told['name']} / {seen} classes"]["final"]["mean"] for seen in (2, 3, 4)
        ]
        assert told["forgetting"]["n"] == told["average"]["n"] == 2
        rows = {seed: [] for seed in (0, 1)}  # type: ignore[var-annotated]
        for seen in (2, 3, 4):
            for key in arms[f"{told['name']} / {seen} classes"]["records"]:
                found = store.read_record(key)
                assert found is not None
                assert found["images_seen"] == 2 * 2 * seen
                assert len(found["accuracy"]["per_class"]) == seen
                mean = sum(found["accuracy"]["per_class"]) / seen
                assert found["accuracy"]["final"] == pytest.approx(mean)
                rows[found["seed"]].append(found["accuracy"]["per_class"])
        slow = sum(forgetting_slowly(row) for row in rows.values()) / 2
        assert told["forgetting"]["mean"] == pytest.approx(slow)
    pairs = [(entry["arm"], entry["against"]) for entry in meta["comparisons"]]
    # The last step, which knows all classes, is the question; it comes first.
    assert pairs == [(f"random / gift / {seen} classes", f"random / ce / {seen} classes") for seen in (4, 2, 3)]


def test_a_plan_finds_finished_steps_where_a_selection_split_is_set_aside(
    comparison: Comparison, families: list[SetPaths], tiny_data: Dataset, execution: Execution, store: Store
) -> None:
    """Steps are not judged on the selection split; their records are finished without it."""
    data, teachers = replace(tiny_data, selection=tiny_data.test), {"teacher": [untrained(tiny_data)]}
    compare(comparison, data, teachers, families, store=store, execution=execution, command="x")
    lines = plan_students(comparison, data, families, {"random": 8}, teachers, store=store, execution=execution)
    assert {(line.done, line.total) for line in lines} == {(2, 2)}


@pytest.mark.parametrize("labels", ["online", "fixed"])
def test_a_student_of_some_classes_is_that_of_a_data_set_of_these(
    labels: str, comparison: Comparison, families: list[SetPaths], tiny_data: Dataset, execution: Execution,
    store: Store,
) -> None:  # fmt: skip
    """The last step has all classes in their order: the teacher's columns go with the targets."""
    one = replace(comparison, steps=1, losses=("kl",), protocol=replace(comparison.protocol, labels=labels))
    path = compare(one, tiny_data, {"teacher": [untrained(tiny_data)]}, families, store=store, execution=execution,
                   command="x")  # fmt: skip
    [arm] = read_artifact(path, "study").meta["arms"]
    found = store.read_record(arm["records"][0])
    assert found is not None
    order = class_order(4, 0)
    whole = distill("random", tiny_data, ipc=2, seed=0, execution=execution)
    source = (online_labels([untrained(tiny_data)], tiny_data.info) if labels == "online"
              else fixed_labels([untrained(tiny_data)], whole, execution))  # fmt: skip
    expected = train_student(
        seen_set(whole, order), SeenLabels(source, order), data=tiny_data.of_classes(order),
        protocol=one.protocol.with_loss("kl"), student=STUDENT, seed=0, execution=execution,
    )  # fmt: skip
    assert found["train_loss"] == expected["train_loss"]
    assert found["accuracy"] == expected["accuracy"]


def test_a_line_with_a_failed_step_is_left_out(
    comparison: Comparison, families: list[SetPaths], tiny_data: Dataset, execution: Execution, store: Store
) -> None:
    broken = replace(comparison, losses=("gift",), optimizers=("adamw", "sgd:lr=1e+30"))
    path = compare(broken, tiny_data, {"teacher": [untrained(tiny_data)]}, families, store=store,
                   execution=execution, command="x", tolerant=True)  # fmt: skip
    meta = read_artifact(path, "study").meta
    assert [told["name"] for told in meta["continual"]["arms"]] == ["random / adamw / gift"]
    assert sum("failed" in arm for arm in meta["arms"]) == 3


def test_a_seed_with_a_failed_step_leaves_its_line_to_the_others() -> None:
    steps = [[{"seed": 0, "n": 0}, {"seed": 1, "n": 1}], [{"seed": 1, "n": 2}]]
    assert _whole(steps) == [[{"seed": 1, "n": 1}, {"seed": 1, "n": 2}]]
    assert _whole([[{"seed": 0}], []]) == []


def test_more_steps_than_classes_are_refused(
    comparison: Comparison, families: list[SetPaths], tiny_data: Dataset, execution: Execution, tmp_path: Path
) -> None:
    many = replace(comparison, steps=5)
    with pytest.raises(ConfigError, match="5 class-incremental steps need as many classes; tiny has 4"):
        compare(many, tiny_data, {"teacher": [untrained(tiny_data)]}, families, store=Store(tmp_path),
                execution=execution, command="x")  # fmt: skip
    with pytest.raises(ConfigError, match=r"must be 1 or more\. Got -1"):
        replace(comparison, steps=-1)


def test_optimizers_are_part_of_a_line(comparison: Comparison) -> None:
    assert replace(comparison, optimizers=("adamw", "sgd")).optimizer("sgd") == Optimizer.parse("sgd")
