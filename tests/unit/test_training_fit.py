"""The one training loop: what it draws, repeats, resumes, measures and refuses."""

import copy
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from softlabel.core import ConfigError, Dataset, LabelSource, NonFiniteLossError, Silent, Split, stream
from softlabel.losses import LOSSES, Loss, gift
from softlabel.models import build_model
from softlabel.store import FileCheckpoint
from softlabel.training import (
    Checks,
    Execution,
    History,
    Normaliser,
    Optimizer,
    Protocol,
    Schedule,
    fit,
    measure_accuracy,
)
from softlabel.views import CutMix, Flip, Mixup, ShiftCrop, sample

HARD = Protocol(
    name="hard",
    epochs=3,
    batch=48,  # 160 images: the last batch is smaller
    labels="hard",
    loss=Loss("ce"),
    views=(ShiftCrop(padding=2), Flip(), CutMix()),
    optimizer=Optimizer(name="sgd", lr=0.05, momentum=0.9, nesterov=True),
    schedule=Schedule(name="warmup_linear"),
    checks=Checks(every=1),
)
SOFT = replace(HARD, name="soft", labels="online", loss=Loss("gift"))


@dataclass
class Recorder:
    """A label source that remembers what it was shown; its labels depend on the image only."""

    images: int = 160
    classes: int = 4
    regime: str = "online"
    space: str = "logits"
    fingerprint: str = "recorder"
    label_bytes: int = 0
    labeler_bytes: int = 0
    poison: tuple[int, ...] = ()
    seen: list[tuple[Tensor, Tensor]] = field(default_factory=list)

    def to(self, device: torch.device) -> "Recorder":
        return self

    def table(self) -> Tensor:
        return 3 * torch.randn(self.images, self.classes, generator=stream(0, "table"))

    def logits(self, views: Tensor, index: Tensor, rows: slice | None = None) -> Tensor:
        self.seen.append((views.clone(), index.clone()))
        logits = self.table()[index]
        return logits * float("nan") if len(self.seen) - 1 in self.poison else logits


def small_model(data: Dataset, seed: int = 0, spec: str = "convnet-2:width=4") -> nn.Module:
    return build_model(spec, image_shape=data.info.image_shape, classes=data.info.classes, seed=seed)


def train(data: Dataset, protocol: Protocol = HARD, seed: int = 0, **settings: Any) -> tuple[nn.Module, History]:
    """A fresh small model, trained on `data`."""
    model = settings.pop("model", None) or small_model(data)
    settings = {"execution": Execution("cpu", "fp32"), "test": data.test, **settings}
    return model, fit(model, data.train, protocol=protocol, info=data.info, seed=seed, **settings)


def same_weights(one: nn.Module, two: nn.Module) -> bool:
    pairs = zip(one.state_dict().items(), two.state_dict().items(), strict=True)
    return all(a == b and torch.equal(x, y) for (a, x), (b, y) in pairs)


def numbers(history: History) -> dict[str, Any]:
    return {key: value for key, value in vars(history).items() if not key.endswith("_seconds")}


# --- learning, and telling of it -------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["tiny_data", "grey_data"])
def test_a_model_learns(name: str, request: pytest.FixtureRequest) -> None:
    data: Dataset = request.getfixturevalue(name)
    optimizer = Optimizer(lr=5e-3)
    _, history = train(data, replace(HARD, epochs=15, batch=16, views=(ShiftCrop(padding=1),), optimizer=optimizer))
    assert history.train_loss[-1] < history.train_loss[0] / 2
    assert history.final > 0.9


def test_a_student_learns_from_soft_labels_alone(tiny_data: Dataset) -> None:
    """The teacher's classes are not the targets': the student must follow the teacher."""

    class Wrong(Recorder):
        def table(self) -> Tensor:
            return 5 * F.one_hot((tiny_data.train.targets + 1) % 4, 4).float()

    _, history = train(
        tiny_data,
        replace(SOFT, epochs=12, batch=16, views=(), loss=Loss("soft_ce"), optimizer=Optimizer(lr=5e-3)),
        labels=Wrong(),
        test=Split(tiny_data.test.images, (tiny_data.test.targets + 1) % 4),
    )
    assert history.final > 0.9


def test_the_history_counts(tiny_data: Dataset) -> None:
    _, history = train(tiny_data, replace(HARD, epochs=5, extra_epoch=True, checks=Checks(every=2)))
    assert len(history.train_loss) == 6
    assert history.steps == 6 * 4
    assert history.images_seen == 6 * 160
    assert [point["epoch"] for point in history.curve] == [2, 4, 6]
    assert history.train_seconds > 0
    assert history.test_seconds > 0


