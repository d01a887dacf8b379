"""DSA (differentiable Siamese augmentation) as two fixed mixtures of the simple ops."""

from abc import abstractmethod
from dataclasses import dataclass, field
from typing import ClassVar

import torch
from torch import Generator, Tensor

from softlabel.core import ConfigError
from softlabel.views._base import Values, ViewOp, check_number
from softlabel.views._geometry import Flip, Rotate, Scale, ShiftCrop, draw_shifts
from softlabel.views._pixels import Colour, Cutout

# in the order in which GIFT applies them; a batch holds numbers only for the parts that were chosen
PARTS: dict[str, type[ViewOp]] = {
    "flip": Flip,
    "color": Colour,
    "crop": ShiftCrop,
    "scale": Scale,
    "rotate": Rotate,
    "cutout": Cutout,
}


@dataclass(frozen=True, kw_only=True)
class _DSA(ViewOp):
    """What both mixtures share: the strength of each part. The defaults are DSA's.

    Attributes:
        flip: probability of a flip.
        brightness, saturation, contrast: see `Colour`.
        crop: largest shift, as a share of each side.
        scale: see `Scale`; its ratio.
        rotate: see `Rotate`; in degrees.
        cutout: see `Cutout`; its ratio.
        align_corners: the dialect, see `Scale`.
    """

    per_batch: ClassVar[bool] = True

    flip: float = 0.5
    brightness: float = 1.0
    saturation: float = 2.0
    contrast: float = 0.5
    crop: float = 0.125
    scale: float = 1.2
    rotate: float = 15.0
    cutout: float = 0.5
    align_corners: bool = False

    def __post_init__(self) -> None:
        check_number(self.op, "crop", self.crop, 0.0, 0.5)
        for name in sorted(PARTS.keys() - {"crop"}):
            try:
                self._part(name)  # each part checks its own settings
            except ConfigError as error:
                raise ConfigError(f"{self.op}: {error}") from error

    @abstractmethod
    def _choose(self, generator: Generator) -> tuple[str, ...]:
        """The parts of this batch."""

    def draw(self, batch: int, height: int, width: int, generator: Generator) -> Values:
        values: Values = {}
        for name in self._choose(generator):
            if name == "crop":
                down, across = int(height * self.crop + 0.5), int(width * self.crop + 0.5)
                numbers = draw_shifts(batch, down, across, generator)
            else:
                numbers = self._part(name).draw(batch, height, width, generator)
            values.update({f"{name}.{key}": tensor for key, tensor in numbers.items()})
        return values

    def _part(self, name: str) -> ViewOp:
        match name:
            case "flip":
                return Flip(p=self.flip)
            case "color":
                return Colour(brightness=self.brightness, saturation=self.saturation, contrast=self.contrast)
            case "scale":
                return Scale(ratio=self.scale, align_corners=self.align_corners)
            case "rotate":
                return Rotate(degrees=self.rotate, align_corners=self.align_corners)
            case _:
                return Cutout(ratio=self.cutout)

    @staticmethod
    def apply(images: Tensor, values: Values) -> Tensor:
        for name, part in PARTS.items():
            start = f"{name}."
            numbers = {key[len(start) :]: tensor for key, tensor in values.items() if key.startswith(start)}
            if numbers:
                images = part.apply(images, numbers)
        return images


@dataclass(frozen=True, kw_only=True)
class DSAClassic(_DSA):
    """Classic DSA in its single mode: one of color, crop, cutout, flip, scale, rotate per batch.

    All six are equally likely; the parameters differ per image. Used by DSA, DM, MTT, "A label is worth a
    thousand images" and others (Zhao & Bilen, 2021).
    """

    op: str = field(default="dsa_classic", init=False)

    def _choose(self, generator: Generator) -> tuple[str, ...]:
        return (_pick(("color", "crop", "cutout", "flip", "scale", "rotate"), generator),)


@dataclass(frozen=True, kw_only=True)
class DSAGift(_DSA):
    """DSA as GIFT's released code runs it: flip, colour, one of crop, scale, rotate per batch, cutout.

    Flip, colour and cutout are always on; the parameters differ per image.
    """

    op: str = field(default="dsa_gift", init=False)

    def _choose(self, generator: Generator) -> tuple[str, ...]:
        return ("flip", "color", _pick(("crop", "scale", "rotate"), generator), "cutout")


def _pick(names: tuple[str, ...], generator: Generator) -> str:
    return names[int(torch.randint(0, len(names), (), generator=generator))]
