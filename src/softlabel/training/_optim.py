"""Optimizers and learning-rate schedules as plain configurations."""

import importlib
import math
from dataclasses import dataclass, fields
from typing import Any

import torch
from torch import nn

from softlabel.core import (
    ConfigError,
    MissingExtraError,
    Option,
    UnknownNameError,
    build_config,
    format_spec,
    parse_spec,
)

OPTIMIZERS = {
    "adamw": "AdamW (decoupled weight decay)",
    "adam": "Adam (weight decay added to the gradient)",
    "sgd": "SGD; momentum and nesterov as set",
    "rmsprop": "RMSprop; momentum as set",
    "lion": "Lion (Chen et al. 2023), sign of an interpolated momentum; needs pip install 'softlabel[lion]'",
}

OPTIMIZER_DEFAULTS: dict[str, dict[str, Any]] = {
    "adamw": {"lr": 1e-3},
    "adam": {"lr": 1e-3},
    "sgd": {"lr": 1e-2},
    "rmsprop": {"lr": 1e-3},
    "lion": {"lr": 1e-4, "weight_decay": 1e-3, "betas": (0.9, 0.99)},
}
"""What a spec that names an optimizer alone stands for, beside weight decay 1e-4 (GIFT's).

AdamW: GIFT's. Adam: torch's. SGD: the rate of the DC, DSA, DM, MTT and no-distillation students; with or without
momentum, as the spec says. RMSprop: Keras's (torch's default of 1e-2 is ten times that of its Adam). Lion: a tenth of
AdamW's rate with ten times its decay, as its paper advises. GIFT's own settings for these are not published.
"""

_SHARED = ("lr", "weight_decay", "decay_on")
OPTIMIZER_OPTIONS: dict[str, tuple[str, ...]] = {
    "adamw": _SHARED,
    "adam": _SHARED,
    "sgd": (*_SHARED, "momentum", "nesterov"),
    "rmsprop": (*_SHARED, "momentum"),
    "lion": _SHARED,
}
"""What a spec may set of each; the others would do nothing."""

SCHEDULES = {
    "constant": "the learning rate never changes",
    "multistep": "times `gamma` at 2E//3 and 5E//6 (GIFT)",
    "halfway": "times `gamma` once epoch E//2 + 1 has run (DC, DSA, DM, MTT)",
    "step": "times `gamma` every E//4 epochs (no-distillation)",
    "cosine": "half a cosine wave down to 0, per epoch",
    "half_cosine": "0.5 (1 + cos(pi e / 2E)): a quarter of a wave, ends at half the rate (RDED's code)",
    "warmup_linear": "linear rise over the first `warmup` share of the steps, then linear fall to 0, per step",
}


