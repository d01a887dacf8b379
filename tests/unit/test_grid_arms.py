"""Arms of a grid, what is trained together, and which arms are compared."""

import pickle
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from softlabel.core import ConfigError, UnknownNameError
from softlabel.evaluation import PROTOCOLS, Arm, Comparison, Tuning, find_protocol
from softlabel.evaluation._comparison import Cell, arms, cells
from softlabel.evaluation._pairs import compare_arms
from softlabel.evaluation._units import Unit, make_units
from softlabel.training import Checks, Optimizer

STUDENT = "convnet-1:width=4"
Meta = dict[str, Any]


@pytest.fixture
def comparison() -> Comparison:
    return Comparison(
        name="grid",
        title="A tiny grid",
        protocol=replace(find_protocol("gift", epochs=3), batch=5, checks=Checks(count=3)),
        students=(STUDENT,),
        losses=("ce", "kl", "gift"),
        seeds=(0, 1),
    )


def test_names_and_axes_of_arms(comparison: Comparison) -> None:
    several = replace(
        comparison,
        students=("mlp", STUDENT),
        optimizers=("adamw", "sgd:momentum=0.9"),
        teachers=("weak", "strong"),
        losses=("ce", "gift"),
        full_epochs=2,
    )
    found = arms(several, ["a", "b"], 4)
    assert len(found) == 2 * 2 * 2 * (1 + 2) + 1
    assert len({arm.name for arm in found}) == len(found)
    assert found[0].name == "a / mlp / adamw / ce"
    assert found[0].axes == {
        "set": "a", "teacher": "none", "labels": "hard", "student": "mlp", "optimizer": "adamw", "loss": "ce",
    }  # fmt: skip
    assert found[2].name == "a / strong / mlp / adamw / gift"
    assert found[2].axes["teacher"] == found[2].teacher == "strong"
    assert found[4].protocol.optimizer == Optimizer(name="sgd", lr=1e-2, momentum=0.9)
    assert found[-1].role == "baseline"
    assert found[-1].protocol.epochs == 2
    assert found[-1].protocol.labels == "hard"
    # What does not vary is not in the name.
    assert [arm.name for arm in arms(replace(comparison, losses=("ce", "gift")), ["a"], 4)] == ["a / ce", "a / gift"]


def test_arms_with_several_labels(comparison: Comparison) -> None:
    several = replace(comparison, losses=("ce", "soft_ce"), labels=("fixed", "online+keep:top=2"))
    found = arms(several, ["a"], 4)
    assert [arm.name for arm in found] == ["a / ce", "a / fixed / soft_ce", "a / online+keep:top=2 / soft_ce"]
    assert [arm.axes["labels"] for arm in found] == ["hard", "fixed", "online+keep:top=2"]
    assert [arm.protocol.labels for arm in found] == ["hard", "fixed", "online"]
    assert [arm.labels.spec for arm in found] == ["", "fixed", "online+keep:top=2"]
    # Without a regime, the protocol's.
    [_, arm] = arms(replace(several, labels=("swap",)), ["a"], 4)
    assert (arm.protocol.labels, arm.axes["labels"]) == ("online", "swap:rank=1")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"labels": ("fixed", "fixed")}, r"labels must differ\. Got fixed, fixed\."),
        ({"labels": ("hard",)}, "Hard labels are what the loss ce has"),
        ({"labels": ("often",)}, "There is no label regime, edit or codec named 'often'"),
        ({"labels": ("fixed+swap:rank=0",)}, "must be a whole number from 1 on. Got 0"),
        ({"labels": ("keep:top=2",)}, "The loss 'gift' needs the teacher's logits"),
        ({"losses": ("soft_ce",), "labels": ("int8",)}, "online labels are not. Take fixed .* as in replay.int8"),
        (
            {"losses": ("soft_ce",), "labels": ("swap",), "protocol": find_protocol("lpld", epochs=10)},
            r"replayed ones are stored\. Take fixed or online, as in online\+swap:rank=1",
        ),
        (
            {"losses": ("soft_ce",), "labels": ("keep:top=0",), "protocol": find_protocol("rded", epochs=3)},
            "'keep:top=0' goes by an image's class, and the views of the protocol 'rded \\(3 epochs\\)' mix images",
        ),
        (
            {"losses": ("soft_ce",), "labels": ("swap",), "steps": 2},
            "Edited and stored labels are for all classes at once",
        ),
    ],
)
def test_labels_that_no_student_can_learn_from(comparison: Comparison, changes: dict[str, Any], message: str) -> None:
    with pytest.raises((ConfigError, UnknownNameError), match=message):
        replace(comparison, **{"losses": ("gift",), **changes})


