"""The label store: replay is online training, whole and broken, and nothing foreign is read."""

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
    SoftlabelError,
    Split,
    StoreError,
    UnknownNameError,
    fingerprint,
)
from softlabel.distill import distill
from softlabel.evaluation import find_protocol, student_views, train_student
from softlabel.labels import Codec, HardLabels, OnlineLabels, load_label_store, online_labels, write_label_store
from softlabel.labels._label_store import _identity
from softlabel.labels._label_views import VIEWS, fingerprint_of, read_views, written_views
from softlabel.models import build_model
from softlabel.store import ArtifactWriter, read_artifact
from softlabel.training import POLICIES, DrawnViews, Execution, Protocol, Teacher

STUDENT = "convnet-1:width=4"
EXECUTION = Execution("cpu", "fp32")
EPOCHS = 5


@pytest.fixture(scope="module")
def distilled(tiny_data: Dataset) -> DistilledSet:
    return distill("random", tiny_data, ipc=4, seed=0, execution=EXECUTION)


@pytest.fixture(scope="module")
def online(tiny_data: Dataset) -> OnlineLabels:
    info, arch = tiny_data.info, "convnet-2:width=8"
    model = build_model(arch, image_shape=info.image_shape, classes=info.classes, seed=0).eval().requires_grad_(False)
    return online_labels([Teacher(model, info, arch, "test", 0.25, 0, 1000)], info)


def short(name: str = "rded", batch: int = 5) -> Protocol:
    return replace(find_protocol(name, epochs=EPOCHS), batch=batch)


Write = Callable[..., Path]


@pytest.fixture
def write(tmp_path: Path, online: OnlineLabels, distilled: DistilledSet) -> Write:
    def run(codec: str = "fp32", name: str = "labels", **changes: Any) -> Path:
        settings = {"protocol": short(), "execution": EXECUTION, "codec": Codec.parse(codec), **changes}
        write_label_store(tmp_path / name, online, settings.pop("distilled", distilled), **settings)
        return tmp_path / name

    return run


def student(data: Dataset, distilled: DistilledSet, path: Path, protocol: Protocol, **more: Any) -> dict[str, Any]:
    opened = load_label_store(path, distilled)
    settings = {"data": data, "protocol": protocol, "student": STUDENT, "execution": EXECUTION, **more}
    return train_student(distilled, opened.labels, stored=opened, **settings)


@pytest.mark.parametrize("views", sorted(VIEWS))
@pytest.mark.parametrize(("name", "loss"), [("rded", "kl"), ("gift", "gift"), ("no-distillation-adamw", "soft_ce")])
def test_replay_is_online_training_to_the_bit(
    tiny_data: Dataset, distilled: DistilledSet, online: OnlineLabels, write: Write, views: str, name: str, loss: str
) -> None:
    protocol = short(name).with_loss(loss)
    path = write(protocol=protocol, views=views, epochs=protocol.total_epochs)
    found = student(tiny_data, distilled, path, protocol)
    protocol = replace(protocol, labels="online")
    live = train_student(distilled, online, data=tiny_data, protocol=protocol, student=STUDENT, execution=EXECUTION)
    assert found["train_loss"] == live["train_loss"]
    assert found["curve"] == live["curve"]
    assert found["arm"]["labels"] == "replay"


def test_another_seed_has_other_views(tiny_data: Dataset, distilled: DistilledSet, write: Write) -> None:
    paths = [write(name=f"labels-{seed}", seed=seed) for seed in (0, 1)]
    one, other = (load_label_store(path, distilled) for path in paths)
    views = [fingerprint_of(list(store.views.epoch(0))) for store in (one, other)]
    assert views[0] != views[1]
    assert views[1] == fingerprint_of(list(student_views(distilled, short(), 1).epoch(0)))
    assert one.labels.fingerprint != other.labels.fingerprint


@pytest.mark.parametrize("policy", sorted(POLICIES))
def test_views_written_down_are_the_views(policy: str) -> None:
    images = 11
    plan = DrawnViews(POLICIES[policy](1), 4, images, 16, 16, seed=7)
    epochs = [list(plan.epoch(epoch)) for epoch in range(3, 7)]
    tensors = written_views(epochs)
    found = read_views(tensors, images, first=3)
    assert [[fingerprint_of([one]) for one in epoch] for epoch in found] == [
        [fingerprint_of([one]) for one in epoch] for epoch in epochs]  # fmt: skip
    assert [[one.rows for one in epoch] for epoch in found] == [[one.rows for one in epoch] for epoch in epochs]
    for epoch, again in zip(epochs, found, strict=True):
        for one, other in zip(epoch, again, strict=True):
            for (name, values), (same, read) in zip(one.params.ops, other.params.ops, strict=True):
                assert name == same
                assert {k: v.dtype for k, v in values.items()} == {k: v.dtype for k, v in read.items()}
    assert not any(tensor.dtype == torch.int64 for tensor in tensors.values())  # small numbers in small types


