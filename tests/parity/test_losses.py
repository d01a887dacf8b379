"""Losses against golden values of the papers' codes, slow restatements of their formulas, and one contract."""

import inspect
from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from softlabel.core import ConfigError, UnknownNameError, stream
from softlabel.losses import (
    CODE_GAMMA,
    GIFT,
    LOSSES,
    Loss,
    ce,
    cosine,
    gift,
    gift_additive,
    kl,
    kl_scaled,
    refine,
    smoothed_one_hot,
    soft_ce,
)

# The example that the golden values of the released codes were computed on: B = 2, C = 4.
STUDENT = torch.tensor([[1.0, 2.0, 0.0, -1.0], [0.5, -0.5, 3.0, 1.0]])
TEACHER = torch.tensor([[3.0, 0.0, -1.0, -2.0], [1.0, -2.0, 4.0, -3.0]])
TARGET = torch.tensor([0, 2])

GOLDEN = {
    "kl": 0.00388478,
    "kl_scaled": 400 * 0.00388478,
    "soft_ce": 0.886418,
    "mse": 3.687500,
    "ce": 0.830713,
    "mse_ce": 3.770571,
    "soft_ce_ce": 0.969489,
    "cosine": 0.431424,
    "gift": 0.408206,
    "gift_additive": 0.408206,
    "gift:gamma=0.1": 0.405952,
}


def logits(name: str, batch: int = 5, classes: int = 7, dtype: torch.dtype = torch.float64) -> Tensor:
    return 3 * torch.randn(batch, classes, generator=stream(0, name), dtype=dtype)


def classes_of(batch: int = 5, classes: int = 7) -> Tensor:
    return torch.randint(classes, (batch,), generator=stream(0, "target"))


# --- golden values ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("spec", GOLDEN)
def test_batch_mean_equals_the_golden_value(spec: str) -> None:
    values = Loss.parse(spec).function()(student=STUDENT.double(), teacher=TEACHER.double(), target=TARGET)
    # The golden values were computed in float32 and printed with 6 digits; kl is small, kl_scaled 400 times that.
    tolerance = {"kl": 5e-8, "kl_scaled": 2e-5, "mse": 0.0}.get(spec, 1e-6)
    assert values.mean().item() == pytest.approx(GOLDEN[spec], abs=tolerance)


def test_golden_values_cover_every_loss() -> None:
    ours = {"gift_softmax", "soft_ce_mass"}  # in nobody's code as a loss: restated below
    assert {Loss.parse(spec).name for spec in GOLDEN} == set(LOSSES) - ours


@pytest.mark.parametrize(("classes", "own", "other"), [(10, 0.99932, 1.2e-2), (200, 0.99997, 5.6e-4)])
def test_unit_length_smoothed_label_is_nearly_one_hot(classes: int, own: float, other: float) -> None:
    hard = refine(teacher=torch.randn(1, classes, generator=stream(0, "t")), target=torch.tensor([3]), gamma=1.0)
    assert hard[0, 3].item() == pytest.approx(own, abs=1e-5)
    assert hard[0, 3].item() == pytest.approx(0.9 / (0.81 + 0.01 / (classes - 1)) ** 0.5, abs=1e-6)
    assert hard[0, 4].item() == pytest.approx(other, rel=0.03)
    assert hard.norm().item() == pytest.approx(1, abs=1e-6)


def test_smoothing_spares_the_true_class() -> None:
    smooth = smoothed_one_hot(torch.tensor([1, 0]), 3, alpha=0.1)
    torch.testing.assert_close(smooth, torch.tensor([[0.05, 0.9, 0.05], [0.9, 0.05, 0.05]]))
    assert smoothed_one_hot(torch.tensor([0]), 1, alpha=0.0).tolist() == [[1.0]]


# --- parity with restatements, one example and one class at a time ---------------------------------------------


def _log_softmax(row: Tensor) -> list[Tensor]:
    total = sum((value.exp() for value in row), torch.zeros((), dtype=row.dtype))
    return [value - total.log() for value in row]


def _norm(row: list[Tensor]) -> Tensor:
    return sum((value * value for value in row), torch.zeros((), dtype=row[0].dtype)).sqrt()


