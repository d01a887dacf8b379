"""Ops that change pixel values in place of moving them: colour and cutout."""

from dataclasses import dataclass, field

import torch
from torch import Generator, Tensor

from softlabel.views._base import Values, ViewOp, check_number, inside_boxes, per_image, uniform


@dataclass(frozen=True, kw_only=True)
class Colour(ViewOp):
    """DSA's colour: brightness, then saturation, then contrast; u is uniform in 0..1, per image and step.

    - brightness: x + (u - 0.5) * brightness
    - saturation: (x - m) * (u * saturation) + m, with m each pixel's mean over the channels
    - contrast: (x - m) * (u + contrast) + m, with m the image's mean

    On one channel, saturation changes nothing. Stored are the three factors, not u.
    """

    brightness: float = 1.0
    saturation: float = 2.0
    contrast: float = 0.5
    op: str = field(default="colour", init=False)

    def __post_init__(self) -> None:
        for name in ("brightness", "saturation", "contrast"):
            check_number(self.op, name, getattr(self, name), 0.0)

    def draw(self, batch: int, height: int, width: int, generator: Generator) -> Values:
        return {
            "brightness": uniform(batch, -0.5, 0.5, generator) * self.brightness,
            "saturation": uniform(batch, 0.0, 1.0, generator) * self.saturation,
            "contrast": uniform(batch, 0.0, 1.0, generator) + self.contrast,
        }

    @staticmethod
    def apply(images: Tensor, values: Values) -> Tensor:
        images = images + per_image(values["brightness"], images)
        grey = images.mean(1, keepdim=True)
        images = (images - grey) * per_image(values["saturation"], images) + grey
        level = images.mean((1, 2, 3), keepdim=True)
        return (images - level) * per_image(values["contrast"], images) + level


@dataclass(frozen=True, kw_only=True)
class Cutout(ViewOp):
    """Set a rectangle of `ratio` of each side to zero (DSA).

    It has int(H * ratio + 0.5) by int(W * ratio + 0.5) pixels around a uniform centre, and is cut off at
    the border. Stored is what is left after that.
    """

    ratio: float = 0.5
    op: str = field(default="cutout", init=False)

    def __post_init__(self) -> None:
        check_number(self.op, "ratio", self.ratio, 0.0, 1.0)

    def draw(self, batch: int, height: int, width: int, generator: Generator) -> Values:
        top, tall = self._span(height, batch, generator)
        left, wide = self._span(width, batch, generator)
        return {"boxes": torch.stack((top, left, tall, wide), 1)}

    def _span(self, size: int, batch: int, generator: Generator) -> tuple[Tensor, Tensor]:
        """Start and length, int64 [batch] each, after cutting off at 0 and `size`."""
        length = int(size * self.ratio + 0.5)
        # an even length has size + 1 centres (between pixels), an odd one has size
        start = torch.randint(0, size + 1 - length % 2, (batch,), generator=generator) - length // 2
        stop = (start + length).clamp(max=size)
        start = start.clamp(min=0)
        return start, stop - start

    @staticmethod
    def apply(images: Tensor, values: Values) -> Tensor:
        return images.masked_fill(inside_boxes(values["boxes"], images), 0.0)
