"""Grids: what is trained together, what fails, what is killed, and what comes out."""

import functools
import json
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from softlabel.core import (
    ConfigError,
    Dataset,
    NonFiniteLossError,
    SoftlabelWarning,
    StoreError,
    TrainingFailedError,
)
from softlabel.distill import distill
from softlabel.evaluation import (
    STACK_SIZE,
    Arm,
    Comparison,
    Job,
    SetPaths,
    Tuning,
    compare,
    find_protocol,
    full_data,
    train_students,
)
from softlabel.evaluation._comparison import Cell, arms, cells
from softlabel.evaluation._pairs import compare_arms
from softlabel.evaluation._units import Unit, make_units
from softlabel.labels import HardLabels
from softlabel.models import build_model
from softlabel.store import FileCheckpoint, Store, read_artifact, save_distilled
from softlabel.training import Checks, Execution, History, Optimizer, Teacher, Trainee, fit_stack

STUDENT = "convnet-1:width=4"
LOUD = "sgd:lr=1e+30"
FIT = "softlabel.evaluation._students.fit_stack"
Compare = Callable[..., Path]
Meta = dict[str, Any]


def untrained(data: Dataset, seed: int = 0) -> Teacher:
    model = build_model(STUDENT, image_shape=data.info.image_shape, classes=data.info.classes, seed=seed)
    return Teacher(model.eval().requires_grad_(False), data.info, STUDENT, f"test-{seed}", 0.25, 0, 1000 + seed)


@pytest.fixture(scope="module")
def teacher(tiny_data: Dataset) -> Teacher:
    return untrained(tiny_data)


@pytest.fixture(scope="module")
def families(
    tiny_data: Dataset, teacher: Teacher, execution: Execution, tmp_path_factory: pytest.TempPathFactory
) -> list[SetPaths]:
    """Two families: random images drawn per seed, and one herding set for all seeds."""
    root = tmp_path_factory.mktemp("sets")
    for seed in (0, 1):
        save_distilled(distill("random", tiny_data, ipc=2, seed=seed, execution=execution), root / f"random-{seed}")
    save_distilled(distill("herding", tiny_data, [teacher], ipc=2, seed=0, execution=execution), root / "herding")
    return [
        SetPaths("random", tuple((seed, root / f"random-{seed}") for seed in (0, 1))),
        SetPaths("herding", tuple((seed, root / "herding") for seed in (0, 1))),
    ]


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


@pytest.fixture
def run(
    comparison: Comparison, tiny_data: Dataset, teacher: Teacher, families: list[SetPaths], execution: Execution
) -> Compare:
    def inner(store: Store, **changed: Any) -> Path:
        teachers = changed.pop("teachers", {"teacher": [teacher]})
        settings = {"execution": execution, "command": "softlabel grid", "store": store, **changed}
        sets = settings.pop("sets", families)
        return compare(settings.pop("comparison", comparison), tiny_data, teachers, sets, **settings)

    return inner


def records_of(store: Store, *, names: bool = True) -> dict[str, str]:
    """Every record but for its times; without `names`, but for what its arm is called too."""
    found = {}
    for file in (store.root / "records").glob("*.json"):
        record = {key: value for key, value in json.loads(file.read_text()).items() if key != "timing"}
        if not names:
            del record["arm"]["name"]
        found[file.stem] = json.dumps(record, sort_keys=True)
    return found


def meta_of(path: Path) -> Meta:
    return read_artifact(path, "study").meta


def by_name(meta: Meta) -> dict[str, Meta]:
    return {arm["name"]: arm for arm in meta["arms"]}


def spy_on(monkeypatch: pytest.MonkeyPatch, *, save_seconds: float = 30.0) -> list[list[Trainee]]:
    """The stacks that are trained from now on."""
    stacks: list[list[Trainee]] = []

    def fit(trainees: Sequence[Trainee], *args: Any, **settings: Any) -> Any:
        stacks.append(list(trainees))
        return fit_stack(trainees, *args, **settings, save_seconds=save_seconds)

    monkeypatch.setattr(FIT, fit)
    return stacks


