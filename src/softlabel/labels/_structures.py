"""What of a soft label a codec keeps: every logit, the largest, coordinates, code numbers, or two distances."""

import math
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor

from softlabel.core import ConfigError, UnknownNameError
from softlabel.labels._numbers import Layout, Rows
from softlabel.labels._vq import fit_vq, vq_codes, vq_decoded

MISSING = -1e6
"""The logit of an entry that was not stored: 0 after a softmax at any temperature in use."""
LEAST = 1e-12
Shared = Mapping[str, Tensor]


@dataclass(frozen=True)
class Structure(ABC):
    """What of a label is kept. Frozen dataclasses of settings.

    `space` is what comes back: `logits`; `top logits`, of which some entries are missing, so that a softmax of them is
    a label, and a distance between them and a student's logits means nothing; or `probabilities` (as logarithms).
    """

    space: ClassVar[str] = "logits"
    summary: ClassVar[str]

    def check(self, classes: int) -> None:  # noqa: B027  most fit any number
        """Raise ConfigError for labels of a number of classes that these settings do not fit."""

    def fit(self, sample: Tensor, seed: int) -> dict[str, Tensor]:
        """What all rows share, learned from labels [S, C]."""
        return {}

    def shared_bytes(self, classes: int) -> int:
        """Bytes of what all rows share."""
        return 0

    @abstractmethod
    def width(self, classes: int) -> int:
        """How many numbers are kept per label."""

    def layout(self, classes: int) -> Layout:
        """What is kept beside the numbers."""
        return {}

    @abstractmethod
    def split(self, logits: Tensor, target: Tensor, shared: Shared) -> tuple[Tensor, Rows]:
        """The numbers [R, width], and what is kept beside them, of labels [R, C] of images of the classes `target`."""

    @abstractmethod
    def join(self, numbers: Tensor, beside: Rows, target: Tensor, shared: Shared, classes: int) -> Tensor:
        """The labels [R, C] in float32, as good as they can be told."""


@dataclass(frozen=True)
class Dense(Structure):
    """Every logit."""

    summary: ClassVar[str] = "every logit"

    def width(self, classes: int) -> int:
        return classes

    def split(self, logits: Tensor, target: Tensor, shared: Shared) -> tuple[Tensor, Rows]:
        return logits, {}

    def join(self, numbers: Tensor, beside: Rows, target: Tensor, shared: Shared, classes: int) -> Tensor:
        return numbers


@dataclass(frozen=True)
class TopK(Structure):
    """The k largest logits with their classes, and what is told of the others.

    `fill=none` tells nothing: their probability is 0, and the kept ones make up for it (FKD's marginal
    re-normalisation, LPQLD's MR-k). `fill=smooth` keeps one number more, the log-sum-exp of the others, and gives each
    of these an equal share of it: at temperature 1 exactly FKD's marginal smoothing, kept in logits, so that it can be
    tempered. `fill=floor` keeps the row's smallest logit, and gives it to all others (LPQLD's MRS-k).

    With `smooth` and `floor` every class has a logit, and losses that compare logits (GIFT, squared distance) run;
    what they see of the classes that were not kept is made up: one value for all of them.
    """

    k: int = 4
    fill: str = "none"
    summary: ClassVar[str] = "the k largest logits; of the others nothing, their sum or their smallest"

    def __post_init__(self) -> None:
        if self.k < 1:
            raise ConfigError(f"The codec topk keeps k entries, 1 or more. Got {self.k} instead.")
        if self.fill not in ("none", "smooth", "floor"):
            raise UnknownNameError("fill of the codec topk", self.fill, ("none", "smooth", "floor"))

    @property
    def space(self) -> str:  # type: ignore[override]
        return "top logits" if self.fill == "none" else "logits"

    def check(self, classes: int) -> None:
        if self.k >= classes:
            raise ConfigError(
                f"The codec topk keeps {self.k} entries, and labels of {classes} classes have no more. Take fewer, or "
                f"the codec dense."
            )

    def width(self, classes: int) -> int:
        return self.k + (self.fill != "none")

    def layout(self, classes: int) -> Layout:
        return {"classes": (_class_type(classes), self.k)}

    def split(self, logits: Tensor, target: Tensor, shared: Shared) -> tuple[Tensor, Rows]:
        top = logits.topk(self.k, dim=1)
        numbers = [top.values]
        if self.fill == "floor":
            numbers.append(logits.amin(dim=1, keepdim=True))
        if self.fill == "smooth":
            rest = logits.scatter(1, top.indices, -torch.inf)
            numbers.append(rest.logsumexp(dim=1, keepdim=True))
        return torch.cat(numbers, dim=1), {"classes": top.indices.to(_class_type(logits.shape[1]))}

    def join(self, numbers: Tensor, beside: Rows, target: Tensor, shared: Shared, classes: int) -> Tensor:
        if self.fill == "none":
            rest = numbers.new_full((len(numbers), 1), MISSING)
        else:
            rest = numbers[:, self.k :] - (math.log(classes - self.k) if self.fill == "smooth" else 0.0)
        return rest.repeat(1, classes).scatter(1, beside["classes"].long(), numbers[:, : self.k])


