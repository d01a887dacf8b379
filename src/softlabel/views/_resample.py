"""The one resampling kernel, and where the boxes that it cuts come from."""

import math

import torch
from torch import Generator, Tensor

from softlabel.core import ConfigError

ATTEMPTS = 10  # as in torchvision's RandomResizedCrop


def crop_resize(images: Tensor, boxes: Tensor, size: tuple[int, int], antialias: bool = False) -> Tensor:
    """Cut one box out of each image and resize it, bilinearly; no pixel from outside a box leaks in.

    Equal to cutting each box out and calling `torch.nn.functional.interpolate(mode="bilinear",
    align_corners=False, antialias=antialias)`, but for the whole batch at once: a resize is one matrix
    product over the columns and one over the rows, with a matrix per image. Autocast is kept out; only a
    user who allows TF32 products (`torch.set_float32_matmul_precision`) gets fewer than 23 bits.

    Args:
        images: float [B, C, H, W].
        boxes: [B, 4], top, left, height, width in pixels, within the image. Fractions of pixels are allowed:
            they move the sampling points, which stay between the box's first and last whole pixel width.
        size: (height, width) of the result, in pixels.
        antialias: average over all the pixels that shrink into one; matters only when a box shrinks.

    Returns:
        [B, C, *size], of the images' dtype.

    Raises:
        ConfigError: for boxes of a wrong shape, or (when they are on the CPU, where looking costs nothing)
            boxes that are empty or reach outside the image; for an empty `size`.
    """
    _check_boxes(images, boxes, size)
    place = boxes.to(images.device, torch.float32, non_blocking=True)
    down = _axis_weights(place[:, 0], place[:, 2], images.shape[2], size[0], antialias)
    across = _axis_weights(place[:, 1], place[:, 3], images.shape[3], size[1], antialias)
    with torch.autocast(images.device.type, enabled=False):
        batch, channels, height, width = images.shape
        rows = images.float().reshape(batch, channels * height, width)
        narrow = torch.bmm(rows, across.transpose(1, 2)).view(batch, channels, height, size[1])
        return torch.matmul(down[:, None], narrow).to(images.dtype)


def _axis_weights(start: Tensor, length: Tensor, pixels: int, out: int, antialias: bool) -> Tensor:
    """float32 [B, out, pixels]: how much of each pixel goes into each output pixel; rows sum to 1.

    Written in box coordinates, and rounded where torch's own kernel rounds: the scale is float32, and the
    position is rounded once, as by a fused multiply-add. At 224 pixels other roundings differ by 1e-4.
    """
    wide = torch.float32 if start.device.type == "mps" else torch.float64  # Apple's GPUs have no float64
    scale = length[:, None] / out
    exact = scale.to(wide) * (torch.arange(out, device=start.device) + 0.5)
    pixel = torch.arange(pixels, device=start.device) - start[:, None]
    if antialias:
        centre = exact.to(torch.float32)
        reach = scale.clamp(min=1.0)[:, :, None]
        weights = (1 - (pixel[:, None, :] + 0.5 - centre[:, :, None]).abs() / reach).clamp(min=0)
        weights = weights * ((pixel > -1) & (pixel < length[:, None]))[:, None, :]
        return weights / weights.sum(2, keepdim=True)
    position = (exact - 0.5).clamp(min=0).to(torch.float32)
    last = torch.minimum((length - 1).clamp(min=0), pixels - 1 - start)
    position = torch.minimum(position, last[:, None])
    return (1 - (pixel[:, None, :] - position[:, :, None]).abs()).clamp(min=0)


