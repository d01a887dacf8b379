"""Ops that move pixels: flip, shift, crop, tile shuffle, scale, rotate."""

import math
from dataclasses import dataclass, field

import torch
import torch.nn.functional as F
from torch import Generator, Tensor

from softlabel.core import ConfigError
from softlabel.views._base import (
    Values,
    ViewOp,
    check_factor,
    check_integer,
    check_number,
    known_to_be,
    per_image,
    uniform,
)
from softlabel.views._resample import check_limits, crop_resize, random_resized_boxes, tile_edges


@dataclass(frozen=True, kw_only=True)
class Flip(ViewOp):
    """Mirror left and right, each image with probability `p`."""

    p: float = 0.5
    op: str = field(default="flip", init=False)

    def __post_init__(self) -> None:
        check_number(self.op, "p", self.p, 0.0, 1.0)

    def draw(self, batch: int, height: int, width: int, generator: Generator) -> Values:
        return {"flags": torch.rand(batch, generator=generator) < self.p}

    @staticmethod
    def apply(images: Tensor, values: Values) -> Tensor:
        flags = values["flags"]
        if known_to_be(~flags):
            return images
        return torch.where(per_image(flags, images), images.flip(3), images)


@dataclass(frozen=True, kw_only=True)
class ShiftCrop(ViewOp):
    """Shift each image by up to `padding` whole pixels each way, filling with zeros.

    The same as padding by `padding` and cropping at random, torchvision's RandomCrop(size, padding).
    """

    padding: int = 4
    op: str = field(default="shift_crop", init=False)

    def __post_init__(self) -> None:
        check_integer(self.op, "padding", self.padding, 0)

    def check(self, height: int, width: int) -> None:
        if self.padding >= min(height, width):
            raise ConfigError(
                f"The view {self.op} with padding={self.padding} could push {height}x{width} pixels "
                f"out of sight. Use a padding below {min(height, width)}."
            )

    def draw(self, batch: int, height: int, width: int, generator: Generator) -> Values:
        return draw_shifts(batch, self.padding, self.padding, generator)

    @staticmethod
    def apply(images: Tensor, values: Values) -> Tensor:
        shifts = values["shifts"]
        if known_to_be(shifts == 0):
            return images
        shifts = shifts.to(images.device, non_blocking=True)
        height, width = images.shape[2:]
        # one row or column of zeros on each side stands for everything outside
        rows = (torch.arange(height, device=images.device) + shifts[:, :1] + 1).clamp(0, height + 1)
        columns = (torch.arange(width, device=images.device) + shifts[:, 1:] + 1).clamp(0, width + 1)
        return _take(F.pad(images, (1, 1, 1, 1)), rows, columns)


def draw_shifts(batch: int, rows: int, columns: int, generator: Generator) -> Values:
    """Whole shifts, int64 [batch, 2]: (row, column) of the source pixel minus that of the result."""
    down = torch.randint(-rows, rows + 1, (batch,), generator=generator)
    across = torch.randint(-columns, columns + 1, (batch,), generator=generator)
    return {"shifts": torch.stack((down, across), 1)}


@dataclass(frozen=True, kw_only=True)
class RandomResizedCrop(ViewOp):
    """Cut a random box and resize it to the full image, as torchvision's RandomResizedCrop does.

    See `random_resized_boxes` for what is drawn. RDED's students use min_scale = 1/factor, so that at
    factor 1 a square image is never cropped.
    """

    min_scale: float = 0.08
    max_scale: float = 1.0
    min_ratio: float = 3 / 4
    max_ratio: float = 4 / 3
    op: str = field(default="random_resized_crop", init=False)

    def __post_init__(self) -> None:
        for name in ("min_scale", "max_scale", "min_ratio", "max_ratio"):
            check_number(self.op, name, getattr(self, name), 0.0)
        check_limits(f"The view {self.op}", self.min_scale, self.max_scale, self.min_ratio, self.max_ratio)

    def draw(self, batch: int, height: int, width: int, generator: Generator) -> Values:
        boxes = random_resized_boxes(
            batch,
            height,
            width,
            generator,
            min_scale=self.min_scale,
            max_scale=self.max_scale,
            min_ratio=self.min_ratio,
            max_ratio=self.max_ratio,
        )
        return {"boxes": boxes}

    @staticmethod
    def apply(images: Tensor, values: Values) -> Tensor:
        return _zoom(images, values["boxes"])


@dataclass(frozen=True, kw_only=True)
class FactorCrop(ViewOp):
    """Zoom into one cell of the factor x factor grid, with probability 1 - 1/factor^2; else leave the image.

    GIFT's RandomFactorResizedCrop, for students on mosaics. When the size does not divide by the factor,
    the cells are the tiles of `tile_edges`.
    """

    factor: int = 1
    op: str = field(default="factor_crop", init=False)

    def __post_init__(self) -> None:
        check_integer(self.op, "factor", self.factor, 1)

    def check(self, height: int, width: int) -> None:
        check_factor(self.op, self.factor, height, width)

    def draw(self, batch: int, height: int, width: int, generator: Generator) -> Values:
        whole = torch.rand(batch, generator=generator) < 1 / self.factor**2
        row, column = torch.randint(0, self.factor, (2, batch), generator=generator)
        down, across = (
            torch.tensor(tile_edges(height, self.factor)),
            torch.tensor(tile_edges(width, self.factor)),
        )
        cells = (down[row], across[column], down[row + 1] - down[row], across[column + 1] - across[column])
        return {"boxes": torch.where(whole[:, None], torch.tensor([0, 0, height, width]), torch.stack(cells, 1))}

    @staticmethod
    def apply(images: Tensor, values: Values) -> Tensor:
        return _zoom(images, values["boxes"])


