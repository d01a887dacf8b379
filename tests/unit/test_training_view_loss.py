"""The loss of a batch of views, mixed or not, against one example at a time."""

import pytest
import torch
from torch import Tensor

from softlabel.core import stream
from softlabel.losses import LOSSES
from softlabel.training import view_loss
from softlabel.views import Mix

BATCH, CLASSES = 6, 5


def batch() -> tuple[Tensor, Tensor, Tensor, Mix]:
    """Student and teacher logits, targets, and a mix with another share for every image."""
    draws = stream(0, "view loss")
    student, teacher = (torch.randn(BATCH, CLASSES, generator=draws, dtype=torch.float64) for _ in range(2))
    target = torch.randint(CLASSES, (BATCH,), generator=draws)
    mix = Mix(torch.tensor([3, 0, 5, 1, 4, 2]), torch.rand(BATCH, generator=draws, dtype=torch.float64))
    return student, teacher, target, mix


@pytest.mark.parametrize("name", LOSSES)
def test_without_a_mix_it_is_the_batch_mean(name: str) -> None:
    student, teacher, target, _ = batch()
    function = LOSSES[name].function
    for saw in (True, False):
        found = view_loss(function, student=student, teacher=teacher, target=target, mix=None, teacher_saw_mix=saw)
        torch.testing.assert_close(found, function(student=student, teacher=teacher, target=target).mean())


@pytest.mark.parametrize("saw", [True, False])
@pytest.mark.parametrize("name", LOSSES)
def test_mixed_views_mix_their_labels_by_the_share_of_each_image(name: str, saw: bool) -> None:
    student, teacher, target, mix = batch()
    function = LOSSES[name].function

    def single(row: int, source: int) -> Tensor:
        label = teacher[row] if saw else teacher[source]
        return function(student=student[row][None], teacher=label[None], target=target[source][None])[0]

    expected = sum(
        share * single(row, row) + (1 - share) * single(row, int(mix.partner[row]))
        for row, share in enumerate(mix.weight)
    )
    found = view_loss(function, student=student, teacher=teacher, target=target, mix=mix, teacher_saw_mix=saw)
    torch.testing.assert_close(found, expected / BATCH)


def test_hard_labels_need_no_teacher() -> None:
    student, _, target, mix = batch()
    mixed_label = torch.zeros(BATCH, CLASSES, dtype=torch.float64)
    for row, share in enumerate(mix.weight):
        mixed_label[row, target[row]] += share
        mixed_label[row, target[mix.partner[row]]] += 1 - share
    found = view_loss(
        LOSSES["ce"].function, student=student, teacher=None, target=target, mix=mix, teacher_saw_mix=False
    )
    torch.testing.assert_close(found, torch.nn.functional.cross_entropy(student, mixed_label))


def test_a_teacher_that_saw_the_mix_gives_one_label_for_it() -> None:
    student, teacher, target, mix = batch()
    function = LOSSES["kl"].function
    found = view_loss(function, student=student, teacher=teacher, target=target, mix=mix, teacher_saw_mix=True)
    torch.testing.assert_close(found, function(student=student, teacher=teacher, target=target).mean())


@pytest.mark.parametrize("saw", [True, False])
@pytest.mark.parametrize("name", LOSSES)
def test_weights_count_with_the_image_they_belong_to(name: str, saw: bool) -> None:
    student, teacher, target, mix = batch()
    weight = torch.tensor([0.0, 0.5, 1.0, 1.5, 2.0, 1.0], dtype=torch.float64)
    function = LOSSES[name].function
    arguments = {"student": student, "teacher": teacher, "target": target, "teacher_saw_mix": saw}
    plain = view_loss(function, **arguments, mix=None, weight=weight)  # type: ignore[arg-type]
    own = function(student=student, teacher=teacher, target=target)
    torch.testing.assert_close(plain, (weight * own).sum() / BATCH)

    def single(row: int, source: int) -> Tensor:
        label = teacher[row] if saw else teacher[source]
        told = function(student=student[row][None], teacher=label[None], target=target[source][None])[0]
        return weight[source] * told

    expected = sum(
        share * single(row, row) + (1 - share) * single(row, int(mix.partner[row]))
        for row, share in enumerate(mix.weight)
    )
    found = view_loss(function, **arguments, mix=mix, weight=weight)  # type: ignore[arg-type]
    torch.testing.assert_close(found, expected / BATCH)
