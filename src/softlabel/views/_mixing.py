"""Ops that mix each image with another of its batch. They never touch labels; see `ViewParams.mix`."""

import math
from dataclasses import dataclass, field

import torch
from scipy.special import betaincinv
from torch import Generator, Tensor

from softlabel.views._base import (
    Values,
    ViewOp,
    check_number,
    check_positive,
    inside_boxes,
    known_to_be,
    per_image,
)


@dataclass(frozen=True, kw_only=True)
class CutMix(ViewOp):
    """Paste the same box of a partner image into each image (Yun et al., 2019).

    Once per batch, with probability `p`: lam ~ Beta(alpha, alpha), a box of sqrt(1 - lam) of each side
    around a uniform centre, cut off at the border. The partners are one permutation of the batch. The
    stored weight is the area that is left to the own image after the cutting off, not lam.
    """

    alpha: float = 1.0
    p: float = 1.0
    op: str = field(default="cutmix", init=False)

    def __post_init__(self) -> None:
        check_positive(self.op, "alpha", self.alpha)
        check_number(self.op, "p", self.p, 0.0, 1.0)

    def draw(self, batch: int, height: int, width: int, generator: Generator) -> Values:
        partner, lam = _draw_mix(batch, self.alpha, self.p, generator)
        share = math.sqrt(1.0 - lam)
        top, tall = _span(height, int(height * share), generator)
        left, wide = _span(width, int(width * share), generator)
        weight = 1.0 - tall * wide / (height * width)
        return {
            "partner": partner,
            "weight": torch.full((batch,), weight, dtype=torch.float32),
            "boxes": torch.tensor([top, left, tall, wide]).repeat(batch, 1),
        }

    @staticmethod
    def apply(images: Tensor, values: Values) -> Tensor:
        if known_to_be(values["boxes"][:, 2:].prod(1) == 0):
            return images
        others = images[values["partner"].to(images.device, non_blocking=True)]
        return torch.where(inside_boxes(values["boxes"], images), others, images)


@dataclass(frozen=True, kw_only=True)
class Mixup(ViewOp):
    """Blend each image with a partner: lam * own + (1 - lam) * partner (Zhang et al., 2018).

    Once per batch, with probability `p`: lam ~ Beta(alpha, alpha), and partners from one permutation of
    the batch. The stored weight is lam.
    """

    alpha: float = 0.8
    p: float = 1.0
    op: str = field(default="mixup", init=False)

    def __post_init__(self) -> None:
        check_positive(self.op, "alpha", self.alpha)
        check_number(self.op, "p", self.p, 0.0, 1.0)

    def draw(self, batch: int, height: int, width: int, generator: Generator) -> Values:
        partner, lam = _draw_mix(batch, self.alpha, self.p, generator)
        return {"partner": partner, "weight": torch.full((batch,), lam, dtype=torch.float32)}

    @staticmethod
    def apply(images: Tensor, values: Values) -> Tensor:
        if known_to_be(values["weight"] == 1):
            return images
        others = images[values["partner"].to(images.device, non_blocking=True)]
        return torch.lerp(others, images, per_image(values["weight"], images))


def _draw_mix(batch: int, alpha: float, p: float, generator: Generator) -> tuple[Tensor, float]:
    """Partners int64 [batch] and lam; without mixing each image is its own partner and lam is 1."""
    mixed, level = torch.rand(2, generator=generator, dtype=torch.float64).tolist()
    partner = torch.randperm(batch, generator=generator)
    if mixed >= p:
        return torch.arange(batch), 1.0
    return partner, _beta(alpha, level)


def _beta(alpha: float, level: float) -> float:
    """The point of Beta(alpha, alpha) below which a share `level` lies: a draw, when `level` is uniform.

    torch draws from Beta only with its global generator; inverting the distribution needs one uniform number.
    """
    return float(betaincinv(alpha, alpha, level))


def _span(size: int, length: int, generator: Generator) -> tuple[int, int]:
    """Start and length of a cut around a uniform centre, after cutting off at 0 and `size`."""
    centre = int(torch.randint(0, size, (), generator=generator))
    start, stop = max(0, centre - length // 2), min(size, centre + length // 2)
    return start, stop - start