def test_edits_by_class_go_with_one_label_per_image(comparison: Comparison) -> None:
    mixing = replace(comparison, protocol=find_protocol("rded", epochs=3), losses=("soft_ce",))
    for labels in ("fixed+smooth", "online+keep:top=2"):
        assert len(arms(replace(mixing, labels=(labels,)), ["a"], 4)) == 1


@pytest.mark.parametrize("name", sorted(PROTOCOLS))
def test_every_protocol_has_a_full_data_baseline(name: str) -> None:
    comparison = Comparison(
        name="x", title="x", protocol=find_protocol(name, 20), students=(STUDENT,), losses=("ce",), full_epochs=2
    )
    assert comparison.full_protocol().total_epochs == 2


def test_arms_with_tuned_rates(comparison: Comparison) -> None:
    tuned = {("a", STUDENT, "adamw", "gift"): Optimizer(lr=0.02)}
    searching = replace(comparison, optimizers=("adamw",), losses=("ce", "gift"), tuning=Tuning())
    found = {arm.name: arm for arm in arms(searching, ["a"], 4, tuned)}
    assert list(found) == ["a / adamw / ce", "a / adamw / gift", "a / adamw (tuned) / gift"]
    assert found["a / adamw (tuned) / gift"].protocol.optimizer.lr == 0.02
    assert found["a / adamw / gift"].protocol.optimizer.lr == 1e-3


def test_class_incremental_arms(comparison: Comparison) -> None:
    found = arms(replace(comparison, losses=("gift",), steps=3, full_epochs=1), ["a"], 4)
    assert [arm.name for arm in found] == [
        "a / gift / 2 classes", "a / gift / 3 classes", "a / gift / 4 classes", "full data / ce"]  # fmt: skip
    assert [arm.seen for arm in found] == [2, 3, 4, 0]
    assert {arm.axes.get("line") for arm in found} == {"a / gift", None}


def paths_for(plan: Sequence[Cell]) -> dict[tuple[str, int], Path]:
    return {(cell.arm.set_name, cell.seed): Path(cell.arm.set_name, str(cell.seed)) for cell in plan}


def test_cells_of_one_set_seed_and_views_are_one_unit(comparison: Comparison) -> None:
    wide = replace(comparison, students=("mlp", STUDENT), optimizers=("adamw", "sgd"), full_epochs=1)
    plan = cells(wide, arms(wide, ["a", "b"], 4))
    units = make_units(plan, {key: path for key, path in paths_for(plan).items() if key[0] != "full data"}, 100)
    assert [len(unit.cells) for unit in units] == [12, 12, 12, 12, 1]  # 2 students x 2 optimizers x 3 losses
    for unit in units[:-1]:
        assert {(cell.arm.set_name, cell.seed) for cell in unit.cells} == {(unit.path.parent.name, int(unit.path.name))}  # type: ignore[union-attr]
    assert units[-1].path is None  # the full data
    assert units[-1].cells[0].arm.role == "baseline"
    assert sorted(plan.index(cell) for unit in units for cell in unit.cells) == list(range(len(plan)))


@pytest.mark.parametrize(("at_most", "sizes"), [(1, [1] * 6), (2, [2, 1, 2, 1]), (3, [3, 3]), (8, [3, 3])])
def test_units_hold_at_most_so_many(comparison: Comparison, at_most: int, sizes: list[int]) -> None:
    plan = cells(comparison, arms(comparison, ["a"], 4))
    units = make_units(plan, paths_for(plan), at_most)
    assert [len(unit.cells) for unit in units] == sizes
    assert {cell for unit in units for cell in unit.cells} == set(plan)


@pytest.mark.parametrize(
    "change",
    [
        {"epochs": 2},
        {"extra_epoch": True},
        {"batch": 4},
        {"batch": "rded"},
        {"views": "none"},
        {"views": "gift-factor"},
    ],
    ids=lambda change: "-".join(map(str, *change.items())),
)
def test_cells_of_other_views_are_another_unit(comparison: Comparison, change: dict[str, Any]) -> None:
    """`gift-factor` are the views of `gift` on sets that are no mosaics; which these are is not known yet."""
    plan = cells(comparison, arms(comparison, ["a"], 4))
    other = Cell(replace(plan[0].arm, protocol=replace(plan[0].arm.protocol, **change)), plan[0].seed)
    units = make_units([*plan, other], paths_for(plan))
    assert [unit.cells for unit in units if other in unit.cells] == [(other,)]
    seen = Cell(replace(plan[0].arm, seen=2), plan[0].seed)
    assert [unit.cells for unit in make_units([*plan, seen], paths_for(plan)) if seen in unit.cells] == [(seen,)]


