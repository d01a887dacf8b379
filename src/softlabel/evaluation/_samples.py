"""What a report says of generated images: whether they are of their class, how far from real ones, and from which."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from softlabel.core import Dataset, DistilledSet, stream
from softlabel.generate import agreement, confidences, frechet_distance, image_features, nearest_real
from softlabel.training import Execution, Teacher

PICTURES = "samples.safetensors"
SHOWN_CLASSES, SHOWN_PER_CLASS = 10, 4
MOST_FEATURES, MOST_IMAGES = 16_384, 5_000
"""Of a Frechet distance: beyond, it takes minutes and gigabytes. Features that are more are left out, and of images so
many are drawn."""


def sample_facts(
    sets: Sequence[tuple[str, DistilledSet]], data: Dataset, teachers: Sequence[Teacher], execution: Execution
) -> tuple[list[dict[str, Any]], dict[str, Tensor]]:
    """Of every generated set (those whose provenance names a generator) the facts, and the pictures to show.

    Facts, JSON-ready, with teachers: `agreement`, the share of images that their mean logits take for their class, and
    `frechet`, between the images and the test images in the first teacher's features, beside `frechet_real`, that of
    as many real training images of each class. Always: the root mean square difference of pixels (0 to 255) to the
    nearest training image of its class, as it is or mirrored: the median over the images (`nearest`) and over as many
    test images (`nearest_real`). An image
    that was learned by heart is nearer than a test image can be.

    Pictures, uint8 [classes * n, C, H, W] by `SET/samples`, `SET/nearest` and `SET/real`: the first images of the first
    classes, the nearest training image of each, and training images drawn at random.
    """
    facts: list[dict[str, Any]] = []
    pictures: dict[str, Tensor] = {}
    generated = [(name, one) for name, one in sets if "generator" in one.provenance]
    if not generated:
        return facts, pictures
    teachers = [teacher.to(execution.torch_device) for teacher in teachers]
    of_test = _features(teachers[0], data.test.images, data, execution) if teachers else None
    for number, (name, one) in enumerate(generated):
        nearest = nearest_real(one.images, one.targets, data.train)
        own = _as_many(one.targets, data.test.targets)
        real = nearest_real(data.test.images[own], data.test.targets[own], data.train)
        told: dict[str, Any] = {
            "set": name,
            "images": len(one),
            "nearest": float(nearest.distance.median()),
            "nearest_real": float(real.distance.median()),
        }
        if teachers:
            told["agreement"] = agreement(confidences(teachers, one.images, data.info, execution), one.targets)
        if of_test is not None:
            drawn = _as_many(one.targets, data.train.targets)
            for what, images in (("frechet", one.images), ("frechet_real", data.train.images[drawn])):
                features = _features(teachers[0], images, data, execution)
                told[what] = None if features is None else frechet_distance(features, of_test)
        shown = _first(one.targets)
        told["shown"] = shown.tolist()
        told["classes"] = one.targets[shown].tolist()
        told["distances"] = nearest.distance[shown].tolist()
        told["pictures"] = f"{number}"
        shown_real = _as_many(one.targets[shown], data.train.targets)
        told["real_classes"] = data.train.targets[shown_real].tolist()
        facts.append(told)
        closest = data.train.images[nearest.index[shown]]
        mirrored = nearest.mirrored[shown].view(-1, 1, 1, 1)
        pictures |= {
            f"{number}/samples": one.images[shown],
            f"{number}/nearest": torch.where(mirrored, closest.flip(3), closest),
            f"{number}/real": data.train.images[shown_real],
        }
    return facts, {name: images.contiguous() for name, images in pictures.items()}


def _features(teacher: Teacher, images: Tensor, data: Dataset, execution: Execution) -> Tensor | None:
    """A teacher's features of images, or of a part of too many; None where features are too many, or images too few."""
    if len(images) > MOST_IMAGES:
        images = images[torch.randperm(len(images), generator=stream(0, "features"))[:MOST_IMAGES].sort().values]
    if len(images) < 2 or image_features(teacher, images[:1], data.info, execution).shape[1] > MOST_FEATURES:
        return None
    return image_features(teacher, images, data.info, execution)


def _first(targets: Tensor) -> Tensor:
    """Positions of the images that are shown."""
    classes = targets.unique().tolist()[:SHOWN_CLASSES]
    return torch.cat([(targets == label).nonzero().flatten()[:SHOWN_PER_CLASS] for label in classes])


def _as_many(targets: Tensor, real: Tensor) -> Tensor:
    """Positions in a real split, drawn at random, of as many images of each class, or of all that it has."""
    drawn = torch.randperm(len(real), generator=stream(0, "real images"))
    parts = []
    for label, count in zip(*targets.unique(return_counts=True), strict=True):
        parts.append(drawn[real[drawn] == label][: int(count)])
    return torch.cat(parts)
