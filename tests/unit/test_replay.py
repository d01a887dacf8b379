"""Online labels computed once and replayed: the same numbers, and never the wrong ones."""

import json
import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

from softlabel.core import Dataset, DiskFullError, DistilledSet, LabelSource, SoftlabelWarning, StoreError
from softlabel.distill import distill
from softlabel.evaluation import Job, find_protocol, train_students
from softlabel.labels import ReplayedLabels, WrappedLabels, fixed_labels, online_labels, replay_bytes, replayed
from softlabel.models import build_model
from softlabel.store import Store, is_complete, new_table, read_artifact
from softlabel.training import Execution, Optimizer, Protocol, Teacher, Trainee, fit_stack

STUDENT = "convnet-1:width=4"
FIT = "softlabel.evaluation._students.fit_stack"
EPOCHS, BATCH = 3, 5
LOSSES = ("kl", "soft_ce", "mse_ce", "cosine", "gift")
Record = dict[str, Any]


@dataclass(frozen=True)
class Counted(WrappedLabels):
    """A label source that keeps count of the views that its teacher looks at."""

    seen: list[int]

    def to(self, device: torch.device) -> "Counted":
        return Counted(self.source.to(device), self.seen)

    def logits(self, views: Tensor, index: Tensor, rows: slice | None = None) -> Tensor | None:
        self.seen.append(len(views))
        return self.source.logits(views, index, rows)


def untrained(data: Dataset, seed: int = 0) -> Teacher:
    model = build_model("convnet-2:width=8", image_shape=data.info.image_shape, classes=data.info.classes, seed=seed)
    return Teacher(model.eval().requires_grad_(False), data.info, "convnet-2:width=8", f"test-{seed}", 0.25, 0, 1000)


@pytest.fixture(scope="module")
def distilled(tiny_data: Dataset, execution: Execution) -> DistilledSet:
    return distill("random", tiny_data, ipc=3, seed=0, execution=execution)


@pytest.fixture
def labels(tiny_data: Dataset) -> Counted:
    return Counted(online_labels([untrained(tiny_data)], tiny_data.info), [])


@pytest.fixture
def protocol() -> Protocol:
    return replace(find_protocol("gift", epochs=EPOCHS), batch=BATCH)


def jobs(protocol: Protocol, labels: LabelSource, losses: Sequence[str] = LOSSES) -> list[Job]:
    return [Job(protocol=protocol.with_loss(loss), student=STUDENT, labels=labels) for loss in losses]


Train = Callable[..., list[Record]]


@pytest.fixture
def train(tiny_data: Dataset, distilled: DistilledSet, execution: Execution) -> Train:
    def run(some: Sequence[Job], **changed: Any) -> list[Record]:
        settings: dict[str, Any] = {"data": tiny_data, "execution": execution, **changed}
        found = train_students(settings.pop("distilled", distilled), some, **settings)
        records = []
        for record in found:
            assert isinstance(record, dict), record
            records.append({key: value for key, value in record.items() if key != "timing"})
        return records

    return run


@pytest.fixture
def expected(train: Train, protocol: Protocol, tiny_data: Dataset) -> list[Record]:
    """Every student alone, the teacher looking at every view."""
    source = online_labels([untrained(tiny_data)], tiny_data.info)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("softlabel.labels._replay.REPLAY_BYTES", 0)
        return [train([job])[0] for job in jobs(protocol, source)]


def tables(store: Store) -> list[Path]:
    return sorted((store.root / "replay").iterdir()) if (store.root / "replay").exists() else []