def test_units_and_cells_can_be_sent_to_another_process(comparison: Comparison) -> None:
    plan = cells(comparison, arms(comparison, ["a"], 4))
    units: list[Unit] = make_units(plan, paths_for(plan))
    again: list[Unit] = pickle.loads(pickle.dumps(units))
    assert again == units
    assert {cell for unit in again for cell in unit.cells} == set(plan)


# Pairs.


def group(arm: Arm, accuracies: dict[int, float]) -> list[Meta]:
    return [{"seed": seed, "accuracy": {"final": value}} for seed, value in accuracies.items()]


def pairs_of(
    comparison: Comparison,
    *,
    failed: Callable[[Arm], bool] = lambda arm: False,
    tuned: dict[tuple[str, str, str, str], Optimizer] | None = None,
    sets: Sequence[str] = ("a",),
) -> list[tuple[str, str]]:
    found = arms(comparison, sets, 4, tuned)
    groups = {arm: [] if failed(arm) else group(arm, {0: 0.5, 1: 0.6}) for arm in found}
    told = compare_arms(comparison, groups, dict.fromkeys(sets, 8), resolution=0.01)
    return [(entry["arm"], entry["against"]) for entry in told]


@pytest.mark.parametrize("losses", [("ce", "gift"), ("gift", "ce")])
def test_losses_are_paired_in_any_order(comparison: Comparison, losses: tuple[str, ...]) -> None:
    first, second = losses
    assert pairs_of(replace(comparison, losses=losses)) == [(f"a / {second}", f"a / {first}")]


@pytest.mark.parametrize("losses", [("ce", "kl"), ("kl", "ce")])
def test_losses_are_paired_under_every_teacher(comparison: Comparison, losses: tuple[str, ...]) -> None:
    found = pairs_of(replace(comparison, losses=losses, teachers=("t1", "t2")))
    assert sorted(map(sorted, found)) == [
        ["a / ce", "a / t1 / kl"],
        ["a / ce", "a / t2 / kl"],
        ["a / t1 / kl", "a / t2 / kl"],
    ]


def test_optimizers_are_paired_with_the_first_and_with_their_tuned_selves(comparison: Comparison) -> None:
    grid = replace(comparison, losses=("gift",), optimizers=("adamw", "adam", "sgd"), tuning=Tuning())
    tuned = {("a", STUDENT, name, "gift"): Optimizer(name=name, lr=0.5) for name in grid.optimizers}
    assert sorted(pairs_of(grid, tuned=tuned)) == [
        ("a / adam (tuned) / gift", "a / adam / gift"),
        ("a / adam (tuned) / gift", "a / adamw / gift"),
        ("a / adam / gift", "a / adamw / gift"),
        ("a / adamw (tuned) / gift", "a / adamw / gift"),
        ("a / sgd (tuned) / gift", "a / adamw / gift"),
        ("a / sgd (tuned) / gift", "a / sgd / gift"),
        ("a / sgd / gift", "a / adamw / gift"),
    ]


def test_a_default_rate_that_fails_leaves_the_tuned_one_a_pair(comparison: Comparison) -> None:
    """What tuning is for: the default blows up, the tuned rate does not."""
    grid = replace(comparison, losses=("gift",), optimizers=("adamw", "sgd"), tuning=Tuning())
    tuned = {("a", STUDENT, name, "gift"): Optimizer(name=name, lr=0.5) for name in grid.optimizers}
    assert sorted(pairs_of(grid, tuned=tuned, failed=lambda arm: arm.axes["optimizer"] == "sgd")) == [
        ("a / adamw (tuned) / gift", "a / adamw / gift"),
        ("a / sgd (tuned) / gift", "a / adamw / gift"),
    ]


def test_many_losses_are_paired_with_the_first_and_the_main_one(comparison: Comparison) -> None:
    grid = replace(comparison, losses=("kl", "mse", "gift", "cosine"))
    found = pairs_of(grid)
    assert found[0] == ("a / gift", "a / kl")  # the main question first
    assert sorted(found) == [
        ("a / cosine", "a / kl"),
        ("a / gift", "a / cosine"),
        ("a / gift", "a / kl"),
        ("a / gift", "a / mse"),
        ("a / mse", "a / kl"),
    ]


def test_sets_are_paired_under_one_loss_when_they_are_of_one_size(comparison: Comparison) -> None:
    grid = replace(comparison, losses=("gift",))
    assert pairs_of(grid, sets=("random", "rded")) == [("rded / gift", "random / gift")]
    found = arms(grid, ("random", "rded"), 4)
    groups = {arm: group(arm, {0: 0.5, 1: 0.6}) for arm in found}
    assert compare_arms(grid, groups, {"random": 8, "rded": 80}, resolution=0.01) == []