def _slow_ce(z: Tensor, t: Tensor, y: int) -> Tensor:
    return -_log_softmax(z)[y]


def _slow_mse(z: Tensor, t: Tensor, y: int) -> Tensor:
    return sum((a - b) ** 2 for a, b in zip(z, t, strict=True)) / len(z)


def _slow_soft_ce(z: Tensor, t: Tensor, y: int, temperature: float = 1.0) -> Tensor:
    soft = [value.exp() for value in _log_softmax(t / temperature)]
    return -sum(p * q for p, q in zip(soft, _log_softmax(z), strict=True))


def _slow_kl(z: Tensor, t: Tensor, y: int, temperature: float = 20.0) -> Tensor:
    student, teacher = _log_softmax(z / temperature), _log_softmax(t / temperature)
    return sum(q.exp() * (q - p) for p, q in zip(student, teacher, strict=True))


def _slow_cosine(z: Tensor, r: list[Tensor]) -> Tensor:
    dot = sum(a * b for a, b in zip(z, r, strict=True))
    return 1 - dot / (_norm(list(z)) * _norm(r))


def _slow_softmax(t: Tensor, temperature: float) -> Tensor:
    return torch.stack([value.exp() for value in _log_softmax(t / temperature)])


def _slow_gift(z: Tensor, t: Tensor, y: int, hard: float, soft: float, alpha: float = 0.1) -> Tensor:
    off = alpha / (len(t) - 1)
    smooth = [torch.tensor(1 - alpha if c == y else off, dtype=t.dtype) for c in range(len(t))]
    refined = [soft * a / _norm(list(t)) + hard * b / _norm(smooth) for a, b in zip(t, smooth, strict=True)]
    return _slow_cosine(z, refined)


SLOW: dict[str, Callable[[Tensor, Tensor, int], Tensor]] = {
    "ce": _slow_ce,
    "mse": _slow_mse,
    "soft_ce": _slow_soft_ce,
    "soft_ce:temperature=3": lambda z, t, y: _slow_soft_ce(z, t, y, 3.0),
    "kl": _slow_kl,
    "kl:temperature=4": lambda z, t, y: _slow_kl(z, t, y, 4.0),
    "kl:temperature=4,scale=true": lambda z, t, y: 16 * _slow_kl(z, t, y, 4.0),
    "kl_scaled": lambda z, t, y: 400 * _slow_kl(z, t, y),
    "kl_scaled:temperature=2": lambda z, t, y: 4 * _slow_kl(z, t, y, 2.0),
    "mse_ce": lambda z, t, y: _slow_mse(z, t, y) + 0.1 * _slow_ce(z, t, y),
    "mse_ce:weight=0.7": lambda z, t, y: _slow_mse(z, t, y) + 0.7 * _slow_ce(z, t, y),
    "soft_ce_mass": lambda z, t, y: -sum(p.exp() * q for p, q in zip(t, _log_softmax(z), strict=True)),
    "soft_ce_ce": lambda z, t, y: _slow_soft_ce(z, t, y) + 0.1 * _slow_ce(z, t, y),
    "soft_ce_ce:weight=2": lambda z, t, y: _slow_soft_ce(z, t, y) + 2 * _slow_ce(z, t, y),
    "cosine": lambda z, t, y: _slow_cosine(z, list(t)),
    "gift": lambda z, t, y: _slow_gift(z, t, y, hard=1 / 11, soft=10 / 11),
    "gift:gamma=0.4,alpha=0.2": lambda z, t, y: _slow_gift(z, t, y, hard=0.4, soft=0.6, alpha=0.2),
    "gift_additive": lambda z, t, y: _slow_gift(z, t, y, hard=0.1, soft=1.0),
    "gift_softmax": lambda z, t, y: _slow_gift(z, _slow_softmax(t, 1.0), y, hard=0.1, soft=1.0),
    "gift_softmax:temperature=4,gamma=0.25": lambda z, t, y: _slow_gift(
        z, _slow_softmax(t, 4.0), y, hard=0.25, soft=0.75
    ),
    "gift_additive:weight=0.5,alpha=0.3": lambda z, t, y: _slow_gift(z, t, y, hard=0.5, soft=1.0, alpha=0.3),
}


