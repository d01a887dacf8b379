"""The search of learning rates: against known curves, and on the selection split only."""

import json
import math
from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from softlabel.core import ConfigError, Dataset, NonFiniteLossError, Split
from softlabel.distill import distill
from softlabel.evaluation import Comparison, SetPaths, Tuning, compare, find_protocol, tune
from softlabel.models import build_model
from softlabel.store import Store, read_artifact, save_distilled
from softlabel.training import Execution, Optimizer, Teacher, Trainee, fit_stack

STUDENT = "convnet-1:width=4"
FIT = "softlabel.evaluation._students.fit_stack"
START = Optimizer(lr=1e-3)
Curve = Callable[[float], float | None]


class Measured:
    """Accuracies by known curves over the decades away from the default rate."""

    def __init__(self, curves: Mapping[Hashable, Curve]) -> None:
        self.curves = curves
        self.rounds: list[list[tuple[Hashable, float]]] = []

    def __call__(self, wanted: Sequence[tuple[Any, Optimizer]]) -> list[float | None]:
        steps = [(key, round(2 * math.log10(optimizer.lr / START.lr)) / 2) for key, optimizer in wanted]
        self.rounds.append(steps)
        return [self.curves[key](step) for key, step in steps]

    def steps(self, key: Hashable) -> list[float]:
        return [step for steps in self.rounds for name, step in steps if name == key]


def peak(at: float) -> Curve:
    return lambda step: 1 - abs(step - at) / 10


ALWAYS = [-2, -1, 0, 1, 2, 3]
CURVES: dict[str, tuple[Curve, float, list[float]]] = {
    # name -> accuracy by decades from the default, the best, what is tried besides the decades from -2 to 3.
    "default": (peak(0), 0, [-0.5, 0.5]),
    "between": (peak(0.4), 0.5, [-0.5, 0.5]),
    "a decade up": (peak(1), 1, [0.5, 1.5]),
    "a decade down": (peak(-1), -1, [-1.5, -0.5]),
    "highest of all": (peak(3), 3, [4, 2.5, 3.5]),
    "between, far down": (peak(-2.6), -2.5, [-3, -4, -3.5, -2.5]),
    "last allowed": (peak(5), 5, [4, 5, 4.5, 5.5]),
    "ever upwards": (lambda step: 0.5 + step / 100, 5.5, [4, 5, 4.5, 5.5]),
    "ever downwards": (lambda step: 0.5 - step / 100, -4.5, [-3, -4, -4.5, -3.5]),
    "flat": (lambda step: 0.25, 0, [-0.5, 0.5]),
    "plateau up to the default": (lambda step: 0.25 if step <= 0 else 0.1, 0, [-0.5, 0.5]),
    "plateau above": (lambda step: 0.1 if step < 1 else 0.25, 1, [0.5, 1.5]),
    "chance for decades, then alive": (lambda step: 0.1 if step < 2.5 else 0.45, 2.5, [4, 2.5, 3.5]),
    "two equal peaks": (lambda step: 0.9 if abs(step) == 1 else 0.1, 1, [0.5, 1.5]),
    "two equal half peaks": (lambda step: 0.9 if abs(step) == 0.5 else 0.1, 0.5, [-0.5, 0.5]),
    "blows up at the default": (lambda step: None if step >= 0 else 0.3 + step / 100, -0.5, [-0.5, -1.5]),
    "works far down only": (lambda step: None if step > -1.8 else 0.3, -2, [-3, -2.5, -1.5]),
    "chance beats blowing up": (lambda step: None if step > -1 else 0.0, -1, [-1.5, -0.5]),
    "blows up everywhere": (lambda step: None, 0, [-0.5, 0.5]),
}


@pytest.mark.parametrize("name", CURVES)
def test_the_best_of_a_known_curve(name: str) -> None:
    curve, best, tried = CURVES[name]
    measured = Measured({name: curve})
    found = tune(Tuning(), {name: START}, measured)
    assert found.best[name].lr == pytest.approx(START.lr * 10**best, rel=5e-3)
    assert measured.steps(name)[:6] == ALWAYS
    assert sorted(measured.steps(name)[6:]) == sorted(tried)
    assert replace(found.best[name], lr=START.lr) == START
    told = found.tried[name]
    assert list(told) == sorted(told)
    assert len(told) == 6 + len(tried)
    for rate, accuracy in told.items():
        assert accuracy == curve(round(2 * math.log10(rate / START.lr)) / 2)