def test_students_are_not_compared(comparison: Comparison) -> None:
    assert pairs_of(replace(comparison, losses=("gift",), students=("mlp", STUDENT))) == []


def test_an_arm_of_which_a_seed_failed_is_compared_with_nothing(comparison: Comparison) -> None:
    """The seeds that are left would be the luckier part of the story."""
    grid = replace(comparison, losses=("kl", "gift"), seeds=(0, 1, 2))
    kl, gift = arms(grid, ["a"], 4)
    groups = {kl: group(kl, {0: 0.1, 1: 0.2, 2: 0.3}), gift: group(gift, {0: 0.2, 1: 0.9, 2: 0.6})}
    [told] = compare_arms(grid, groups, {"a": 8}, resolution=0.01)
    assert told["difference"]["n"] == 3
    groups[kl] = group(kl, {0: 0.1, 2: 0.3})
    assert compare_arms(grid, groups, {"a": 8}, resolution=0.01) == []


def test_labels_of_its_own_are_paired_with_all_others_of_the_same_images(comparison: Comparison) -> None:
    grid = replace(comparison, losses=("ce", "kl"), teachers=("t1", "t2"), keep=(
        {"set": ("a",)}, {"set": ("a, learned",), "loss": ("kl",)}))  # fmt: skip
    found = arms(grid, ("a", "a, learned"), 4, own=("a, learned",))
    groups = {arm: group(arm, {0: 0.5, 1: 0.6}) for arm in found}
    sizes, twins = {"a": 8, "a, learned": 8}, {"a, learned": "a"}
    told = compare_arms(grid, groups, sizes, resolution=0.01, twins=twins)
    mine = [entry["against"] for entry in told if entry["arm"].startswith("a, learned")]
    assert mine == ["a / ce", "a / t1 / kl", "a / t2 / kl"]
    assert len(told) == 3 + len(pairs_of(replace(grid, keep=())))


def test_sets_of_every_size_are_paired_with_their_first(comparison: Comparison) -> None:
    grid = replace(comparison, losses=("gift",))
    names = [f"{name} {ipc}" for ipc in (1, 10) for name in ("random", "a", "b", "c")]
    groups = {arm: group(arm, {0: 0.5, 1: 0.6}) for arm in arms(grid, names, 4)}
    told = compare_arms(grid, groups, {name: 4 * int(name.split()[1]) for name in names}, resolution=0.01)
    assert sorted((entry["arm"], entry["against"]) for entry in told) == sorted(
        (f"{name} {ipc} / gift", f"random {ipc} / gift") for ipc in (1, 10) for name in "abc"
    )


def test_pairs_that_are_asked_for(comparison: Comparison) -> None:
    teachers = ("t1", "t2", "t3", "t4")
    grid = replace(comparison, losses=("gift",), teachers=teachers)
    usual = [(f"a / {later} / gift", "a / t1 / gift") for later in teachers[1:]]
    assert pairs_of(grid) == usual
    asked = replace(grid, pairs=(({"teacher": "t3"}, {"teacher": "t2"}), ({"teacher": "t2"}, {"teacher": "t1"})))
    assert pairs_of(asked) == [*usual, ("a / t3 / gift", "a / t2 / gift")]  # none twice


def test_pairs_that_differ_on_two_axes(comparison: Comparison) -> None:
    grid = replace(comparison, losses=("gift", "kl"), teachers=("t1", "t2"), labels=("online", "fixed"))
    asked = replace(grid, pairs=(({"teacher": "t2", "labels": "online"}, {"teacher": "t1", "labels": "fixed"}),))
    assert sorted({*pairs_of(asked)} - {*pairs_of(grid)}) == [
        (f"a / t2 / online / {loss}", f"a / t1 / fixed / {loss}") for loss in ("gift", "kl")
    ]


@pytest.mark.parametrize(
    ("own", "other"),
    [
        ({"teacher": "t2"}, {"labels": "fixed"}),
        ({"teacher": "t2", "labels": "online"}, {"teacher": "t1"}),
        ({"tutor": "t2"}, {"tutor": "t1"}),
        ({"teacher": "t2"}, {"teacher": "t2"}),
        ({}, {}),
    ],
)
def test_pairs_that_compare_nothing(comparison: Comparison, own: dict[str, str], other: dict[str, str]) -> None:
    with pytest.raises(ConfigError, match="on the same of the axes set, teacher, labels, student, optimizer, loss"):
        replace(comparison, pairs=((own, other),))
