"""RDED (Sun et al., CVPR 2024): realistic patches, scored by a teacher and tiled into mosaics."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor

from softlabel.core import ConfigError, Dataset, Progress
from softlabel.distill._common import Images, class_indices, require_images
from softlabel.training import Execution, Normaliser, Teacher, mean_logits
from softlabel.views import crop_resize, random_resized_boxes, tile_edges

BATCH = 512


@dataclass(frozen=True, kw_only=True)
class RdedConfig:
    """RDED's settings (released code, section 2.3 of its scripts).

    Attributes:
        factor: tiles per side of a mosaic: 1 for 32/64 px, 2 for 128/224 px in the paper.
        crops: random crops tried per real image, of which the easiest is kept.
        images: real images looked at per class (the code's mipc); fewer when a class has fewer.
        min_scale, max_scale: range of a crop's share of the image area; its aspect is the image's.
    """

    factor: int = 1
    crops: int = 5
    images: int = 300
    min_scale: float = 0.08
    max_scale: float = 1.0


def rded(
    config: RdedConfig,
    data: Dataset,
    teachers: Sequence[Teacher],
    *,
    ipc: int,
    generator: torch.Generator,
    execution: Execution,
    progress: Progress,
) -> Images:
    """Crop, score, rank and tile.

    For each class: take random images; from each take `crops` random crops of size (H // factor, W // factor); keep
    the crop with the lowest teacher cross-entropy against the class (the paper's realism score is its negative);
    rank the images by it; fill mosaics so that tile k of image i holds patch k * ipc + i.

    Where we differ from the released code, on purpose: every draw comes from `generator` (the code sets no seed);
    pixels are rounded, not truncated, before scoring, so the stored patch is the scored patch; normalisation is the
    data's own, not ImageNet's; storage is lossless unless asked otherwise.

    Raises:
        ConfigError: settings out of range.
        DistillError: a class has fewer than ipc * factor^2 images.
    """
    needed = ipc * config.factor**2
    progress.start(f"RDED on {data.info.name}", data.info.classes)
    mosaics, losses, sources, places = [], [], [], []
    for target, members in enumerate(class_indices(data.train, data.info.classes)):
        order = torch.randperm(len(members), generator=generator)[: config.images]
        patches, boxes, loss = _best_crops(config, data, teachers, members[order], target, generator, execution)
        rank = loss.argsort(stable=True)[:needed]
        mosaics.append(mosaic(patches[rank], ipc, config.factor, data.info.height, data.info.width))
        losses.append(float(loss[rank].mean()))
        sources.append(members[order][rank].tolist())
        places.append(boxes[rank].tolist())
        progress.advance(note=f"mean loss {losses[-1]:.3g}")
    progress.finish()
    return Images(
        images=torch.cat(mosaics),
        targets=torch.arange(data.info.classes).repeat_interleave(ipc),
        factor=config.factor,
        provenance={"mean_patch_loss": losses, "train_indices_by_rank": sources, "boxes_by_rank": places},
    )


def mosaic(patches: Tensor, ipc: int, factor: int, height: int, width: int) -> Tensor:
    """Tile ranked patches [ipc * factor^2, C, h, w] into [ipc, C, height, width].

    Tile k (row-major) of image i is patch k * ipc + i, so the first image holds the easiest patch. When a side is not
    divisible by `factor`, the first tiles are one pixel longer and nearest-neighbour sampling fills them.
    """
    tiles = patches.view(factor, factor, ipc, *patches.shape[1:])
    heights, widths = _lengths(height, factor), _lengths(width, factor)
    rows = [
        torch.cat([_nearest(tiles[r, c], heights[r], widths[c]) for c in range(factor)], dim=-1) for r in range(factor)
    ]
    return torch.cat(rows, dim=-2)


def _best_crops(
    config: RdedConfig,
    data: Dataset,
    teachers: Sequence[Teacher],
    index: Tensor,
    target: int,
    generator: torch.Generator,
    execution: Execution,
) -> tuple[Tensor, Tensor, Tensor]:
    """The easiest crop of each image, uint8 [M, C, h, w], its box [M, 4] and its teacher loss [M]."""
    height, width = data.info.height, data.info.width
    size = (height // config.factor, width // config.factor)
    normalise = Normaliser(data.info, execution.torch_device)
    patches, places, losses = [], [], []
    for part in index.split(max(1, BATCH // config.crops)):
        boxes = random_resized_boxes(
            len(part) * config.crops,
            height,
            width,
            generator,
            min_scale=config.min_scale,
            max_scale=config.max_scale,
            min_ratio=width / height,
            max_ratio=width / height,
        ).to(execution.torch_device)
        images = data.train.images[part].to(execution.torch_device).float()
        crops = crop_resize(images.repeat_interleave(config.crops, dim=0), boxes, size, antialias=True)
        pixels = crops.round().clamp(0, 255).to(torch.uint8)
        views = _pad(normalise(pixels), height, width)
        with execution.autocast(), execution.deterministic():
            logits = mean_logits(teachers, views, data.info)
        labels = torch.full((len(logits),), target, device=logits.device)
        loss = F.cross_entropy(logits, labels, reduction="none").view(len(part), config.crops)
        best = loss.argmin(dim=1)
        rows = torch.arange(len(part), device=best.device)
        patches.append(pixels.view(len(part), config.crops, *pixels.shape[1:])[rows, best].cpu())
        places.append(boxes.view(len(part), config.crops, 4)[rows, best].cpu())
        losses.append(loss[rows, best].cpu())
    return torch.cat(patches), torch.cat(places), torch.cat(losses)


def _pad(patches: Tensor, height: int, width: int) -> Tensor:
    """Centre patches on a canvas of zeros, the mean colour in normalised space: RDED scores them so, not enlarged."""
    top, left = (height - patches.shape[-2]) // 2, (width - patches.shape[-1]) // 2
    bottom, right = height - patches.shape[-2] - top, width - patches.shape[-1] - left
    return F.pad(patches, (left, right, top, bottom)) if top or left or bottom or right else patches


def _lengths(size: int, factor: int) -> list[int]:
    edges = tile_edges(size, factor)
    return [end - start for start, end in pairwise(edges)]


def _nearest(images: Tensor, height: int, width: int) -> Tensor:
    rows = torch.arange(height) * images.shape[-2] // height
    columns = torch.arange(width) * images.shape[-1] // width
    return images[..., rows[:, None], columns]


def check_rded(config: RdedConfig, data: Dataset, ipc: int) -> None:
    """Refuse settings out of range (ConfigError) and too few images (DistillError)."""
    if config.factor < 1 or config.factor > min(data.info.height, data.info.width):
        raise ConfigError(
            f"RDED's factor must lie in 1..{min(data.info.height, data.info.width)} for images of "
            f"{data.info.height}x{data.info.width} px. Got {config.factor} instead."
        )
    if config.crops < 1 or config.images < 1:
        raise ConfigError(f"RDED needs crops and images of 1 or more. Got {config.crops} and {config.images}.")
    if not 0 < config.min_scale <= config.max_scale <= 1:
        raise ConfigError(
            f"RDED's crops need 0 < min_scale <= max_scale <= 1. Got {config.min_scale} and {config.max_scale}."
        )
    needed = ipc * config.factor**2
    if config.images < needed:
        raise ConfigError(
            f"RDED with IPC {ipc} and factor {config.factor} needs {needed} patches per class, each from an image of "
            f"its own, and images={config.images} looks at fewer. Choose images={needed} or more, or a smaller --ipc."
        )
    require_images(data, needed, f"RDED with IPC {ipc} and factor {config.factor}")