def test_the_model_ends_in_evaluation_mode_and_agrees_with_its_record(tiny_data: Dataset, execution: Execution) -> None:
    model, history = train(tiny_data)
    unmeasured, _ = train(tiny_data, test=None)
    for trained in (model, unmeasured):
        assert not any(module.training for module in trained.modules())
    assert history.final == measure_accuracy(model, tiny_data.test, tiny_data.info, execution)


def test_progress_is_told_of_every_epoch(tiny_data: Dataset) -> None:
    told: list[Any] = []

    class Listener(Silent):
        def start(self, what: str, total: int) -> None:
            told.append((what, total))

        def advance(self, steps: int = 1, note: str = "") -> None:
            told.append(steps)

        def finish(self, summary: str = "") -> None:
            told.append("done")

    train(tiny_data, progress=Listener(), what="something")
    assert told == [("something", 3), 0, 1, 1, 1, "done"]


# --- the same numbers again ------------------------------------------------------------------------------------


@pytest.mark.parametrize("protocol", [HARD, SOFT])
def test_the_same_call_gives_the_same_bits(tiny_data: Dataset, protocol: Protocol) -> None:
    labels = Recorder() if protocol is SOFT else None
    first, told = train(tiny_data, protocol, labels=labels)
    torch.rand(3)
    again, told_again = train(tiny_data, protocol, labels=labels)
    assert same_weights(first, again)
    assert numbers(told) == numbers(told_again)


def test_another_seed_gives_another_training_from_one_initialisation(tiny_data: Dataset) -> None:
    first, told = train(tiny_data, seed=0)
    other, told_other = train(tiny_data, seed=1)
    assert not same_weights(first, other)
    assert told.train_loss != told_other.train_loss


def test_training_reads_and_moves_no_global_generator(tiny_data: Dataset) -> None:
    before = torch.get_rng_state()
    train(tiny_data)
    assert torch.equal(torch.get_rng_state(), before)


def test_measuring_changes_no_number(tiny_data: Dataset) -> None:
    often, _ = train(tiny_data, replace(HARD, checks=Checks(every=1)))
    once, _ = train(tiny_data, replace(HARD, checks=Checks()))
    never, told = train(tiny_data, test=None)
    assert same_weights(often, once)
    assert same_weights(often, never)
    assert told.curve == []


@pytest.mark.parametrize(
    "change",
    [
        {"loss": Loss("kl")},
        {"optimizer": Optimizer(name="adamw", lr=1e-3)},
        {"schedule": Schedule(name="cosine")},
        {"norm_momentum": 0.19},
    ],
)
def test_arms_that_are_compared_see_the_same_views_in_the_same_order(
    tiny_data: Dataset, change: dict[str, Any]
) -> None:
    one, two, other_seed = Recorder(), Recorder(), Recorder()
    train(tiny_data, SOFT, labels=one)
    train(tiny_data, replace(SOFT, **change), labels=two, model=small_model(tiny_data, seed=9))
    train(tiny_data, SOFT, labels=other_seed, seed=1)
    assert len(one.seen) == len(two.seen) == 12
    for (views, index), (again, index_again) in zip(one.seen, two.seen, strict=True):
        assert torch.equal(index, index_again)
        assert torch.equal(views, again)
    assert not torch.equal(one.seen[0][1], other_seed.seen[0][1])


def test_every_image_is_seen_once_an_epoch_in_an_order_of_its_own(tiny_data: Dataset) -> None:
    labels = Recorder()
    train(tiny_data, SOFT, labels=labels)
    orders = [torch.cat([index for _, index in labels.seen[4 * epoch : 4 * epoch + 4]]) for epoch in range(3)]
    assert [len(index) for _, index in labels.seen[:4]] == [48, 48, 48, 16]
    for order in orders:
        assert order.sort().values.tolist() == list(range(160))
    assert len({tuple(order.tolist()) for order in orders}) == 3


def test_the_label_source_sees_what_the_student_sees(tiny_data: Dataset) -> None:
    labels, seen = Recorder(), []
    model = small_model(tiny_data)
    model.register_forward_pre_hook(lambda module, inputs: seen.append(inputs[0].clone()) if module.training else None)
    train(tiny_data, SOFT, labels=labels, model=model)
    assert all(torch.equal(views, student) for (views, _), student in zip(labels.seen, seen, strict=True))


def test_views_without_operations_are_the_normalised_images(tiny_data: Dataset) -> None:
    labels = Recorder()
    assert isinstance(labels, LabelSource)
    train(tiny_data, replace(SOFT, views="none"), labels=labels)
    plain = Normaliser(tiny_data.info, torch.device("cpu"))(tiny_data.train.images)
    for views, index in labels.seen:
        torch.testing.assert_close(views, plain[index], rtol=0, atol=1e-6)