@pytest.mark.parametrize("codec", ["fp16", "topk:k=2,fill=smooth+int8", "vq:codes=8,steps=40", "lowrank:rank=2"])
def test_a_store_gives_what_its_codec_gives(
    distilled: DistilledSet, online: OnlineLabels, write: Write, codec: str
) -> None:
    whole = load_label_store(write("fp32", "whole"), distilled)
    coded = load_label_store(write(codec, "coded"), distilled)
    for epoch in range(EPOCHS):
        for drawn in coded.views.epoch(epoch):
            target = distilled.targets[drawn.index]
            exact = whole.labels.logits(torch.empty(0), drawn.index, drawn.rows)
            fitted = coded.labels.codec
            if not fitted.shared:
                exact = fitted.decode(fitted.encode(exact, target=target), target=target)
                torch.testing.assert_close(coded.labels.logits(torch.empty(0), drawn.index, drawn.rows), exact)
            else:  # what was learned of other views of the same images
                again = coded.labels.logits(torch.empty(0), drawn.index, drawn.rows)
                alike = torch.corrcoef(torch.stack([again.flatten(), exact.flatten()]))[0, 1]
                assert alike > 0.5, alike


def test_bytes_are_those_of_the_files(distilled: DistilledSet, write: Write) -> None:
    for views, codec in (("stored", "int8"), ("seed", "lowrank:rank=1")):
        path = write(codec, f"{views}-bytes", views=views)
        sizes = {file.relative_to(path).as_posix(): file.stat().st_size for file in path.rglob("*") if file.is_file()}
        kept = sum(size for name, size in sizes.items() if name not in ("manifest.json", "aside/encoder.safetensors"))
        assert load_label_store(path, distilled).labels.label_bytes == kept + (8 if views == "seed" else 0)
        assert any(name.startswith("views/") for name in sizes) == (views == "stored")


# Growing and going on.


@pytest.mark.parametrize(("codec", "views"), [("fp32", "stored"), ("int4", "seed"), ("vq:codes=8,steps=40", "stored")])
def test_a_store_that_grew_is_one_made_at_once(
    monkeypatch: pytest.MonkeyPatch, distilled: DistilledSet, write: Write, codec: str, views: str
) -> None:
    monkeypatch.setattr("softlabel.labels._label_store.SHARD_ROWS", 2 * len(distilled))
    at_once = load_label_store(write(codec, "whole", views=views), distilled)
    write(codec, "grown", views=views, epochs=3)
    grown = load_label_store(write(codec, "grown", views=views), distilled)
    assert (grown.epochs, at_once.epochs) == (EPOCHS, EPOCHS)
    for epoch in range(EPOCHS):
        for one, other in zip(at_once.views.epoch(epoch), grown.views.epoch(epoch), strict=True):
            assert fingerprint_of([one]) == fingerprint_of([other])
            labels = [s.labels.logits(torch.empty(0), one.index, one.rows) for s in (at_once, grown)]
            assert torch.equal(*labels)
    assert at_once.labels.fingerprint == grown.labels.fingerprint


def test_growing_touches_nothing_that_is_there(write: Write) -> None:
    path = write(epochs=2)
    before = {file: file.read_bytes() for file in path.rglob("*.safetensors")}
    write(epochs=4)
    assert all(file.read_bytes() == data for file, data in before.items())
    assert read_artifact(path, "label-store").meta["epochs"] == 4
    manifest = (path / "manifest.json").read_bytes()
    write(epochs=3)  # enough are there
    assert (path / "manifest.json").read_bytes() == manifest


