"""Noise, samplers and guidance against slow restatements of their formulas."""

import math
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from softlabel.core import ConfigError, UnknownNameError
from softlabel.generate import SAMPLERS, SCHEDULES, check_sampling, guided, noised, run_sampler
from softlabel.generate._diffusion import TIMES, clean_of, skipped, start_of, told_of

pytest.importorskip("diffusers")
pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")  # of diffusers, under numpy 2
PAIRS = [
    ("cosine", "dpm++"),
    ("cosine", "ddim"),
    ("scaled-linear", "dpm++"),
    ("scaled-linear", "ddim"),
    ("flow", "dpm++"),
    ("flow", "euler"),
]


def kept_of(schedule: str) -> list[float]:
    """alpha^2 at every time, multiplied up from the betas as the papers give them."""
    if schedule == "cosine":  # Nichol & Dhariwal, equation 17, with betas up to 0.999

        def level(t: float) -> float:
            return math.cos((t + 0.008) / 1.008 * math.pi / 2) ** 2

        betas = [min(0.999, 1 - level((i + 1) / TIMES) / level(i / TIMES)) for i in range(TIMES)]
    else:  # Stable Diffusion: linear in the square root
        low, high = math.sqrt(0.00085), math.sqrt(0.012)
        betas = [(low + (high - low) * i / (TIMES - 1)) ** 2 for i in range(TIMES)]
    found, left = [], 1.0
    for beta in betas:
        left *= 1 - beta
        found.append(left)
    return found


@pytest.fixture
def numbers() -> tuple[Tensor, Tensor, Tensor]:
    draws = torch.Generator().manual_seed(0)
    return (
        torch.randn(5, 3, 4, 4, generator=draws),
        torch.randn(5, 3, 4, 4, generator=draws),
        torch.tensor([0.0, 0.2502, 0.5, 0.75, 0.9999]),
    )


@pytest.mark.parametrize("schedule", SCHEDULES)
def test_noise_and_what_is_to_be_told(schedule: str, numbers: tuple[Tensor, Tensor, Tensor]) -> None:
    clean, noise, uniform = numbers
    found = noised(schedule, clean, noise, uniform)
    for i, u in enumerate(uniform.tolist()):
        if schedule == "flow":
            mixed, target, time = (1 - u) * clean[i] + u * noise[i], noise[i] - clean[i], TIMES * u
        else:
            time = int(torch.tensor(u) * TIMES)
            kept = kept_of(schedule)[time]
            alpha, sigma = math.sqrt(kept), math.sqrt(1 - kept)
            mixed = alpha * clean[i] + sigma * noise[i]
            target = alpha * noise[i] - sigma * clean[i] if schedule == "cosine" else noise[i]
        torch.testing.assert_close(found.latents[i], mixed, atol=2e-4, rtol=1e-3)
        torch.testing.assert_close(found.target[i], target, atol=2e-4, rtol=1e-3)
        assert float(found.times[i]) == pytest.approx(time, abs=0.1)


@pytest.mark.parametrize("schedule", SCHEDULES)
def test_an_answer_stands_for_the_clean_latents(schedule: str, numbers: tuple[Tensor, Tensor, Tensor]) -> None:
    clean, noise, _ = numbers
    for u in (0.05, 0.5, 0.9):
        shown = noised(schedule, clean, noise, torch.full((5,), u))
        time = shown.times[0]
        torch.testing.assert_close(clean_of(schedule, shown.latents, time, shown.target), clean, atol=1e-3, rtol=1e-3)
        torch.testing.assert_close(told_of(schedule, shown.latents, time, clean), shown.target, atol=1e-3, rtol=1e-3)


@pytest.mark.parametrize("steps", [4, 10, 50])
@pytest.mark.parametrize(("schedule", "sampler"), PAIRS)
def test_a_sampler_that_is_told_the_truth_arrives_there(
    schedule: str, sampler: str, steps: int, numbers: tuple[Tensor, Tensor, Tensor]
) -> None:
    clean, noise, _ = numbers
    looks: list[float] = []

    def oracle(latents: Tensor, time: Tensor) -> Tensor:
        looks.append(float(time))
        return told_of(schedule, latents, time, clean)

    found = run_sampler(schedule, sampler, steps, noise, oracle)
    torch.testing.assert_close(found, clean, atol=0.02, rtol=0.02)
    assert len(looks) == steps
    assert looks == sorted(looks, reverse=True)


