"""Teachers: kept with their trajectory, found again, continued, and checked before they are believed."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from softlabel.core import (
    ConfigError,
    Dataset,
    NonFiniteLossError,
    Silent,
    StoreError,
    stream_seed,
    tensor_fingerprint,
)
from softlabel.losses import Loss
from softlabel.models import build_model
from softlabel.store import Store, read_artifact
from softlabel.training import (
    TEACHER_PROTOCOL,
    TEACHER_PROTOCOLS,
    Checks,
    Execution,
    Normaliser,
    Optimizer,
    Protocol,
    kept_epochs,
    load_teacher,
    load_trajectory,
    measure_accuracy,
    teacher_path,
    train_teacher,
)

ARCH = "convnet-2:width=4"
SHORT = replace(
    TEACHER_PROTOCOL, epochs=3, batch=32, views="shift", optimizer=Optimizer(name="sgd", lr=0.1, momentum=0.9)
)


def teach(data: Dataset, store: Store, **settings: Any) -> Path:
    settings = {"arch": ARCH, "execution": Execution("cpu", "fp32"), "protocol": SHORT, **settings}
    return train_teacher(data, store=store, **settings)


@pytest.fixture(scope="module")
def taught(tiny_data: Dataset, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A teacher of 3 epochs on the tiny data, shared by the tests that only read."""
    return teach(tiny_data, Store(tmp_path_factory.mktemp("taught")))


def views_of(data: Dataset) -> torch.Tensor:
    return Normaliser(data.info, torch.device("cpu"))(data.test.images)


def hashes(path: Path) -> dict[str, str]:
    return {name: entry["sha256"] for name, entry in read_artifact(path, "teacher").files.items()}


def test_a_trajectory_is_every_epoch_that_was_kept(tiny_data: Dataset, taught: Path, tmp_path: Path) -> None:
    assert kept_epochs(taught) == [0, 1, 2, 3]
    found = load_trajectory(taught)
    assert [teacher.epoch for teacher in found] == [1, 2, 3]
    assert len({teacher.fingerprint for teacher in found}) == 3
    views = views_of(tiny_data)
    for teacher in found:
        assert torch.equal(teacher.logits(views), load_teacher(taught, teacher.epoch).logits(views))
    short = teach(tiny_data, Store(tmp_path), save_every=3)
    with pytest.raises(StoreError, match=r"did not keep every epoch of its training, but 3\. Train"):
        load_trajectory(short)


def test_experts_are_trained_plainly() -> None:
    """No-distillation's experts: SGD without momentum or decay, batch 256, DSA, a constant rate."""
    expert = TEACHER_PROTOCOLS["expert"]
    assert (expert.optimizer.name, expert.optimizer.momentum, expert.optimizer.weight_decay) == ("sgd", 0.0, 0.0)
    assert (expert.batch, expert.views, expert.labels) == (256, "dsa", "hard")
    assert {expert.schedule.factor(epoch, expert.epochs) for epoch in range(expert.epochs)} == {1.0}


# --- what is kept ----------------------------------------------------------------------------------------------


def test_a_teacher_is_kept_with_its_trajectory(tiny_data: Dataset, taught: Path) -> None:
    artifact = read_artifact(taught, "teacher")
    assert artifact.names() == [f"epochs/{epoch:03d}.safetensors" for epoch in range(4)]
    assert [point["epoch"] for point in artifact.meta["curve"]] == [1, 2, 3]
    assert artifact.meta["test_accuracy"] == artifact.meta["curve"][-1]["test_accuracy"]
    assert all(point["train_loss"] > 0 for point in artifact.meta["curve"])
    assert artifact.meta["selection_accuracy"] is None
    assert artifact.meta["environment"]["precision"] == "fp32"
    state = artifact.tensors("epochs/001.safetensors")
    assert state.keys() == build_model(ARCH, image_shape=(3, 16, 16), classes=4, seed=0).state_dict().keys()
    assert any("running_mean" in name for name in state)


def test_the_teacher_is_its_last_epoch(tiny_data: Dataset, taught: Path, execution: Execution) -> None:
    teacher = load_teacher(taught)
    assert (teacher.epoch, teacher.arch, teacher.info) == (3, ARCH, tiny_data.info)
    assert teacher.accuracy == measure_accuracy(teacher.model, tiny_data.test, tiny_data.info, execution)
    assert teacher.accuracy > 0.5
    assert not any(module.training for module in teacher.model.modules())
    assert not any(parameter.requires_grad for parameter in teacher.model.parameters())
    assert teacher.size == sum(t.numel() * t.element_size() for t in teacher.model.state_dict().values())


