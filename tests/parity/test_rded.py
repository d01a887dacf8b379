"""RDED against a slow, obvious restatement: one image, one crop at a time."""

import io
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor

from softlabel.core import ConfigError, Dataset, DistillError, Split, stream
from softlabel.distill import distill, mosaic
from softlabel.models import build_model
from softlabel.store import load_distilled, save_distilled
from softlabel.training import Execution, Teacher
from softlabel.views import random_resized_boxes

Scored = tuple[float, Tensor]  # teacher loss and patch
TIE = 1e-3  # losses that are nearer than this may change places by rounding
CROPS_AT_ONCE = 512  # boxes are drawn for so many crops at a time, in whole images


def sharp_teacher(data: Dataset, seed: int = 0) -> Teacher:
    """Untrained, but with opinions: its losses differ by far more than rounding can change them."""
    model = build_model("convnet-2:width=8", image_shape=data.info.image_shape, classes=data.info.classes, seed=seed)
    with torch.no_grad():
        model.head.weight.mul_(20)
    return Teacher(model.eval().requires_grad_(False), data.info, "convnet-2:width=8", f"sharp-{seed}", None, 0, 0)


def resized(data: Dataset, height: int, width: int) -> Dataset:
    """`data` with images of another size."""

    def cut(split: Split) -> Split:
        floats = F.interpolate(split.images.float(), (height, width), mode="nearest")
        return Split(floats.to(torch.uint8), split.targets)

    info = replace(data.info, height=height, width=width, digest=f"{height}x{width}")
    return Dataset(info, cut(data.train), cut(data.test))


def seen(patch: Tensor, data: Dataset) -> Tensor:
    """A uint8 patch [C, h, w] as the teacher sees it: normalised, in the middle of zeros, [1, C, H, W]."""
    mean, std = (torch.tensor(values).view(-1, 1, 1) for values in (data.info.mean, data.info.std))
    canvas = torch.zeros(data.info.image_shape)
    top, left = (data.info.height - patch.shape[1]) // 2, (data.info.width - patch.shape[2]) // 2
    canvas[:, top : top + patch.shape[1], left : left + patch.shape[2]] = (patch / 255 - mean) / std
    return canvas[None]


