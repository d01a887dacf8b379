"""Herding and k-centre against slow loops."""

import pytest
import torch
from torch import Tensor

from softlabel.core import Dataset, stream
from softlabel.distill import distill, farthest_first, herd
from softlabel.models import as_classifier, build_model
from softlabel.training import Execution, Teacher


def features_of(count: int, size: int, seed: int) -> Tensor:
    return torch.randn(count, size, generator=stream(seed, "features"), dtype=torch.float64)


def slow_herd(features: Tensor, count: int) -> list[int]:
    """iCaRL, Algorithm 4: p_k = argmin || mean - (1/k) (x + sum of the chosen) ||, without repetition."""
    rows = features.tolist()
    mean = [sum(column) / len(rows) for column in zip(*rows, strict=True)]
    chosen: list[int] = []
    for k in range(1, count + 1):
        distances = {}
        for i, row in enumerate(rows):
            if i not in chosen:
                sums = [x + sum(rows[j][d] for j in chosen) for d, x in enumerate(row)]
                distances[i] = sum((m - s / k) ** 2 for m, s in zip(mean, sums, strict=True))
        chosen.append(min(distances, key=distances.__getitem__))
    return chosen


def slow_farthest(features: Tensor, count: int, first: int) -> list[int]:
    """Sener and Savarese, Algorithm 1: argmax over the rest of the distance to the nearest chosen."""
    rows = features.tolist()

    def squared(i: int, j: int) -> float:
        return sum((a - b) ** 2 for a, b in zip(rows[i], rows[j], strict=True))

    chosen = [first]
    while len(chosen) < count:
        rest = [i for i in range(len(rows)) if i not in chosen]
        chosen.append(max(rest, key=lambda i: min(squared(i, j) for j in chosen)))
    return chosen


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("count", [1, 4, 17])
def test_herding(seed: int, count: int) -> None:
    features = features_of(17, 6, seed)
    assert herd(features, count).tolist() == slow_herd(features, count)


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("count", [1, 4, 17])
def test_k_centre(seed: int, count: int) -> None:
    features = features_of(17, 6, seed)
    assert farthest_first(features, count, seed).tolist() == slow_farthest(features, count, seed)


def test_equal_images_are_chosen_once_each() -> None:
    same = torch.ones(6, 3)
    assert sorted(herd(same, 6).tolist()) == list(range(6))
    assert sorted(farthest_first(same, 6, 3).tolist()) == list(range(6))
    assert farthest_first(same, 6, 3)[0] == 3


def test_herding_by_hand() -> None:
    """On a line with the mean 2: 2 is nearest, then 1 or 3 keep the running mean nearest to it."""
    assert herd(torch.tensor([[0.0], [2.0], [1.9], [4.1]]), 2).tolist() == [1, 2]


def test_k_centre_by_hand() -> None:
    assert farthest_first(torch.tensor([[0.0], [1.0], [10.0], [6.0]]), 3, 0).tolist() == [0, 2, 3]


def trained_looking(data: Dataset) -> Teacher:
    model = build_model("convnet-2:width=8", image_shape=data.info.image_shape, classes=data.info.classes, seed=3)
    return Teacher(model.eval().requires_grad_(False), data.info, "convnet-2:width=8", "features", None, 0, 0)


def slow_features(data: Dataset, teacher: Teacher, index: list[int]) -> Tensor:
    """One image at a time: the input of the last layer, float64."""
    mean, std = (torch.tensor(values).view(-1, 1, 1) for values in (data.info.mean, data.info.std))
    rows = [as_classifier(teacher.model).features(((data.train.images[i] / 255 - mean) / std)[None])[0] for i in index]
    return torch.stack(rows).double()


@pytest.mark.parametrize("unit", [False, True])
def test_the_herding_method(unit: bool, tiny_data: Dataset, execution: Execution) -> None:
    teacher = trained_looking(tiny_data)
    made = distill(f"herding:unit={unit}", tiny_data, [teacher], ipc=5, seed=0, execution=execution)
    expected = []
    for target in range(4):
        members = (tiny_data.train.targets == target).nonzero().flatten().tolist()
        features = slow_features(tiny_data, teacher, members)
        if unit:
            features = features / features.norm(dim=1, keepdim=True)
        expected += [members[i] for i in slow_herd(features, 5)]
    assert made.provenance["train_indices"] == expected


def test_the_k_centre_method(tiny_data: Dataset, execution: Execution) -> None:
    teacher = trained_looking(tiny_data)
    made = distill("k-centre", tiny_data, [teacher], ipc=5, seed=2, execution=execution)
    generator = stream(2, "distill", "k-centre")
    expected = []
    for target in range(4):
        members = (tiny_data.train.targets == target).nonzero().flatten().tolist()
        first = int(torch.randint(len(members), (1,), generator=generator))
        expected += [members[i] for i in slow_farthest(slow_features(tiny_data, teacher, members), 5, first)]
    assert made.provenance["train_indices"] == expected


def test_the_random_method(tiny_data: Dataset, execution: Execution) -> None:
    made = distill("random", tiny_data, ipc=4, seed=1, execution=execution)
    generator = stream(1, "distill", "random")
    expected = []
    for target in range(4):
        members = [i for i, t in enumerate(tiny_data.train.targets.tolist()) if t == target]
        expected += [members[i] for i in torch.randperm(len(members), generator=generator).tolist()[:4]]
    assert made.provenance["train_indices"] == expected