# --- resuming --------------------------------------------------------------------------------------------------


class Stop(Exception):
    """A kill in the middle of a training."""


def stop_after(epoch: int) -> Any:
    def stop(now: int, model: nn.Module, history: History) -> None:
        if now == epoch:
            raise Stop

    return stop


OPTIMIZERS = {
    "sgd": Optimizer(name="sgd", lr=0.05, momentum=0.9, nesterov=True, weight_decay=5e-4),
    "adamw": Optimizer(name="adamw", lr=2e-3, weight_decay=1e-2, decay_on="matrices"),
    "adam": Optimizer(name="adam", lr=2e-3),
    "rmsprop": Optimizer(name="rmsprop", lr=1e-3, momentum=0.5),
}


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_a_resumed_training_equals_the_unbroken_one_bit_for_bit(tiny_data: Dataset, tmp_path: Path, name: str) -> None:
    protocol = replace(HARD, epochs=5, optimizer=OPTIMIZERS[name])
    unbroken, told = train(tiny_data, protocol)
    checkpoint = FileCheckpoint(tmp_path / "state.safetensors")
    for epoch in (1, 3):
        with pytest.raises(Stop):
            train(tiny_data, protocol, checkpoint=checkpoint, save_seconds=0, on_epoch=stop_after(epoch))
    continued: list[int] = []
    resumed, told_resumed = train(
        tiny_data,
        protocol,
        checkpoint=checkpoint,
        save_seconds=0,
        on_epoch=lambda epoch, model, history: continued.append(epoch),
    )
    assert continued == [3, 4]
    assert same_weights(unbroken, resumed)
    assert numbers(told) == numbers(told_resumed)
    assert told_resumed.train_seconds > 0


def test_a_resumed_training_takes_everything_from_the_checkpoint(tiny_data: Dataset, tmp_path: Path) -> None:
    """Buffers and weights both: the model handed in has another initialisation."""
    unbroken, _ = train(tiny_data)
    checkpoint = FileCheckpoint(tmp_path / "state.safetensors")
    with pytest.raises(Stop):
        train(tiny_data, checkpoint=checkpoint, save_seconds=0, on_epoch=stop_after(1))
    resumed, _ = train(tiny_data, checkpoint=checkpoint, model=small_model(tiny_data, seed=8))
    assert same_weights(unbroken, resumed)


def test_saving_changes_no_number_and_short_trainings_save_nothing(tiny_data: Dataset, tmp_path: Path) -> None:
    unsaved, _ = train(tiny_data)
    checkpoint = FileCheckpoint(tmp_path / "state.safetensors")
    saved, _ = train(tiny_data, checkpoint=checkpoint, save_seconds=0)
    assert same_weights(unsaved, saved)
    found = checkpoint.load()
    assert found is not None
    assert found[1]["epoch"] == 2  # of 3: whoever called keeps the end
    seldom = FileCheckpoint(tmp_path / "other.safetensors")
    train(tiny_data, checkpoint=seldom, save_seconds=1e6)
    assert not seldom.path.exists()


# --- losses that are no numbers --------------------------------------------------------------------------------


def test_a_loss_that_is_no_number_stops_the_training_and_names_its_step(tiny_data: Dataset) -> None:
    """4 steps an epoch; labels turn bad at the 7th."""
    with pytest.raises(NonFiniteLossError) as caught:
        train(tiny_data, SOFT, labels=Recorder(poison=(6, 7)))
    assert str(caught.value) == (
        "The loss 'gift' became nan in epoch 2, step 3 (protocol 'soft', sgd, learning rate 0.05). The usual cause is "
        "a learning rate that is too high for this loss; lower it, or try --precision fp32."
    )


def test_a_huge_learning_rate_stops_the_training(tiny_data: Dataset) -> None:
    protocol = replace(SOFT, loss=Loss("mse"), optimizer=Optimizer(name="sgd", lr=1e30))
    with pytest.raises(NonFiniteLossError, match=r"The loss 'mse' became (nan|inf) in epoch 1, step [2-4] .*1e\+30"):
        train(tiny_data, protocol, labels=Recorder())


def test_a_broken_training_is_not_saved(tiny_data: Dataset, tmp_path: Path) -> None:
    checkpoint = FileCheckpoint(tmp_path / "state.safetensors")
    with pytest.raises(NonFiniteLossError, match="epoch 2"):
        train(tiny_data, SOFT, labels=Recorder(poison=(6,)), checkpoint=checkpoint, save_seconds=0)
    found = checkpoint.load()
    assert found is not None
    assert found[1]["epoch"] == 1
    assert all(tensor.isfinite().all() for tensor in found[0].values())


