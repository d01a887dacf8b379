"""Diffusion: how latents are noised for training, and how noise is turned into latents. Schedulers are diffusers'."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from typing import Any

import torch
from torch import Tensor

from softlabel.core import ConfigError, UnknownNameError
from softlabel.generate._denoiser import Denoiser
from softlabel.models import optional_package

TIMES = 1000
"""Times that training distinguishes."""

SCHEDULES = {
    "cosine": "noise by a squared cosine (Nichol & Dhariwal 2021); the denoiser tells a velocity (Salimans & Ho 2022)",
    "scaled-linear": "Stable Diffusion's noise, as U-ViT takes it; the denoiser tells the noise",
    "flow": "a straight line from images to noise (flow matching, Lipman et al. 2023), whose direction is told",
}
SAMPLERS = {
    "dpm++": "DPM-Solver++ of second order (Lu et al. 2022): good with ten steps",
    "ddim": "DDIM without noise (Song et al. 2021); not for flow",
    "euler": "straight steps, for flow alone",
}
_PREDICTED = {"cosine": "v_prediction", "scaled-linear": "epsilon", "flow": "flow_prediction"}
_BETAS: dict[str, dict[str, Any]] = {
    "cosine": {"beta_schedule": "squaredcos_cap_v2"},
    "scaled-linear": {"beta_schedule": "scaled_linear", "beta_start": 0.00085, "beta_end": 0.012},
    "flow": {},
}


@dataclass(frozen=True)
class Noised:
    """What a denoiser is shown, and what it should tell.

    Attributes:
        latents: [B, C, h, w], with noise.
        times: float32 [B], in 0..1000.
        target: [B, C, h, w].
    """

    latents: Tensor
    times: Tensor
    target: Tensor


def noised(schedule: str, latents: Tensor, noise: Tensor, uniform: Tensor) -> Noised:
    """Latents with noise, at times that follow from uniform numbers [B] in [0, 1).

    With alpha^2 + sigma^2 = 1, z = alpha x + sigma e; the target is the velocity alpha e - sigma x under `cosine`, and
    e under `scaled-linear`. Under `flow`, z = (1 - t) x + t e with t uniform, and the target is e - x.
    """
    if schedule == "flow":
        part = uniform.view(-1, 1, 1, 1)
        return Noised((1 - part) * latents + part * noise, TIMES * uniform, noise - latents)
    times = (uniform * TIMES).long()
    scheduler = _training_scheduler(schedule)
    mixed = scheduler.add_noise(latents, noise, times)
    target = noise if schedule == "scaled-linear" else scheduler.get_velocity(latents, noise, times)
    return Noised(mixed, times.float(), target)


def clean_of(schedule: str, latents: Tensor, time: Tensor, told: Tensor) -> Tensor:
    """The latents without noise that a denoiser's answer at one time stands for."""
    if schedule == "flow":
        return latents - time / TIMES * told
    alpha, sigma = _signal(schedule, time)
    return alpha * latents - sigma * told if schedule == "cosine" else (latents - sigma * told) / alpha


def told_of(schedule: str, latents: Tensor, time: Tensor, clean: Tensor) -> Tensor:
    """The answer that stands for latents without noise: the inverse of `clean_of`, but for the very first time."""
    if schedule == "flow":
        return (latents - clean) / (time / TIMES).clamp_min(1 / TIMES)
    alpha, sigma = _signal(schedule, time)
    sigma = sigma.clamp_min(1e-4)
    return (alpha * latents - clean) / sigma if schedule == "cosine" else (latents - alpha * clean) / sigma


def _signal(schedule: str, time: Tensor) -> tuple[Tensor, Tensor]:
    """alpha and sigma at a time: the shares of image and noise."""
    kept = _training_scheduler(schedule).alphas_cumprod[int(time)]
    return kept.sqrt(), (1 - kept).sqrt()


def check_sampling(schedule: str, sampler: str, steps: int, guidance: float) -> None:
    """Refuse what cannot be sampled.

    Raises:
        UnknownNameError: no such schedule or sampler.
        ConfigError: a sampler of another kind of schedule, no steps, or a guidance below 0.
    """
    if schedule not in SCHEDULES:
        raise UnknownNameError("noise schedule", schedule, SCHEDULES)
    if sampler not in SAMPLERS:
        raise UnknownNameError("sampler", sampler, SAMPLERS)
    if (sampler == "ddim" and schedule == "flow") or (sampler == "euler" and schedule != "flow"):
        fits = "euler or dpm++" if schedule == "flow" else "ddim or dpm++"
        raise ConfigError(f"The sampler {sampler!r} does not go with the schedule {schedule!r}. Choose {fits}.")
    if not 1 <= steps <= TIMES:
        raise ConfigError(f"Sampling takes 1 to {TIMES} steps. Got steps={steps}.")
    if guidance < 0:
        raise ConfigError(f"Sampling takes a guidance of 0 or more. Got guidance={guidance:g}.")


