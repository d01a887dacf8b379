"""Schedules, batch rules, checks and batch-norm momentum against the released codes and torch's own schedulers."""

import copy
import math
from collections.abc import Callable
from itertools import pairwise
from typing import Any

import pytest
import torch
from torch import nn
from torch.optim import lr_scheduler
from torch.optim.optimizer import register_optimizer_step_pre_hook

from softlabel.core import ConfigError, Dataset, UnknownNameError
from softlabel.losses import Loss
from softlabel.models import build_model
from softlabel.training import (
    BATCH_RULES,
    SCHEDULES,
    Checks,
    Execution,
    Normaliser,
    Optimizer,
    Protocol,
    Schedule,
    fit,
)

# --- learning rates --------------------------------------------------------------------------------------------


def factors(name: str, epochs: int, **settings: Any) -> list[float]:
    return [Schedule(name=name, **settings).factor(epoch, epochs) for epoch in range(epochs)]


def from_torch(make: Callable[[torch.optim.Optimizer], Any], epochs: int) -> list[float]:
    """The rates of a torch scheduler that is stepped once per epoch, as the released codes do it; base rate 1."""
    optimizer = torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=1.0)
    scheduler, rates = make(optimizer), []
    for _ in range(epochs):
        rates.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        scheduler.step()
    return rates