def slow_patches(
    data: Dataset, teachers: list[Teacher], target: int, generator: torch.Generator, *, options: dict[str, float],
    needed: int,
) -> tuple[list[Scored], list[Scored]]:  # fmt: skip
    """For one class: the easiest crop of each image, easiest first, and all crops that were tried."""
    height, width, factor, crops = data.info.height, data.info.width, int(options["factor"]), int(options["crops"])
    members = [i for i, t in enumerate(data.train.targets.tolist()) if t == target]
    order = torch.randperm(len(members), generator=generator).tolist()[: max(int(options["images"]), needed)]
    chosen = [members[position] for position in order]
    at_once = max(1, CROPS_AT_ONCE // crops)
    kept: list[Scored] = []
    every: list[Scored] = []
    for start in range(0, len(chosen), at_once):
        group = chosen[start : start + at_once]
        boxes = random_resized_boxes(
            len(group) * crops, height, width, generator,
            min_scale=options["min_scale"], max_scale=options["max_scale"],
            min_ratio=width / height, max_ratio=width / height,
        ).tolist()  # fmt: skip
        for image in group:
            tried: list[Tensor] = []
            for _ in range(crops):
                top, left, tall, wide = boxes.pop(0)
                cut = data.train.images[image][:, top : top + tall, left : left + wide].float()
                small = F.interpolate(
                    cut[None], (height // factor, width // factor), mode="bilinear", antialias=True, align_corners=False
                )[0]
                tried.append(small.round().clamp(0, 255).to(torch.uint8))
            views = torch.cat([seen(patch, data) for patch in tried])
            logits = torch.stack([t.model(views) for t in teachers]).mean(dim=0)
            losses = (-logits.log_softmax(dim=1)[:, target]).tolist()
            scored = list(zip(losses, tried, strict=True))
            kept.append(min(scored, key=lambda pair: pair[0]))
            every += scored
    return sorted(kept, key=lambda pair: pair[0]), every


def stretch(patch: Tensor, height: int, width: int) -> Tensor:
    """Nearest-neighbour, pixel by pixel."""
    out = torch.empty(patch.shape[0], height, width, dtype=patch.dtype)
    for y in range(height):
        for x in range(width):
            out[:, y, x] = patch[:, y * patch.shape[1] // height, x * patch.shape[2] // width]
    return out


def lengths(size: int, factor: int) -> list[int]:
    """The sides of the tiles: the first ones are one pixel longer."""
    return [size // factor + (1 if k < size % factor else 0) for k in range(factor)]


def slow_mosaics(patches: list[Tensor], ipc: int, factor: int, height: int, width: int) -> list[Tensor]:
    images = []
    for i in range(ipc):
        rows = []
        for r, tall in enumerate(lengths(height, factor)):
            row = [
                stretch(patches[(r * factor + c) * ipc + i], tall, wide)
                for c, wide in enumerate(lengths(width, factor))
            ]
            rows.append(torch.cat(row, dim=2))
        images.append(torch.cat(rows, dim=1))
    return images


def tiles_in_rank_order(images: Tensor, factor: int) -> list[Tensor]:
    """Cut mosaics [IPC, C, H, W] up again: the first tile of every image, then the second of every image, ..."""
    heights, widths = lengths(images.shape[2], factor), lengths(images.shape[3], factor)
    grid = [band.split(widths, dim=3) for band in images.split(heights, dim=2)]
    return [tile for row in grid for column in row for tile in column]


def is_patch(tile: Tensor, patch: Tensor) -> bool:
    """Equal but for pixels that end halfway between two levels and may be rounded either way."""
    expected = stretch(patch, tile.shape[1], tile.shape[2])
    difference = (tile.int() - expected.int()).abs()
    return int(difference.max()) <= 1 and float(difference.float().mean()) < 0.05


DEFAULTS: dict[str, float] = {"factor": 1, "crops": 5, "images": 300, "min_scale": 0.08, "max_scale": 1.0}
CASES: list[tuple[tuple[int, int], int, int, dict[str, float]]] = [
    # image size, teachers, ipc, options
    ((16, 16), 1, 3, {}),
    ((16, 16), 1, 2, {"factor": 2, "crops": 3}),
    ((16, 16), 2, 2, {"factor": 2, "images": 12}),
    ((16, 16), 1, 4, {"factor": 3, "crops": 2}),  # 16 = 6 + 5 + 5; every image of the class is needed
    ((13, 18), 1, 2, {"factor": 2, "crops": 3, "images": 10, "min_scale": 0.3, "max_scale": 0.6}),
    ((16, 16), 1, 2, {"crops": 30, "images": 40}),  # more crops than are cut at once
    ((16, 16), 1, 3, {"factor": 2, "crops": 1, "images": 12}),  # as many images as tiles
]


@pytest.mark.parametrize(("size", "count", "ipc", "given"), CASES)
def test_like_one_crop_at_a_time(
    size: tuple[int, int], count: int, ipc: int, given: dict[str, float], tiny_data: Dataset, execution: Execution
) -> None:
    data = resized(tiny_data, *size) if size != (16, 16) else tiny_data
    teachers = [sharp_teacher(data, seed) for seed in range(count)]
    options = {**DEFAULTS, **given}
    factor = int(options["factor"])
    spec = "rded:" + ",".join(f"{key}={value}" for key, value in given.items())
    made = distill(spec, data, teachers, ipc=ipc, seed=5, execution=execution)
    generator = stream(5, "distill", "rded")
    losses = []
    for target in range(data.info.classes):
        ranked, every = slow_patches(data, teachers, target, generator, options=options, needed=ipc * factor**2)
        tiles = tiles_in_rank_order(made.images[made.targets == target], factor)
        best = ranked[: len(tiles)]
        for tile, (loss, patch) in zip(tiles, best, strict=True):
            ties = [other for value, other in every if abs(value - loss) < TIE]
            assert is_patch(tile, patch) or any(is_patch(tile, other) for other in ties)
        losses.append(sum(loss for loss, _ in best) / len(best))
    assert made.provenance["mean_patch_loss"] == pytest.approx(losses, rel=1e-3, abs=1e-4)
    assert made.factor == factor


def test_the_easiest_crops_are_kept(tiny_data: Dataset, execution: Execution) -> None:
    """More crops to choose from never make the kept ones harder, and the kept ones are easier than the images."""
    teacher = sharp_teacher(tiny_data)

    def mean_loss(crops: int) -> float:
        made = distill(f"rded:crops={crops}", tiny_data, [teacher], ipc=5, seed=0, execution=execution)
        views = torch.cat([seen(image, tiny_data) for image in made.images])
        return float(F.cross_entropy(teacher.logits(views), made.targets))

    few, many = mean_loss(1), mean_loss(20)
    whole = torch.cat([seen(image, tiny_data) for image in tiny_data.train.images])
    assert many < few < float(F.cross_entropy(teacher.logits(whole), tiny_data.train.targets))


def test_mosaic_order() -> None:
    """Patches easiest first; tile k of image i is patch k * IPC + i, row by row."""
    patches = torch.arange(12, dtype=torch.uint8).view(12, 1, 1, 1).expand(12, 3, 2, 2)
    tiled = mosaic(patches.contiguous(), ipc=3, factor=2, height=4, width=4)
    assert tiled.shape == (3, 3, 4, 4)
    for image, tiles in zip(tiled, ([0, 3, 6, 9], [1, 4, 7, 10], [2, 5, 8, 11]), strict=True):
        corners = (image[:, :2, :2], image[:, :2, 2:], image[:, 2:, :2], image[:, 2:, 2:])
        assert [int(corner[0, 0, 0]) for corner in corners] == tiles
        assert sorted(image[0].flatten().tolist()) == sorted(tile for tile in tiles for _ in range(4))


def test_mosaic_of_one_tile_is_the_patch() -> None:
    patches = torch.randint(0, 256, (3, 1, 5, 7), dtype=torch.uint8, generator=stream(0, "patches"))
    assert torch.equal(mosaic(patches, ipc=3, factor=1, height=5, width=7), patches)


@pytest.mark.parametrize(("height", "width", "factor"), [(5, 7, 2), (7, 5, 3), (11, 8, 3), (4, 5, 4)])
def test_mosaic_of_odd_sizes(height: int, width: int, factor: int) -> None:
    ipc = 2
    shape = (ipc * factor**2, 3, height // factor, width // factor)
    patches = torch.randint(0, 256, shape, dtype=torch.uint8, generator=stream(0, "odd"))
    expected = slow_mosaics(list(patches), ipc, factor, height, width)
    assert torch.equal(mosaic(patches, ipc, factor, height, width), torch.stack(expected))


def test_too_few_images_for_the_tiles(tiny_data: Dataset, execution: Execution) -> None:
    teacher = sharp_teacher(tiny_data)
    # 40 images per class: 10 x 2^2 fit, 11 x 2^2 and 5 x 3^2 do not.
    assert len(distill("rded:factor=2,crops=1", tiny_data, [teacher], ipc=10, seed=0, execution=execution)) == 40
    for ipc, factor, needed in ((11, 2, 44), (5, 3, 45)):
        with pytest.raises(DistillError) as caught:
            distill(f"rded:factor={factor}", tiny_data, [teacher], ipc=ipc, seed=0, execution=execution)
        message = str(caught.value)
        for fragment in (f"IPC {ipc}", f"factor {factor}", f"needs {needed}", "'class a'", "has 40", "smaller"):
            assert fragment in message, message


@pytest.mark.parametrize(
    ("options", "fragment"),
    [
        ("factor=0", "factor must lie in 1..16"),
        ("factor=17", "factor must lie in 1..16"),
        ("crops=0", "crops and images of 1 or more"),
        ("images=0", "crops and images of 1 or more"),
        ("min_scale=0.0", "0 < min_scale <= max_scale <= 1"),
        ("min_scale=0.5,max_scale=0.4", "0 < min_scale <= max_scale <= 1"),
        ("max_scale=1.5", "0 < min_scale <= max_scale <= 1"),
        ("factor=1.5", "factor"),
        ("crops=many", "crops"),
    ],
)
def test_settings_out_of_range(options: str, fragment: str, tiny_data: Dataset, execution: Execution) -> None:
    with pytest.raises(ConfigError, match=fragment):
        distill(f"rded:{options}", tiny_data, [sharp_teacher(tiny_data)], ipc=1, seed=0, execution=execution)


def test_jpeg_storage_returns_what_is_in_the_files(tiny_data: Dataset, execution: Execution, tmp_path: Path) -> None:
    made = distill("rded:factor=2", tiny_data, [sharp_teacher(tiny_data)], ipc=2, seed=0, execution=execution)
    saved = save_distilled(made, tmp_path / "set", "jpeg-60")
    files = sorted((tmp_path / "set").rglob("*.jpg"), key=lambda file: file.stem)
    assert len(files) == 8
    decoded = [
        torch.from_numpy(np.array(Image.open(io.BytesIO(file.read_bytes())).convert("RGB"))).permute(2, 0, 1)
        for file in files
    ]
    assert torch.equal(saved.images, torch.stack(decoded))
    assert torch.equal(load_distilled(tmp_path / "set").images, saved.images)
    assert not torch.equal(saved.images, made.images)  # JPEG loses: that is why the files are read back
    assert float((saved.images.float() - made.images.float()).abs().mean()) < 40
    assert saved.digest != made.digest
    assert saved.image_bytes == sum(file.stat().st_size for file in files)
    assert (saved.factor, saved.targets.tolist()) == (2, made.targets.tolist())
