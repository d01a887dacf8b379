"""Students, protocols and comparisons."""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from softlabel.core import (
    ConfigError,
    Dataset,
    DistilledSet,
    NonFiniteLossError,
    StoreError,
    TeacherMismatchError,
    UnknownNameError,
)
from softlabel.distill import distill
from softlabel.evaluation import (
    PROTOCOLS,
    Comparison,
    SetPaths,
    compare,
    find_protocol,
    full_data,
    paired_difference,
    student_views,
    summarise,
    train_student,
    verdict,
)
from softlabel.labels import FixedLabels, HardLabels, LabelSpec, fixed_labels, make_labels, online_labels, read_labels
from softlabel.labels._sources import in_half
from softlabel.models import build_model
from softlabel.store import Store, read_artifact, save_distilled
from softlabel.training import Checks, Execution, Protocol, Teacher, Trainee

STUDENT = "convnet-2:width=8"


def untrained(data: Dataset, seed: int = 0) -> Teacher:
    model = build_model(STUDENT, image_shape=data.info.image_shape, classes=data.info.classes, seed=seed)
    return Teacher(model.eval().requires_grad_(False), data.info, STUDENT, f"test-{seed}", 0.25, 0, 1000)


def without_timing(record: dict[str, Any]) -> str:
    """A run record as text, but for its times."""
    return json.dumps({key: value for key, value in record.items() if key != "timing"}, sort_keys=True)


@pytest.fixture(scope="module")
def teacher(tiny_data: Dataset) -> Teacher:
    return untrained(tiny_data)


@pytest.fixture(scope="module")
def distilled(tiny_data: Dataset, execution: Execution) -> DistilledSet:
    return distill("random", tiny_data, ipc=3, seed=0, execution=execution)


@pytest.fixture
def protocol() -> Protocol:
    return replace(find_protocol("gift", epochs=4), batch=5)


Train = Callable[..., dict[str, Any]]


@pytest.fixture
def train(
    tiny_data: Dataset, teacher: Teacher, distilled: DistilledSet, protocol: Protocol, execution: Execution
) -> Train:
    def run(**changed: Any) -> dict[str, Any]:
        settings: dict[str, Any] = {
            "data": tiny_data, "protocol": protocol, "student": STUDENT, "seed": 0, "execution": execution,
        }  # fmt: skip
        labels = changed.pop("labels", online_labels([teacher], tiny_data.info))
        return train_student(changed.pop("distilled", distilled), labels, **{**settings, **changed})

    return run


# One student.


def test_two_trainings_give_the_same_record(train: Train, tmp_path: Path) -> None:
    first = train(store=Store(tmp_path / "one"), arm="a")
    second = train(store=Store(tmp_path / "two"), arm="a")
    assert without_timing(first) == without_timing(second)
    assert without_timing(train(arm="a")) == without_timing(first)  # without a store too
    assert first["timing"]["finished"]


def test_a_record_says_what_it_is(train: Train, distilled: DistilledSet, teacher: Teacher, protocol: Protocol) -> None:
    record = train(arm="random / gift", seed=3)
    assert json.loads(json.dumps(record)) == record
    assert record["arm"] == {"name": "random / gift", "method": "random", "ipc": 3, "loss": "gift", "labels": "online"}
    assert record["seed"] == 3
    assert record["identity"]["distilled"] == distilled.digest
    assert record["protocol"]["fingerprint"] == protocol.fingerprint
    assert record["bytes"] == {"images": 0, "labels": 0, "labeler": teacher.size}
    assert record["steps"] == 4 * 3  # 12 images in batches of 5
    assert record["images_seen"] == 4 * 12
    assert len(record["train_loss"]) == 4
    assert record["accuracy"]["final"] == record["curve"][-1]["test_accuracy"]
    assert record["accuracy"]["best_test"] == max(point["test_accuracy"] for point in record["curve"])
    assert {"softlabel", "torch", "device", "precision"} <= record["environment"].keys()


