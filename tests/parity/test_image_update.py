"""HeLlO's image-level update against a slow restatement, and what it refuses."""

from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from softlabel.core import ConfigError, Dataset, DistilledSet, DistillError
from softlabel.distill import ImageUpdate, distill, tiles, update_images
from softlabel.models import build_model
from softlabel.training import Teacher, resolve_execution

CPU = resolve_execution("cpu", "fp32")


def teacher(data: Dataset) -> Teacher:
    model = build_model("convnet-1:width=8", image_shape=data.info.image_shape, classes=data.info.classes, seed=3)
    return Teacher(model.eval().requires_grad_(False), data.info, "convnet-1:width=8", "test", 0.25, 0, 1000)


@pytest.fixture
def patched(tiny_data: Dataset) -> DistilledSet:
    return distill("rded:factor=2,crops=2,images=8", tiny_data, [teacher(tiny_data)], ipc=2, execution=CPU)


def features(images: Tensor) -> Tensor:
    """A fixed, smooth map that sees every pixel."""
    weight = torch.randn(5, images[0].numel(), generator=torch.Generator().manual_seed(0)) / 10
    return torch.tanh(images.flatten(1) @ weight.T)


def tile(image: Tensor, position: int) -> Tensor:
    half = image.shape[-1] // 2
    row, column = divmod(position, 2)
    return image[:, row * half : (row + 1) * half, column * half : (column + 1) * half]


def original(made: DistilledSet, data: Dataset, target: int, rank: int, side: int) -> Tensor:
    """The crop of the real image that a patch was made of, enlarged or shrunk to `side` by the slow resampler."""
    index = made.provenance["train_indices_by_rank"][target][rank]
    top, left, height, width = made.provenance["boxes_by_rank"][target][rank]
    box = data.train.images[index].float()[None, :, top : top + height, left : left + width]
    return F.interpolate(box, (side, side), mode="bilinear", antialias=True)[0].round()


def seen(pixels: Tensor, made: DistilledSet) -> Tensor:
    mean, std = (torch.tensor(values).view(3, 1, 1) for values in (made.info.mean, made.info.std))
    return features((pixels / 255 - mean) / std)


def test_provenance_tells_where_every_patch_comes_from(tiny_data: Dataset, patched: DistilledSet) -> None:
    half = patched.info.width // 2
    for number, (image, target) in enumerate(zip(patched.images, patched.targets.tolist(), strict=True)):
        for position in range(4):
            rank = position * patched.ipc + number % patched.ipc
            expected = original(patched, tiny_data, target, rank, half)
            assert (tile(image, position).float() - expected).abs().max() <= 1


def test_steps_are_those_of_adam_on_the_pixels(tiny_data: Dataset, patched: DistilledSet) -> None:
    update = ImageUpdate(steps=3, lr=0.02, batch=5)
    made = update_images(patched, tiny_data, features, update, execution=CPU)
    side, moved = patched.info.width, 0
    for number, (image, target) in enumerate(zip(patched.images, patched.targets.tolist(), strict=True)):
        for position in range(4):
            rank = position * patched.ipc + number % patched.ipc
            goal = seen(original(patched, tiny_data, target, rank, side)[None], patched)
            start = tile(image, position).float()
            q, first, second = start / 255, torch.zeros_like(start), torch.zeros_like(start)

            def distance(pixels: Tensor, goal: Tensor = goal) -> Tensor:
                large = F.interpolate(pixels[None], (side, side), mode="bilinear", align_corners=False)
                return (seen(large, patched) - goal).square().mean()

            for step in range(1, 4):
                q = q.detach().requires_grad_()
                (slope,) = torch.autograd.grad(distance(255 * q), q)
                first, second = 0.9 * first + 0.1 * slope, 0.999 * second + 0.001 * slope**2
                change = 0.02 * (first / (1 - 0.9**step)) / ((second / (1 - 0.999**step)).sqrt() + 1e-8)
                q = (q.detach() - change).clamp(0, 1)
            expected = (255 * q).round()
            closer = bool(distance(expected) < distance(start))
            moved += closer
            found = tile(made.images[number], position).float()
            assert (found - (expected if closer else start)).abs().max() <= 1
    assert moved > 4


def test_it_comes_closer_and_tells_how_far(tiny_data: Dataset, patched: DistilledSet) -> None:
    few, many = (
        update_images(patched, tiny_data, features, ImageUpdate(steps=steps), execution=CPU) for steps in (2, 60)
    )
    told = many.provenance["update"]
    assert told["steps"] == 60
    assert told["after"] < few.provenance["update"]["after"] < told["before"]
    assert told["after"] < 0.5 * told["before"]
    assert many.images.dtype == torch.uint8
    assert not torch.equal(many.images, patched.images)
    assert torch.equal(many.targets, patched.targets)
    assert (many.method, many.factor) == (patched.method, 2)
    again = update_images(patched, tiny_data, features, ImageUpdate(steps=60), execution=CPU)
    assert torch.equal(again.images, many.images)


def test_no_patch_gets_worse(tiny_data: Dataset, patched: DistilledSet) -> None:
    """With a rate that throws pixels about, most patches stay as they are."""
    wild = ImageUpdate(steps=1, lr=5.0)
    told = update_images(patched, tiny_data, features, wild, execution=CPU).provenance["update"]
    assert told["after"] <= told["before"]


def test_what_cannot_be_updated(tiny_data: Dataset, patched: DistilledSet) -> None:
    whole = distill("random", tiny_data, ipc=2, execution=CPU)
    with pytest.raises(DistillError, match=r"a set by rded with a factor of 2 or more. This one was made by random"):
        update_images(whole, tiny_data, features, ImageUpdate(), execution=CPU)
    large = distill("rded:factor=1,crops=2,images=8", tiny_data, [teacher(tiny_data)], ipc=2, execution=CPU)
    with pytest.raises(DistillError, match="needs patches that were made smaller"):
        update_images(large, tiny_data, features, ImageUpdate(), execution=CPU)
    other = replace(tiny_data, train=replace(tiny_data.train, images=255 - tiny_data.train.images))
    with pytest.raises(DistillError, match="are no patches of the train split of"):
        update_images(patched, other, features, ImageUpdate(), execution=CPU)
    short = replace(tiny_data, train=tiny_data.train.subset(torch.arange(1)))
    with pytest.raises(DistillError, match="Give the data that it was made of"):
        update_images(patched, short, features, ImageUpdate(), execution=CPU)
    for wrong in ({"steps": 0}, {"lr": 0.0}, {"batch": 0}):
        with pytest.raises(ConfigError, match="steps and a batch of 1 or more and a rate above 0"):
            ImageUpdate(**wrong)  # type: ignore[arg-type]


def test_patches_per_image() -> None:
    assert [tiles(spec) for spec in ("rded:factor=3", "rded", "random")] == [9, 1, 1]
