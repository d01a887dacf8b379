"""LPQLD's temperatures and HALD's phases against their formulas, and through a training restated in plain torch."""

import math
from copy import deepcopy
from dataclasses import replace
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from softlabel.core import ConfigError, Dataset, DistilledSet, Split, UnknownNameError
from softlabel.distill import distill
from softlabel.evaluation import find_protocol
from softlabel.labels import FixedLabels
from softlabel.losses import Loss, kl_apart
from softlabel.models import build_model
from softlabel.training import (
    Batch,
    Batches,
    Execution,
    HardPhase,
    History,
    PhasedViews,
    Protocol,
    Tempering,
    fit,
    plan_of,
)

EXECUTION = Execution("cpu", "fp32")
EPOCHS = 8


@pytest.fixture(scope="module")
def distilled(tiny_data: Dataset) -> DistilledSet:
    return distill("random", tiny_data, ipc=4, seed=0, execution=EXECUTION)


def short(name: str, **changes: Any) -> Protocol:
    return replace(find_protocol(name, epochs=EPOCHS), batch=5, **changes)


def labels(distilled: DistilledSet) -> FixedLabels:
    draws = torch.Generator().manual_seed(2)
    return FixedLabels(3 * torch.randn(len(distilled), distilled.info.classes, generator=draws))


def student(distilled: DistilledSet) -> nn.Module:
    info = distilled.info
    return build_model("convnet-1:width=4", image_shape=info.image_shape, classes=info.classes, seed=0)


def batches(distilled: DistilledSet, protocol: Protocol, epoch: int) -> list[Batch]:
    split = Split(distilled.images, distilled.targets)
    plan = plan_of(protocol, split, distilled.info, distilled.factor, 3)
    return list(Batches(split, distilled.info, EXECUTION.torch_device).epoch(plan, epoch))


def trained(distilled: DistilledSet, protocol: Protocol, model: nn.Module, source: FixedLabels) -> History:
    split = Split(distilled.images, distilled.targets)
    return fit(
        model, split, protocol=protocol, info=distilled.info, seed=3, execution=EXECUTION, labels=source,
        factor=distilled.factor,
    )  # fmt: skip


def mixed(values: Any, batch: Batch) -> Tensor:
    """The mean of a loss over mixed views: every image by its share. `values(index, target)` gives it per view."""
    assert batch.mix is not None
    own, other = values(batch.index, batch.target), batch.mix.partner
    share = batch.mix.weight
    return (share * own + (1 - share) * values(batch.index[other], batch.target[other])).mean()


def stepped(distilled: DistilledSet, protocol: Protocol, model: nn.Module, loss_of: Any) -> list[float]:
    """A training as a person writes it: AdamW, the rate set before every epoch."""
    model.train()
    rate, decay = protocol.optimizer.lr, protocol.optimizer.weight_decay
    optimizer = torch.optim.AdamW(model.parameters(), lr=rate, weight_decay=decay)
    told = []
    for epoch in range(EPOCHS):
        for group in optimizer.param_groups:
            group["lr"] = rate * protocol.schedule.factor(epoch, EPOCHS)
        steps = []
        for batch in batches(distilled, protocol, epoch):
            logits = model(batch.views)
            loss = loss_of(epoch, logits, batch)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            steps.append(float(loss.detach()))
        told.append(sum(steps) / len(steps))
    return told


def test_lpqld_s_teacher_temperature() -> None:
    tempering = Tempering()
    for epoch in range(300):
        assert tempering.teacher(epoch) == pytest.approx(max(2.0, 20 * 0.7 ** math.floor(epoch / 30)))
    assert [round(tempering.teacher(epoch), 2) for epoch in (0, 29, 30, 60, 180, 210, 299)] == [
        20.0, 20.0, 14.0, 9.8, 2.35, 2.0, 2.0]  # fmt: skip


def test_a_divergence_at_two_temperatures() -> None:
    draws = torch.Generator().manual_seed(0)
    one, other = (torch.randn(5, 4, generator=draws, dtype=torch.float64) for _ in range(2))
    one.requires_grad_()
    found = kl_apart(one, other, student_temperature=0.3, teacher_temperature=7.0)
    for row, own, label in zip(found, one.detach(), other, strict=True):
        p, q = F.softmax(label / 7, dim=0), F.softmax(own / 0.3, dim=0)
        terms = (a * math.log(a / b) for a, b in zip(p.tolist(), q.tolist(), strict=True))
        assert float(row.detach()) == pytest.approx(sum(terms))
    found.sum().backward()
    expected = (F.softmax(one.detach() / 0.3, dim=1) - F.softmax(other / 7, dim=1)) / 0.3
    torch.testing.assert_close(one.grad, expected)