@pytest.mark.parametrize("spec", SLOW)
def test_values_and_gradients_equal_the_slow_restatement(spec: str) -> None:
    student, teacher, target = logits("student").requires_grad_(), logits("teacher"), classes_of()
    values = Loss.parse(spec).function()(student=student, teacher=teacher, target=target)
    again = student.detach().clone().requires_grad_()
    slow = torch.stack([SLOW[spec](z, t, y) for z, t, y in zip(again, teacher, target.tolist(), strict=True)])
    # The smoothed label of GIFT is made in float32: everything else agrees to float64.
    tolerance = {"rtol": 0.0, "atol": 1e-7} if "gift" in spec else {"rtol": 1e-12, "atol": 1e-13}
    torch.testing.assert_close(values, slow, **tolerance)
    torch.testing.assert_close(
        torch.autograd.grad(values.mean(), student)[0], torch.autograd.grad(slow.mean(), again)[0], **tolerance
    )


def test_restatements_cover_every_loss() -> None:
    assert {Loss.parse(spec).name for spec in SLOW} == set(LOSSES)


@pytest.mark.parametrize("name", LOSSES)
def test_gradient_equals_finite_differences(name: str) -> None:
    teacher, target = logits("teacher", 3, 4), classes_of(3, 4)
    function = LOSSES[name].function
    student = logits("student", 3, 4).requires_grad_()
    assert torch.autograd.gradcheck(lambda z: function(student=z, teacher=teacher, target=target), (student,))


# --- the contract of the table ---------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("name", LOSSES)
def test_one_finite_value_per_example_and_no_gradient_to_the_teacher(name: str, dtype: torch.dtype) -> None:
    student, teacher = (logits(who, dtype=dtype).requires_grad_() for who in ("student", "teacher"))
    values = LOSSES[name].function(student=student, teacher=teacher, target=classes_of())
    assert values.shape == (5,)
    assert values.dtype == dtype
    assert values.isfinite().all()
    values.sum().backward()
    assert student.grad is not None
    assert student.grad.isfinite().all()
    assert teacher.grad is None


@pytest.mark.parametrize("name", LOSSES)
def test_an_example_does_not_see_its_batch(name: str) -> None:
    student, teacher, target = logits("student"), logits("teacher"), classes_of()
    function = LOSSES[name].function
    whole = function(student=student, teacher=teacher, target=target)
    alone = [
        function(student=student[i : i + 1], teacher=teacher[i : i + 1], target=target[i : i + 1]) for i in range(5)
    ]
    torch.testing.assert_close(whole, torch.cat(alone))


@pytest.mark.parametrize("name", LOSSES)
def test_losses_are_keyword_only_and_never_change_their_inputs(name: str) -> None:
    function = LOSSES[name].function
    kinds = {parameter.kind for parameter in inspect.signature(function).parameters.values()}
    assert kinds == {inspect.Parameter.KEYWORD_ONLY}
    student, teacher, target = logits("student"), logits("teacher"), classes_of()
    function(student=student, teacher=teacher, target=target)
    assert torch.equal(student, logits("student"))
    assert torch.equal(teacher, logits("teacher"))
    assert torch.equal(target, classes_of())


@pytest.mark.parametrize("name", LOSSES)
def test_needs_teacher_says_whether_the_teacher_matters(name: str) -> None:
    student, target = logits("student"), classes_of()
    values = [LOSSES[name].function(student=student, teacher=logits(t), target=target) for t in ("one", "two")]
    assert torch.equal(*values) == (not LOSSES[name].needs_teacher)
    assert Loss(name).needs_teacher == LOSSES[name].needs_teacher


def test_ce_works_without_a_teacher() -> None:
    student, target = logits("student"), classes_of()
    expected = torch.nn.functional.cross_entropy(student, target)
    torch.testing.assert_close(ce(student=student, teacher=None, target=target).mean(), expected)


# --- identities ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("weight", [0.0, 0.1, 1.0, 7.5])
def test_the_additive_and_the_convex_form_are_one_family(weight: float) -> None:
    inputs = {"student": logits("student"), "teacher": logits("teacher"), "target": classes_of()}
    torch.testing.assert_close(gift(**inputs, gamma=weight / (1 + weight)), gift_additive(**inputs, weight=weight))


