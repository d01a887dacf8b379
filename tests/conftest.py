"""Shared fixtures: two small learnable data sets, an execution on the CPU, and a store in a temporary folder."""

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from softlabel.core import Dataset, DatasetInfo, Split, stream, tensor_fingerprint
from softlabel.store import Store
from softlabel.training import Execution


def _split(name: str, per_class: int, classes: int, shape: tuple[int, int, int]) -> Split:
    """Per class a bright patch at its own place and in its own colour, under noise; shuffled."""
    channels, height, width = shape
    draws = stream(0, "fixture", name)
    targets = torch.arange(classes).repeat_interleave(per_class)[torch.randperm(classes * per_class, generator=draws)]
    images = torch.rand(len(targets), *shape, generator=draws) * 120
    for position, target in enumerate(targets.tolist()):
        top, left = (target // 2) * (height // 2), (target % 2) * (width // 2)
        images[position, target % channels, top : top + height // 2, left : left + width // 2] += 100
    return Split(images.to(torch.uint8), targets)


def _dataset(name: str, classes: int, shape: tuple[int, int, int], train: int, test: int) -> Dataset:
    splits = [_split(f"{name}-{part}", count, classes, shape) for part, count in (("train", train), ("test", test))]
    pixels = splits[0].images.float() / 255
    info = DatasetInfo(
        name=name,
        class_names=tuple(f"class {letter}" for letter in "abcdefgh"[:classes]),
        channels=shape[0],
        height=shape[1],
        width=shape[2],
        mean=tuple(pixels.mean(dim=(0, 2, 3)).tolist()),
        std=tuple(pixels.std(dim=(0, 2, 3)).tolist()),
        digest=tensor_fingerprint(*(tensor for split in splits for tensor in (split.images, split.targets))),
        origin="made by the tests",
    )
    return Dataset(info, splits[0], splits[1])


@pytest.fixture(scope="session")
def tiny_data() -> Dataset:
    """4 classes, 3 x 16 x 16, 40 training and 20 test images per class; easy to learn."""
    return _dataset("tiny", 4, (3, 16, 16), train=40, test=20)


@pytest.fixture(scope="session")
def grey_data() -> Dataset:
    """3 classes, grey, 8 pixels high and 12 wide: 20 training and 10 test images per class."""
    return _dataset("grey", 3, (1, 8, 12), train=20, test=10)


@pytest.fixture(scope="session")
def execution() -> Execution:
    """float32 on the CPU."""
    return Execution("cpu", "fp32")


@pytest.fixture
def store(tmp_path: Path) -> Store:
    """An empty store."""
    return Store(tmp_path / "store")


# Tiny tensors: on a busy machine, threads that wait for each other cost thirty times the work. (The number of threads
# also changes the last bits of a sum, so fixtures of every scope must run with the same one.)
THREADS = torch.get_num_threads()
torch.set_num_threads(1)


@pytest.fixture(autouse=True)
def _threads(request: pytest.FixtureRequest) -> Iterator[None]:
    """All threads for heavy tests."""
    heavy = request.node.get_closest_marker("heavy") is not None
    torch.set_num_threads(THREADS if heavy else 1)
    yield
    torch.set_num_threads(1)