# The same numbers.


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_replayed_is_online_to_the_bit(
    precision: str, train: Train, protocol: Protocol, labels: Counted, store: Store
) -> None:
    execution = Execution("cpu", precision)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("softlabel.labels._replay.REPLAY_BYTES", 0)
        alone = [train([job], execution=execution)[0] for job in jobs(protocol, labels)]
    assert train(jobs(protocol, labels), execution=execution) == alone  # kept in memory
    labels.seen.clear()
    half = len(LOSSES) // 2
    some = jobs(protocol, labels)
    first = train(some[:half], execution=execution, store=store)
    assert sum(labels.seen) == EPOCHS * 12
    assert first + train(some[half:], execution=execution, store=store) == alone  # replayed from the file
    assert sum(labels.seen) == EPOCHS * 12


def test_the_teacher_looks_once_at_every_view(train: Train, protocol: Protocol, labels: Counted, store: Store) -> None:
    train(jobs(protocol, labels), store=store)
    assert labels.seen == [5, 5, 2] * EPOCHS  # five losses, one look
    for change in ({"optimizer": Optimizer(name="sgd", lr=0.1)}, {"norm_momentum": 0.2}):
        labels.seen.clear()
        train(jobs(replace(protocol, **change), labels), store=store)
        assert labels.seen == []
    assert len(tables(store)) == 1


@pytest.mark.parametrize("what", ["seed", "epochs", "batch", "views", "teacher", "images", "precision"])
def test_other_views_or_labels_have_another_table(
    what: str, train: Train, protocol: Protocol, labels: Counted, store: Store, tiny_data: Dataset,
    execution: Execution,
) -> None:  # fmt: skip
    train(jobs(protocol, labels, ["kl"]), store=store)
    labels.seen.clear()
    other, source, settings = protocol, labels, dict[str, Any]()
    if what in ("epochs", "batch"):
        other = replace(protocol, **{what: 2})
    elif what == "views":
        other = replace(protocol, views="none")
    elif what == "seed":
        settings["seed"] = 1
    elif what == "teacher":
        source = Counted(online_labels([untrained(tiny_data, 1)], tiny_data.info), labels.seen)
    elif what == "images":
        settings["distilled"] = distill("random", tiny_data, ipc=3, seed=1, execution=execution)
    else:
        settings["execution"] = Execution("cpu", "bf16")
    train(jobs(other, source, ["kl"]), store=store, **settings)
    assert sum(labels.seen) == other.epochs * 12
    assert len(tables(store)) == 2


def test_fixed_labels_and_hard_ones_are_not_replayed(
    train: Train, protocol: Protocol, labels: Counted, distilled: DistilledSet, tiny_data: Dataset,
    execution: Execution, store: Store,
) -> None:  # fmt: skip
    fixed = fixed_labels([untrained(tiny_data)], distilled, execution)
    train(jobs(protocol, fixed), store=store)
    train(jobs(protocol, labels, ["ce"]), store=store)
    assert tables(store) == []
    assert labels.seen == []


