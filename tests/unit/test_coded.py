"""Labels through a codec in a training: what students see, what it costs, and which losses it can serve."""

from dataclasses import replace
from typing import Any

import pytest
import torch

from softlabel.core import ConfigError, Dataset, DistilledSet, Split, stream_seed
from softlabel.distill import distill
from softlabel.evaluation import Job, find_protocol, student_views, train_students
from softlabel.labels import Codec, LabelSpec, OnlineLabels, fixed_labels, online_labels, read_labels
from softlabel.models import build_model
from softlabel.store import Store
from softlabel.training import Batches, Execution, PooledViews, Protocol, Teacher, plan_of

STUDENT = "convnet-1:width=4"
EPOCHS = 4


def teacher(data: Dataset, seed: int = 0) -> Teacher:
    model = build_model("convnet-2:width=8", image_shape=data.info.image_shape, classes=data.info.classes, seed=seed)
    return Teacher(model.eval().requires_grad_(False), data.info, "convnet-2:width=8", f"test-{seed}", 0.25, 0, 1000)


@pytest.fixture(scope="module")
def distilled(tiny_data: Dataset, execution: Execution) -> DistilledSet:
    return distill("random", tiny_data, ipc=3, seed=0, execution=execution)


@pytest.fixture(scope="module")
def online(tiny_data: Dataset) -> OnlineLabels:
    return online_labels([teacher(tiny_data)], tiny_data.info)


@pytest.fixture
def protocol() -> Protocol:
    return replace(find_protocol("gift", epochs=EPOCHS), batch=5)


def job(spec: str, protocol: Protocol, online: OnlineLabels, distilled: DistilledSet, loss: str = "kl") -> Job:
    parsed, execution = LabelSpec.parse(spec), Execution("cpu", "fp32")
    chosen = protocol.with_labels(parsed.regime, parsed.epochs).with_loss(loss)
    labels = read_labels(
        online if parsed.regime != "fixed" else fixed_labels(online.teachers, distilled, execution),
        parsed,
        distilled,
        regime=chosen.labels,
        plan=student_views(distilled, chosen, 0),
        epochs=chosen.labelled_epochs,
        execution=execution,
    )
    return Job(protocol=chosen, student=STUDENT, labels=labels, arm=spec)


def trained(data: Dataset, distilled: DistilledSet, *jobs: Job, store: Store | None = None) -> list[dict[str, Any]]:
    found = train_students(distilled, jobs, data=data, execution=Execution("cpu", "fp32"), store=store)
    for record in found:
        assert isinstance(record, dict), record
    return found  # type: ignore[return-value]


@pytest.mark.parametrize("loss", ["kl", "gift", "mse_ce"])
def test_stored_in_32_bits_is_online_to_the_bit(
    tiny_data: Dataset, distilled: DistilledSet, online: OnlineLabels, protocol: Protocol, loss: str
) -> None:
    specs = ("online", "replay+fp32", "replay")
    jobs = [job(spec, protocol, online, distilled, loss) for spec in specs]
    live, stored, short = trained(tiny_data, distilled, *jobs)
    assert live["train_loss"] == stored["train_loss"] != short["train_loss"]
    assert short["train_loss"] == pytest.approx(live["train_loss"], rel=1e-2)  # 16 bits
    assert live["key"] != stored["key"] != short["key"]
    assert [record["arm"]["labels"] for record in (live, stored, short)] == ["online", "replay", "replay"]


def test_what_stored_labels_weigh(
    tiny_data: Dataset, distilled: DistilledSet, online: OnlineLabels, protocol: Protocol
) -> None:
    classes, images = tiny_data.info.classes, len(distilled)
    expected = {
        "replay": EPOCHS * images * 2 * classes + 8,  # 8: the seed that tells every view
        "replay+topk:k=2+int8": EPOCHS * images * (2 + 4 + 2) + 8,
        "replay:epochs=2+topk:k=1": 2 * images * 3 + 8,
        "fixed+int8": images * (classes + 4),
        "replay+lowrank:rank=1": EPOCHS * images * 2 + 2 * 2 * classes + 8,
    }
    for spec, size in expected.items():
        labels = job(spec, protocol, online, distilled).labels
        assert (labels.label_bytes, labels.labeler_bytes) == (size, 0), spec


def test_arms_share_what_the_teacher_said(
    tiny_data: Dataset, distilled: DistilledSet, online: OnlineLabels, protocol: Protocol, store: Store
) -> None:
    specs = ("online", "replay", "replay+topk:k=1", "replay+lowrank:rank=2")
    jobs = [job(spec, protocol, online, distilled) for spec in specs]
    together = trained(tiny_data, distilled, *jobs, store=store)
    assert len(list((store.root / "replay").iterdir())) == 1
    for one, record in zip(jobs, together, strict=True):
        [alone] = trained(tiny_data, distilled, one)
        assert alone["train_loss"] == record["train_loss"]
    assert len({tuple(record["train_loss"]) for record in together}) == 4


