"""Distilled images as PNG data URIs: one strip per class, so that each carries its class name as text."""

import base64
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import interpolate

from softlabel.core import DistilledSet, count_of
from softlabel.store import encode_image

MOST_CLASSES = 20
MOST_PER_CLASS = 10
LARGEST_SIDE = 96
"""Pixels. Larger images are shrunk for the page, so that 200 of them stay a few megabytes."""

_GAP = 2
_WHITE = 255


@dataclass(frozen=True, kw_only=True)
class Strip:
    """The first images of one class, side by side.

    Attributes:
        target: class index.
        images: how many are in the strip.
        width, height: pixels of the PNG.
        uri: `data:image/png;base64,...`.
    """

    target: int
    images: int
    width: int
    height: int
    uri: str


@dataclass(frozen=True, kw_only=True)
class Sheet:
    """The strips of one set. `left_out` says in words what is not shown; empty when all is."""

    strips: tuple[Strip, ...]
    columns: int
    left_out: str
    shrunk: bool


def contact_sheet(distilled: DistilledSet) -> Sheet:
    """The first images of the first classes of a set: at most 10 of each of 20 classes."""
    targets = distilled.targets.tolist()
    classes = sorted(set(targets))
    strips = [
        strip_of(distilled.images[distilled.targets == target][:MOST_PER_CLASS], target)
        for target in classes[:MOST_CLASSES]
    ]
    shown = sum(strip.images for strip in strips)
    return Sheet(
        strips=tuple(strips),
        columns=max((strip.images for strip in strips), default=0),
        left_out=_left_out(len(targets), shown, len(classes)),
        shrunk=max(distilled.images.shape[-2:]) > LARGEST_SIDE,
    )


def picture(image: Tensor) -> str:
    """One uint8 image [C, H, W] as a data URI, shrunk to at most 96 pixels a side."""
    return _uri(_shrink(image[None])[0])


def strip_of(images: Tensor, target: int) -> Strip:
    """uint8 images [N, C, H, W] of one class side by side."""
    images = _shrink(images)
    count, channels, height, width = images.shape
    # White gaps, because the images of many data sets are dark at their borders.
    row = torch.full((channels, height, count * (width + _GAP) - _GAP), _WHITE, dtype=torch.uint8)
    for position, image in enumerate(images):
        left = position * (width + _GAP)
        row[:, :, left : left + width] = image
    return Strip(target=target, images=count, width=row.shape[2], height=height, uri=_uri(row))


def _shrink(images: Tensor) -> Tensor:
    height, width = images.shape[-2:]
    scale = LARGEST_SIDE / max(height, width)
    if scale >= 1:
        return images
    size = (max(1, round(height * scale)), max(1, round(width * scale)))
    return interpolate(images.float(), size=size, mode="area").round().clamp(0, _WHITE).to(torch.uint8)


def _uri(image: Tensor) -> str:
    return f"data:image/png;base64,{base64.b64encode(encode_image(image, 'png')).decode('ascii')}"


def _left_out(total: int, shown: int, classes: int) -> str:
    if shown == total:
        return ""
    return (
        f"{count_of(total - shown, 'image')} not shown: this page shows at most {MOST_PER_CLASS} images of "
        f"each of {MOST_CLASSES} classes, and the set has {total:,} images of {classes:,} classes."
    )