@pytest.mark.parametrize("done", [0, 2])
def test_an_interrupted_writing_goes_on(
    monkeypatch: pytest.MonkeyPatch, distilled: DistilledSet, online: OnlineLabels, write: Write, done: int
) -> None:
    monkeypatch.setattr("softlabel.labels._label_store.SHARD_ROWS", len(distilled))
    expected = load_label_store(write(name="whole"), distilled)
    if done:
        write(epochs=done)
    looked = []
    plain = type(online).logits

    def counted(self: OnlineLabels, views: torch.Tensor, index: torch.Tensor, rows: Any = None) -> torch.Tensor:
        looked.append(len(index))
        if sum(looked) > 2 * len(distilled):
            raise KeyboardInterrupt
        return plain(self, views, index, rows)

    with monkeypatch.context() as patch:
        patch.setattr(type(online), "logits", counted)
        with pytest.raises(KeyboardInterrupt):
            write()
    if done:
        assert load_label_store(write(epochs=done), distilled).epochs == done  # still what it was
    looked.clear()
    with monkeypatch.context() as patch:
        patch.setattr(type(online), "logits", lambda *given: (looked.append(len(given[2])), plain(*given))[1])
        path = write()
    if not done:
        assert sum(looked) == (EPOCHS - 2) * len(distilled)
    found = load_label_store(path, distilled)
    for epoch in range(EPOCHS):
        for drawn in expected.views.epoch(epoch):
            labels = [s.labels.logits(torch.empty(0), drawn.index, drawn.rows) for s in (expected, found)]
            assert torch.equal(*labels)


# Batches of other sizes, and more epochs than labels.


def test_views_that_are_not_mixed_take_any_batch(
    tiny_data: Dataset, distilled: DistilledSet, online: OnlineLabels, write: Write
) -> None:
    def plain(batch: int) -> Protocol:
        return replace(short("gift", batch), views="flip-crop")

    opened = load_label_store(write(protocol=plain(5)), distilled)
    for batch in (1, 3, 7, 11, 100):
        plan = opened.views_for(plain(batch), distilled)
        assert fingerprints(plan, 1) == fingerprints(opened.views, 1)
        sizes = [len(drawn.index) for drawn in plan.epoch(1)]
        assert sum(sizes) == len(distilled)
        assert plan.steps(1) == len(sizes)
        assert set(sizes[:-1]) <= {batch}
    found = student(tiny_data, distilled, opened.path, plain(7))
    assert found["steps"] == EPOCHS * len(list(opened.views_for(plain(7), distilled).epoch(0)))


def fingerprints(plan: Any, epoch: int) -> list[str]:
    """Of every single view, with its row."""
    found = []
    for drawn in plan.epoch(epoch):
        for place in range(len(drawn.index)):
            numbers = [v[place] for _, values in drawn.params.ops for k, v in sorted(values.items()) if k != "partner"]
            found.append(f"{drawn.rows.start + place} {drawn.index[place]} {numbers}")
    return found


def test_mixed_views_take_multiples_of_their_batch(distilled: DistilledSet, write: Write) -> None:
    opened = load_label_store(write(protocol=short("rded", 3)), distilled)
    plan = opened.views_for(short("rded", 6), distilled)
    partners = {}
    for drawn in opened.views.epoch(0):
        assert drawn.params.mix is not None
        partners |= {drawn.rows.start + i: int(drawn.index[p]) for i, p in enumerate(drawn.params.mix.partner)}
    for drawn in plan.epoch(0):
        assert drawn.params.mix is not None
        for i, p in enumerate(drawn.params.mix.partner):
            assert int(drawn.index[p]) == partners[drawn.rows.start + i]
    for batch in (2, 4):
        with pytest.raises(ConfigError, match="mixed within batches of 3, and can be replayed in batches of 3, 6, 9"):
            list(opened.views_for(short("rded", batch), distilled).epoch(0))


@pytest.mark.parametrize("epochs", [2, 3])
def test_a_damaged_store_is_neither_found_nor_grown(write: Write, epochs: int) -> None:
    path = write(epochs=2)
    shard = next((path / "labels").iterdir())
    damaged = bytearray(shard.read_bytes())
    damaged[-1] ^= 1
    shard.write_bytes(bytes(damaged))
    with pytest.raises(StoreError, match=r"is corrupt: its SHA-256.* give the command that made it again"):
        write(epochs=epochs)


def test_whoever_is_interrupted_between_a_codec_s_files_goes_on(
    write: Write, monkeypatch: pytest.MonkeyPatch, distilled: DistilledSet
) -> None:
    keep = ArtifactWriter.write_tensors

    def stop(self: ArtifactWriter, name: str, *rest: Any, **more: Any) -> None:
        if "encoder" in name:
            raise KeyboardInterrupt
        keep(self, name, *rest, **more)

    monkeypatch.setattr(ArtifactWriter, "write_tensors", stop)
    with pytest.raises(KeyboardInterrupt):
        write("lowrank:rank=2", epochs=2)
    monkeypatch.undo()
    assert load_label_store(write("lowrank:rank=2", epochs=2), distilled).labels.label_bytes > 0