@dataclass(frozen=True)
class LowRank(Structure):
    """Coordinates in a basis of `rank` directions that all labels share (principal components, about their mean).

    SCORE (2503.13935) factorises the labels of one image instead; one basis for all rows costs its bytes once.
    """

    rank: int = 4
    summary: ClassVar[str] = "coordinates in a basis that all labels share"

    def __post_init__(self) -> None:
        if self.rank < 1:
            raise ConfigError(f"The codec lowrank needs a rank of 1 or more. Got {self.rank} instead.")

    def check(self, classes: int) -> None:
        if self.rank >= classes:
            raise ConfigError(
                f"The codec lowrank has rank {self.rank}, and labels of {classes} classes have no more. Take a smaller "
                f"one, or the codec dense."
            )

    def fit(self, sample: Tensor, seed: int) -> dict[str, Tensor]:
        centre = sample.mean(dim=0)
        _, _, directions = torch.linalg.svd(sample - centre, full_matrices=False)
        # With a sample smaller than the rank some directions are zero, and their coordinates too.
        basis = F.pad(directions[: self.rank], (0, 0, 0, max(0, self.rank - len(directions))))
        kept = basis.half()
        return {"centre": centre.half(), "basis": kept, "_inverse": torch.linalg.pinv(kept.float())}

    def shared_bytes(self, classes: int) -> int:
        return 2 * classes * (self.rank + 1)

    def width(self, classes: int) -> int:
        return self.rank

    def split(self, logits: Tensor, target: Tensor, shared: Shared) -> tuple[Tensor, Rows]:
        return (logits - shared["centre"].float()) @ shared["_inverse"], {}

    def join(self, numbers: Tensor, beside: Rows, target: Tensor, shared: Shared, classes: int) -> Tensor:
        return numbers @ shared["basis"].float() + shared["centre"].float()


@dataclass(frozen=True)
class VectorQuantised(Structure):
    """The codes of a vector-quantised auto-encoder (VQAE, 2603.03808, of which only the idea is public).

    An encoder gives `parts` vectors of `dim` numbers, each replaced by the nearest of `codes` vectors; a decoder with
    one hidden layer of `hidden` units makes logits of them. The decoder and the code book are stored once.
    """

    codes: int = 256
    parts: int = 2
    dim: int = 8
    hidden: int = 64
    steps: int = 2000
    summary: ClassVar[str] = "code numbers of a vector-quantised auto-encoder"

    def __post_init__(self) -> None:
        for name in ("parts", "dim", "hidden", "steps"):
            if getattr(self, name) < 1:
                raise ConfigError(f"The codec vq needs {name} of 1 or more. Got {getattr(self, name)} instead.")
        if not 2 <= self.codes <= 65536:
            raise ConfigError(f"The codec vq has 2 to 65536 codes. Got {self.codes} instead.")

    def fit(self, sample: Tensor, seed: int) -> dict[str, Tensor]:
        return fit_vq(
            sample, codes=self.codes, parts=self.parts, dim=self.dim, hidden=self.hidden, steps=self.steps, seed=seed
        )

    def shared_bytes(self, classes: int) -> int:
        book, width = self.parts * self.codes * self.dim, self.parts * self.dim
        decoder = self.hidden * (width + 1) + classes * (self.hidden + 1)
        return 2 * (book + decoder + classes + 1)  # and the centre and scale of the logits

    def width(self, classes: int) -> int:
        return 0

    def layout(self, classes: int) -> Layout:
        return {"codes": (_class_type(self.codes), self.parts)}

    def split(self, logits: Tensor, target: Tensor, shared: Shared) -> tuple[Tensor, Rows]:
        codes = vq_codes(logits, shared, self.parts).to(_class_type(self.codes))
        return logits.new_empty(len(logits), 0), {"codes": codes}

    def join(self, numbers: Tensor, beside: Rows, target: Tensor, shared: Shared, classes: int) -> Tensor:
        return vq_decoded(beside["codes"].long(), shared)


@dataclass(frozen=True)
class Distances(Structure):
    """Two numbers: the cross-entropy to the image's class, and to the label's strongest other class, with its name.

    After NRR-DD (2503.18267), which stores the distances to the hard label and to that of the CutMix partner, and has
    students match them. Here the second class is the strongest other one, on mixed views mostly the partner, and the
    label is rebuilt: what the two leave is shared by all others. So losses over probabilities can take it (`soft_ce`
    and its kin).
    """

    space: ClassVar[str] = "probabilities"
    summary: ClassVar[str] = "the distances to the image's class and to the strongest other; the rest shared evenly"

    def check(self, classes: int) -> None:
        if classes < 3:
            raise ConfigError("The codec distances takes labels of 3 classes or more.")

    def width(self, classes: int) -> int:
        return 2

    def layout(self, classes: int) -> Layout:
        return {"classes": (_class_type(classes), 1)}

    def split(self, logits: Tensor, target: Tensor, shared: Shared) -> tuple[Tensor, Rows]:
        likely = F.log_softmax(logits, dim=1)
        own = likely.gather(1, target[:, None])
        other = likely.scatter(1, target[:, None], -torch.inf).max(dim=1, keepdim=True)
        numbers = -torch.cat([own, other.values], dim=1)
        return numbers, {"classes": other.indices.to(_class_type(logits.shape[1]))}

    def join(self, numbers: Tensor, beside: Rows, target: Tensor, shared: Shared, classes: int) -> Tensor:
        two = (-numbers).exp()
        two = two / two.sum(dim=1, keepdim=True).clamp_min(1)  # rounding must not leave the others less than nothing
        rest = (1 - two.sum(dim=1, keepdim=True)) / (classes - 2)
        places = torch.cat([target[:, None], beside["classes"].long()], dim=1)
        return rest.repeat(1, classes).scatter(1, places, two).clamp_min(LEAST).log()


STRUCTURES: dict[str, type[Structure]] = {
    "dense": Dense,
    "topk": TopK,
    "lowrank": LowRank,
    "vq": VectorQuantised,
    "distances": Distances,
}


def _class_type(classes: int) -> torch.dtype:
    """The smallest type that holds class indices. safetensors and torch both know uint16; torch computes in int32."""
    return torch.uint8 if classes <= 256 else torch.uint16