def test_gift_interpolates_from_cosine_to_the_hard_label() -> None:
    inputs = {"student": logits("student"), "teacher": logits("teacher"), "target": classes_of()}
    torch.testing.assert_close(gift(**inputs, gamma=0.0), cosine(**inputs))
    other_teacher = {**inputs, "teacher": logits("other")}
    assert torch.equal(gift(**inputs, gamma=1.0), gift(**other_teacher, gamma=1.0))
    assert pytest.approx(1 / 11) == CODE_GAMMA


def test_scaled_kl_is_temperature_squared_times_kl() -> None:
    inputs = {"student": logits("student"), "teacher": logits("teacher"), "target": classes_of()}
    torch.testing.assert_close(kl_scaled(**inputs), 400 * kl(**inputs))
    torch.testing.assert_close(kl_scaled(**inputs, temperature=3.0), kl(**inputs, temperature=3.0, scale=True))


def test_kl_at_a_large_temperature_has_the_gradient_of_centred_mse() -> None:
    temperature, classes = 1000.0, 7
    student, teacher = logits("student").requires_grad_(), logits("teacher")
    loss = kl(student=student, teacher=teacher, target=classes_of(), temperature=temperature).sum()
    gap = student.detach() - teacher
    expected = (gap - gap.mean(dim=-1, keepdim=True)) / (classes * temperature**2)
    torch.testing.assert_close(torch.autograd.grad(loss, student)[0], expected, rtol=0.02, atol=1e-9)


def test_kl_and_soft_ce_see_no_shift_of_logits_and_cosine_does() -> None:
    student, teacher, target = logits("student"), logits("teacher"), classes_of()
    for function in (kl, soft_ce):
        plain = function(student=student, teacher=teacher, target=target)
        torch.testing.assert_close(function(student=student + 5, teacher=teacher - 3, target=target), plain)
    moved = cosine(student=student, teacher=teacher + 5, target=target)
    assert (moved - cosine(student=student, teacher=teacher, target=target)).abs().min() > 1e-3


def test_cosine_losses_see_no_length_and_are_zero_at_their_target() -> None:
    teacher, target = logits("teacher"), classes_of()
    refined = refine(teacher=teacher, target=target)
    zero = gift(student=17 * refined, teacher=0.01 * teacher, target=target)
    torch.testing.assert_close(zero, torch.zeros(5, dtype=torch.float64), atol=1e-7, rtol=0)
    zero = cosine(student=4 * teacher, teacher=teacher, target=target)
    torch.testing.assert_close(zero, torch.zeros(5, dtype=torch.float64), atol=1e-12, rtol=0)


@pytest.mark.parametrize("name", ["cosine", "gift", "gift_additive"])
@pytest.mark.parametrize("zero", ["student", "teacher", "both"])
def test_cosine_losses_survive_zero_vectors(name: str, zero: str) -> None:
    student = torch.zeros(2, 4) if zero != "teacher" else STUDENT.clone()
    teacher = torch.zeros(2, 4) if zero != "student" else TEACHER.clone()
    values = LOSSES[name].function(student=student.requires_grad_(), teacher=teacher, target=TARGET)
    values.sum().backward()
    assert values.isfinite().all()
    assert student.grad is not None
    assert student.grad.isfinite().all()


@pytest.mark.parametrize("name", LOSSES)
def test_losses_survive_large_logits(name: str) -> None:
    student = (300 * STUDENT).requires_grad_()
    teacher = (300 * TEACHER).log_softmax(dim=-1) if Loss(name).needs_probabilities else 300 * TEACHER
    LOSSES[name].function(student=student, teacher=teacher, target=TARGET).sum().backward()
    assert student.grad is not None
    assert student.grad.isfinite().all()