@pytest.mark.parametrize("calibrate", [True, False])
def test_lpqld_restated(distilled: DistilledSet, calibrate: bool) -> None:
    """Temperatures as written: the teacher's by the step schedule, the student's by search on the last batch."""
    tempering = Tempering(first=8, least=2, factor=0.5, every=2, calibrate=calibrate)
    protocol, source = short("lpqld", tempering=tempering, label_epochs=3), labels(distilled)
    mine = student(distilled)
    theirs = deepcopy(mine)
    found = trained(distilled, protocol, mine, source)
    temperature, last = 1.0, None
    chosen = []

    def loss_of(epoch: int, logits: Tensor, batch: Batch) -> Tensor:
        nonlocal last
        soft = max(2.0, 8 * 0.5 ** (epoch // 2))
        last = logits.detach(), source.table[batch.index], soft
        own = temperature

        def kl(index: Tensor, target: Tensor) -> Tensor:
            wanted = F.softmax(source.table[index] / soft, dim=1)
            return (wanted * (wanted.log() - F.log_softmax(logits / own, dim=1))).sum(dim=1)

        return mixed(kl, batch)

    model, told = theirs, []
    model.train()
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3, weight_decay=1e-2)
    for epoch in range(EPOCHS):
        for group in optimizer.param_groups:
            group["lr"] = 1e-3 * 0.5 * (1 + math.cos(math.pi * epoch / EPOCHS))
        steps = []
        for batch in batches(distilled, protocol, epoch):
            loss = loss_of(epoch, model(batch.views), batch)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            steps.append(float(loss.detach()))
        told.append(sum(steps) / len(steps))
        if calibrate and last is not None:
            logits, table, soft = last
            wanted = F.softmax(table / soft, dim=1)
            worth = [
                float((wanted * (wanted.log() - F.log_softmax(logits / (t / 100), dim=1))).sum(dim=1).mean())
                for t in range(1, 101)
            ]
            temperature = (worth.index(min(worth)) + 1) / 100
        chosen.append(temperature)
    assert found.train_loss == pytest.approx(told, rel=1e-4)
    assert found.student_temperature == chosen[-1]
    assert (len(set(chosen)) > 1) == calibrate


def test_hald_restated(distilled: DistilledSet) -> None:
    """A quarter soft, half hard with smoothing 0.8, a quarter soft; one wave of the rate over all epochs."""
    protocol, source = short("hald"), labels(distilled)
    assert list(protocol.hard_epochs) == [2, 3, 4, 5]
    assert protocol.labelled_epochs == 4
    mine = student(distilled)
    theirs = deepcopy(mine)
    found = trained(distilled, protocol, mine, source)
    classes = distilled.info.classes

    def loss_of(epoch: int, logits: Tensor, batch: Batch) -> Tensor:
        def soft(index: Tensor, target: Tensor) -> Tensor:
            wanted = F.softmax(source.table[index] / 20, dim=1)
            return (wanted * (wanted.log() - F.log_softmax(logits / 20, dim=1))).sum(dim=1)

        def hard(index: Tensor, target: Tensor) -> Tensor:
            wanted = 0.2 * F.one_hot(target, classes) + 0.8 / classes
            return -(wanted * F.log_softmax(logits, dim=1)).sum(dim=1)

        return mixed(hard if 2 <= epoch < 6 else soft, batch)

    assert found.train_loss == pytest.approx(stepped(distilled, protocol, theirs, loss_of), rel=1e-4)


def test_phases_of_300_epochs_are_those_of_the_paper() -> None:
    protocol = find_protocol("hald")
    assert protocol.hard_epochs == range(75, 225)
    assert protocol.labelled_epochs == 150
    assert protocol.schedule.factor(299, 300) == pytest.approx(0.5 * (1 + math.cos(math.pi * 299 / 600)))


def test_views_of_the_soft_epochs_are_those_of_an_unbroken_training(distilled: DistilledSet) -> None:
    split = Split(distilled.images, distilled.targets)
    protocol = short("hald")
    plan = plan_of(protocol, split, distilled.info, 1, 3)
    assert isinstance(plan, PhasedViews)
    drawn = plan_of(replace(protocol, hard_phase=None), split, distilled.info, 1, 3)

    def rows(some: Any, epoch: int) -> list[int]:
        return [one.rows.start for one in some.epoch(epoch)]

    assert [rows(plan, epoch) for epoch in (0, 1, 6, 7)] == [rows(drawn, epoch) for epoch in range(4)]
    assert all(a.index.equal(b.index) for a, b in zip(plan.epoch(6), drawn.epoch(2), strict=True))
    assert not all(a.index.equal(b.index) for a, b in zip(plan.epoch(2), drawn.epoch(2), strict=True))


def test_a_hard_phase_and_a_pool_together(distilled: DistilledSet) -> None:
    protocol = short("hald", label_epochs=2)
    assert protocol.labelled_epochs == 2
    split = Split(distilled.images, distilled.targets)
    plan = plan_of(protocol, split, distilled.info, 1, 3)
    rows = {one.rows.stop for epoch in (0, 1, 6, 7) for one in plan.epoch(epoch)}
    assert max(rows) <= 2 * len(distilled)
    trained(distilled, protocol, student(distilled), labels(distilled))


def test_settings_that_make_no_sense() -> None:
    for change in ({"start": 0.5, "stop": 0.5}, {"start": 0.0, "stop": 1.0}, {"start": -0.1}):
        with pytest.raises(ConfigError, match="A hard phase lies within the training"):
            HardPhase(**change)
    with pytest.raises(ConfigError, match="In a hard phase no teacher is asked"):
        HardPhase(loss=Loss("kl"))
    with pytest.raises(ConfigError, match="Temperatures fall"):
        Tempering(first=1.0)
    for loss in ("gift", "kl:temperature=4"):
        with pytest.raises(ConfigError, match="moves the temperatures of the loss kl"):
            find_protocol("lpqld").with_loss(loss)
    assert find_protocol("lpqld").with_loss("ce").tempering is None
    for epochs, hard in ((1, range(0)), (2, range(1)), (3, range(1, 2)), (4, range(1, 3))):
        assert find_protocol("hald", epochs=epochs).hard_epochs == hard
    with pytest.raises(UnknownNameError, match="lpld"):
        find_protocol("lpdl")
