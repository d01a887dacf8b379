"""Edits of soft labels: what is left of a label's worth when some of what it says is taken away.

The experiments of "A label is worth a thousand images" (NeurIPS 2024, section 4 and its released code), and controls
of our own. An edit maps probabilities [B, C] to [B, C]; some leave a sum below 1, and what becomes of the missing mass
is the loss's choice: `soft_ce` makes up for it, `soft_ce_mass` does not.
"""

import inspect
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import torch
import torch.nn.functional as F
from torch import Tensor

from softlabel.core import (
    ConfigError,
    DistilledSet,
    LabelSource,
    Option,
    UnknownNameError,
    fingerprint,
    format_spec,
    parse_spec,
    stream,
    tensor_fingerprint,
)
from softlabel.labels._sources import LEAST
from softlabel.labels._wrapped import WrappedLabels

_BISECTIONS = 40


def swap(probabilities: Tensor, *, target: Tensor, noise: Tensor, rank: int = 1) -> Tensor:
    """Exchange the `rank`-th largest entry (from 1) of every label with its smallest. Sums stay."""
    order = probabilities.argsort(dim=-1, descending=True, stable=True)
    one, last = order[:, rank - 1 : rank], order[:, -1:]
    edited = probabilities.scatter(-1, one, probabilities.gather(-1, last))
    return edited.scatter(-1, last, probabilities.gather(-1, one))


def keep(probabilities: Tensor, *, target: Tensor, noise: Tensor, top: int = 1) -> Tensor:
    """Keep the `top` largest entries and set the others to 0; 0 keeps none and gives the hard label instead."""
    if top == 0:
        return _one_hot(target, probabilities)
    return probabilities * _top(probabilities, top)


def tail(probabilities: Tensor, *, target: Tensor, noise: Tensor, top: int = 1) -> Tensor:
    """Keep the `top` largest entries and spread what the others sum to evenly over these. Sums stay."""
    kept = _top(probabilities, top)
    rest = (probabilities * ~kept).sum(dim=-1, keepdim=True) / (~kept).sum(dim=-1, keepdim=True).clamp_min(1)
    return torch.where(kept, probabilities, rest)


def temper(probabilities: Tensor, *, target: Tensor, noise: Tensor, temperature: float = 1.0) -> Tensor:
    """The softmax of logits / `temperature`; entries of 0 stay 0.

    No-distillation's code multiplies: its `--temp` is 1 / temperature.
    """
    return F.softmax(probabilities.log() / temperature, dim=-1)


def smooth(probabilities: Tensor, *, target: Tensor, noise: Tensor) -> Tensor:
    """The smoothed hard label of the same entropy: as unsure as the label was, without saying between what.

    Our control. The smoothing a of (1 - a) onehot + a / C is found per label by bisection: entropy rises with a.
    """
    wanted = entropy(probabilities)
    hard, classes = _one_hot(target, probabilities), probabilities.shape[-1]
    low, high = torch.zeros_like(wanted), torch.ones_like(wanted)
    for _ in range(_BISECTIONS):
        middle = (low + high) / 2
        above = entropy(_smoothed(hard, middle, classes)) > wanted
        low, high = torch.where(above, low, middle), torch.where(above, middle, high)
    return _smoothed(hard, (low + high) / 2, classes)


def shuffle(probabilities: Tensor, *, target: Tensor, noise: Tensor) -> Tensor:
    """Permute the entries of all classes but the image's own, anew for every image. Sums and entropies stay."""
    others = torch.arange(probabilities.shape[-1], device=target.device) != target[:, None]
    places = others.nonzero()[:, 1].view(len(target), -1)
    order = noise.gather(-1, places).argsort(dim=-1)
    return probabilities.scatter(-1, places, probabilities.gather(-1, places.gather(-1, order)))


def argmax(probabilities: Tensor, *, target: Tensor, noise: Tensor) -> Tensor:
    """A hard label: the class that the teacher holds most likely, right or wrong."""
    return _one_hot(probabilities.argmax(dim=-1), probabilities)


def forget(probabilities: Tensor, *, target: Tensor, noise: Tensor, index: int = 0) -> Tensor:
    """Set the entry of class `index` to 0 in the labels of all other classes' images (the zero-shot study)."""
    edited = probabilities.clone()
    edited[target != index, index] = 0
    return edited


def entropy(probabilities: Tensor) -> Tensor:
    """-sum p log p of every row, in nats: [B]."""
    terms: Tensor = torch.special.entr(probabilities)
    return terms.sum(dim=-1)


def jensen_shannon(one: Tensor, other: Tensor) -> Tensor:
    """Jensen-Shannon distance of rows of probabilities [B, C], in 0..1: the root of the divergence in bits, [B]."""
    middle = (one + other) / 2
    divergence = entropy(middle) - (entropy(one) + entropy(other)) / 2
    return (divergence.clamp_min(0) / math.log(2)).sqrt()


@dataclass(frozen=True)
class EditEntry:
    """An edit and a line for people."""

    function: Callable[..., Tensor]
    summary: str

    @property
    def options(self) -> dict[str, Option]:
        """The options with their defaults."""
        parameters = inspect.signature(self.function).parameters.values()
        return {p.name: p.default for p in parameters if p.default is not inspect.Parameter.empty}