def test_a_pool_takes_whole_batches_of_few_epochs(distilled: DistilledSet, protocol: Protocol) -> None:
    split = Split(distilled.images, distilled.targets)
    drawn = plan_of(protocol, split, distilled.info, 1, 7)
    pool = plan_of(replace(protocol, label_epochs=2), split, distilled.info, 1, 7)
    assert isinstance(pool, PooledViews)
    known = {(one.rows.start, one.rows.stop): one for epoch in range(2) for one in drawn.epoch(epoch)}
    seen = []
    for epoch in range(EPOCHS):
        batches = list(pool.epoch(epoch))
        assert len(batches) == pool.steps(epoch) == drawn.steps(0)
        rows = [(one.rows.start, one.rows.stop) for one in batches]
        assert len(set(rows)) == len(rows)  # none twice in an epoch
        for one, key in zip(batches, rows, strict=True):
            assert torch.equal(one.index, known[key].index)
        seen.append(rows)
    assert len({tuple(rows) for rows in seen}) > 1
    again = plan_of(replace(protocol, label_epochs=2), split, distilled.info, 1, 7)
    assert [[(o.rows.start, o.rows.stop) for o in again.epoch(e)] for e in range(EPOCHS)] == seen
    for all_of_them in (0, EPOCHS, EPOCHS + 5):
        assert plan_of(replace(protocol, label_epochs=all_of_them), split, distilled.info, 1, 7) == drawn


def test_pooled_labels_are_those_of_their_views(
    tiny_data: Dataset, distilled: DistilledSet, online: OnlineLabels, protocol: Protocol, store: Store
) -> None:
    """The table of two epochs serves four, and every batch finds its own rows in it."""
    pooled = [job(spec, protocol, online, distilled) for spec in ("replay:epochs=2+fp32",)]
    live = replace(pooled[0], labels=online, protocol=replace(pooled[0].protocol, labels="online"))
    kept, looked = trained(tiny_data, distilled, *pooled, live)
    assert kept["train_loss"] == looked["train_loss"]
    [found] = trained(tiny_data, distilled, *pooled, store=store)
    assert found["train_loss"] == kept["train_loss"]


def test_the_codec_is_fitted_to_other_views_of_the_same_images(
    distilled: DistilledSet, online: OnlineLabels, protocol: Protocol
) -> None:
    labels: Any = job("replay+lowrank:rank=2", protocol, online, distilled).labels
    sample = labels.sample()
    assert len(sample) >= 4096
    assert torch.equal(sample, labels.sample())
    execution, split = Execution("cpu", "fp32"), Split(distilled.images, distilled.targets)
    plan = replace(student_views(distilled, protocol, 0), seed=stream_seed(stream_seed(0, "student"), "codec"))
    batch = next(iter(Batches(split, distilled.info, execution.torch_device).epoch(plan, 0)))
    torch.testing.assert_close(sample[: len(batch.index)], online.logits(batch.views, batch.index))


@pytest.mark.parametrize(
    ("spec", "loss", "message"),
    [
        ("replay+topk:k=2", "gift", "of these labels only the largest are kept"),
        ("replay+topk:k=2", "mse", "of these labels only the largest are kept"),
        ("replay+distances", "kl", "which have lost them"),
        ("replay", "soft_ce_mass", "counts what a label sums to"),
    ],
)
def test_losses_that_a_codec_cannot_serve(
    tiny_data: Dataset, distilled: DistilledSet, online: OnlineLabels, protocol: Protocol, spec: str, loss: str,
    message: str,
) -> None:  # fmt: skip
    with pytest.raises(ConfigError, match=message):
        train_students(distilled, [job(spec, protocol, online, distilled, loss)], data=tiny_data)


@pytest.mark.parametrize("loss", ["gift", "kl", "soft_ce", "mse", "cosine"])
def test_losses_that_smoothed_top_entries_serve(
    tiny_data: Dataset, distilled: DistilledSet, online: OnlineLabels, protocol: Protocol, loss: str
) -> None:
    [record] = trained(tiny_data, distilled, job("replay+topk:k=1,fill=smooth", protocol, online, distilled, loss))
    assert len(record["train_loss"]) == EPOCHS
    assert record["arm"]["loss"] == loss


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("online+topk:k=2", "online labels are not"),
        ("hard+int8", "hard labels are not"),
        ("fixed+keep:top=2+int8", "edited or stored by a codec, not both"),
        ("replay+argmax", "Edits are for labels as they are made"),
        ("replay:epochs=-1", "the option epochs, a whole number"),
        ("replay:epoch=3", "the option epochs, a whole number"),
        ("fixed:epochs=3", "no options"),
    ],
)
def test_specs_that_make_no_sense(spec: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        LabelSpec.parse(spec)


def test_specs_with_codecs() -> None:
    assert LabelSpec.parse("replay").codec == Codec()
    assert LabelSpec.parse("replay:epochs=3+vq").spec == "replay:epochs=3+vq"
    assert LabelSpec.parse("topk:k=3+int4") == LabelSpec(codec=Codec.parse("topk:k=3+int4"))
    for spec in ("replay:epochs=3+int8", "fixed+topk:k=2,fill=floor"):
        assert LabelSpec.parse(LabelSpec.parse(spec).spec) == LabelSpec.parse(spec)
    assert LabelSpec.parse("replay+topk:k=1").space("logits") == "top logits"
    assert LabelSpec.parse("fixed+int8").space("probabilities") == "probabilities"


def test_a_pool_is_no_other_protocol_where_it_says_nothing() -> None:
    protocol = find_protocol("gift")
    assert protocol.fingerprint == replace(protocol, label_epochs=0).fingerprint
    assert protocol.fingerprint != replace(protocol, label_epochs=3).fingerprint
    assert protocol.fingerprint == replace(protocol, label_epochs=protocol.epochs).fingerprint
    with pytest.raises(ConfigError, match="1 epoch or more, or for each"):
        replace(protocol, label_epochs=-1)