@dataclass(frozen=True, kw_only=True)
class PatchShuffle(ViewOp):
    """Permute the columns of tiles, then the rows of tiles, of a factor x factor mosaic; per image.

    RDED's ShufflePatches. Being separable it reaches factor!^2 layouts (at factor 2: 4 of the 24). When the
    size does not divide by the factor, the tiles are those of `tile_edges` and every pixel is kept, so the
    result has the size of the input. RDED's released code drops the remainder there (224 pixels become 222
    at factor 3).
    """

    factor: int = 1
    op: str = field(default="patch_shuffle", init=False)

    def __post_init__(self) -> None:
        check_integer(self.op, "factor", self.factor, 1)

    def check(self, height: int, width: int) -> None:
        check_factor(self.op, self.factor, height, width)

    def draw(self, batch: int, height: int, width: int, generator: Generator) -> Values:
        orders = torch.rand(2, batch, self.factor, generator=generator, dtype=torch.float64).argsort(2)
        return {"rows": orders[0].contiguous(), "columns": orders[1].contiguous()}

    @staticmethod
    def apply(images: Tensor, values: Values) -> Tensor:
        if values["rows"].shape[1] == 1:
            return images
        rows, columns = (values[name].to(images.device, non_blocking=True) for name in ("rows", "columns"))
        return _take(images, _tile_source(rows, images.shape[2]), _tile_source(columns, images.shape[3]))


def _tile_source(order: Tensor, size: int) -> Tensor:
    """int64 [B, size]: the source pixel of each result pixel, when tile order[b, k] goes to place k."""
    edges = tile_edges(size, order.shape[1])
    lengths = torch.tensor(edges).diff()
    tile = torch.repeat_interleave(torch.arange(len(lengths)), lengths).to(order.device)
    place = order.argsort(1)[:, tile]
    return place.argsort(dim=1, stable=True)  # pixels sorted by their tile's place keep their order within it


@dataclass(frozen=True, kw_only=True)
class Scale(ViewOp):
    """Zoom each axis of each image by its own factor, uniform in 1/ratio..ratio; outside is zero (DSA).

    `align_corners` names the two dialects of DSA: False in VICO's original code, True in MTT's and
    DD-Ranking's. For a pure zoom both sample the same points.
    """

    ratio: float = 1.2
    align_corners: bool = False
    op: str = field(default="scale", init=False)

    def __post_init__(self) -> None:
        check_number(self.op, "ratio", self.ratio, 1.0)

    def draw(self, batch: int, height: int, width: int, generator: Generator) -> Values:
        across = uniform(batch, 1 / self.ratio, self.ratio, generator)
        down = uniform(batch, 1 / self.ratio, self.ratio, generator)
        zero = torch.zeros(batch)
        return {"theta": _matrix(across, zero, zero, down)}

    @staticmethod
    def apply(images: Tensor, values: Values) -> Tensor:
        return _affine(images, values["theta"])


@dataclass(frozen=True, kw_only=True)
class Rotate(ViewOp):
    """Rotate each image by an angle uniform in -degrees..degrees; outside is zero (DSA).

    As in DSA the rotation happens in coordinates where the image is a square, so a non-square image is
    sheared a little. `align_corners` names the dialect, see `Scale`; on square images both are the same.
    """

    degrees: float = 15.0
    align_corners: bool = False
    op: str = field(default="rotate", init=False)

    def __post_init__(self) -> None:
        check_number(self.op, "degrees", self.degrees, 0.0, 180.0)

    def draw(self, batch: int, height: int, width: int, generator: Generator) -> Values:
        angle = uniform(batch, -self.degrees, self.degrees, generator) * (math.pi / 180)
        sine, cosine = torch.sin(angle), torch.cos(angle)
        across = _corner_aspect(width, height) if self.align_corners else 1.0
        down = _corner_aspect(height, width) if self.align_corners else 1.0
        return {"theta": _matrix(cosine, -sine * across, sine * down, cosine)}

    @staticmethod
    def apply(images: Tensor, values: Values) -> Tensor:
        return _affine(images, values["theta"])


def _corner_aspect(this: int, other: int) -> float:
    """Turns an off-diagonal entry for align_corners=True into the equivalent one for False."""
    return (this - 1) / (other - 1) * (other / this) if other > 1 else 0.0


def _matrix(xx: Tensor, xy: Tensor, yx: Tensor, yy: Tensor) -> Tensor:
    """float32 [B, 2, 3] for `affine_grid`, without translation."""
    zero = torch.zeros_like(xx)
    return torch.stack((torch.stack((xx, xy, zero), 1), torch.stack((yx, yy, zero), 1)), 1)


def _affine(images: Tensor, theta: Tensor) -> Tensor:
    theta = theta.to(images.device, images.dtype, non_blocking=True)
    grid = F.affine_grid(theta, list(images.shape), align_corners=False)
    return F.grid_sample(images, grid, mode="bilinear", padding_mode="zeros", align_corners=False)


def _zoom(images: Tensor, boxes: Tensor) -> Tensor:
    height, width = images.shape[2:]
    if known_to_be(boxes == torch.tensor([0, 0, height, width], device=boxes.device)):
        return images
    return crop_resize(images, boxes, (height, width))


def _take(images: Tensor, rows: Tensor, columns: Tensor) -> Tensor:
    """images[b, :, rows[b], columns[b]] for each b, [B, C, h, w]; rows int64 [B, h], columns int64 [B, w]."""
    batch, channels, _, width = images.shape
    down = rows[:, None, :, None].expand(batch, channels, rows.shape[1], width)
    across = columns[:, None, None, :].expand(batch, channels, rows.shape[1], columns.shape[1])
    return images.gather(2, down).gather(3, across)