def test_earlier_epochs_can_be_loaded(tiny_data: Dataset, taught: Path, execution: Execution) -> None:
    teachers = [load_teacher(taught, epoch) for epoch in range(4)]
    assert teachers[0].accuracy is None
    for teacher in teachers[1:]:
        assert teacher.accuracy == measure_accuracy(teacher.model, tiny_data.test, tiny_data.info, execution)
    assert len({teacher.fingerprint for teacher in teachers}) == 4
    assert len({tensor_fingerprint(*teacher.model.state_dict().values()) for teacher in teachers}) == 4
    assert load_teacher(taught, 3).fingerprint == load_teacher(taught).fingerprint
    seed = stream_seed(0, "teacher", "init")
    fresh = build_model(ARCH, image_shape=(3, 16, 16), classes=4, seed=seed).state_dict()
    for name, tensor in teachers[0].model.state_dict().items():
        assert torch.equal(tensor, fresh[name]), name


def test_some_epochs_can_be_kept_and_a_missing_one_lists_them(tiny_data: Dataset, store: Store) -> None:
    path = teach(tiny_data, store, save_every=2)
    assert read_artifact(path).names() == [f"epochs/{epoch:03d}.safetensors" for epoch in (0, 2, 3)]
    with pytest.raises(StoreError) as caught:
        load_teacher(path, 1)
    assert str(caught.value) == (f"The teacher at {path} has no checkpoint of epoch 1. It kept the epochs 0, 2, 3.")
    with pytest.raises(ConfigError, match=r"--save-every must be 1 or more\. Got 0 instead\."):
        teach(tiny_data, store, save_every=0)


def test_the_selection_split_is_measured(tiny_data: Dataset, store: Store) -> None:
    path = teach(replace(tiny_data, selection=tiny_data.test), store)
    meta = read_artifact(path).meta
    assert meta["selection_accuracy"] == meta["test_accuracy"]


def test_every_shape_can_teach(grey_data: Dataset, store: Store) -> None:
    teacher = load_teacher(teach(grey_data, store, arch="resnet-18:width=2"))
    assert teacher.logits(views_of(grey_data)).shape == (30, 3)


def test_seldom_measured_teachers_have_no_accuracy_in_between(tiny_data: Dataset, store: Store) -> None:
    path = teach(tiny_data, store, protocol=replace(SHORT, checks=Checks()))
    assert load_teacher(path, 1).accuracy is None
    assert load_teacher(path).accuracy is not None


# --- found, not repeated ---------------------------------------------------------------------------------------