@pytest.mark.parametrize("labels", [None, Recorder(regime="hard")])
def test_a_loss_that_needs_soft_labels_is_refused_without_them(tiny_data: Dataset, labels: Any) -> None:
    with pytest.raises(ConfigError, match=r"The loss 'gift' needs soft labels\. Choose --labels online or fixed"):
        train(tiny_data, SOFT, labels=labels)


# --- mixed views and their labels ------------------------------------------------------------------------------


@pytest.mark.parametrize("regime", ["online", "fixed"])
@pytest.mark.parametrize("policy", [(CutMix(),), (Mixup(),), ()])
@pytest.mark.parametrize("loss", ["soft_ce_ce", "gift", "ce"])
def test_the_first_loss_is_the_one_computed_by_hand(tiny_data: Dataset, regime: str, policy: Any, loss: str) -> None:
    """One batch of everything: its loss at initialisation, from the recorded views, one example at a time."""
    labels, model = Recorder(regime=regime), small_model(tiny_data)
    before = copy.deepcopy(model).train()
    protocol = replace(SOFT, epochs=1, batch=160, views=policy, loss=Loss(loss))
    _, history = train(tiny_data, protocol, labels=labels, model=model, seed=3)
    if loss == "ce":  # no teacher is asked: the views are those of another loss
        train(tiny_data, replace(protocol, loss=Loss("kl")), labels=labels, model=copy.deepcopy(before), seed=3)
    ((views, index),) = labels.seen
    mix = sample(policy, 160, 16, 16, stream(3, "views", 0)).mix
    assert (mix is None) == (policy == ())
    student = before(views).detach()
    function = Loss(loss).function()

    def one(row: int, target_row: int, teacher_row: int) -> Tensor:
        return function(
            student=student[row : row + 1],
            teacher=labels.table()[index[teacher_row]][None],
            target=tiny_data.train.targets[index[target_row]][None],
        )[0]

    total = 0.0
    for row in range(160):
        if mix is None:
            total += float(one(row, row, row))
        else:
            partner, share = int(mix.partner[row]), float(mix.weight[row])
            # A teacher that saw the mixed view speaks for all of it; a label of one image for that image's share.
            spoken = row if regime == "online" else partner
            total += share * float(one(row, row, row)) + (1 - share) * float(one(row, partner, spoken))
    assert history.train_loss == pytest.approx([total / 160], rel=1e-5)


# --- precision -------------------------------------------------------------------------------------------------


def test_bfloat16_trains_and_keeps_weights_and_losses_in_float32(
    tiny_data: Dataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    dtypes: set[torch.dtype] = set()

    def recording(**inputs: Tensor) -> Tensor:
        dtypes.add(inputs["student"].dtype)
        return gift(**inputs)

    monkeypatch.setitem(LOSSES, "gift", replace(LOSSES["gift"], function=recording))
    low, told = train(tiny_data, SOFT, labels=Recorder(), execution=Execution("cpu", "bf16"))
    high, told_high = train(tiny_data, SOFT, labels=Recorder())
    assert {parameter.dtype for parameter in low.parameters()} == dtypes == {torch.float32}
    assert told.train_loss == pytest.approx(told_high.train_loss, rel=0.05)
    assert not same_weights(low, high)


def test_images_of_weight_0_teach_nothing_and_of_weight_1_as_ever(tiny_data: Dataset, execution: Execution) -> None:
    split = tiny_data.train
    plain = replace(HARD, views=(), optimizer=Optimizer(name="sgd", lr=0.05))

    def trained(part: Split) -> dict[str, Tensor]:
        model = build_model("convnet-1:width=4,norm=instance", image_shape=(3, 16, 16), classes=4, seed=0)
        fit(model, part, protocol=plain, info=tiny_data.info, seed=0, execution=execution)
        return model.state_dict()

    whole, ones = trained(split), trained(replace(split, weights=torch.ones(len(split))))
    assert all(torch.equal(whole[name], ones[name]) for name in whole)
    weights = torch.ones(len(split))
    weights[split.targets == 3] = 0
    blind = split.images.clone()
    blind[split.targets == 3] = 255  # images that nobody looks at could be anything
    seen, unseen = trained(replace(split, weights=weights)), trained(Split(blind, split.targets, weights))
    assert all(torch.allclose(seen[name], unseen[name], atol=1e-6) for name in seen)
    assert not all(torch.allclose(seen[name], whole[name], atol=1e-3) for name in seen)