def test_labels_made_under_a_compiler_are_others(distilled: DistilledSet, online: OnlineLabels) -> None:
    protocol = short()
    plan = student_views(distilled, protocol, 0)
    names = {
        fingerprint(_identity(online, distilled, plan, protocol, 0, Codec.parse("fp16"), "seed", execution))  # type: ignore[arg-type]
        for execution in (EXECUTION, replace(EXECUTION, compiled=True))
    }
    assert len(names) == 2


def test_operations_drawn_per_batch_stay_in_their_batches(distilled: DistilledSet, write: Write) -> None:
    opened = load_label_store(write(protocol=short("no-distillation", 3)), distilled)
    assert opened.views_for(short("no-distillation", 3), distilled) is opened.views
    for batch in (1, 6):  # before any training, and whatever operations the first epochs happen to have
        with pytest.raises(ConfigError, match=r"every batch has operations of its own.* the batches of 3"):
            opened.views_for(short("no-distillation", batch), distilled)


def test_more_epochs_than_labels_take_batches_at_random(
    tiny_data: Dataset, distilled: DistilledSet, write: Write
) -> None:
    path = write(epochs=2)
    longer = replace(short(), epochs=4 * EPOCHS)
    first, again = (student(tiny_data, distilled, path, longer) for _ in range(2))
    assert first["train_loss"] == again["train_loss"]
    assert len(first["train_loss"]) == 4 * EPOCHS
    pooled = replace(longer, label_epochs=2)
    assert student(tiny_data, distilled, path, pooled)["train_loss"] == first["train_loss"]


# What is refused.


def test_another_set_is_refused(tiny_data: Dataset, write: Write) -> None:
    other = distill("random", tiny_data, ipc=4, seed=1, execution=EXECUTION)
    with pytest.raises(ConfigError, match="were made for another distilled set"):
        load_label_store(write(), other)


def test_another_protocol_is_refused(distilled: DistilledSet, write: Write) -> None:
    opened = load_label_store(write(), distilled)
    with pytest.raises(ConfigError, match=r"the views of the protocol 'rded \(5 epochs\)'.*Take --protocol rded,"):
        opened.views_for(short("gift"), distilled)


def test_other_labels_are_not_overwritten(write: Write) -> None:
    write("fp32")
    for changes in ({"codec": "int8"}, {"seed": 1}, {"views": "seed"}, {"protocol": short("gift")}):
        with pytest.raises(StoreError, match="already holds another label store"):
            write(**changes)


@pytest.mark.parametrize("kind", ["labels", "views"])
def test_a_flipped_bit_is_named_with_its_sha256(distilled: DistilledSet, write: Write, kind: str) -> None:
    path = write()
    file = next((path / kind).iterdir())
    data = bytearray(file.read_bytes())
    data[-3] ^= 4
    file.write_bytes(bytes(data))
    recorded = json.loads((path / "manifest.json").read_text())["files"][f"{kind}/{file.name}"]["sha256"]
    with pytest.raises(StoreError, match=rf"{file.name} is corrupt: its SHA-256 is .*manifest says {recorded[:12]}"):
        load_label_store(path, distilled)


def test_a_cut_off_file_and_a_missing_one(distilled: DistilledSet, write: Write) -> None:
    path = write()
    file = next((path / "labels").iterdir())
    data = file.read_bytes()
    file.write_bytes(data[:-10])
    with pytest.raises(StoreError, match="is corrupt: its SHA-256"):
        load_label_store(path, distilled)
    file.unlink()
    with pytest.raises(StoreError, match="is missing, though the manifest lists it"):
        load_label_store(path, distilled)


def test_a_manifest_that_does_not_fit_its_files(distilled: DistilledSet, write: Write) -> None:
    path = write("int8")
    manifest = json.loads((path / "manifest.json").read_text())
    for change, message in (({"codec": "dense+int4"}, "does not hold"), ({"shards": [[0, 9]]}, "lists no file")):
        changed = {**manifest, "meta": {**manifest["meta"], **change}}
        (path / "manifest.json").write_text(json.dumps(changed))
        with pytest.raises(StoreError, match=message):
            load_label_store(path, distilled)


def test_views_that_another_torch_would_draw_are_refused(distilled: DistilledSet, write: Write) -> None:
    path = write(views="seed")
    manifest = json.loads((path / "manifest.json").read_text())
    manifest["meta"]["view_seed"] += 1
    (path / "manifest.json").write_text(json.dumps(manifest))
    with pytest.raises(StoreError, match="The views of epoch 1 come out differently"):
        load_label_store(path, distilled).views_for(short(), distilled)


