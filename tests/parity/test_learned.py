"""Labels learned through a student's training: gradients against finite differences, resuming, and that they help."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from softlabel.core import ConfigError, Dataset, DistilledSet, NonFiniteLossError, stream
from softlabel.distill import distill
from softlabel.labels import Learning, jensen_shannon, learn_labels, learning_step_seconds
from softlabel.labels import _learned as module
from softlabel.labels._learned import starting_logits, unrolled
from softlabel.store import FileCheckpoint
from softlabel.training import Execution

SMALL = Learning(student="convnet-1:width=4,norm=instance", steps=12, horizon=8, window=3, stride=2, batch=6,
                 real_batch=16)  # fmt: skip


@pytest.fixture
def distilled(tiny_data: Dataset, execution: Execution) -> DistilledSet:
    return distill("random", tiny_data, ipc=2, execution=execution)


def outer(logits: Tensor, model: nn.Linear, images: Tensor, real: Tensor, target: Tensor) -> Tensor:
    """The loss on real images after three steps of plain descent on two thirds of the images each."""
    weights = {name: w.detach().clone().requires_grad_() for name, w in model.named_parameters()}
    soft = F.softmax(logits, dim=-1)
    picks = [torch.tensor([0, 1, 2, 3]), torch.tensor([2, 3, 4, 5]), torch.tensor([0, 1, 4, 5])]
    path = unrolled(model, weights, [images[pick] for pick in picks], [soft[pick] for pick in picks], rate=0.3)
    last = path[-1]
    return F.cross_entropy(real @ last["weight"].T + last["bias"], target)


def test_the_gradient_reaches_back_through_the_training() -> None:
    model = nn.Linear(5, 3).double()
    images, real = (torch.randn(n, 5, generator=stream(0, str(n)), dtype=torch.float64) for n in (6, 8))
    target = torch.randint(3, (8,), generator=stream(0, "y"))
    logits = torch.randn(6, 3, generator=stream(0, "l"), dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda own: outer(own, model, images, real, target), (logits,))


def test_a_step_is_plain_gradient_descent() -> None:
    model = nn.Linear(5, 3).double()
    images = torch.randn(6, 5, generator=stream(0, "x"), dtype=torch.float64)
    soft = F.softmax(torch.randn(6, 3, generator=stream(0, "l"), dtype=torch.float64), dim=-1)
    weights = {name: w.detach().clone().requires_grad_() for name, w in model.named_parameters()}
    path = unrolled(model, weights, [images, images], [soft, soft], rate=0.3)
    twin = nn.Linear(5, 3).double()
    twin.load_state_dict(model.state_dict())
    descent = torch.optim.SGD(twin.parameters(), lr=0.3)
    for reached in path:
        descent.zero_grad()
        F.cross_entropy(twin(images), soft).backward()
        descent.step()
        for name, weight in twin.named_parameters():
            torch.testing.assert_close(reached[name], weight)


def test_learning_starts_from_smoothed_hard_labels() -> None:
    soft = starting_logits(torch.tensor([1, 0]), 3, smoothing=0.2).softmax(dim=-1)
    torch.testing.assert_close(soft, torch.tensor([[0.1, 0.8, 0.1], [0.8, 0.1, 0.1]]))


def test_labels_that_start_wrong_are_put_right(
    tiny_data: Dataset, distilled: DistilledSet, execution: Execution
) -> None:
    """Every image starts with the next class's label; only real images can tell what it shows."""
    wrong = replace(distilled, targets=(distilled.targets + 1) % 4)
    learning = Learning(student=SMALL.student, steps=120, horizon=20, window=8, stride=4, rate=0.3, label_rate=0.2)
    made = learn_labels(wrong, tiny_data, learning, execution=execution)
    assert made.table.shape == (8, 4)
    assert made.teachers == ()
    assert (made.table.argmax(dim=-1) == distilled.targets).sum() >= 7


def test_the_same_seed_learns_the_same_labels(
    tiny_data: Dataset, distilled: DistilledSet, execution: Execution
) -> None:
    one, again, other = (
        learn_labels(distilled, tiny_data, SMALL, seed=seed, execution=execution).table for seed in (0, 0, 1)
    )
    assert torch.equal(one, again)
    assert not torch.equal(one, other)


@pytest.mark.parametrize("stop", [1, 5, 11])
def test_interrupted_learning_goes_on(
    stop: int, tiny_data: Dataset, distilled: DistilledSet, execution: Execution, tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    whole = learn_labels(distilled, tiny_data, SMALL, execution=execution).table
    monkeypatch.setattr(module, "SAVE_SECONDS", 0.0)
    update, seen = module._update, []

    def interrupted(step: int, *args: Any) -> Tensor:
        if step == stop and not seen:
            seen.append(step)
            raise KeyboardInterrupt
        return update(step, *args)

    monkeypatch.setattr(module, "_update", interrupted)
    checkpoint = FileCheckpoint(tmp_path / "state.safetensors")
    settings: dict[str, Any] = {"execution": execution, "checkpoint": checkpoint}
    with pytest.raises(KeyboardInterrupt):
        learn_labels(distilled, tiny_data, SMALL, **settings)
    assert torch.equal(learn_labels(distilled, tiny_data, SMALL, **settings).table, whole)


def test_students_with_batch_norm_are_refused(
    tiny_data: Dataset, distilled: DistilledSet, execution: Execution
) -> None:
    with pytest.raises(ConfigError, match=r"has running statistics\. Take norm=instance"):
        learn_labels(distilled, tiny_data, Learning(student="convnet-1:width=4"), execution=execution)


def test_learning_that_blows_up_says_so(tiny_data: Dataset, distilled: DistilledSet, execution: Execution) -> None:
    wild = Learning(student=SMALL.student, steps=50, rate=1e12)
    with pytest.raises(NonFiniteLossError, match="a rate that is too high: 1e\\+12 of the students"):
        learn_labels(distilled, tiny_data, wild, execution=execution)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"steps": 0}, "needs steps of 1 or more"),
        ({"window": 9, "horizon": 8}, "A window of 9 steps does not fit into a training of 8"),
        ({"smoothing": 1.0}, "a smoothing between 0 and 1"),
        ({"rate": 0.0}, "needs rates above 0"),
    ],
)
def test_settings_that_cannot_be(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        Learning(**settings)


def test_jensen_shannon() -> None:
    from scipy.spatial.distance import jensenshannon

    one, other = (F.softmax(3 * torch.randn(9, 5, generator=stream(0, n), dtype=torch.float64), dim=-1) for n in "ab")
    expected = [jensenshannon(p, q, base=2) for p, q in zip(one.tolist(), other.tolist(), strict=True)]
    torch.testing.assert_close(jensen_shannon(one, other), torch.tensor(expected, dtype=torch.float64))
    hard = torch.eye(2)
    assert jensen_shannon(hard, hard.flip(0)).tolist() == [1.0, 1.0]
    assert jensen_shannon(hard, hard).tolist() == [0.0, 0.0]


def test_a_forecast_is_of_real_updates(
    tiny_data: Dataset, execution: Execution, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[tuple[int, int]] = []
    update = module._update

    def spy(step: int, logits: Tensor, *more: Any) -> Tensor:
        seen.append((step, len(logits)))
        return update(step, logits, *more)

    monkeypatch.setattr(module, "_update", spy)
    assert learning_step_seconds(tiny_data, 4, SMALL, execution) > 0
    assert seen == [(0, 4), (0, 4)]