# Arms, and what is trained together.


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
    assert found[0].axes == {"set": "a", "teacher": "none", "student": "mlp", "optimizer": "adamw", "loss": "ce"}
    assert found[2].name == "a / strong / mlp / adamw / gift"
    assert found[2].axes["teacher"] == found[2].teacher == "strong"
    assert found[4].protocol.optimizer == Optimizer(name="sgd", lr=1e-2, momentum=0.9)
    assert found[-1].role == "baseline"
    assert found[-1].protocol.epochs == 2
    assert found[-1].protocol.labels == "hard"
    # What does not vary is not in the name.
    assert [arm.name for arm in arms(replace(comparison, losses=("ce", "gift")), ["a"], 4)] == ["a / ce", "a / gift"]


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


# What is trained together does not change what comes out.


def test_results_depend_on_no_stack(
    run: Compare, comparison: Comparison, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stacks = spy_on(monkeypatch)
    stores = {size: Store(tmp_path / str(size)) for size in (1, 2, STACK_SIZE)}
    metas = [meta_of(run(store, stack_size=size)) for size, store in stores.items()]
    assert {len(stack) for stack in stacks[:12]} == {1}
    assert {len(stack) for stack in stacks[12:20]} == {1, 2}
    assert {len(stack) for stack in stacks[20:]} == {3}
    backwards = Store(tmp_path / "backwards")
    run(backwards, comparison=replace(comparison, losses=comparison.losses[::-1], seeds=(1, 0)))
    expected = records_of(stores[1])
    assert len(expected) == 12
    for store in (*stores.values(), backwards):
        assert records_of(store) == expected
    assert metas[0] == metas[1] == metas[2]


def test_arms_of_one_training_are_trained_once_by_name(run: Compare, comparison: Comparison, store: Store) -> None:
    """Two specs of one optimizer: one record, two arms."""
    twins = replace(comparison, optimizers=("adamw", "adamw:decay_on=all,lr=0.0010000000001"), losses=("gift",))
    twins = replace(twins, seeds=(0,))
    assert len(by_name(meta_of(run(store, comparison=twins)))) == 4
    assert len(records_of(store)) == 4


# Failures.


@pytest.fixture
def loud(comparison: Comparison) -> Comparison:
    """Half of its arms blow up."""
    return replace(comparison, optimizers=("adamw", LOUD), losses=("ce", "gift"))


def test_failing_cells_stop_nobody(
    run: Compare, loud: Comparison, store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    quiet = Store(tmp_path / "quiet")
    run(quiet, comparison=replace(loud, optimizers=("adamw",)))
    stacks = spy_on(monkeypatch)
    meta = meta_of(run(store, comparison=loud, tolerant=True))
    assert {len(stack) for stack in stacks} == {4}
    assert records_of(store, names=False) == records_of(quiet, names=False)
    found = by_name(meta)
    assert len(found) == 8
    for name, arm in found.items():
        if LOUD in name:
            assert [entry["seed"] for entry in arm["failed"]] == [0, 1]
            assert all("learning rate 1e+30" in entry["error"] for entry in arm["failed"])
            assert (arm["records"], arm["seeds"], arm["final"], arm["best_test"]) == ([], [], None, None)
            assert arm["bytes"] == {"images": 0, "labels": 0, "labeler": 0}
        else:
            assert "failed" not in arm
            assert len(arm["records"]) == 2
    assert not any(LOUD in entry["arm"] + entry["against"] for entry in meta["comparisons"])
    assert len(list((store.root / "failures").glob("*.json"))) == 8


def test_a_failure_is_kept_and_retried_on_demand(
    run: Compare, loud: Comparison, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = run(store, comparison=loud, tolerant=True)
    before = records_of(store)
    stacks = spy_on(monkeypatch)
    assert run(store, comparison=loud, tolerant=True) == path
    assert stacks == []
    assert run(store, comparison=loud, tolerant=True, retry=True) == path
    assert {trainee.protocol.optimizer.lr for stack in stacks for trainee in stack} == {1e30}
    assert sum(map(len, stacks)) == 8
    assert records_of(store) == before


def test_a_retry_that_works_clears_the_failure(
    run: Compare, store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = Store(tmp_path / "whole")
    expected = run(whole)

    def fail(trainees: Sequence[Trainee], *args: Any, **settings: Any) -> list[Any]:
        found: list[Any] = list(fit_stack(trainees, *args, **settings))
        return [NonFiniteLossError("bad luck") if t.protocol.loss.name == "kl" else h
                for t, h in zip(trainees, found, strict=True)]  # fmt: skip

    with monkeypatch.context() as patch:
        patch.setattr(FIT, fail)
        broken = by_name(meta_of(run(store, tolerant=True)))
    assert [entry["error"] for entry in broken["random / kl"]["failed"]] == ["bad luck", "bad luck"]
    still = run(store, tolerant=True)  # not tried again
    assert by_name(meta_of(still)) == broken
    mended = run(store, tolerant=True, retry=True)
    assert mended.name == expected.name
    assert records_of(store) == records_of(whole)
    assert not list((store.root / "failures").glob("*.json"))


def test_an_intolerant_comparison_raises_when_the_others_are_done(run: Compare, loud: Comparison, store: Store) -> None:
    with pytest.raises(NonFiniteLossError, match=r"8 students of 16 failed; the others are finished and kept.*sgd"):
        run(store, comparison=loud)
    assert len(records_of(store)) == 8
    assert not (store.root / "studies").exists()


def test_another_kind_of_failure(run: Compare, store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object, **__: object) -> None:
        raise RuntimeError("a kernel is missing")

    monkeypatch.setattr(FIT, fail)
    with pytest.raises(TrainingFailedError, match="12 students of 12 failed.*a kernel is missing") as caught:
        run(store)
    assert not isinstance(caught.value, NonFiniteLossError)
    arm = by_name(meta_of(run(store, tolerant=True)))["random / ce"]
    assert [entry["error"] for entry in arm["failed"]] == ["a kernel is missing"] * 2


def test_what_is_wrong_with_the_store_stops_the_grid(
    run: Compare, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise StoreError("nothing can be written here")

    monkeypatch.setattr(Store, "write_record", refuse)
    with pytest.raises(StoreError, match="nothing can be written"):
        run(store, tolerant=True)
    assert not list(store.root.rglob("failures/*"))


def test_a_model_too_small_for_the_image_fails_alone(
    run: Compare, comparison: Comparison, store: Store, tmp_path: Path
) -> None:
    alone = Store(tmp_path / "alone")
    run(alone)
    both = replace(comparison, students=(STUDENT, "convnet-6:width=4"))  # six times half of 16 pixels is none
    meta = meta_of(run(store, comparison=both, tolerant=True))
    assert records_of(store, names=False) == records_of(alone, names=False)
    failed = {name: arm["failed"] for name, arm in by_name(meta).items() if "failed" in arm}
    assert all("convnet-6" in name for name in failed)
    assert len(failed) == 6
    assert all("16" in entry["error"] for entries in failed.values() for entry in entries)


# Memory.


@pytest.mark.parametrize("room", [1, 2, 4])
def test_a_stack_that_does_not_fit_is_halved(
    room: int, tiny_data: Dataset, teacher: Teacher, comparison: Comparison, execution: Execution, store: Store,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    jobs = [
        Job(protocol=replace(comparison.protocol.with_loss("ce"), optimizer=Optimizer(lr=rate)), student=STUDENT,
            labels=HardLabels())
        for rate in (1e-3, 2e-3, 3e-3, 4e-3, 5e-3)
    ]  # fmt: skip
    distilled = distill("random", tiny_data, ipc=2, seed=0, execution=execution)
    settings: dict[str, Any] = {"data": tiny_data, "execution": execution}
    expected = train_students(distilled, jobs, **settings)
    sizes: list[int] = []

    def fit(trainees: Sequence[Trainee], *args: Any, **rest: Any) -> Any:
        sizes.append(len(trainees))
        if len(trainees) > room:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return fit_stack(trainees, *args, **rest)

    monkeypatch.setattr(FIT, fit)
    with pytest.warns(SoftlabelWarning, match="does not fit into memory; going on with") as told:
        found = train_students(distilled, jobs, store=store, **settings)
    assert sizes == {1: [5, 3, 2, 1, 1, 1, 1, 1], 2: [5, 3, 2, 2, 1], 4: [5, 3, 2]}[room]
    assert str(told[0].message) == "A stack of 5 students does not fit into memory; going on with 3 at a time."
    for one, other in zip(found, expected, strict=True):
        assert {**one, "timing": None} == {**other, "timing": None}  # type: ignore[dict-item]


def test_one_student_that_does_not_fit_ends_the_work(
    run: Compare, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object, **__: object) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr(FIT, fail)
    with (
        pytest.warns(SoftlabelWarning, match="A stack of"),
        pytest.raises(torch.OutOfMemoryError, match="CUDA out of memory"),
    ):
        run(store, tolerant=True)
    assert not list(store.root.rglob("*.json"))  # tried again the next time


# Killed and resumed.


class KilledAfter:
    """A Progress that is interrupted after so many steps, of students or of epochs."""

    def __init__(self, steps: int) -> None:
        self.steps = steps
        self.told: list[str] = []

    def start(self, what: str, total: int) -> None:
        pass

    def advance(self, steps: int = 1, note: str = "") -> None:
        self.told.append(note)
        self.steps -= 1
        if not self.steps:
            raise KeyboardInterrupt

    def finish(self, summary: str = "") -> None:
        pass


def spy_on_checkpoints(monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    """The checkpoints that trainings go on from."""
    loaded: list[Path] = []
    load = FileCheckpoint.load

    def look(self: FileCheckpoint) -> Any:
        found = load(self)
        if found is not None:
            loaded.append(self.path)
        return found

    monkeypatch.setattr(FileCheckpoint, "load", look)
    return loaded


@pytest.mark.parametrize("stack_size", [2, 8])
@pytest.mark.parametrize("step", [3, 7, 11, 14])
def test_killed_and_resumed_is_like_unbroken(
    step: int, stack_size: int, run: Compare, loud: Comparison, store: Store, tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    monkeypatch.setattr(FIT, functools.partial(fit_stack, save_seconds=0.0))
    settings: dict[str, Any] = {"comparison": loud, "stack_size": stack_size, "tolerant": True}
    unbroken = Store(tmp_path / "unbroken")
    expected = read_artifact(run(unbroken, **settings), "study")
    with pytest.raises(KeyboardInterrupt):
        run(store, progress=KilledAfter(step), **settings)
    kept = {file: file.stat().st_mtime_ns for kind in ("records", "failures")
            for file in (store.root / kind).glob("[!.]*.json")}  # fmt: skip
    assert not (store.root / "studies").exists()
    checkpoints = list((store.root / "records").glob(".*.safetensors"))
    loaded = spy_on_checkpoints(monkeypatch)
    resumed = read_artifact(run(store, **settings), "study")
    assert sorted(loaded) == sorted(checkpoints)
    assert {file: file.stat().st_mtime_ns for file in kept} == kept
    assert records_of(store) == records_of(unbroken)
    assert resumed.path.name == expected.path.name
    assert resumed.meta == expected.meta
    assert not list(store.root.rglob(".*"))


def test_a_failed_training_leaves_no_checkpoint(
    run: Compare, loud: Comparison, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One step per epoch: the first epoch is finite and saved, the second is not."""
    monkeypatch.setattr(FIT, functools.partial(fit_stack, save_seconds=0.0))
    slow = replace(loud, protocol=replace(loud.protocol, batch=8))
    meta = meta_of(run(store, comparison=slow, tolerant=True))
    errors = [entry["error"] for arm in meta["arms"] for entry in arm.get("failed", ())]
    assert len(errors) == 8
    assert not any("epoch 1," in error for error in errors)
    assert not list(store.root.rglob(".*"))


# Teachers.


def test_two_teachers(run: Compare, comparison: Comparison, store: Store, tiny_data: Dataset) -> None:
    teachers = {"weak": [untrained(tiny_data, 1)], "both": [untrained(tiny_data, 1), untrained(tiny_data, 2)]}
    grid = replace(comparison, teachers=("weak", "both"), losses=("ce", "gift"))
    meta = meta_of(run(store, comparison=grid, teachers=teachers))
    found = by_name(meta)
    assert list(found)[:3] == ["random / ce", "random / weak / gift", "random / both / gift"]
    assert len(found) == 6
    assert len(records_of(store)) == 12  # ce has one student for both teachers
    assert found["random / ce"]["bytes"]["labeler"] == 0
    assert found["random / weak / gift"]["bytes"]["labeler"] == 1001
    assert found["random / both / gift"]["bytes"]["labeler"] == 2003
    keys = [set(found[f"random / {name} / gift"]["records"]) for name in teachers]
    assert not keys[0] & keys[1]
    assert len(list((store.root / "replay").iterdir())) == 2 * 2 * 2  # per teacher, set and seed
    pairs = {(entry["arm"], entry["against"]) for entry in meta["comparisons"]}
    assert ("random / both / gift", "random / weak / gift") in pairs
    assert ("random / both / gift", "random / ce") in pairs


def test_a_teacher_without_a_name_in_the_comparison_is_missed(run: Compare, store: Store) -> None:
    with pytest.raises(ConfigError, match="losses kl, gift need a teacher"):
        run(store, teachers={"another": []})


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
def test_losses_are_paired_under_the_last_teacher(comparison: Comparison, losses: tuple[str, ...]) -> None:
    found = pairs_of(replace(comparison, losses=losses, teachers=("t1", "t2")))
    assert sorted(map(sorted, found)) == [["a / ce", "a / t2 / kl"], ["a / t1 / kl", "a / t2 / kl"]]


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


def test_only_seeds_that_both_arms_have_are_paired(comparison: Comparison) -> None:
    grid = replace(comparison, losses=("kl", "gift"), seeds=(0, 1, 2))
    kl, gift = arms(grid, ["a"], 4)
    groups = {kl: group(kl, {0: 0.1, 2: 0.3}), gift: group(gift, {0: 0.2, 1: 0.9, 2: 0.6})}
    [told] = compare_arms(grid, groups, {"a": 8}, resolution=0.01)
    assert told["difference"]["n"] == 2
    assert told["difference"]["mean"] == pytest.approx(0.2)  # 0.1 and 0.3
    groups[kl] = group(kl, {5: 0.1})
    assert compare_arms(grid, groups, {"a": 8}, resolution=0.01) == []


def test_a_unit_of_the_full_data(run: Compare, comparison: Comparison, store: Store, tiny_data: Dataset) -> None:
    meta = meta_of(run(store, comparison=replace(comparison, losses=("gift",), seeds=(0,), full_epochs=1)))
    record = store.read_record(by_name(meta)["full data / ce"]["records"][0])
    assert record is not None
    assert record["identity"]["distilled"] == full_data(tiny_data).digest
    assert record["images_seen"] == len(tiny_data.train)


def test_units_and_cells_can_be_sent_to_another_process(comparison: Comparison) -> None:
    import pickle

    plan = cells(comparison, arms(comparison, ["a"], 4))
    units: list[Unit] = make_units(plan, paths_for(plan))
    again: list[Unit] = pickle.loads(pickle.dumps(units))
    assert again == units
    assert {cell for unit in again for cell in unit.cells} == set(plan)


def test_the_history_of_a_stack_is_what_the_record_tells(run: Compare, store: Store, comparison: Comparison) -> None:
    meta = meta_of(run(store, comparison=replace(comparison, seeds=(0,))))
    for arm in meta["arms"]:
        record = store.read_record(arm["records"][0])
        assert record is not None
        history = History(curve=record["curve"])
        assert record["accuracy"]["final"] == history.final == arm["final"]["mean"]
        assert len(record["train_loss"]) == 3
        assert record["timing"]["trained_together"] == 3