def test_many_curves_share_their_rounds() -> None:
    measured = Measured({name: curve for name, (curve, _, _) in CURVES.items()})
    found = tune(Tuning(), dict.fromkeys(CURVES, START), measured)
    for name, (_, best, tried) in CURVES.items():
        assert found.best[name].lr == pytest.approx(START.lr * 10**best, rel=5e-3), name
        assert sorted(measured.steps(name)[6:]) == sorted(tried), name
    assert len(measured.rounds) == 1 + 2 + 1  # the decades, further ones, half decades
    assert len(measured.rounds[0]) == 6 * len(CURVES)
    assert len(measured.rounds[-1]) == 2 * len(CURVES)


@pytest.mark.parametrize(("further", "best"), [(0, 1.5), (1, 2.5), (2, 3.5)])
def test_how_far_the_search_goes(further: int, best: float) -> None:
    measured = Measured({"up": lambda step: step})
    found = tune(Tuning(below=0, above=1, further=further), {"up": START}, measured).best["up"]
    assert found.lr == pytest.approx(1e-3 * 10**best, rel=5e-3)
    assert max(step for step in measured.steps("up") if step == int(step)) == 1 + further


def test_rates_are_round_numbers() -> None:
    found = tune(Tuning(), {"a": Optimizer(name="sgd", lr=0.03)}, lambda wanted: [o.lr for _, o in wanted]).best
    assert found["a"].lr == float(f"{0.03 * 10**5.5:.3g}")
    assert found["a"].name == "sgd"


def test_nothing_to_tune() -> None:
    assert tune(Tuning(), dict[str, Optimizer](), lambda wanted: [0.0] * len(wanted)).best == {}


# In a comparison.


def untrained(data: Dataset) -> Teacher:
    model = build_model(STUDENT, image_shape=data.info.image_shape, classes=data.info.classes, seed=0)
    return Teacher(model.eval().requires_grad_(False), data.info, STUDENT, "test", 0.25, 0, 1000)


@pytest.fixture(scope="module")
def data(tiny_data: Dataset) -> Dataset:
    """The last 40 training images are the selection split."""
    train = tiny_data.train
    chosen = Split(train.images[120:], train.targets[120:])
    return Dataset(tiny_data.info, Split(train.images[:120], train.targets[:120]), tiny_data.test, chosen)


@pytest.fixture(scope="module")
def families(data: Dataset, execution: Execution, tmp_path_factory: pytest.TempPathFactory) -> list[SetPaths]:
    root = tmp_path_factory.mktemp("sets")
    for seed in (0, 1):
        save_distilled(distill("random", data, ipc=2, seed=seed, execution=execution), root / str(seed))
    return [SetPaths("random", tuple((seed, root / str(seed)) for seed in (0, 1)))]


@pytest.fixture
def comparison() -> Comparison:
    return Comparison(
        name="tuned",
        title="Tuned",
        protocol=replace(find_protocol("gift", epochs=2), batch=8),
        students=(STUDENT,),
        losses=("kl", "gift"),
        optimizers=("adamw", "sgd"),
        seeds=(0, 1),
        tuning=Tuning(),
    )


@pytest.fixture
def run(data: Dataset, families: list[SetPaths], comparison: Comparison, execution: Execution) -> Callable[..., Path]:
    def inner(store: Store, **changed: Any) -> Path:
        settings = {"store": store, "execution": execution, "command": "softlabel grid", **changed}
        some, teachers = settings.pop("data", data), {"teacher": [untrained(data)]}
        return compare(settings.pop("comparison", comparison), some, teachers, families, **settings)

    return inner


Run = Callable[..., Path]


def rates_by_split(store: Store, data: Dataset) -> dict[str, set[float]]:
    """Learning rates of the records, by the split that judged them."""
    assert data.selection is not None
    names = {data.test.digest: "test", data.selection.digest: "selection"}
    found: dict[str, set[float]] = {"test": set(), "selection": set()}
    for file in (store.root / "records").glob("*.json"):
        record = json.loads(file.read_text())
        found[names[record["identity"]["test"]]].add(record["protocol"]["settings"]["optimizer"]["lr"])
    return found