def test_an_equal_teacher_is_found_again(tiny_data: Dataset, store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    path = teach(tiny_data, store)
    stamps = {file: file.stat().st_mtime_ns for file in path.rglob("*")}

    def refuse(*args: Any, **settings: Any) -> None:
        raise AssertionError("trained again")

    monkeypatch.setattr("softlabel.training._teacher.fit", refuse)
    again = teach(tiny_data, store, protocol=replace(SHORT, name="renamed", source="elsewhere"))
    assert again == path
    assert {file: file.stat().st_mtime_ns for file in path.rglob("*")} == stamps


def test_the_place_is_known_before_training(tiny_data: Dataset, store: Store, execution: Execution) -> None:
    place = teacher_path(tiny_data, arch=ARCH, protocol=SHORT, store=store, execution=execution)
    assert place.name.startswith("tiny-convnet-2-width-4-")
    assert teach(tiny_data, store) == place


def test_everything_that_changes_a_teacher_changes_its_place(tiny_data: Dataset, store: Store) -> None:
    base: dict[str, Any] = {
        "data": tiny_data,
        "arch": ARCH,
        "protocol": SHORT,
        "execution": Execution("cpu", "fp32"),
        "seed": 0,
        "save_every": 1,
    }
    other = replace(tiny_data, info=replace(tiny_data.info, digest="other"))
    changes: list[dict[str, Any]] = [
        {},
        {"data": other},
        {"arch": "convnet-2:width=5"},
        {"protocol": replace(SHORT, epochs=4)},
        {"execution": Execution("cpu", "bf16")},
        {"seed": 1},
        {"save_every": 2},
    ]

    def place(change: dict[str, Any]) -> Path:
        settings = {**base, **change}
        return teacher_path(settings.pop("data"), store=store, **settings)

    assert len({place(change) for change in changes}) == len(changes)
    assert place({"protocol": replace(SHORT, name="renamed")}) == place({})


def test_equal_teachers_are_equal_bit_for_bit(tiny_data: Dataset, taught: Path, store: Store) -> None:
    again = teach(tiny_data, store)
    assert hashes(again) == hashes(taught)
    assert load_teacher(again).fingerprint == load_teacher(taught).fingerprint
    assert hashes(teach(tiny_data, store, seed=1)) != hashes(taught)


def test_a_teacher_can_be_kept_anywhere_and_is_never_overwritten(
    tiny_data: Dataset, taught: Path, store: Store, tmp_path: Path
) -> None:
    out = tmp_path / "mine"
    assert teach(tiny_data, store, out=out) == out
    assert hashes(out) == hashes(taught)
    assert not store.root.exists()
    assert teach(tiny_data, store, out=out) == out
    with pytest.raises(StoreError, match=r"mine already holds another teacher .* Nothing is overwritten"):
        teach(tiny_data, store, out=out, seed=1)


# --- killed and continued --------------------------------------------------------------------------------------


class Killer(Silent):
    """Stops the work after some epochs, as a kill would."""

    def __init__(self, epochs: int) -> None:
        self.left = epochs

    def advance(self, steps: int = 1, note: str = "") -> None:
        self.left -= steps
        if self.left <= 0:
            raise KeyboardInterrupt


def test_a_killed_teacher_is_invisible_and_continued_bit_for_bit(
    tiny_data: Dataset, taught: Path, store: Store, execution: Execution
) -> None:
    place = teacher_path(tiny_data, arch=ARCH, protocol=SHORT, store=store, execution=execution)
    for epoch in (1, 2):
        with pytest.raises(KeyboardInterrupt):
            teach(tiny_data, store, progress=Killer(epoch))
        assert not place.exists()
        assert [path.name[0] for path in place.parent.iterdir()] == ["."]
    notes: list[str] = []

    class Listener(Silent):
        def advance(self, steps: int = 1, note: str = "") -> None:
            notes.extend([note] * steps)

    path = teach(tiny_data, store, progress=Listener())
    assert notes[:2] == ["going on after epoch 2"] * 2
    assert len(notes) == 3
    assert hashes(path) == hashes(taught)
    assert list(place.parent.iterdir()) == [place]
    for key in ("curve", "test_accuracy", "best_test_accuracy", "fingerprint"):
        assert read_artifact(path).meta[key] == read_artifact(taught).meta[key]


def test_other_settings_do_not_continue_a_killed_teacher(tiny_data: Dataset, store: Store, tmp_path: Path) -> None:
    """Both are to be kept in one place that the user chose."""
    with pytest.raises(KeyboardInterrupt):
        teach(tiny_data, store, out=tmp_path / "mine", seed=1, progress=Killer(2))
    path = teach(tiny_data, store, out=tmp_path / "mine", seed=0)
    assert hashes(path) == hashes(teach(tiny_data, store, seed=0))


def test_a_broken_training_leaves_no_teacher(tiny_data: Dataset, store: Store, execution: Execution) -> None:
    broken = replace(SHORT, optimizer=Optimizer(name="sgd", lr=1e30))
    with pytest.raises(NonFiniteLossError, match=r"The loss 'ce' became (nan|inf) in epoch 1"):
        teach(tiny_data, store, protocol=broken)
    assert not teacher_path(tiny_data, arch=ARCH, protocol=broken, store=store, execution=execution).exists()


# --- damaged or missing ----------------------------------------------------------------------------------------


def test_no_teacher_there(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match="There is nothing at"):
        load_teacher(tmp_path / "none")


def test_a_damaged_teacher_is_refused(tiny_data: Dataset, store: Store) -> None:
    path = teach(tiny_data, store)
    file = path / "epochs" / "003.safetensors"
    file.write_bytes(file.read_bytes()[:-1] + b"?")
    with pytest.raises(StoreError, match=r"003\.safetensors is corrupt"):
        load_teacher(path)


def test_the_manifest_holds_no_place_of_this_machine(taught: Path) -> None:
    assert str(taught.parent.parent) not in json.dumps(read_artifact(taught).meta)


def test_the_recipe_of_teachers_is_a_protocol_on_hard_labels() -> None:
    assert isinstance(TEACHER_PROTOCOL, Protocol)
    assert (TEACHER_PROTOCOL.labels, TEACHER_PROTOCOL.loss) == ("hard", Loss("ce"))