def test_a_finished_record_is_found(train: Train, store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    record = train(store=store)
    file = store.record(record["key"])
    before = file.stat().st_mtime_ns

    def fail(*_: object, **__: object) -> None:
        raise AssertionError("trained again")

    monkeypatch.setattr("softlabel.evaluation._students.fit_stack", fail)
    assert train(store=store) == record
    assert file.stat().st_mtime_ns == before
    assert [path.name for path in (store.root / "records").iterdir()] == [file.name]  # no checkpoint is left


@pytest.mark.parametrize(
    "change",
    [
        {"seed": 1},
        {"student": "convnet-1:width=8"},
        {"execution": Execution("cpu", "bf16")},
        {"protocol": find_protocol("gift", epochs=3)},
        {"labels": HardLabels(), "protocol": find_protocol("hard", epochs=2)},
    ],
    ids=lambda change: next(iter(change)),
)
def test_another_cell_has_another_key(change: dict[str, Any], train: Train, store: Store) -> None:
    assert train(store=store)["key"] != train(store=store, **change)["key"]
    assert len(list((store.root / "records").glob("*.json"))) == 2


def test_another_seed_trains_another_student(train: Train) -> None:
    assert train(seed=0)["train_loss"] != train(seed=1)["train_loss"]


def test_ce_drops_the_teacher(train: Train, protocol: Protocol, teacher: Teacher, tiny_data: Dataset) -> None:
    """Whatever labels are given, a loss on hard labels is one and the same cell, and pays for no teacher."""
    ce = protocol.with_loss("ce")
    records = [
        train(protocol=ce, labels=HardLabels()),
        train(protocol=ce),
        train(protocol=replace(ce, labels="online"), labels=online_labels([teacher, teacher], tiny_data.info)),
    ]
    assert len({without_timing(record) for record in records}) == 1
    assert records[0]["bytes"] == {"images": 0, "labels": 0, "labeler": 0}
    assert records[0]["arm"]["labels"] == "hard"
    assert records[0]["protocol"]["settings"]["labels"] == "hard"


def test_seeds_are_paired_across_losses_and_labels(
    train: Train, protocol: Protocol, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Arms of one seed start from one initialisation and see the same views."""
    seen: list[tuple[dict[str, torch.Tensor], int]] = []

    def spy(trainees: list[Trainee], *_: object, seed: int, **__: object) -> None:
        [trainee] = trainees
        seen.append(({k: v.clone() for k, v in trainee.model.state_dict().items()}, seed))
        raise KeyboardInterrupt

    monkeypatch.setattr("softlabel.evaluation._students.fit_stack", spy)
    for change in ({}, {"protocol": protocol.with_loss("ce"), "labels": HardLabels()}, {"seed": 1}):
        with pytest.raises(KeyboardInterrupt):
            train(**change)
    (first, views), (second, same_views), (other, other_views) = seen
    assert all(torch.equal(first[key], second[key]) for key in first)
    assert views == same_views != other_views
    assert not all(torch.equal(first[key], other[key]) for key in first)


def test_fixed_labels_train(train: Train, teacher: Teacher, distilled: DistilledSet, execution: Execution) -> None:
    labels = fixed_labels([teacher], distilled, execution)
    record = train(labels=labels)
    assert record["arm"]["labels"] == record["protocol"]["settings"]["labels"] == "fixed"
    assert record["bytes"] == {"images": 0, "labels": 12 * 4 * 4, "labeler": 0}


@pytest.mark.parametrize("loss", ["gift", "kl", "soft_ce"])
def test_a_soft_loss_with_hard_labels_is_refused(loss: str, train: Train, protocol: Protocol) -> None:
    with pytest.raises(ConfigError, match=f"{loss}.*needs soft labels.*--teacher"):
        train(protocol=protocol.with_loss(loss), labels=HardLabels())


def test_other_data_cannot_judge(train: Train, grey_data: Dataset) -> None:
    with pytest.raises(TeacherMismatchError, match=r"stands for tiny .4 classes.*cannot be judged on grey .3 classes"):
        train(data=grey_data)


def test_a_loss_that_blows_up_leaves_no_record(train: Train, protocol: Protocol, store: Store) -> None:
    labels = FixedLabels(torch.full((12, 4), torch.nan))
    with pytest.raises(NonFiniteLossError, match="epoch 1, step 1"):
        train(store=store, labels=labels, protocol=protocol.with_loss("soft_ce"))
    assert not list(store.root.rglob("*.json"))


def test_a_damaged_record_is_an_error_not_a_result(train: Train, store: Store) -> None:
    file = store.record(train(store=store)["key"])
    file.write_text(file.read_text()[:100])
    with pytest.raises(StoreError, match="cannot be read as JSON"):
        train(store=store)


def test_the_full_data_as_a_set(tiny_data: Dataset) -> None:
    whole = full_data(tiny_data)
    assert torch.equal(whole.images, tiny_data.train.images)
    assert torch.equal(whole.targets, tiny_data.train.targets)
    assert whole.image_bytes == 160 * 3 * 16 * 16
    assert whole.info == tiny_data.info


# Protocols.


@pytest.mark.parametrize("name", sorted(PROTOCOLS))
def test_every_protocol_trains(
    name: str, train: Train, tiny_data: Dataset, teacher: Teacher, distilled: DistilledSet, execution: Execution
) -> None:
    protocol = find_protocol(name, epochs=2)
    taught = make_labels(protocol.labels, teachers=[teacher], distilled=distilled, execution=execution)
    labels = read_labels(
        taught,
        LabelSpec(),
        distilled,
        regime=protocol.labels,
        plan=student_views(distilled, protocol, 0),
        epochs=protocol.labelled_epochs,
        execution=execution,
    )
    record = train(protocol=protocol, labels=labels)
    assert len(record["train_loss"]) == protocol.total_epochs >= 2
    assert 0 <= record["accuracy"]["final"] <= record["accuracy"]["best_test"] <= 1
    assert record["arm"]["labels"] == protocol.labels
    assert record["protocol"]["name"] == f"{name} (2 epochs)"
    for factor in (1, 2):
        assert train(protocol=protocol, labels=labels, distilled=replace(distilled, factor=factor))["steps"] > 0


def test_protocols_differ_and_name_themselves() -> None:
    assert len({protocol.fingerprint for protocol in PROTOCOLS.values()}) == len(PROTOCOLS)
    for name, protocol in PROTOCOLS.items():
        assert protocol.name == name
        assert protocol.source
        assert find_protocol(name) is protocol
        assert find_protocol(name, epochs=7).epochs == 7
        assert (protocol.labels == "hard") == (not protocol.loss.needs_teacher)


def test_an_unknown_protocol_lists_the_protocols() -> None:
    with pytest.raises(UnknownNameError, match=r"no protocol named 'gifd'. Did you mean 'gift'") as caught:
        find_protocol("gifd")
    assert all(name in str(caught.value) for name in PROTOCOLS)


@pytest.mark.parametrize("epochs", [0, -3])
def test_no_epochs(epochs: int) -> None:
    with pytest.raises(ConfigError, match=f"1 epoch or more. Got {epochs}"):
        find_protocol("gift", epochs=epochs)


# Comparisons.


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
def comparison(protocol: Protocol) -> Comparison:
    return Comparison(
        name="tiny",
        title="A tiny comparison",
        protocol=replace(protocol, epochs=2, checks=Checks(count=2)),
        students=(STUDENT,),
        losses=("ce", "gift"),
        seeds=(0, 1),
        full_epochs=1,
    )


class Killed:
    """A Progress that is interrupted when so many cells are done, or after some epochs of the next one."""

    def __init__(self, cells: int, epochs: int = 0) -> None:
        self.cells, self.epochs = cells, epochs
        self.depth = self.done = 0

    def start(self, what: str, total: int) -> None:
        self.depth += 1

    def advance(self, steps: int = 1, note: str = "") -> None:
        if self.depth == 1:
            self.done += steps
        elif self.done == self.cells:
            self.epochs -= steps
        if self.done == self.cells and self.epochs <= 0:
            raise KeyboardInterrupt

    def finish(self, summary: str = "") -> None:
        self.depth -= 1


Compare = Callable[..., Path]


@pytest.fixture
def run(
    comparison: Comparison, tiny_data: Dataset, teacher: Teacher, families: list[SetPaths], execution: Execution
) -> Compare:
    def inner(store: Store, **changed: Any) -> Path:
        teachers = changed.pop("teachers", [teacher])
        sets = changed.pop("sets", families)
        settings = {"execution": execution, "command": "softlabel evaluate", "store": store, **changed}
        group = {"teacher": teachers} if teachers else {}
        return compare(settings.pop("comparison", comparison), tiny_data, group, sets, **settings)

    return inner


def records_of(store: Store) -> dict[str, str]:
    files = (store.root / "records").glob("*.json")
    return {file.stem: without_timing(json.loads(file.read_text())) for file in files}


def test_a_comparison(run: Compare, store: Store, families: list[SetPaths], tiny_data: Dataset) -> None:
    meta = read_artifact(run(store), "study").meta
    arms = {arm["name"]: arm for arm in meta["arms"]}
    assert list(arms) == ["random / ce", "random / gift", "herding / ce", "herding / gift", "full data / ce"]
    assert len(records_of(store)) == 9  # 2 sets x 2 losses x 2 seeds, and the baseline
    for name, arm in arms.items():
        records = [store.read_record(key) for key in arm["records"]]
        found = [record for record in records if record is not None]
        finals = [record["accuracy"]["final"] for record in found]
        bests = [record["accuracy"]["best_test"] for record in found]
        for kind, expected in (("final", summarise(finals)), ("best_test", summarise(bests))):
            inside = {}
            if expected.low is not None and expected.high is not None:
                inside = {"low": max(expected.low, 0.0), "high": min(expected.high, 1.0)}
            assert arm[kind] == {**vars(expected), **inside}
        assert [record["seed"] for record in found] == arm["seeds"] == ([0] if "full" in name else [0, 1])
        assert all(record["arm"]["loss"] == arm["loss"] for record in found)
    assert arms["full data / ce"]["role"] == "baseline"
    assert arms["full data / ce"]["bytes"] == {"images": 160 * 3 * 16 * 16, "labels": 0, "labeler": 0}
    assert "1 epoch of" in arms["full data / ce"]["note"]
    assert arms["random / ce"]["bytes"]["labeler"] == 0
    assert arms["random / gift"]["bytes"]["labeler"] == 1000
    assert meta["dataset"]["name"] == "tiny"
    assert [entry["name"] for entry in meta["sets"]] == ["random", "herding"]
    assert len(meta["sets"][0]["paths"]) == 2
    assert any("last epoch" in note for note in meta["notes"])
    assert any("not trained to convergence" in note for note in meta["notes"])


def test_losses_on_the_same_labels_ask_the_teacher_once(
    run: Compare, store: Store, comparison: Comparison, monkeypatch: pytest.MonkeyPatch
) -> None:
    halved = []

    def counting(found: Teacher) -> Teacher:
        halved.append(found)
        return in_half(found)

    monkeypatch.setattr("softlabel.labels._reading.in_half", counting)
    same = replace(comparison, losses=("soft_ce", "gift", "kl"), labels=("online+fp16",), seeds=(0,))
    run(store, comparison=same)
    assert len(halved) == 2  # one per set
    assert len(list((store.root / "replay").iterdir())) == 2
    assert len(records_of(store)) == 2 * 3 + 1


def test_every_pair_is_compared_by_seed(run: Compare, store: Store, tiny_data: Dataset) -> None:
    meta = read_artifact(run(store), "study").meta
    pairs = [(entry["arm"], entry["against"]) for entry in meta["comparisons"]]
    assert sorted(pairs) == [
        ("herding / ce", "random / ce"),
        ("herding / gift", "herding / ce"),
        ("herding / gift", "random / gift"),
        ("random / gift", "random / ce"),
    ]
    finals = {
        arm["name"]: [(store.read_record(key) or {})["accuracy"]["final"] for key in arm["records"]]
        for arm in meta["arms"]
    }
    for entry in meta["comparisons"]:
        difference = paired_difference(finals[entry["arm"]], finals[entry["against"]], 1 / len(tiny_data.test))
        assert entry["difference"] == vars(difference)
        assert entry["verdict"] == verdict(difference)


def test_arms_of_a_seed_use_the_set_of_that_seed(run: Compare, store: Store, families: list[SetPaths]) -> None:
    meta = read_artifact(run(store), "study").meta
    digests = {
        arm["name"]: [(store.read_record(key) or {})["identity"]["distilled"] for key in arm["records"]]
        for arm in meta["arms"]
    }
    assert digests["random / ce"] == digests["random / gift"]
    assert digests["random / ce"][0] != digests["random / ce"][1]
    assert digests["herding / ce"][0] == digests["herding / ce"][1]


def test_labels_to_show(run: Compare, store: Store, teacher: Teacher) -> None:
    shown = read_artifact(run(store), "study").meta["labels_shown"]
    assert {entry["set"] for entry in shown} == {"random", "herding"}
    for entry in shown:
        probabilities = [bar["probability"] for bar in entry["bars"]]
        assert probabilities == sorted(probabilities, reverse=True)
        assert sum(probabilities) == pytest.approx(1.0, abs=1e-5)  # four classes, all shown


@pytest.mark.parametrize(("cells", "epochs"), [(2, 0), (4, 1), (8, 0)])
def test_killed_and_resumed_is_like_unbroken(
    cells: int, epochs: int, run: Compare, store: Store, tmp_path: Path
) -> None:
    unbroken = Store(tmp_path / "unbroken")
    expected = read_artifact(run(unbroken), "study")
    with pytest.raises(KeyboardInterrupt):
        run(store, progress=Killed(cells, epochs))
    kept = {file: file.stat().st_mtime_ns for file in (store.root / "records").glob("*.json")}
    assert len(kept) == cells
    assert not (store.root / "studies").exists()
    resumed = read_artifact(run(store), "study")
    assert {file: file.stat().st_mtime_ns for file in kept} == kept  # nothing that was finished is trained again
    assert records_of(store) == records_of(unbroken)
    assert resumed.path.name == expected.path.name
    assert resumed.meta == expected.meta
    assert not list(store.root.rglob(".*"))


def test_a_second_time_repeats_nothing(run: Compare, store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    path = run(store)
    before = {file: file.stat().st_mtime_ns for file in store.root.rglob("*") if file.is_file()}
    monkeypatch.setattr("softlabel.evaluation._students.fit_stack", None)
    assert run(store) == path
    assert {file: file.stat().st_mtime_ns for file in store.root.rglob("*") if file.is_file()} == before


def test_without_a_full_data_baseline(run: Compare, store: Store, comparison: Comparison) -> None:
    meta = read_artifact(run(store, comparison=replace(comparison, full_epochs=0)), "study").meta
    assert "full data / ce" not in [arm["name"] for arm in meta["arms"]]
    assert not any("full-data" in note for note in meta["notes"])


def test_one_seed_gives_no_verdict(run: Compare, store: Store, comparison: Comparison) -> None:
    meta = read_artifact(run(store, comparison=replace(comparison, seeds=(0,))), "study").meta
    assert {entry["verdict"] for entry in meta["comparisons"]} == {"needs two seeds or more"}


def test_hard_labels_alone_need_no_teacher(run: Compare, store: Store, comparison: Comparison) -> None:
    only = replace(comparison, protocol=find_protocol("hard", epochs=1), losses=("ce",), full_epochs=0)
    meta = read_artifact(run(store, comparison=only, teachers=[]), "study").meta
    assert (meta["teacher"], meta["labels_shown"]) == (None, [])


def test_soft_losses_without_a_teacher_stop_before_any_student(run: Compare, store: Store) -> None:
    with pytest.raises(ConfigError, match="need a teacher"):
        run(store, teachers=[])
    assert not list(store.root.rglob("*.json"))


def test_a_soft_loss_under_a_hard_protocol(comparison: Comparison) -> None:
    with pytest.raises(
        ConfigError, match="gift need soft labels, and would get hard ones under the protocol 'hard \\(1 epoch\\)' here"
    ):
        replace(comparison, protocol=find_protocol("hard", epochs=1), losses=("ce", "gift"))


def test_two_families_of_one_name_are_refused(run: Compare, store: Store, families: list[SetPaths]) -> None:
    twins = [families[0], replace(families[1], name=families[0].name)]
    with pytest.raises(ConfigError, match="random"):
        run(store, sets=twins)


@pytest.mark.parametrize(
    ("change", "fragment"),
    [
        ({"losses": ()}, "at least one loss, and got none"),
        ({"seeds": ()}, "at least one seed, and got none"),
        ({"losses": ("ce", "ce")}, "must differ"),
        ({"seeds": (1, 1)}, "must differ"),
        ({"losses": ("ke",)}, "no loss named 'ke'"),
        ({"losses": ("kl:nonsense=1",)}, "no option 'nonsense'"),
        ({"students": ("convnet",)}, "no model named 'convnet'"),
    ],
)
def test_a_comparison_that_cannot_be(change: dict[str, Any], fragment: str, comparison: Comparison) -> None:
    with pytest.raises((ConfigError, UnknownNameError), match=fragment):
        replace(comparison, **change)