def test_rates_are_chosen_on_the_selection_split_alone(
    run: Run, comparison: Comparison, data: Dataset, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    judged: list[tuple[str, set[float]]] = []
    assert data.selection is not None
    names = {data.test.digest: "test", data.selection.digest: "selection"}

    def look(trainees: Sequence[Trainee], *args: Any, test: Split, **settings: Any) -> Any:
        judged.append((names[test.digest], {trainee.protocol.optimizer.lr for trainee in trainees}))
        return fit_stack(trainees, *args, test=test, **settings)

    monkeypatch.setattr(FIT, look)
    meta = read_artifact(run(store), "study").meta
    order = [name for name, _ in judged]
    assert order == sorted(order)  # "selection" until all rates are chosen, then "test"
    chosen = {(arm["axes"]["optimizer"], arm["loss"]): arm for arm in meta["arms"]}
    assert {name for name, _ in chosen} == {"adamw", "adamw (tuned)", "sgd", "sgd (tuned)"}
    assert len(meta["arms"]) == 8
    rates = rates_by_split(store, data)
    assert {1e-4, 1e-3, 1e-2, 1e-1} <= rates["selection"]
    tuned = {float(arm["note"].split()[2].rstrip(",")) for arm in meta["arms"] if arm["note"]}
    assert rates["test"] == {1e-3, 1e-2} | tuned
    assert all(arm["seeds"] == [0, 1] for arm in meta["arms"])  # the student that chose is none of them
    seeds = [json.loads(file.read_text())["seed"] for file in (store.root / "records").glob("*.json")]
    assert set(seeds) == {0, 1, comparison.tuning.seed}  # type: ignore[union-attr]


def test_the_test_split_plays_no_part_in_the_choice(run: Run, data: Dataset, store: Store, tmp_path: Path) -> None:
    """With all test targets wrong, the same rates are chosen; with other selection targets, others may be."""
    wrong = replace(data, test=Split(data.test.images, (data.test.targets + 1) % 4))
    found = []
    for place, some in ((store, data), (Store(tmp_path / "wrong"), wrong)):
        meta = read_artifact(run(place, data=some), "study").meta
        found.append({arm["name"]: arm["note"] for arm in meta["arms"]})
    assert found[0] == found[1]


def test_the_chosen_rate_is_the_best_that_was_measured(run: Run, data: Dataset, store: Store) -> None:
    assert data.selection is not None
    meta = read_artifact(run(store), "study").meta
    measured: dict[tuple[str, str], dict[float, float]] = {}
    for file in (store.root / "records").glob("*.json"):
        record = json.loads(file.read_text())
        if record["identity"]["test"] == data.selection.digest:
            optimizer = record["protocol"]["settings"]["optimizer"]
            own = measured.setdefault((optimizer["name"], record["arm"]["loss"]), {})
            own[optimizer["lr"]] = record["accuracy"]["final"]
    checked = 0
    for arm in meta["arms"]:
        name, _, tuned = arm["axes"]["optimizer"].partition(" ")
        if tuned:
            rate = float(arm["note"].split()[2].rstrip(","))
            tried = measured[name, arm["loss"]]
            best = [lr for lr, accuracy in tried.items() if accuracy == max(tried.values())]
            start = {"adamw": 1e-3, "sgd": 1e-2}[name]
            nearest = min(abs(round(2 * math.log10(lr / start))) for lr in best)
            assert any(rate == pytest.approx(lr, rel=1e-3) for lr in best)
            assert abs(round(2 * math.log10(rate / start))) == nearest
            checked += 1
    assert checked == 4


def test_a_second_time_nothing_is_searched_again(run: Run, store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    path = run(store)
    monkeypatch.setattr(FIT, None)
    assert run(store) == path


def test_rates_that_blow_up_are_not_chosen(
    run: Run, comparison: Comparison, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(trainees: Sequence[Trainee], *args: Any, **settings: Any) -> list[Any]:
        found: list[Any] = list(fit_stack(trainees, *args, **settings))
        return [NonFiniteLossError("too high") if t.protocol.optimizer.lr > 2e-4 else h
                for t, h in zip(trainees, found, strict=True)]  # fmt: skip

    monkeypatch.setattr(FIT, fail)
    one = replace(comparison, optimizers=("sgd",), losses=("gift",))
    # At the default everything fails; two decades below it does not.
    meta = read_artifact(run(store, comparison=one, tolerant=True), "study").meta
    arms = {arm["name"]: arm for arm in meta["arms"]}
    assert list(arms) == ["random / sgd / gift", "random / sgd (tuned) / gift"]
    assert [arm["final"] is None for arm in arms.values()] == [True, False]
    [told] = meta["tuning"]
    assert {entry["rate"]: entry["selection_accuracy"] is None for entry in told["tried"]}[0.01]
    assert told["chosen"] <= 2e-4
    adam = replace(comparison, optimizers=("adamw",), losses=("gift",))
    meta = read_artifact(run(store, comparison=adam, tolerant=True), "study").meta
    default, tuned = meta["arms"]
    assert default["final"] is None
    assert tuned["final"] is not None
    assert float(tuned["note"].split()[2].rstrip(",")) <= 2e-4
    assert meta["comparisons"] == []


def test_tuning_without_a_selection_split_is_refused(run: Run, tiny_data: Dataset, store: Store) -> None:
    with pytest.raises(ConfigError, match=r"tuned on the selection split, and there is none.*--selection 0\.1"):
        run(store, data=tiny_data)
    assert not list(store.root.rglob("*.json"))