@pytest.mark.parametrize("epochs", [300, 1000, 100, 7])
def test_multistep_is_the_one_of_gift(epochs: int) -> None:
    marks = [2 * epochs // 3, 5 * epochs // 6]
    expected = from_torch(lambda optimizer: lr_scheduler.MultiStepLR(optimizer, marks, gamma=0.2), epochs)
    assert factors("multistep", epochs) == pytest.approx(expected)


def test_multistep_falls_at_epochs_200_and_250_of_300() -> None:
    rates = factors("multistep", 300)
    assert rates[:200] == [1.0] * 200
    assert rates[200:250] == pytest.approx([0.2] * 50)
    assert rates[250:] == pytest.approx([0.04] * 50)


@pytest.mark.parametrize("epochs", [1000, 300, 10])
def test_step_is_the_one_of_no_distillation(epochs: int) -> None:
    expected = from_torch(lambda optimizer: lr_scheduler.StepLR(optimizer, epochs // 4, gamma=0.3), epochs)
    assert factors("step", epochs, gamma=0.3) == pytest.approx(expected)


def test_step_survives_fewer_than_four_epochs() -> None:
    assert factors("step", 3, gamma=0.5) == [1.0, 0.5, 0.25]


@pytest.mark.parametrize("epochs", [300, 10])
def test_cosine_is_the_one_of_torch(epochs: int) -> None:
    expected = from_torch(lambda optimizer: lr_scheduler.CosineAnnealingLR(optimizer, epochs), epochs)
    assert factors("cosine", epochs) == pytest.approx(expected, abs=1e-12)


def test_half_cosine_has_the_values_of_rded() -> None:
    rates = factors("half_cosine", 300)
    assert [rates[epoch] for epoch in (0, 75, 150, 225)] == pytest.approx([1.0, 0.962, 0.854, 0.691], abs=5e-4)
    assert rates[-1] == pytest.approx(0.503, abs=5e-4)
    assert sum(rates) / 300 == pytest.approx(0.819, abs=5e-4)
    lambda_rule = lambda epoch: 0.5 * (1 + math.cos(math.pi * epoch / 300 / 2))  # noqa: E731
    expected = from_torch(lambda optimizer: lr_scheduler.LambdaLR(optimizer, lambda_rule), 300)
    assert rates == pytest.approx(expected)


def test_halfway_falls_once_after_the_middle() -> None:
    rates = factors("halfway", 1000, gamma=0.1)
    # The DC family's code lowers the rate after epoch E//2 + 1 (counted from 0) has run.
    assert rates[:502] == [1.0] * 502
    assert rates[502:] == [0.1] * 498


def test_constant_never_changes() -> None:
    assert factors("constant", 5) == [1.0] * 5


def test_warmup_linear_rises_then_falls_in_straight_lines() -> None:
    schedule = Schedule(name="warmup_linear", warmup=0.25)
    rates = [schedule.factor(step // 10, 12, (step % 10) / 10) for step in range(120)]
    rise, fall = rates[:30], rates[30:]
    assert rates[0] == pytest.approx(0.004)
    assert [b - a for a, b in pairwise(rise)] == pytest.approx([1 / 30] * 29)
    assert rates[30] == pytest.approx(1.0)
    assert [a - b for a, b in pairwise(fall)] == pytest.approx([1 / 90] * 89)
    assert rates[-1] == pytest.approx(1 / 90)


def test_warmup_linear_without_warmup_only_falls() -> None:
    assert factors("warmup_linear", 4, warmup=0.0) == pytest.approx([1.0, 0.75, 0.5, 0.25])


@pytest.mark.parametrize("name", SCHEDULES)
def test_every_listed_schedule_stays_between_0_and_1(name: str) -> None:
    for epochs in (1, 2, 3, 10, 301):
        rates = factors(name, epochs)
        assert all(0 <= rate <= 1 for rate in rates), (epochs, rates)
        # The epoch that some protocols train beyond the schedule.
        assert 0 <= Schedule(name=name).factor(epochs, epochs) <= 1


def test_an_unknown_schedule_lists_the_choices() -> None:
    with pytest.raises(UnknownNameError, match=r"no schedule named 'cosin'\. Did you mean 'cosine'\?"):
        Schedule(name="cosin").factor(0, 1)


def test_fit_uses_the_schedule_within_epochs_too(tiny_data: Dataset, execution: Execution) -> None:
    rates: list[float] = []
    handle = register_optimizer_step_pre_hook(lambda optimizer, *_: rates.append(optimizer.param_groups[0]["lr"]))
    schedule = Schedule(name="warmup_linear", warmup=0.5)
    try:
        fit(
            build_model("convnet-1:width=2", image_shape=(3, 16, 16), classes=4, seed=0),
            tiny_data.train,
            protocol=Protocol(
                name="x",
                epochs=2,
                batch=40,
                labels="hard",
                loss=Loss("ce"),
                optimizer=Optimizer(name="sgd", lr=0.01),
                schedule=schedule,
                extra_epoch=True,
            ),
            info=tiny_data.info,
            seed=0,
            execution=execution,
        )
    finally:
        handle.remove()
    expected = [0.01 * schedule.factor(epoch, 2, step / 4) for epoch in range(3) for step in range(4)]
    assert rates == pytest.approx(expected)


# --- batch sizes -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("images", "batch"), [(1, 10), (10, 10), (11, 50), (500, 50), (501, 100), (20_000, 100), (20_001, 200)]
)
def test_batch_rule_of_gift(images: int, batch: int) -> None:
    assert BATCH_RULES["gift"](images, 10) == batch


@pytest.mark.parametrize(
    ("classes", "ipc", "batch"),
    [
        *((10, 1, 10), (10, 10, 50), (10, 50, 100)),
        *((100, 1, 20), (100, 10, 100), (100, 50, 200)),
        *((200, 1, 100), (200, 10, 100), (200, 50, 100)),
        *((1000, 1, 20), (1000, 10, 100), (1000, 50, 200)),
        # Not in the table: between two listed IPC the smaller counts, and no batch is larger than the set.
        *((10, 5, 10), (10, 20, 50), (10, 100, 100), (2, 1, 2), (4, 10, 40), (100, 9, 20)),
    ],
)
def test_batch_rule_of_rded(classes: int, ipc: int, batch: int) -> None:
    assert BATCH_RULES["rded"](ipc * classes, classes) == batch


def test_a_number_is_a_batch_size_up_to_the_size_of_the_set() -> None:
    protocol = Protocol(name="x", epochs=1, batch=256, optimizer=Optimizer())
    assert [protocol.batch_size(images, 10) for images in (100, 256, 1000)] == [100, 256, 256]


def test_an_unknown_batch_rule_lists_the_choices() -> None:
    with pytest.raises(UnknownNameError, match=r"no batch rule named 'big'.* one of: gift, rded\. Or give a number"):
        Protocol(name="x", epochs=1, batch="big", optimizer=Optimizer())
    with pytest.raises(ConfigError, match=r"A batch holds 1 image or more\. Got 0 instead\."):
        Protocol(name="x", epochs=1, batch=0, optimizer=Optimizer())


# --- when the test split is looked at --------------------------------------------------------------------------


def checked(checks: Checks, epochs: int) -> list[int]:
    """Epochs, counted from 1, after which there is a check."""
    return [epoch + 1 for epoch in range(epochs) if checks.at(epoch, epochs)]


@pytest.mark.parametrize(
    ("checks", "epochs", "expected"),
    [
        (Checks(count=4), 1000, [250, 500, 750, 1000]),
        (Checks(count=4), 300, [75, 150, 225, 300]),
        (Checks(count=4), 2, [1, 2]),
        (Checks(every=10, start=0.8), 300, [250, 260, 270, 280, 290, 300]),
        (Checks(every=10, start=0.8), 25, [25]),
        (Checks(every=200), 1001, [200, 400, 600, 800, 1000, 1001]),
        (Checks(every=1), 3, [1, 2, 3]),
        (Checks(), 50, [50]),
        (Checks(start=0.0), 1, [1]),
    ],
)
def test_checks_come_when_the_codes_make_them(checks: Checks, epochs: int, expected: list[int]) -> None:
    assert checked(checks, epochs) == expected


def test_the_rule_of_rded_for_every_number_of_epochs() -> None:
    for epochs in range(1, 400):
        # 0-based, as its code has it: from epoch > 0.8 E on, every tenth and the last.
        expected = [e + 1 for e in range(epochs) if (e > 0.8 * epochs and e % 10 == 9) or e == epochs - 1]
        assert checked(Checks(every=10, start=0.8), epochs) == expected, epochs


# --- batch norms that see every batch twice --------------------------------------------------------------------


def test_norm_momentum_019_is_two_passes_of_every_batch(tiny_data: Dataset, execution: Execution) -> None:
    model = build_model("convnet-2:width=4", image_shape=(3, 16, 16), classes=4, seed=0)
    twice = copy.deepcopy(model).train()
    fit(
        model,
        tiny_data.train,
        protocol=Protocol(
            name="x",
            epochs=2,
            batch=160,
            labels="hard",
            loss=Loss("ce"),
            optimizer=Optimizer(name="sgd", lr=1e-30, weight_decay=0.0),
            norm_momentum=0.19,
        ),
        info=tiny_data.info,
        seed=0,
        execution=execution,
    )
    images = Normaliser(tiny_data.info, torch.device("cpu"))(tiny_data.train.images)
    with torch.no_grad():
        for _ in range(2 * 2):
            twice(images)
    norms = [[m for m in net.modules() if isinstance(m, nn.BatchNorm2d)] for net in (model, twice)]
    assert len(norms[0]) == 2
    for one, other in zip(*norms, strict=True):
        assert other.momentum == 0.1
        torch.testing.assert_close(one.running_mean, other.running_mean, rtol=1e-5, atol=1e-6)
        torch.testing.assert_close(one.running_var, other.running_var, rtol=1e-5, atol=1e-6)