# --- GIFT as a module ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("settings", [{}, {"gamma": 0.1}, {"gamma": 0.0, "alpha": 0.5}])
def test_module_is_the_mean_of_the_function(settings: dict[str, float]) -> None:
    expected = gift(student=STUDENT, teacher=TEACHER, target=TARGET, **settings).mean()
    assert torch.equal(GIFT(**settings)(STUDENT, TEACHER, TARGET), expected)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_module_computes_in_full_precision_under_autocast(dtype: torch.dtype) -> None:
    """Near its minimum 1 - cosine is far smaller than the step of a half-precision number at 1."""
    student = (TEACHER + 0.01 * STUDENT).to(dtype).requires_grad_()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        loss = GIFT(gamma=0.0)(student, TEACHER.to(dtype), TARGET)
    loss.backward()
    expected = cosine(student=student.detach().float(), teacher=TEACHER.to(dtype).float(), target=TARGET).mean()
    assert loss.dtype == torch.float32
    assert loss.item() == pytest.approx(expected.item(), abs=5e-7)
    assert student.grad is not None
    assert student.grad.dtype == dtype


def test_module_shows_its_settings_and_has_no_state() -> None:
    assert repr(GIFT(gamma=0.1)) == "GIFT(gamma=0.1, alpha=0.1)"
    assert not GIFT().state_dict()


@pytest.mark.parametrize("settings", [{"gamma": -0.1}, {"gamma": 1.5}, {"alpha": 2.0}, {"alpha": float("nan")}])
def test_module_refuses_weights_outside_0_to_1(settings: dict[str, float]) -> None:
    with pytest.raises(ConfigError, match=r"gamma and alpha must lie in 0\.\.1\. Got gamma="):
        GIFT(**settings)


# --- losses as configuration -----------------------------------------------------------------------------------


@pytest.mark.parametrize("spec", ["ce", "kl", "kl:temperature=4", "gift:alpha=0.2,gamma=0.3", "kl:scale=True"])
def test_specs_read_back(spec: str) -> None:
    assert Loss.parse(spec).spec == spec
    assert Loss.parse(Loss.parse(spec).spec) == Loss.parse(spec)


def test_the_order_of_options_makes_no_difference() -> None:
    assert Loss.parse("gift:gamma=0.3,alpha=0.2") == Loss.parse("gift:alpha=0.2,gamma=0.3")


def test_options_reach_the_function() -> None:
    bound = Loss.parse("kl:temperature=4").function()(student=STUDENT, teacher=TEACHER, target=TARGET)
    assert torch.equal(bound, kl(student=STUDENT, teacher=TEACHER, target=TARGET, temperature=4))


def test_an_unknown_loss_lists_the_choices_and_the_nearest() -> None:
    with pytest.raises(UnknownNameError) as caught:
        Loss.parse("gitf:gamma=0.1")
    assert str(caught.value) == (
        "There is no loss named 'gitf'. Did you mean 'gift'? Choose one of: ce, cosine, gift, gift_additive, "
        "gift_softmax, kl, kl_scaled, mse, mse_ce, soft_ce, soft_ce_ce, soft_ce_mass."
    )


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("gift:gama=0.1", "The loss 'gift' has no option 'gama'. Its options are: gamma, alpha."),
        ("ce:weight=1", "The loss 'ce' has no option 'weight'. Its options are: smoothing."),
        ("gift:gamma=1.5", "The option 'gamma' of the loss 'gift' must be a number from 0 to 1. Got 1.5 instead."),
        ("kl:temperature=0", "The option 'temperature' of the loss 'kl' must be a number from 1e-06 to inf. Got 0"),
        ("kl:temperature=warm", "must be a number from 1e-06 to inf. Got 'warm' instead."),
        ("kl:temperature=true", "must be a number from 1e-06 to inf. Got True instead."),
        ("kl:scale=2", "The option 'scale' of the loss 'kl' must be true or false. Got 2 instead."),
        ("mse_ce:weight=-1", "must be a number from 0 to inf. Got -1 instead."),
        ("gift_additive:weight=1e999", "must be a number from 0 to inf. Got inf instead."),
        ("kl:temperature", "Cannot read the option 'temperature' in 'kl:temperature'"),
        ("kl:temperature=2,temperature=3", "The option 'temperature' is given twice"),
    ],
)
def test_a_bad_option_says_what_is_expected(spec: str, message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        Loss.parse(spec)
    assert message in str(caught.value)
