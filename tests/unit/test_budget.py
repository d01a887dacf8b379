"""Labels for a number of bytes: candidates, a pilot that never sees the test split, and the choice."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from softlabel.core import ConfigError, Dataset, DistilledSet, Split, parse_bytes
from softlabel.distill import distill
from softlabel.evaluation import find_protocol, label_candidates, pilot
from softlabel.evaluation._budget import _judges
from softlabel.labels import OnlineLabels, load_label_store, online_labels, write_label_store
from softlabel.models import build_model
from softlabel.store import Store, save_distilled
from softlabel.training import Execution, Protocol, Teacher

EXECUTION = Execution("cpu", "fp32")


@pytest.fixture(scope="module")
def distilled(tiny_data: Dataset) -> DistilledSet:
    return distill("random", tiny_data, ipc=4, seed=0, execution=EXECUTION)


@pytest.fixture(scope="module")
def online(tiny_data: Dataset) -> OnlineLabels:
    info, arch = tiny_data.info, "convnet-2:width=8"
    model = build_model(arch, image_shape=info.image_shape, classes=info.classes, seed=0).eval().requires_grad_(False)
    return online_labels([Teacher(model, info, arch, "test", 0.25, 0, 1000)], info)


@pytest.fixture
def protocol() -> Protocol:
    return replace(find_protocol("gift", epochs=30), batch=5)


def test_candidates_fit_and_are_as_large_as_they_say(
    tmp_path: Path, distilled: DistilledSet, online: OnlineLabels, protocol: Protocol
) -> None:
    budget = 2000
    found = label_candidates(distilled, protocol, budget)
    assert found
    assert [size for _, size in found] == sorted((size for _, size in found), reverse=True)
    for position, (spec, size) in enumerate(found[:4]):
        assert size <= budget
        path = tmp_path / str(position)
        write_label_store(
            path, online, distilled, protocol=protocol, epochs=spec.epochs, codec=spec.codec, views="seed",
            execution=EXECUTION,
        )  # fmt: skip
        files = len(list((path / "labels").iterdir())) + (path / "codec.safetensors").exists()
        assert size - 600 * files <= load_label_store(path, distilled).labels.label_bytes <= size


def test_candidates_serve_the_loss(distilled: DistilledSet, protocol: Protocol) -> None:
    for loss, expected in (("gift", False), ("kl", True)):
        found = label_candidates(distilled, protocol.with_loss(loss), 10**9)
        assert any(spec.space("logits") == "top logits" for spec, _ in found) == expected


def test_a_budget_that_holds_nothing(distilled: DistilledSet, protocol: Protocol) -> None:
    with pytest.raises(
        ConfigError, match=r"A budget of 20 B holds no labels for .*: the smallest labels per view, replay:"
    ):
        label_candidates(distilled, protocol, 20)


def test_the_pilot_looks_at_training_images(
    tiny_data: Dataset, distilled: DistilledSet, online: OnlineLabels, protocol: Protocol, store: Store
) -> None:
    candidates = label_candidates(distilled, protocol, 1200)[:3]
    settings: dict[str, Any] = {
        "protocol": protocol, "student": "convnet-1:width=4", "execution": EXECUTION, "store": store}  # fmt: skip
    found = pilot(candidates, online, distilled, tiny_data, **settings)
    assert sorted(one.bytes for one in found) == sorted(size for _, size in candidates)
    assert [one.accuracy for one in found] == sorted((one.accuracy for one in found), reverse=True)
    shuffled = Split(tiny_data.test.images.flip(0), torch.zeros_like(tiny_data.test.targets))
    assert pilot(candidates, online, distilled, replace(tiny_data, test=shuffled), **settings) == found


def test_nobody_is_judged_by_images_of_the_set(tiny_data: Dataset, distilled: DistilledSet) -> None:
    taken = {image.numpy().tobytes() for image in distilled.images}
    judges = _judges(tiny_data, distilled, 0).test
    assert len(judges) == len(tiny_data.train) - len(taken)
    assert not taken & {image.numpy().tobytes() for image in judges.images}
    chosen = replace(tiny_data, selection=tiny_data.test)
    assert torch.equal(_judges(chosen, distilled, 0).test.images, tiny_data.test.images)
    everything = replace(tiny_data, train=Split(distilled.images, distilled.targets))
    with pytest.raises(ConfigError, match="No real image is left"):
        _judges(everything, distilled, 0)


@pytest.mark.parametrize("method", ["random", "rded:factor=2,crops=2,images=8"])
def test_nobody_is_judged_by_what_a_set_was_made_from(
    tiny_data: Dataset, online: OnlineLabels, tmp_path: Path, method: str
) -> None:
    made = distill(method, tiny_data, list(online.teachers), ipc=2, seed=0, execution=EXECUTION)
    told = made.provenance.get("train_indices") or made.provenance["train_indices_by_rank"]
    sources = {tiny_data.train.images[place].numpy().tobytes() for place in torch.tensor(told).flatten().tolist()}
    kept = save_distilled(made, tmp_path / "set", "jpeg-75" if method == "random" else "png")
    judges = _judges(replace(tiny_data, selection=None), kept, 0).test
    assert len(judges)
    assert not sources & {image.numpy().tobytes() for image in judges.images}


@pytest.mark.parametrize(
    ("text", "count"), [("2MB", 2_000_000), ("300 kB", 300_000), ("4096", 4096), (".5gb", 5 * 10**8), ("10b", 10)]
)
def test_numbers_of_bytes(text: str, count: int) -> None:
    assert parse_bytes(text) == count


@pytest.mark.parametrize("text", ["", "many", "-3kB", "0", "2MiB", "1e6"])
def test_numbers_of_bytes_that_are_none(text: str) -> None:
    with pytest.raises(ConfigError, match="is written like 2MB, 300kB or 4096"):
        parse_bytes(text)