def guided(denoiser: Denoiser, latents: Tensor, time: Tensor, classes: Tensor, none: int, guidance: float) -> Tensor:
    """Classifier-free guidance (Ho & Salimans 2022): without a class + guidance x (with it - without).

    1 is the conditional denoiser alone, 0 the unconditional one alone; both cost one look, others two.

    Args:
        time: one number, for all.
        none: the index that stands for no class.
    """
    times = time.to(latents.device, torch.float32).expand(len(latents))
    if guidance == 1:
        return denoiser(latents, times, classes)  # type: ignore[no-any-return]
    nothing = torch.full_like(classes, none)
    if guidance == 0:
        return denoiser(latents, times, nothing)  # type: ignore[no-any-return]
    both = denoiser(latents.repeat(2, 1, 1, 1), times.repeat(2), torch.cat([classes, nothing]))
    told, plain = both.chunk(2)
    return plain + guidance * (told - plain)  # type: ignore[no-any-return]


Tell = Callable[[Tensor, Tensor], Tensor]
"""What a denoiser tells of latents at a time."""


def run_sampler(schedule: str, sampler: str, steps: int, noise: Tensor, tell: Tell, strength: float = 1.0) -> Tensor:
    """Latents from noise, in so many looks at the denoiser; nothing else is drawn.

    Args:
        noise: [B, C, h, w]; with a `strength` below 1, latents that were noised up to it (`start_of`).
        strength: share of the way from noise to images that is gone; the first steps of the others are left out.
    """
    if sampler == "ddim":
        return _ddim(schedule, steps, noise, tell, skipped(steps, strength))
    scheduler = _timed_scheduler(schedule, sampler, steps, noise.device)
    scheduler.set_begin_index(skipped(steps, strength))
    latents = noise
    for time in scheduler.timesteps[skipped(steps, strength) :]:
        latents = scheduler.step(tell(latents, time), time, latents, return_dict=False)[0]
    return latents


def _ddim(schedule: str, steps: int, noise: Tensor, tell: Tell, skip: int) -> Tensor:
    """DDIM without noise of its own (Song et al. 2021, equation 12), from each time to the next.

    diffusers' scheduler takes a stride of 1000 // steps, which misses the next time where the steps do not divide 1000.
    """
    times = _timed_scheduler(schedule, "ddim", steps, noise.device).timesteps[skip:]
    latents = noise
    for place, time in enumerate(times):
        clean = clean_of(schedule, latents, time, tell(latents, time))
        alpha, sigma = _signal(schedule, time)
        drawn = (latents - alpha * clean) / sigma
        if place + 1 == len(times):
            return clean
        alpha, sigma = _signal(schedule, times[place + 1])
        latents = alpha * clean + sigma * drawn
    return latents


def start_of(schedule: str, sampler: str, steps: int, latents: Tensor, noise: Tensor, strength: float) -> Tensor:
    """Latents noised to where a sampling of that strength begins."""
    scheduler = _timed_scheduler(schedule, sampler, steps, noise.device)
    first = scheduler.timesteps[skipped(steps, strength)]
    if schedule == "flow":
        part = first / TIMES
        mixed: Tensor = (1 - part) * latents + part * noise
        return mixed
    return scheduler.add_noise(latents, noise, first.expand(len(latents)).long())  # type: ignore[no-any-return]


def skipped(steps: int, strength: float) -> int:
    """Steps that are left out at the beginning."""
    return min(steps - 1, round(steps * (1 - strength)))


def sampling_scheduler(schedule: str, sampler: str) -> Any:
    """diffusers' scheduler of a sampler."""
    diffusers = optional_package("diffusers", "generate", "of a sampler")
    if sampler == "euler":
        return diffusers.FlowMatchEulerDiscreteScheduler(num_train_timesteps=TIMES)
    common = {"num_train_timesteps": TIMES, "prediction_type": _PREDICTED[schedule], **_BETAS[schedule]}
    if sampler == "ddim":
        return diffusers.DDIMScheduler(**common, clip_sample=False, set_alpha_to_one=True, timestep_spacing="trailing")
    return diffusers.DPMSolverMultistepScheduler(
        **common, algorithm_type="dpmsolver++", solver_order=2, use_flow_sigmas=schedule == "flow",
        timestep_spacing="trailing" if schedule != "flow" else "linspace",
    )  # fmt: skip


def _timed_scheduler(schedule: str, sampler: str, steps: int, device: torch.device) -> Any:
    """A scheduler with the times of so many steps, from noise on."""
    scheduler = sampling_scheduler(schedule, sampler)
    if sampler == "euler":  # its own times would end at a thousandth, where a look tells nothing
        scheduler.set_timesteps(sigmas=[1 - step / steps for step in range(steps)], device=device)
    else:
        scheduler.set_timesteps(steps, device=device)
    return scheduler


@cache
def _training_scheduler(schedule: str) -> Any:
    diffusers = optional_package("diffusers", "generate", "of a denoiser")
    with torch.inference_mode(mode=False):  # it is kept, and training needs it too
        return diffusers.DDPMScheduler(
            num_train_timesteps=TIMES, prediction_type=_PREDICTED[schedule], **_BETAS[schedule]
        )
