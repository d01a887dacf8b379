"""Grids: what is trained together, what fails, what is killed, and what comes out."""

import functools
import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from softlabel.core import (
    ConfigError,
    Dataset,
    NonFiniteLossError,
    Progress,
    SoftlabelError,
    SoftlabelWarning,
    StoreError,
    TrainingFailedError,
    UnknownNameError,
)
from softlabel.distill import distill
from softlabel.evaluation import (
    STACK_SIZE,
    Comparison,
    Job,
    SetPaths,
    compare,
    find_protocol,
    full_data,
    train_students,
)
from softlabel.evaluation._units import Bench, Outcome, Unit, run_unit
from softlabel.labels import HardLabels, OnlineLabels
from softlabel.models import build_model
from softlabel.store import FileCheckpoint, Store, load_distilled, read_artifact, save_distilled
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


class Backwards:
    """An executor that is done with the last unit first."""

    def run(self, units: Sequence[Unit], bench: Bench, progress: Progress) -> Iterator[Sequence[Outcome]]:
        for unit in reversed(units):
            yield run_unit(unit, bench, progress)


def test_a_study_does_not_tell_who_was_done_first(
    run: Compare, comparison: Comparison, store: Store, tmp_path: Path
) -> None:
    loud = replace(comparison, optimizers=("adamw", LOUD))
    expected = run(Store(tmp_path / "forwards"), comparison=loud, tolerant=True)
    found = run(store, comparison=loud, tolerant=True, executor=Backwards())
    assert meta_of(found) == meta_of(expected)
    assert found.name == expected.name


@pytest.mark.parametrize("stack", ["pile", ""])
def test_an_unknown_stack_stops_before_any_student(run: Compare, store: Store, stack: str) -> None:
    with pytest.raises(UnknownNameError, match="auto, loop, vmap"):
        run(store, stack=stack, tolerant=True)
    assert not list(store.root.rglob("*.json"))


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
    with pytest.raises(TrainingFailedError, match=r"12 students of 12 failed.*a kernel is missing") as caught:
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


def test_a_student_that_does_not_fit_fails_alone_and_is_tried_again(
    run: Compare, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object, **__: object) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr(FIT, fail)
    with pytest.warns(SoftlabelWarning, match="A stack of"):
        meta = read_artifact(run(store, tolerant=True), "study").meta
    errors = {entry["error"] for arm in meta["arms"] for entry in arm["failed"]}
    assert errors == {"it does not fit into memory"}
    assert not list(store.root.glob("failures/*"))
    monkeypatch.undo()
    meta = read_artifact(run(store, tolerant=True), "study").meta
    assert all("failed" not in arm for arm in meta["arms"])