EDITS: dict[str, EditEntry] = {
    "swap": EditEntry(swap, "the rank-th largest entry exchanged with the smallest"),
    "keep": EditEntry(keep, "all but the largest entries set to 0; top=0 is the hard label"),
    "tail": EditEntry(tail, "all but the largest entries made equal, their sum kept"),
    "temper": EditEntry(temper, "softmax at a temperature"),
    "smooth": EditEntry(smooth, "the smoothed hard label of the same entropy"),
    "shuffle": EditEntry(shuffle, "the entries of all classes but the image's own permuted"),
    "argmax": EditEntry(argmax, "the teacher's most likely class as a hard label"),
    "forget": EditEntry(forget, "the entry of one class set to 0 in the labels of all others"),
}

_BY_CLASS = ("smooth", "shuffle", "forget")
_LEAST_OPTION: dict[str, float] = {"rank": 1, "top": 0, "temperature": 1e-6, "index": 0}


@dataclass(frozen=True)
class Edit:
    """An edit of the table with its options: `Edit.parse("keep:top=4")`."""

    name: str
    options: tuple[tuple[str, Option], ...] = ()

    @classmethod
    def parse(cls, spec: str) -> "Edit":
        """Read an edit's spec.

        Raises:
            UnknownNameError: no such edit.
            ConfigError: no such option, or a value out of range.
        """
        name, options = parse_spec(spec)
        if name not in EDITS:
            raise UnknownNameError("edit of labels", name, EDITS)
        defaults = EDITS[name].options
        for key, value in options.items():
            if key not in defaults:
                known = ", ".join(defaults) or "none"
                raise ConfigError(f"The edit {name!r} has no option {key!r}. Its options are: {known}.")
            whole = isinstance(defaults[key], int)
            number = isinstance(value, int if whole else int | float) and not isinstance(value, bool)
            if not number or not _LEAST_OPTION[key] <= float(value) < float("inf"):
                kind = "a whole number" if whole else "a number"
                raise ConfigError(
                    f"The option {key!r} of the edit {name!r} must be {kind} from {_LEAST_OPTION[key]:g} on. "
                    f"Got {value!r} instead."
                )
        # With every option written out, a spec means the same when a default changes.
        return cls(name, tuple((key, type(defaults[key])(options.get(key, defaults[key]))) for key in defaults))

    @property
    def spec(self) -> str:
        return format_spec(self.name, dict(self.options))

    @property
    def by_class(self) -> bool:
        """Whether it looks at the class of the image that a label is for."""
        return self.name in _BY_CLASS or (self.name == "keep" and not dict(self.options)["top"])

    def require_classes(self, classes: int) -> None:
        """Raises ConfigError when labels of so many classes have no such entry."""
        options = dict(self.options)
        for key, most in (("rank", classes - 1), ("top", classes), ("index", classes - 1)):
            if key in options and int(options[key]) > most:
                raise ConfigError(f"The edit {self.spec!r} asks for more than labels of {classes} classes have.")

    def __call__(self, probabilities: Tensor, *, target: Tensor, noise: Tensor) -> Tensor:
        """The edited labels.

        Args:
            probabilities: [B, C].
            target: class indices of the images, int64 [B].
            noise: uniform numbers [B, C], always the same for one image.
        """
        edited: Tensor = EDITS[self.name].function(probabilities, target=target, noise=noise, **dict(self.options))
        return edited


@dataclass(frozen=True)
class EditedLabels(WrappedLabels):
    """The labels of `source` after some edits, one after another.

    Attributes:
        edits: applied in their order.
        targets: int64 [N], of all images of the set.
        noise: float32 [N, C], drawn once per image.
    """

    edits: tuple[Edit, ...]
    targets: Tensor
    noise: Tensor

    @property
    def space(self) -> str:
        return "probabilities"

    @property
    def fingerprint(self) -> str:
        drawn = tensor_fingerprint(self.targets, self.noise)
        return fingerprint("edited", self.source.fingerprint, [edit.spec for edit in self.edits], drawn)

    def to(self, device: torch.device) -> "EditedLabels":
        return replace(
            self, source=self.source.to(device), targets=self.targets.to(device), noise=self.noise.to(device)
        )

    def logits(self, views: Tensor, index: Tensor, rows: slice | None = None) -> Tensor | None:
        """Logarithms of the edited probabilities [B, C]; an entry of 0 is that of 1e-30."""
        logits = self.source.logits(views, index, rows)
        if logits is None:
            return None
        probabilities = logits.exp() if self.source.space == "probabilities" else F.softmax(logits, dim=-1)
        for edit in self.edits:
            probabilities = edit(probabilities, target=self.targets[index], noise=self.noise[index])
        return probabilities.clamp_min(LEAST).log()


def edited_labels(source: LabelSource, edits: Sequence[Edit], distilled: DistilledSet) -> LabelSource:
    """`source` after `edits`; itself when there are none. What is random comes from the set's seed.

    Args:
        distilled: what the source labels.

    Raises:
        ConfigError: an edit that asks for an entry that the labels do not have.
    """
    if not edits:
        return source
    for edit in edits:
        edit.require_classes(distilled.info.classes)
    noise = torch.rand(len(distilled), distilled.info.classes, generator=stream(distilled.seed, "edited labels"))
    return EditedLabels(source, tuple(edits), distilled.targets, noise)


def _top(probabilities: Tensor, top: int) -> Tensor:
    order = probabilities.argsort(dim=-1, descending=True, stable=True)
    return torch.zeros_like(probabilities, dtype=torch.bool).scatter(-1, order[:, :top], True)


def _one_hot(target: Tensor, like: Tensor) -> Tensor:
    return F.one_hot(target, like.shape[-1]).to(like.dtype)


def _smoothed(hard: Tensor, share: Tensor, classes: int) -> Tensor:
    return (1 - share[:, None]) * hard + share[:, None] / classes