@pytest.mark.parametrize(
    ("changes", "error", "message"),
    [
        ({"epochs": 0}, ConfigError, "for 1 epoch or more"),
        ({"views": "nowhere"}, UnknownNameError, "way to keep views"),
        ({"codec": "topk:k=99"}, ConfigError, "have no more"),
    ],
)
def test_settings_that_make_no_sense(
    write: Write, changes: dict[str, Any], error: type[SoftlabelError], message: str
) -> None:
    with pytest.raises(error, match=message):
        write(**changes)


def test_labels_are_read_by_rows_alone(distilled: DistilledSet, write: Write) -> None:
    labels = load_label_store(write(), distilled).labels
    with pytest.raises(ConfigError, match="read by their rows"):
        labels.logits(torch.empty(2, 3, 16, 16), torch.tensor([0, 1]))
    assert (labels.regime, labels.space, labels.labeler_bytes) == ("replay", "logits", 0)


def test_a_loss_that_the_store_cannot_serve(tiny_data: Dataset, distilled: DistilledSet, write: Write) -> None:
    path = write("topk:k=2")
    with pytest.raises(ConfigError, match="only the largest are kept"):
        student(tiny_data, distilled, path, short().with_loss("gift"))


def test_a_set_of_one_batch(tiny_data: Dataset, write: Write) -> None:
    one = distill("random", tiny_data, ipc=1, seed=0, execution=EXECUTION)
    path = write(distilled=one, protocol=short("gift", 50))
    assert Split(one.images, one.targets)
    assert student(tiny_data, one, path, short("gift", 50))["steps"] == EPOCHS


def test_an_interrupted_growing_leaves_no_bytes_behind(
    monkeypatch: pytest.MonkeyPatch, distilled: DistilledSet, online: OnlineLabels, write: Write
) -> None:
    def interrupted(*given: Any) -> None:
        raise KeyboardInterrupt

    expected = read_artifact(write(name="clean", epochs=3), "label-store")
    path = write(name="broken", epochs=2)
    with monkeypatch.context() as patch:
        patch.setattr(
            "softlabel.store._artifact._write_manifest", lambda *given: (_ for _ in ()).throw(KeyboardInterrupt)
        )
        with pytest.raises(KeyboardInterrupt):
            write(name="broken", epochs=4)
    write(name="broken", epochs=3)
    found = read_artifact(path, "label-store")
    assert sum(1 for _ in (path / "labels").iterdir()) == 2
    assert (
        load_label_store(path, distilled).labels.fingerprint
        == load_label_store(expected.path, distilled).labels.fingerprint
    )
    assert found.meta["epochs"] == 3


def test_two_that_grow_one_store(distilled: DistilledSet, write: Write, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write(epochs=2)
    done = []
    plain = type(load_label_store(path, distilled).views)

    def meanwhile(*given: Any) -> Any:
        if not done:
            done.append(True)
            write(epochs=5)
        return written_views(*given)

    monkeypatch.setattr("softlabel.labels._label_store.written_views", meanwhile)
    with pytest.raises(StoreError, match="was changed by another process meanwhile"):
        write(epochs=3)
    assert plain
    assert load_label_store(path, distilled).epochs == 5


def test_a_store_is_read_and_not_grown_without_its_encoder(distilled: DistilledSet, write: Write) -> None:
    path = write("vq:codes=8,steps=40", epochs=2)
    (path / "aside" / "encoder.safetensors").unlink()
    assert load_label_store(path, distilled).epochs == 2
    with pytest.raises(StoreError, match="can be read but not grown"):
        write("vq:codes=8,steps=40", epochs=3)


def test_a_loss_without_a_teacher_does_not_see_a_store_s_views(
    tiny_data: Dataset, distilled: DistilledSet, write: Write
) -> None:
    """Hard labels are in a record's identity, and the store is not: their views must be the seed's own."""
    path, protocol = write(seed=0), short().with_loss("ce")
    with_store = student(tiny_data, distilled, path, protocol, seed=1)
    settings = {"data": tiny_data, "protocol": protocol, "student": STUDENT, "execution": EXECUTION, "seed": 1}
    without = train_student(distilled, HardLabels(), **settings)  # type: ignore[arg-type]
    assert with_store["key"] == without["key"]
    assert with_store["train_loss"] == without["train_loss"]