def test_a_stack_that_breaks_is_trained_one_by_one(
    run: Compare, store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One model of somebody's package that raises must not take finished or healthy students with it."""

    def fail(trainees: Sequence[Trainee], *args: Any, **settings: Any) -> Any:
        if any(trainee.protocol.loss.name == "gift" for trainee in trainees):
            raise ValueError("Expected more than 1 value per channel")
        return fit_stack(trainees, *args, **settings)

    monkeypatch.setattr(FIT, fail)
    meta = read_artifact(run(store, tolerant=True), "study").meta
    failed = {arm["name"] for arm in meta["arms"] if arm.get("failed")}
    assert failed == {arm["name"] for arm in meta["arms"] if arm["loss"] == "gift"}
    assert any(not arm.get("failed") for arm in meta["arms"])
    monkeypatch.undo()
    run(store, tolerant=True)
    whole = Store(tmp_path / "whole")
    run(whole, tolerant=True)
    assert records_of(store) == records_of(whole)


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
    assert checkpoints or step != 3  # in the second epoch of the first stack
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


def test_a_unit_of_the_full_data(run: Compare, comparison: Comparison, store: Store, tiny_data: Dataset) -> None:
    meta = meta_of(run(store, comparison=replace(comparison, losses=("gift",), seeds=(0,), full_epochs=1)))
    record = store.read_record(by_name(meta)["full data / ce"]["records"][0])
    assert record is not None
    assert record["identity"]["distilled"] == full_data(tiny_data).digest
    assert record["images_seen"] == len(tiny_data.train)


def test_the_history_of_a_stack_is_what_the_record_tells(run: Compare, store: Store, comparison: Comparison) -> None:
    meta = meta_of(run(store, comparison=replace(comparison, seeds=(0,))))
    for arm in meta["arms"]:
        record = store.read_record(arm["records"][0])
        assert record is not None
        history = History(curve=record["curve"])
        assert record["accuracy"]["final"] == history.final == arm["final"]["mean"]
        assert len(record["train_loss"]) == 3
        assert record["timing"]["trained_together"] == 3


# Labels of several kinds, and the selection split.


def test_edited_labels_in_a_grid(
    run: Compare, comparison: Comparison, families: list[SetPaths], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stacks = spy_on(monkeypatch)
    specs = ("fixed", "fixed+keep:top=4", "fixed+keep:top=0", "fixed+swap:rank=1")
    several = replace(comparison, losses=("ce", "soft_ce"), labels=specs, seeds=(0,))
    store = Store(tmp_path)
    meta = meta_of(run(store, comparison=several, sets=families[:1]))
    assert len(stacks) == 1  # all of one set and seed see the same views
    losses = {}
    for name, arm in by_name(meta).items():
        record = store.read_record(arm["records"][0])
        assert record is not None
        losses[name] = record["train_loss"]
    # tiny has 4 classes: all of them kept is the label itself, none of them the hard label.
    assert losses["random / fixed+keep:top=4 / soft_ce"] == pytest.approx(losses["random / fixed / soft_ce"], rel=1e-5)
    assert losses["random / fixed+keep:top=0 / soft_ce"] == pytest.approx(losses["random / ce"], rel=1e-5)
    assert losses["random / fixed+swap:rank=1 / soft_ce"] != losses["random / fixed / soft_ce"]
    pairs = [(entry["arm"], entry["against"]) for entry in meta["comparisons"]]
    assert ("random / fixed / soft_ce", "random / ce") in pairs
    assert ("random / fixed+swap:rank=1 / soft_ce", "random / fixed / soft_ce") in pairs


def test_mass_needs_edited_labels(run: Compare, comparison: Comparison, tmp_path: Path) -> None:
    labels = ("fixed+keep:top=1",)
    meta = meta_of(run(Store(tmp_path), comparison=replace(comparison, losses=("soft_ce_mass",), labels=labels)))
    assert len(meta["arms"]) == 2
    with pytest.raises(ConfigError, match="these labels are logits, which have no sum"):
        run(Store(tmp_path), comparison=replace(comparison, losses=("soft_ce_mass",), labels=("fixed",)))


def test_an_edit_beyond_the_classes_is_refused(run: Compare, comparison: Comparison, tmp_path: Path) -> None:
    several = replace(comparison, losses=("soft_ce",), labels=("fixed+keep:top=5",))
    with pytest.raises(ConfigError, match="asks for more than labels of 4 classes have"):
        run(Store(tmp_path), comparison=several)


def test_records_without_this_selection_split_s_accuracy_are_made_again(
    run: Compare, comparison: Comparison, tiny_data: Dataset, families: list[SetPaths], teacher: Teacher,
    execution: Execution, tmp_path: Path,
) -> None:  # fmt: skip
    """A choice among arms of which some were judged for some seeds alone would be no choice."""
    store = Store(tmp_path)
    run(store, sets=families[:1])  # the same students, judged on the test split alone
    choosing = replace(comparison, selection=True)
    found = []
    for images in (tiny_data.train, tiny_data.train.subset(torch.arange(40))):
        data = replace(tiny_data, selection=images)
        path = compare(choosing, data, {"teacher": [teacher]}, families[:1], store=store, execution=execution,
                       command="x")  # fmt: skip
        arms = meta_of(path)["arms"]
        assert {arm["selection"]["n"] for arm in arms} == {len(choosing.seeds)}
        found.append([arm["selection"]["mean"] for arm in arms])
    assert found[0] != found[1]  # another split is another judgement


def test_students_judged_on_the_selection_split(
    run: Compare, comparison: Comparison, tiny_data: Dataset, families: list[SetPaths], teacher: Teacher,
    execution: Execution, tmp_path: Path,
) -> None:  # fmt: skip
    store = Store(tmp_path)
    without = run(store, sets=families[:1])
    with pytest.raises(ConfigError, match="This study chooses on the selection split, and there is none"):
        run(store, comparison=replace(comparison, selection=True))
    data = replace(tiny_data, selection=tiny_data.train)
    store = Store(tmp_path / "again")
    choosing = replace(comparison, selection=True)
    path = compare(choosing, data, {"teacher": [teacher]}, families[:1], store=store, execution=execution, command="x")
    for arm, plain_arm in zip(meta_of(path)["arms"], meta_of(without)["arms"], strict=True):
        assert arm["final"]["mean"] == plain_arm["final"]["mean"]
        assert plain_arm["selection"] is None
        records = [store.read_record(key) for key in arm["records"]]
        seen = [record["accuracy"]["selection"] for record in records if record is not None]
        assert arm["selection"]["mean"] == pytest.approx(sum(seen) / len(seen))
        # The same student, judged on the same images as the test: a check that it is the trained one.
        judge = replace(data, test=tiny_data.train)
        for record in records:
            assert record is not None
            job = Job(
                protocol=choosing.protocol.with_loss(arm["loss"]),
                student=STUDENT,
                labels=OnlineLabels((teacher,), tiny_data.info),
            )
            distilled, seed = load_distilled(families[0].path(record["seed"])), record["seed"]
            [twin] = train_students(distilled, [job], data=judge, seed=seed, execution=execution)
            assert not isinstance(twin, SoftlabelError)
            assert twin["accuracy"]["final"] == record["accuracy"]["selection"]