def test_the_table_holds_the_logits_of_the_views(
    train: Train, protocol: Protocol, labels: Counted, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    looked: list[tuple[slice, Tensor]] = []
    own = Counted.logits

    def look(self: Counted, views: Tensor, index: Tensor, rows: slice | None = None) -> Tensor | None:
        found = own(self, views, index, rows)
        assert found is not None
        assert rows is not None
        looked.append((rows, found.clone()))
        return found

    monkeypatch.setattr(Counted, "logits", look)
    train(jobs(protocol, labels, ["kl"]), store=store)
    [path] = tables(store)
    artifact = read_artifact(path, "replay")
    table = artifact.tensors("logits.safetensors")["logits"]
    assert table.shape == (EPOCHS * 12, 4)
    assert torch.cat([torch.arange(EPOCHS * 12)[rows] for rows, _ in looked]).tolist() == list(range(EPOCHS * 12))
    for rows, found in looked:
        assert torch.equal(table[rows], found)
    assert artifact.meta["views"]["labels"] == labels.fingerprint


# Interrupted.


class KilledAfter:
    """A Progress that is interrupted after so many epochs."""

    def __init__(self, epochs: int) -> None:
        self.epochs = epochs

    def start(self, what: str, total: int) -> None:
        pass

    def advance(self, steps: int = 1, note: str = "") -> None:
        self.epochs -= steps
        if self.epochs <= 0 and steps:
            raise KeyboardInterrupt

    def finish(self, summary: str = "") -> None:
        pass


@pytest.mark.parametrize("save_seconds", [0.0, 1000.0])
def test_an_interrupted_training_leaves_no_half_table(
    save_seconds: float, train: Train, protocol: Protocol, labels: Counted, store: Store,
    expected: list[Record], monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    def fit(*args: Any, **settings: Any) -> Any:
        return fit_stack(*args, **settings, save_seconds=save_seconds)

    monkeypatch.setattr(FIT, fit)
    with pytest.raises(KeyboardInterrupt):
        train(jobs(protocol, labels), store=store, progress=KilledAfter(2))
    assert tables(store) == []
    labels.seen.clear()
    assert train(jobs(protocol, labels), store=store) == expected
    # One that goes on lacks the epochs before: its table is not kept, and the next training looks again.
    went_on = save_seconds == 0.0
    assert sum(labels.seen) == (1 if went_on else 3) * 12
    assert len(tables(store)) == (0 if went_on else 1)
    labels.seen.clear()
    train(jobs(replace(protocol, norm_momentum=0.2), labels), store=store)
    assert sum(labels.seen) == (3 if went_on else 0) * 12
    assert len(tables(store)) == 1
    assert not list(store.root.rglob(".*"))


def test_a_kept_table_serves_a_training_that_goes_on(
    train: Train, protocol: Protocol, labels: Counted, store: Store, expected: list[Record],
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    def fit(*args: Any, **settings: Any) -> Any:
        return fit_stack(*args, **settings, save_seconds=0.0)

    monkeypatch.setattr(FIT, fit)
    some = jobs(protocol, labels)
    assert train(some[:1], store=store) == expected[:1]
    labels.seen.clear()
    with pytest.raises(KeyboardInterrupt):
        train(some[1:], store=store, progress=KilledAfter(2))
    assert train(some[1:], store=store) == expected[1:]  # the last epoch's rows, not the first's
    assert labels.seen == []


def test_a_training_that_blows_up_leaves_no_table(
    train: Train, protocol: Protocol, labels: Counted, store: Store, tiny_data: Dataset, distilled: DistilledSet,
    execution: Execution,
) -> None:  # fmt: skip
    loud = replace(protocol, optimizer=Optimizer(name="sgd", lr=1e30))
    found = train_students(distilled, jobs(loud, labels), data=tiny_data, execution=execution, store=store)
    assert all(isinstance(result, Exception) for result in found)
    assert tables(store) == []
    assert not list(store.root.rglob("*logits*"))


def test_a_student_that_goes_on_beside_fresh_ones(
    train: Train, protocol: Protocol, labels: Counted, store: Store, expected: list[Record],
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    """The first epochs' rows come from the fresh ones, so the table is whole."""

    def fit(*args: Any, **settings: Any) -> Any:
        return fit_stack(*args, **settings, save_seconds=0.0)

    monkeypatch.setattr(FIT, fit)
    some = jobs(protocol, labels)
    with pytest.raises(KeyboardInterrupt):
        train(some[:2], store=store, progress=KilledAfter(2))
    assert train(some, store=store) == expected
    assert len(tables(store)) == 1


# Wrong tables.


def rewrite(path: Path, change: Callable[[dict[str, Any]], None]) -> None:
    manifest = json.loads((path / "manifest.json").read_text())
    change(manifest)
    (path / "manifest.json").write_text(json.dumps(manifest))


def test_a_table_of_another_teacher_is_refused(
    train: Train, protocol: Protocol, labels: Counted, store: Store, tiny_data: Dataset, tmp_path: Path
) -> None:
    """One teacher's folder under the name of another's."""
    other = Counted(online_labels([untrained(tiny_data, 1)], tiny_data.info), [])
    elsewhere = Store(tmp_path / "elsewhere")
    train(jobs(protocol, labels, ["kl"]), store=store)
    train(jobs(protocol, other, ["kl"]), store=elsewhere)
    [mine], [theirs] = tables(store), tables(elsewhere)
    shutil.rmtree(mine)
    shutil.move(theirs, mine)
    with pytest.raises(StoreError, match="holds labels of another teacher or of another training") as caught:
        train(jobs(protocol, labels, ["gift"]), store=store)
    assert str(mine) in str(caught.value)
    assert labels.fingerprint in str(caught.value)
    assert other.fingerprint in str(caught.value)
    shutil.rmtree(mine)  # as it says
    train(jobs(protocol, labels, ["gift"]), store=store)


def test_a_table_of_another_size_is_refused(
    train: Train, protocol: Protocol, labels: Counted, store: Store, tmp_path: Path
) -> None:
    elsewhere = Store(tmp_path / "elsewhere")
    train(jobs(protocol, labels, ["kl"]), store=store)
    train(jobs(replace(protocol, epochs=2), labels, ["kl"]), store=elsewhere)
    [mine], [theirs] = tables(store), tables(elsewhere)
    shutil.rmtree(mine)
    shutil.move(theirs, mine)
    with pytest.raises(StoreError, match=r"another training .*table \(24, 4\).*\(36, 4\).*Delete it"):
        train(jobs(protocol, labels, ["gift"]), store=store)


@pytest.mark.parametrize("what", ["bit", "short", "missing", "manifest"])
def test_a_damaged_table_is_refused(what: str, train: Train, protocol: Protocol, labels: Counted, store: Store) -> None:
    train(jobs(protocol, labels, ["kl"]), store=store)
    [path] = tables(store)
    file = path / "logits.safetensors"
    data = bytearray(file.read_bytes())
    if what == "bit":
        data[-5] ^= 1
        file.write_bytes(data)
    elif what == "short":
        file.write_bytes(data[:-4])
    elif what == "missing":
        file.unlink()
    else:
        rewrite(path, lambda manifest: manifest["meta"].pop("views"))
    with pytest.raises(StoreError, match=r"corrupt|missing|lacks 'views'") as caught:
        train(jobs(protocol, labels, ["gift"]), store=store)
    assert str(path) in str(caught.value)


def test_a_folder_that_is_no_table_is_not_overwritten(
    train: Train, protocol: Protocol, labels: Counted, store: Store
) -> None:
    train(jobs(protocol, labels, ["kl"]), store=store)
    [path] = tables(store)
    (path / "manifest.json").unlink()
    with pytest.raises(StoreError, match=r"no complete artifact\. Move or delete it"):
        train(jobs(protocol, labels, ["gift"]), store=store)
    assert (path / "logits.safetensors").exists()


# Too large.


def test_a_table_that_is_too_large_is_not_kept(
    train: Train, protocol: Protocol, labels: Counted, store: Store, expected: list[Record],
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    size = EPOCHS * 12 * 4 * 4
    monkeypatch.setattr("softlabel.labels._replay.REPLAY_BYTES", size - 1)
    with pytest.warns(SoftlabelWarning, match=rf"would take {size} (B|bytes).*: they are not kept") as told:
        assert train(jobs(protocol, labels), store=store) == expected
    assert len(told) == 1
    assert str(store.root) in str(told[0].message)
    assert tables(store) == []
    monkeypatch.setattr("softlabel.labels._replay.REPLAY_BYTES", size)
    train(jobs(replace(protocol, norm_momentum=0.2), labels), store=store)
    assert len(tables(store)) == 1


def test_half_of_the_free_disk_is_the_most(
    train: Train, protocol: Protocol, labels: Counted, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    size = EPOCHS * 12 * 4 * 4
    monkeypatch.setattr("softlabel.labels._replay._free", lambda _: 2 * size - 1)
    with pytest.warns(SoftlabelWarning, match="they are not kept"):
        train(jobs(protocol, labels, ["kl"]), store=store)
    monkeypatch.setattr("softlabel.labels._replay._free", lambda _: 2 * size)
    train(jobs(protocol, labels, ["gift"]), store=store)
    assert len(tables(store)) == 1


def test_a_full_disk_is_told_before_the_training(
    train: Train, protocol: Protocol, labels: Counted, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.posix_fallocate", full)
    with pytest.raises(DiskFullError, match="The disk is full"):
        train(jobs(protocol, labels), store=store)
    assert labels.seen == []
    assert not list(store.root.rglob("*logits*"))


# The parts.


def test_a_new_table_is_a_safetensors_file(tmp_path: Path) -> None:
    for shape in ((1, 1), (7, 3), (1000, 10)):
        path = tmp_path / f"{shape[0]}.safetensors"
        table = new_table(path, "logits", shape)
        assert path.stat().st_size >= replay_bytes(shape)
        assert torch.equal(load_file(path)["logits"], torch.zeros(shape))
        expected = torch.randn(shape, generator=torch.Generator().manual_seed(0))
        table[:] = expected
        found = load_file(path)
        assert list(found) == ["logits"]
        assert torch.equal(found["logits"], expected)
        header = int.from_bytes(path.read_bytes()[:8], "little")
        assert header % 8 == 0  # aligned data
        assert path.stat().st_size == 8 + header + replay_bytes(shape)


def test_a_source_without_rows_is_asked_itself(labels: Counted, tiny_data: Dataset) -> None:
    views = torch.randn(3, *tiny_data.info.image_shape)
    kept = ReplayedLabels(labels, torch.full((3, 4), torch.nan), torch.zeros(3, dtype=torch.bool))
    index = torch.arange(3)
    assert torch.equal(kept.logits(views, index), labels.source.logits(views, index))  # type: ignore[arg-type]
    assert not kept.known.any()
    first = kept.logits(views, index, slice(0, 3))
    assert kept.known.all()
    assert torch.equal(kept.logits(views, index, slice(0, 3)), first)  # type: ignore[arg-type]
    assert len(labels.seen) == 2


def test_what_labels_cost_is_what_their_source_costs(labels: Counted, store: Store) -> None:
    for place in (None, store):
        with replayed(labels, shape=(4, 4), views={"labels": labels.fingerprint}, store=place) as kept:
            assert (kept.regime, kept.fingerprint, kept.label_bytes, kept.labeler_bytes) == (
                "online", labels.fingerprint, 0, 1000)  # fmt: skip
            assert isinstance(kept, ReplayedLabels)
    assert not any(is_complete(path) for path in tables(store))  # no row was filled


def test_an_incomplete_table_does_not_swallow_errors(labels: Counted, store: Store) -> None:
    with (
        pytest.raises(ValueError, match="mine"),
        replayed(labels, shape=(4, 4), views={"labels": labels.fingerprint}, store=store),
    ):
        raise ValueError("mine")
    assert tables(store) == []


def test_trainees_share_one_look(tiny_data: Dataset, labels: Counted, protocol: Protocol, execution: Execution) -> None:
    """In the loop itself, with two sources: each is asked once per batch."""
    other = Counted(online_labels([untrained(tiny_data, 1)], tiny_data.info), [])
    trainees = [
        Trainee(
            model=build_model(STUDENT, image_shape=tiny_data.info.image_shape, classes=4, seed=0),
            protocol=replace(protocol, epochs=1, batch=80).with_loss(loss),
            labels=source,
        )
        for loss, source in (("kl", labels), ("gift", labels), ("ce", labels), ("kl", other))
    ]
    fit_stack(trainees, tiny_data.train, info=tiny_data.info, seed=0, execution=execution)
    assert labels.seen == other.seen == [80, 80]