@pytest.mark.parametrize("steps", [48, 50])  # 48 do not divide 1000
@pytest.mark.parametrize(("schedule", "sampler"), PAIRS)
def test_a_sampler_draws_from_a_normal_distribution(schedule: str, sampler: str, steps: int) -> None:
    """Images of mean 1 and deviation 0.5, whose best denoiser is known: it gives back the mean of what may be seen."""
    noise = torch.randn(1, 1, 100, 100, generator=torch.Generator().manual_seed(0))

    def best(latents: Tensor, time: Tensor) -> Tensor:
        if schedule == "flow":
            sigma = time / TIMES
            alpha = 1 - sigma
        else:
            kept = torch.tensor(kept_of(schedule)[int(time)])
            alpha, sigma = kept.sqrt(), (1 - kept).sqrt()
        gain = alpha * 0.25 / (alpha**2 * 0.25 + sigma**2)
        return told_of(schedule, latents, time, 1 + gain * (latents - alpha))

    found = run_sampler(schedule, sampler, steps, noise, best)
    # Stable Diffusion's schedule ends with a little of the image left in what is taken for noise.
    assert float(found.mean()) == pytest.approx(1, abs=0.04 if schedule == "scaled-linear" else 0.01)
    assert float(found.std()) == pytest.approx(0.5, abs=0.04)


def test_every_look_of_euler_moves_as_far() -> None:
    looks: list[float] = []

    def straight(latents: Tensor, time: Tensor) -> Tensor:
        looks.append(float(time))
        return torch.ones_like(latents)

    found = run_sampler("flow", "euler", 4, torch.zeros(1, 1, 2, 2), straight)
    assert looks == pytest.approx([1000, 750, 500, 250], abs=1e-3)
    torch.testing.assert_close(found, torch.full((1, 1, 2, 2), -1.0))


@pytest.mark.parametrize(("schedule", "sampler"), PAIRS)
def test_a_part_of_the_way_begins_in_the_middle(
    schedule: str, sampler: str, numbers: tuple[Tensor, Tensor, Tensor]
) -> None:
    clean, noise, _ = numbers
    looks: list[float] = []

    def oracle(latents: Tensor, time: Tensor) -> Tensor:
        looks.append(float(time))
        return told_of(schedule, latents, time, clean)

    start = start_of(schedule, sampler, 10, clean, noise, 0.5)
    found = run_sampler(schedule, sampler, 10, start, oracle, strength=0.5)
    torch.testing.assert_close(found, clean, atol=0.02, rtol=0.02)
    assert len(looks) == 5
    assert looks[0] == pytest.approx(TIMES / 2, abs=0.12 * TIMES)
    # Where it begins, latents still hold something of the image.
    assert float((start - noise).square().mean()) > 0.05


def test_steps_left_out() -> None:
    assert [skipped(10, strength) for strength in (1.0, 0.7, 0.5, 0.001)] == [0, 3, 5, 9]


class Told(nn.Module):
    """Tells the class and the time, and looks at nothing else."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: list[tuple[list[float], list[int]]] = []

    def forward(self, latents: Tensor, times: Tensor, classes: Tensor) -> Tensor:
        self.seen.append((times.tolist(), classes.tolist()))
        return (classes.float() + 1).view(-1, 1, 1, 1).expand_as(latents) * (1 + latents.abs().sum() * 0)


@pytest.mark.parametrize(
    ("guidance", "expected", "looks"), [(1.0, [1, 3], [2]), (0.0, [11, 11], [2]), (2.5, [-14, -9], [4])]
)
def test_guidance(guidance: float, expected: list[float], looks: list[int]) -> None:
    """Without a class + guidance x (with - without): 11 + 2.5 (1 - 11) = -14."""
    denoiser: Any = Told()
    told = guided(denoiser, torch.zeros(2, 1, 2, 2), torch.tensor(7), torch.tensor([0, 2]), 10, guidance)
    assert told[:, 0, 0, 0].tolist() == expected
    assert [len(times) for times, _ in denoiser.seen] == looks
    assert {time for times, _ in denoiser.seen for time in times} == {7.0}


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        (("cosine", "euler", 10, 1.0), ConfigError, "Choose ddim or dpm"),
        (("flow", "ddim", 10, 1.0), ConfigError, "Choose euler or dpm"),
        (("flow", "heun", 10, 1.0), UnknownNameError, "heun"),
        (("linear", "ddim", 10, 1.0), UnknownNameError, "linear"),
        (("flow", "euler", 0, 1.0), ConfigError, "1 to 1000 steps"),
        (("flow", "euler", 5, -1.0), ConfigError, "guidance of 0 or more"),
    ],
)
def test_what_cannot_be_sampled(arguments: Any, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        check_sampling(*arguments)


def test_every_sampler_and_schedule_is_tried() -> None:
    assert {sampler for _, sampler in PAIRS} == set(SAMPLERS)
    assert {schedule for schedule, _ in PAIRS} == set(SCHEDULES)
