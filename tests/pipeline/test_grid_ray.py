"""A grid on a local Ray cluster: the same records as in one process, with and without a killed worker."""

import json
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from softlabel.core import ConfigError, Dataset, StoreError, UnknownNameError
from softlabel.distill import distill
from softlabel.evaluation import Comparison, SetPaths, compare, find_protocol, make_executor
from softlabel.models import build_model
from softlabel.store import Store, read_artifact, save_distilled
from softlabel.training import Checks, Execution, Teacher

ray = pytest.importorskip("ray")

STUDENT = "convnet-2:width=8"
PATIENCE = 60.0
Compare = Callable[..., Path]


def processes(*titles: str) -> dict[int, str]:
    """Running processes whose command line holds one of the titles."""
    found = {}
    for folder in Path("/proc").iterdir():
        if folder.name.isdecimal():
            try:
                line = (folder / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
            except OSError:
                continue  # it has just ended
            if any(title in line for title in titles):
                found[int(folder.name)] = line
    return found


def of_ray() -> dict[int, str]:
    return processes("ray::", "/raylet/raylet", "gcs_server", "ray/dashboard", "ray/_private")


@pytest.fixture(scope="module", autouse=True)
def nothing_left() -> Iterator[None]:
    """No process of Ray outlives the tests."""
    before = of_ray()
    yield
    deadline = time.monotonic() + PATIENCE
    while of_ray().keys() - before.keys() and time.monotonic() < deadline:
        time.sleep(0.1)
    assert {pid: line for pid, line in of_ray().items() if pid not in before} == {}


@pytest.fixture(scope="module")
def cluster(nothing_left: None) -> Iterator[None]:
    """Two workers; an executor joins the cluster that its process is connected to."""
    ray.init(num_cpus=2, include_dashboard=False, log_to_driver=False, logging_level="ERROR")
    yield
    ray.shutdown()


@pytest.fixture(scope="module")
def families(tiny_data: Dataset, execution: Execution, tmp_path_factory: pytest.TempPathFactory) -> list[SetPaths]:
    root = tmp_path_factory.mktemp("sets")
    for seed in (0, 1, 2):
        save_distilled(distill("random", tiny_data, ipc=3, seed=seed, execution=execution), root / str(seed))
    return [SetPaths("random", tuple((seed, root / str(seed)) for seed in (0, 1, 2)))]


@pytest.fixture(scope="module")
def comparison() -> Comparison:
    """Six units of two students: one of each unit blows up."""
    return Comparison(
        name="ray",
        title="A grid on Ray",
        protocol=replace(find_protocol("gift", epochs=40), batch=4, checks=Checks(count=10)),
        students=(STUDENT,),
        losses=("ce", "gift"),
        optimizers=("adamw", "sgd:lr=1e+30"),
        seeds=(0, 1, 2),
    )


@pytest.fixture(scope="module")
def run(comparison: Comparison, tiny_data: Dataset, families: list[SetPaths], execution: Execution) -> Compare:
    model = build_model(STUDENT, image_shape=tiny_data.info.image_shape, classes=4, seed=0)
    teacher = Teacher(model.eval().requires_grad_(False), tiny_data.info, STUDENT, "test", 0.25, 0, 1000)

    def inner(store: Store, **changed: Any) -> Path:
        settings = {"store": store, "execution": execution, "command": "softlabel grid", "stack_size": 2, **changed}
        plan = settings.pop("comparison", comparison)
        return compare(plan, tiny_data, {"teacher": [teacher]}, families, tolerant=True, **settings)

    return inner


def told(store: Store) -> dict[str, Any]:
    """Records but for their times, and failures."""
    found = {}
    for kind in ("records", "failures"):
        for file in (store.root / kind).glob("*.json"):
            kept = json.loads(file.read_text())
            found[f"{kind} {file.stem}"] = {key: value for key, value in kept.items() if key != "timing"}
    return found


def unnamed(records: dict[str, Any]) -> dict[str, str]:
    """Without the arms' names, which tell only what varies."""
    return {key: json.dumps({**kept, "arm": None}, sort_keys=True) for key, kept in records.items()}


@pytest.fixture(scope="module")
def local(run: Compare, tmp_path_factory: pytest.TempPathFactory) -> tuple[dict[str, Any], Any]:
    """Records and study of one process."""
    store = Store(tmp_path_factory.mktemp("local"))
    meta = read_artifact(run(store), "study").meta
    assert len(told(store)) == 12
    return told(store), meta


def test_a_cluster_that_is_not_there_is_told_before_any_work() -> None:
    with pytest.raises(ConfigError, match=r"No Ray cluster could be reached at 127\.0\.0\.1:1.*ray start --head"):
        make_executor("ray", address="127.0.0.1:1")


def test_workers_are_of_a_local_cluster() -> None:
    with pytest.raises(ConfigError, match="Leave one of them out"):
        make_executor("ray", address="127.0.0.1:1", workers=2)


def test_a_cluster_that_goes_away(run: Compare, store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patched:
        patched.setattr("softlabel.evaluation._executors._require_listener", lambda address: None)
        executor = make_executor("ray", address="127.0.0.1:1")
    with pytest.raises(ConfigError, match=r"No Ray cluster could be reached at 127\.0\.0\.1:1.*ray start --head"):
        run(store, executor=executor)


def test_a_recipe_s_students_on_workers(
    quick: tuple[Path, Any], softlabel: Any, small: tuple[str, ...], store: Store
) -> None:
    words = ("run", "digits-quick", "--epochs", "2", "--seeds", "1", *small)
    said = softlabel(*words, "--executor", "ray", "--workers", "2", "--store", store.root)
    assert said.code == 0, said.err
    assert told(store) == told(Store(quick[0]))


def test_an_own_cluster_gives_the_same_records(run: Compare, local: tuple[dict[str, Any], Any], store: Store) -> None:
    meta = read_artifact(run(store, executor=make_executor("ray", workers=2)), "study").meta
    assert not ray.is_initialized()  # what it started, it ended
    assert told(store) == local[0]
    assert meta == local[1]


class Killer(threading.Thread):
    """Kills one worker at work, once."""

    def __init__(self) -> None:
        super().__init__(daemon=True)
        self.killed: list[int] = []
        self.done = threading.Event()

    def run(self) -> None:
        while not self.killed and not self.done.is_set():
            for pid in sorted(processes("ray::remote_unit"))[:1]:
                time.sleep(0.1)  # it has begun
                os.kill(pid, signal.SIGKILL)
                self.killed.append(pid)
            time.sleep(0.01)


@pytest.mark.usefixtures("cluster")
def test_a_killed_worker_costs_time_and_nothing_else(
    run: Compare, local: tuple[dict[str, Any], Any], store: Store
) -> None:
    killer = Killer()
    killer.start()
    try:
        meta = read_artifact(run(store, executor=make_executor("ray")), "study").meta
    finally:
        killer.done.set()
        killer.join(PATIENCE)
    assert len(killer.killed) == 1
    assert killer.killed[0] not in processes("ray::")
    assert ray.is_initialized()  # the cluster was there before
    assert told(store) == local[0]
    assert meta == local[1]


@pytest.mark.usefixtures("cluster")
def test_a_grid_goes_on_on_ray_where_it_was_locally(
    run: Compare, comparison: Comparison, local: tuple[dict[str, Any], Any], store: Store
) -> None:
    run(store, comparison=replace(comparison, seeds=(0, 1)))
    before = {file: file.stat().st_mtime_ns for file in store.root.rglob("*.json")}
    meta = read_artifact(run(store, executor=make_executor("ray")), "study").meta
    assert {file: file.stat().st_mtime_ns for file in before} == before
    assert told(store) == local[0]
    assert meta == local[1]


@pytest.mark.usefixtures("cluster")
def test_what_is_wrong_with_the_store_is_raised_as_it_is(run: Compare, comparison: Comparison, store: Store) -> None:
    store.root.mkdir()
    (store.root / "records").write_text("a file where a folder is needed")
    with pytest.raises(StoreError, match="a file stands where a folder is needed"):
        run(store, comparison=replace(comparison, optimizers=("adamw",)), executor=make_executor("ray"))


@pytest.mark.usefixtures("cluster")
def test_a_worker_that_always_dies_fails_its_unit_alone(
    run: Compare, comparison: Comparison, local: tuple[dict[str, Any], Any], store: Store,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    """Only the units of seed 1 end their process; what is told says so, and is not kept as a failure."""
    monkeypatch.setattr("softlabel.evaluation._executors.WORKER_DEATHS", 1)
    monkeypatch.setattr("softlabel.evaluation._executors.remote_unit", dying_unit())
    two = replace(comparison, seeds=(0, 1), optimizers=("adamw",))
    meta = read_artifact(run(store, comparison=two, executor=make_executor("ray")), "study").meta
    for arm in meta["arms"]:
        assert arm["seeds"] == [0]
        assert [entry["seed"] for entry in arm["failed"]] == [1]
        assert "The worker failed" in arm["failed"][0]["error"]
    assert {name for name in told(store) if name.startswith("failures")} == set()
    monkeypatch.undo()
    mended = read_artifact(run(store, comparison=two, executor=make_executor("ray")), "study").meta
    assert all(arm["seeds"] == [0, 1] and "failed" not in arm for arm in mended["arms"])
    assert unnamed(told(store)).items() <= unnamed(local[0]).items()


def dying_unit() -> Callable[..., Any]:
    """Sent to the workers as a whole: they know nothing of this file."""

    def remote_unit(unit: Any, bench: Any) -> Any:
        if unit.cells[0].seed == 1:
            import os

            os._exit(1)
        from softlabel.evaluation._executors import remote_unit

        return remote_unit(unit, bench)

    return remote_unit


def test_executors_that_cannot_be() -> None:
    with pytest.raises(UnknownNameError, match=r"no executor named 'rey'. Did you mean 'ray'"):
        make_executor("rey")
    for options in ({"address": "auto"}, {"workers": 2}):
        with pytest.raises(ConfigError, match=r"Ray's\. Add --executor ray"):
            make_executor("local", **options)  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match=r"--workers must be 1 or more\. Got 0"):
        make_executor("ray", workers=0)