@dataclass(frozen=True, kw_only=True)
class Optimizer:
    """An optimizer and its settings.

    Attributes:
        decay_on: `all` parameters, or `matrices` only (weights with two or more dimensions, as RDED's code does).
    """

    name: str = "adamw"
    lr: float = 1e-3
    weight_decay: float = 1e-4
    momentum: float = 0.0
    nesterov: bool = False
    betas: tuple[float, float] = (0.9, 0.999)
    decay_on: str = "all"

    def __post_init__(self) -> None:
        """Raises UnknownNameError for a name, ConfigError for a value that cannot be used."""
        if self.name not in OPTIMIZERS:
            raise UnknownNameError("optimizer", self.name, OPTIMIZERS)
        if self.decay_on not in ("all", "matrices"):
            raise UnknownNameError("decay_on", self.decay_on, ("all", "matrices"))
        if not 0 < self.lr < math.inf:
            raise ConfigError(f"The learning rate must be a number above 0. Got {self.lr} instead.")
        if not 0 <= self.weight_decay < math.inf:
            raise ConfigError(f"The weight decay must be 0 or more. Got {self.weight_decay} instead.")
        if not all(0 <= value < 1 for value in (self.momentum, *self.betas)):
            raise ConfigError(f"Momentum and betas must lie in 0..1, below 1. Got {self.momentum} and {self.betas}.")
        if self.nesterov and not self.momentum:
            raise ConfigError("Nesterov needs a momentum above 0. Set momentum=0.9, or nesterov=False.")

    @classmethod
    def parse(cls, spec: str) -> "Optimizer":
        """An optimizer from a spec such as `adamw` or `sgd:lr=0.1,momentum=0.9`; the rest is `OPTIMIZER_DEFAULTS`.

        Raises:
            UnknownNameError: no such optimizer.
            ConfigError: no such option, or a value out of range.
        """
        name, options = parse_spec(spec)
        if name not in OPTIMIZERS:
            raise UnknownNameError("optimizer", name, OPTIMIZERS)
        for key in options.keys() - set(OPTIMIZER_OPTIONS[name]):
            known = ", ".join(OPTIMIZER_OPTIONS[name])
            raise ConfigError(f"The optimizer {name!r} has no option {key!r}. Its options are: {known}.")
        defaults = {key: value for key, value in OPTIMIZER_DEFAULTS[name].items() if key not in options}
        parsed = build_config(cls, options, f"the optimizer {name!r}")
        given = {key: getattr(parsed, key) for key in options}
        return cls(name=name, **{**defaults, **given})

    @property
    def spec(self) -> str:
        """The shortest spec of these settings."""
        plain = Optimizer(name=self.name, **OPTIMIZER_DEFAULTS[self.name])
        options: dict[str, Option] = {
            field.name: getattr(self, field.name)
            for field in fields(self)
            if field.name in OPTIMIZER_OPTIONS[self.name] and getattr(self, field.name) != getattr(plain, field.name)
        }
        return format_spec(self.name, options)

    def build(self, model: nn.Module) -> torch.optim.Optimizer:
        """The torch optimizer over the model's parameters.

        Raises:
            MissingExtraError: Lion without its package.
        """
        groups = self._groups(model)
        if self.name == "lion":
            lion: torch.optim.Optimizer = _lion()(groups, lr=self.lr, betas=self.betas)
            return lion
        if self.name == "sgd":
            return torch.optim.SGD(groups, lr=self.lr, momentum=self.momentum, nesterov=self.nesterov)
        if self.name == "rmsprop":
            return torch.optim.RMSprop(groups, lr=self.lr, momentum=self.momentum)
        kind = torch.optim.AdamW if self.name == "adamw" else torch.optim.Adam
        return kind(groups, lr=self.lr, betas=self.betas)

    def _groups(self, model: nn.Module) -> list[dict[str, object]]:
        parameters = list(model.parameters())
        if self.decay_on == "all":
            return [{"params": parameters, "weight_decay": self.weight_decay}]
        matrices = [p for p in parameters if p.ndim > 1]
        others = [p for p in parameters if p.ndim <= 1]
        return [
            {"params": matrices, "weight_decay": self.weight_decay},
            {"params": others, "weight_decay": 0.0},
        ]


def _lion() -> Any:
    try:
        return importlib.import_module("pytorch_optimizer").Lion
    except ImportError as error:
        raise MissingExtraError("pytorch-optimizer", "lion", "The optimizer 'lion'") from error


STEPPED = ("multistep", "halfway", "step")
"""Schedules whose rate stays level but for a few falls."""


@dataclass(frozen=True, kw_only=True)
class Schedule:
    """How the learning rate changes. See `SCHEDULES`."""

    name: str = "constant"
    gamma: float = 0.2
    warmup: float = 0.2

    def __post_init__(self) -> None:
        """Raises UnknownNameError for a name, ConfigError for a value that cannot be used."""
        if self.name not in SCHEDULES:
            raise UnknownNameError("schedule", self.name, SCHEDULES)
        if not 0 <= self.warmup < 1 or not 0 < self.gamma <= 1:
            raise ConfigError(
                f"A schedule needs warmup from 0 to below 1 and gamma above 0 to 1. Got {self.warmup} and {self.gamma}."
            )

    def factor(self, epoch: int, epochs: int, within: float = 0.0) -> float:
        """What the learning rate is multiplied by in epoch `epoch` (from 0) of `epochs`, `within` it in [0, 1)."""
        if self.name == "constant":
            return 1.0
        if self.name == "multistep":
            return self.gamma ** sum(epoch >= mark for mark in (2 * epochs // 3, 5 * epochs // 6))
        if self.name == "halfway":
            return self.gamma if epoch > epochs // 2 + 1 else 1.0
        if self.name == "step":
            return self.gamma ** (epoch // max(1, epochs // 4))
        if self.name == "cosine":
            return 0.5 * (1 + math.cos(math.pi * epoch / epochs))
        if self.name == "half_cosine":
            return 0.5 * (1 + math.cos(math.pi * epoch / (2 * epochs)))
        progress = (epoch + within) / epochs
        if progress < self.warmup:
            return min((progress + 1e-3) / self.warmup, 1.0)
        return max((1 - progress) / (1 - self.warmup), 0.0)
