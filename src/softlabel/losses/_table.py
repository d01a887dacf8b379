"""The table of losses, and losses as configuration."""

import inspect
import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor, nn

from softlabel.core import ConfigError, Option, UnknownNameError, format_spec, parse_spec
from softlabel.losses import _functions as functions

LossFunction = Callable[..., Tensor]


@dataclass(frozen=True)
class LossEntry:
    """A loss, whether it needs teacher logits, and a line for people."""

    function: LossFunction
    needs_teacher: bool
    summary: str

    @property
    def options(self) -> dict[str, Option]:
        """The options with their defaults."""
        return _defaults(self.function)


LOSSES: dict[str, LossEntry] = {
    "ce": LossEntry(functions.ce, False, "cross-entropy on the hard label, smoothed if asked"),
    "mse": LossEntry(functions.mse, True, "squared distance of logits"),
    "soft_ce": LossEntry(functions.soft_ce, True, "cross-entropy on soft labels (DATM, no-distillation)"),
    "soft_ce_mass": LossEntry(
        functions.soft_ce_mass, True, "cross-entropy on probabilities as they are, such as a label's largest entries"
    ),
    "kl": LossEntry(functions.kl, True, "KL at T=20 without the T^2 factor (SRe2L, RDED)"),
    "kl_scaled": LossEntry(functions.kl_scaled, True, "KL at T=20 with the T^2 factor"),
    "mse_ce": LossEntry(functions.mse_ce, True, "squared distance of logits + 0.1 cross-entropy (G-VBSM)"),
    "soft_ce_ce": LossEntry(functions.soft_ce_ce, True, "soft cross-entropy + 0.1 cross-entropy"),
    "cosine": LossEntry(functions.cosine, True, "1 - cosine of logits"),
    "gift": LossEntry(functions.gift, True, "1 - cosine to the refined label (GIFT, convex form)"),
    "gift_softmax": LossEntry(functions.gift_softmax, True, "GIFT over the teacher's probabilities (another method)"),
    "gift_additive": LossEntry(functions.gift_additive, True, "GIFT as its released code writes it"),
}

_RANGES: dict[str, tuple[float, float]] = {
    "temperature": (1e-6, float("inf")),
    "gamma": (0.0, 1.0),
    "alpha": (0.0, 1.0),
    "weight": (0.0, float("inf")),
    "smoothing": (0.0, 1.0),
}


@dataclass(frozen=True)
class Loss:
    """A loss of the table with its options: `Loss.parse("kl:temperature=4")`."""

    name: str
    options: tuple[tuple[str, Option], ...] = ()

    @classmethod
    def parse(cls, spec: str) -> "Loss":
        """Read a loss spec.

        Raises:
            UnknownNameError: no such loss.
            ConfigError: no such option, or a value out of range.
        """
        name, options = parse_spec(spec)
        if name not in LOSSES:
            raise UnknownNameError("loss", name, LOSSES)
        defaults = _defaults(LOSSES[name].function)
        for key, value in options.items():
            _check(name, key, value, defaults)
        # An option that says what is the case anyway is left out, so that equal losses have equal fingerprints.
        given = {key: _like(defaults[key], value) for key, value in sorted(options.items())}
        return cls(name, tuple((key, value) for key, value in given.items() if value != defaults[key]))

    @property
    def spec(self) -> str:
        return format_spec(self.name, dict(self.options))

    @property
    def needs_teacher(self) -> bool:
        return LOSSES[self.name].needs_teacher

    @property
    def needs_logits(self) -> bool:
        """Whether the teacher's probabilities are not enough: all soft losses but soft cross-entropy at T = 1."""
        return self.needs_teacher and not (
            self.name in ("soft_ce", "soft_ce_ce", "soft_ce_mass") and not self._tempered
        )

    @property
    def compares_logits(self) -> bool:
        """Whether it compares logits one by one: it needs every one of the teacher's, and a softmax is not enough."""
        return self.name in ("mse", "mse_ce", "cosine", "gift", "gift_additive")

    @property
    def needs_probabilities(self) -> bool:
        """Whether logits will not do: their sum means nothing to a loss that counts the mass of a label."""
        return self.name == "soft_ce_mass"

    @property
    def _tempered(self) -> bool:
        return dict(self.options).get("temperature", 1.0) != 1.0

    def function(self) -> LossFunction:
        """`loss(*, student, teacher, target) -> [B]` with the options bound."""
        return partial(LOSSES[self.name].function, **dict(self.options))


class GIFT(nn.Module):
    """GIFT for your own training loop: `loss = GIFT()(student_logits, teacher_logits, target)`.

    Args:
        gamma: weight of the smoothed hard label in the convex mix. 1/11 is the released code, 0.1 the paper's text.
        alpha: label smoothing of the hard label.
    """

    def __init__(self, gamma: float = functions.CODE_GAMMA, alpha: float = 0.1) -> None:
        super().__init__()
        if not 0 <= gamma <= 1 or not 0 <= alpha <= 1:
            raise ConfigError(f"gamma and alpha must lie in 0..1. Got gamma={gamma}, alpha={alpha}.")
        self.gamma = gamma
        self.alpha = alpha

    def forward(self, student: Tensor, teacher: Tensor, target: Tensor) -> Tensor:
        """The batch mean of `gift` for student and teacher logits [B, C] and class indices [B], in float32 or wider.

        Raises:
            ConfigError: shapes or types that do not fit, such as one-hot targets.
        """
        if student.ndim != 2 or student.shape != teacher.shape or target.shape != student.shape[:1]:
            raise ConfigError(
                f"GIFT takes student and teacher logits [B, C] and class indices [B]. Got {tuple(student.shape)}, "
                f"{tuple(teacher.shape)} and {tuple(target.shape)}."
            )
        if target.dtype != torch.int64 or not len(target):
            raise ConfigError(f"GIFT takes at least one class index, as int64. Got {len(target)} of {target.dtype}.")
        wide = torch.promote_types(student.dtype, torch.float32)
        with torch.autocast(student.device.type, enabled=False):  # 1 - cosine has no digits left in half precision
            student, teacher = student.to(wide), teacher.to(wide)
            loss = functions.gift(student=student, teacher=teacher, target=target, gamma=self.gamma, alpha=self.alpha)
        return loss.mean()

    def extra_repr(self) -> str:
        return f"gamma={self.gamma:g}, alpha={self.alpha:g}"


def _defaults(function: LossFunction) -> dict[str, Option]:
    parameters = inspect.signature(function).parameters.values()
    return {p.name: p.default for p in parameters if p.default is not inspect.Parameter.empty}


def _like(default: Option, value: Option) -> Option:
    return float(value) if isinstance(default, float) and not isinstance(value, str) else value


def _check(name: str, key: str, value: Option, defaults: dict[str, Option]) -> None:
    if key not in defaults:
        known = ", ".join(defaults) or "none"
        raise ConfigError(f"The loss {name!r} has no option {key!r}. Its options are: {known}.")
    if isinstance(defaults[key], bool):
        if not isinstance(value, bool):
            raise ConfigError(f"The option {key!r} of the loss {name!r} must be true or false. Got {value!r} instead.")
        return
    low, high = _RANGES[key]
    if isinstance(value, (bool, str)) or not low <= value <= high or math.isinf(value):
        raise ConfigError(
            f"The option {key!r} of the loss {name!r} must be a number from {low:g} to {high:g}. Got {value!r} instead."
        )
