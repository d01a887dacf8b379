"""What a finished result is found by: everything that changes a number is in its key, and nothing else is trusted."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from softlabel.core import Dataset, DistilledSet, stream
from softlabel.distill import distill
from softlabel.evaluation import SetOptions, find_protocol, set_path, train_student
from softlabel.labels import HardLabels
from softlabel.store import Store, save_distilled
from softlabel.training import Execution, Protocol, teacher_path

STUDENT = "convnet-2:width=4"


@pytest.fixture
def hard() -> Protocol:
    return replace(find_protocol("hard", epochs=1), batch=16)


@pytest.fixture
def images(tiny_data: Dataset, execution: Execution) -> DistilledSet:
    return distill("random", tiny_data, ipc=2, execution=execution)


def train(images: DistilledSet, data: Dataset, protocol: Protocol, execution: Execution, store: Store) -> Any:
    return train_student(
        images, HardLabels(), data=data, protocol=protocol, student=STUDENT, execution=execution, store=store
    )


def smaller(data: Dataset) -> Dataset:
    """The same pool with other images in both splits; its `info` is the same."""
    keep = torch.randperm(len(data.test), generator=stream(0, "keep"))[: len(data.test) // 2]
    train = torch.randperm(len(data.train), generator=stream(0, "keep"))[: len(data.train) - 1]
    return replace(data, train=data.train.subset(train), test=data.test.subset(keep))


def test_another_train_split_is_another_teacher_and_another_set(
    tiny_data: Dataset, store: Store, execution: Execution, hard: Protocol
) -> None:
    options = SetOptions(name="random", method="random", ipc=2)
    places = [
        (
            teacher_path(data, arch=STUDENT, protocol=hard, store=store, execution=execution),
            set_path(options, data, [], 0, store, execution),
        )
        for data in (tiny_data, smaller(tiny_data))
    ]
    assert places[0][0] != places[1][0]
    assert places[0][1] != places[1][1]


def test_renamed_classes_are_another_teacher_and_another_set(
    tiny_data: Dataset, store: Store, execution: Execution, hard: Protocol
) -> None:
    names = tuple(name.upper() for name in tiny_data.info.class_names)
    renamed = replace(tiny_data, info=replace(tiny_data.info, class_names=names))
    options = SetOptions(name="random", method="random", ipc=2)
    for place in (
        lambda data: teacher_path(data, arch=STUDENT, protocol=hard, store=store, execution=execution),
        lambda data: set_path(options, data, [], 0, store, execution),
    ):
        assert place(tiny_data) != place(renamed)


def test_options_that_say_the_default_are_the_same_set(tiny_data: Dataset, store: Store, execution: Execution) -> None:
    paths = [
        set_path(SetOptions(name="x", method=spec, ipc=2), tiny_data, [], 0, store, execution).name.rpartition("-")[2]
        for spec in ("rded", "rded:factor=1", "rded:factor=2")
    ]
    assert paths[0] == paths[1]
    assert paths[1] != paths[2]


def test_another_test_split_is_another_record(
    tiny_data: Dataset, images: DistilledSet, store: Store, execution: Execution, hard: Protocol
) -> None:
    first = train(images, tiny_data, hard, execution, store)
    second = train(images, smaller(tiny_data), hard, execution, store)
    assert first["key"] != second["key"]


def test_the_tiles_of_the_images_belong_to_the_record(
    tiny_data: Dataset, images: DistilledSet, store: Store, execution: Execution
) -> None:
    protocol = replace(find_protocol("rded", epochs=1).with_loss("ce"), batch=8)
    first = train(images, tiny_data, protocol, execution, store)
    assert first["key"] != train(replace(images, factor=2), tiny_data, protocol, execution, store)["key"]


def test_a_found_record_tells_the_bytes_of_the_set_at_hand(
    tiny_data: Dataset, images: DistilledSet, store: Store, execution: Execution, hard: Protocol, tmp_path: Path
) -> None:
    unsaved = train(images, tiny_data, hard, execution, store)
    stored = save_distilled(images, tmp_path / "png")
    found = train(stored, tiny_data, hard, execution, store)
    assert found["key"] == unsaved["key"]
    assert (unsaved["bytes"]["images"], found["bytes"]["images"]) == (0, stored.image_bytes)