def _check_boxes(images: Tensor, boxes: Tensor, size: tuple[int, int]) -> None:
    if boxes.shape != (len(images), 4):
        raise ConfigError(f"Boxes must be [{len(images)}, 4], one per image. Got {list(boxes.shape)}.")
    if min(size) < 1:
        raise ConfigError(f"A crop must be resized to at least 1x1 pixels. Got {size[0]}x{size[1]}.")
    if boxes.device.type == "cpu":
        limit = torch.tensor(images.shape[2:], dtype=boxes.dtype)
        good = (boxes[:, :2] >= 0) & (boxes[:, 2:] > 0) & (boxes[:, :2] + boxes[:, 2:] <= limit)
        if not bool(good.all()):
            bad = int((~good.all(1)).nonzero()[0])
            raise ConfigError(
                f"A box (top, left, height, width) must lie within the image of {images.shape[2]}x"
                f"{images.shape[3]} pixels and not be empty. Box {bad} is {boxes[bad].tolist()}."
            )


def random_resized_boxes(
    batch: int,
    height: int,
    width: int,
    generator: Generator,
    *,
    min_scale: float = 0.08,
    max_scale: float = 1.0,
    min_ratio: float = 3 / 4,
    max_ratio: float = 4 / 3,
) -> Tensor:
    """Boxes as torchvision's RandomResizedCrop draws them, int64 [batch, 4]: top, left, height, width.

    Each box has a share of the image's area uniform in the scales, a width/height log-uniform in the
    ratios, and any whole position where it fits. Of ten draws the first that fits is taken; when none
    does, the largest central box whose ratio is within limits. With both scales 1 that is always the whole
    image for a square one.

    Raises:
        ConfigError: for scales outside 0..1, ratios not above 0, or a minimum above its maximum.
    """
    check_limits("random_resized_boxes", min_scale, max_scale, min_ratio, max_ratio)
    draws = torch.rand(4, ATTEMPTS, batch, generator=generator, dtype=torch.float64)
    area = height * width * (min_scale + (max_scale - min_scale) * draws[0])
    log_low, log_high = math.log(min_ratio), math.log(max_ratio)
    ratio = torch.exp(log_low + (log_high - log_low) * draws[1])
    box_width = torch.round(torch.sqrt(area * ratio))  # half to even, as Python's round
    box_height = torch.round(torch.sqrt(area / ratio))
    fits = (box_width > 0) & (box_width <= width) & (box_height > 0) & (box_height <= height)
    top = torch.floor(draws[2] * (height - box_height + 1))
    left = torch.floor(draws[3] * (width - box_width + 1))
    first = fits.to(torch.int64).argmax(0)
    picked = torch.stack((top, left, box_height, box_width), -1)[first, torch.arange(batch)].to(torch.int64)
    fallback = torch.tensor(_central_box(height, width, min_ratio, max_ratio))
    return torch.where(fits.any(0)[:, None], picked, fallback)


def check_limits(owner: str, min_scale: float, max_scale: float, min_ratio: float, max_ratio: float) -> None:
    """Raise ConfigError unless 0 < min_scale <= max_scale <= 1 and 0 < min_ratio <= max_ratio."""
    if not 0 < min_scale <= max_scale <= 1:
        raise ConfigError(
            f"{owner} needs 0 < min_scale <= max_scale <= 1 (shares of the image's area). "
            f"Got min_scale={min_scale!r}, max_scale={max_scale!r}."
        )
    if not 0 < min_ratio <= max_ratio < math.inf:
        raise ConfigError(
            f"{owner} needs 0 < min_ratio <= max_ratio (width over height). "
            f"Got min_ratio={min_ratio!r}, max_ratio={max_ratio!r}."
        )


def _central_box(height: int, width: int, min_ratio: float, max_ratio: float) -> tuple[int, int, int, int]:
    box_height, box_width = height, width
    if width / height < min_ratio:
        box_height = max(1, round(width / min_ratio))
    elif width / height > max_ratio:
        box_width = max(1, round(height * max_ratio))
    return (height - box_height) // 2, (width - box_width) // 2, box_height, box_width


def tile_edges(size: int, factor: int) -> list[int]:
    """Where `size` pixels are cut into `factor` tiles: factor + 1 edges from 0 to `size`.

    When the size does not divide, the first tiles are one pixel longer, as in RDED's mosaics.
    """
    return [index * (size // factor) + min(index, size % factor) for index in range(factor + 1)]
