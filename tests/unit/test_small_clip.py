"""A small CLIP: trained on images and class names, kept as transformers keeps one, read as a public one is."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F

from softlabel.core import ConfigError, Dataset, StoreError
from softlabel.labels import SmallClipConfig, train_small_clip
from softlabel.labels._projector import PROMPT
from softlabel.models import load_backbone
from softlabel.training import Execution

pytest.importorskip("transformers")
pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")  # of the packages underneath
EXECUTION = Execution("cpu", "fp32")
SMALL = {"width": 16, "depth": 1, "heads": 2, "embedding": 8, "batch": 16, "lr": 1e-2}


def make(data: Dataset, out: Path, **changes: Any) -> Path:
    settings = {**SMALL, "epochs": 8, **changes}
    return train_small_clip(data, SmallClipConfig(**settings), out=out, execution=EXECUTION)


def test_it_learns_and_is_read_as_a_public_one(tiny_data: Dataset, tmp_path: Path) -> None:
    path = make(tiny_data, tmp_path / "clip")
    told = json.loads((path / "manifest.json").read_text())["meta"]["test_accuracy"]
    assert told > 1.6 / tiny_data.info.classes
    backbone = load_backbone(f"clip:{path}")
    assert (backbone.size, backbone.feature_size) == (tiny_data.info.height, 8)
    assert backbone.mean == pytest.approx(tiny_data.info.mean)
    assert backbone.texts is not None
    texts = backbone.texts([PROMPT.format(name) for name in tiny_data.info.class_names])
    mean, std = (torch.tensor(values).view(3, 1, 1) for values in (backbone.mean, backbone.std))
    seen = backbone.network((tiny_data.test.images.float() / 255 - mean) / std)
    torch.testing.assert_close(seen.norm(dim=1), torch.ones(len(seen)))
    found = (F.normalize(seen, dim=1) @ texts.T).argmax(dim=1)
    assert float((found == tiny_data.test.targets).float().mean()) == pytest.approx(told)


def test_it_is_found_and_not_overwritten(tiny_data: Dataset, tmp_path: Path) -> None:
    path = make(tiny_data, tmp_path / "clip", epochs=1)
    stamp = (path / "manifest.json").stat().st_mtime_ns
    make(tiny_data, path, epochs=1)
    assert (path / "manifest.json").stat().st_mtime_ns == stamp
    with pytest.raises(StoreError, match="already holds another CLIP"):
        make(tiny_data, path, epochs=2)


def test_one_bit_that_differs_is_told(tiny_data: Dataset, tmp_path: Path) -> None:
    path = make(tiny_data, tmp_path / "clip", epochs=1)
    weights = path / "model.safetensors"
    data = bytearray(weights.read_bytes())
    data[-5] ^= 1
    weights.write_bytes(data)
    for read in (lambda: load_backbone(f"clip:{path}"), lambda: make(tiny_data, path, epochs=1)):
        with pytest.raises(StoreError, match="SHA-256"):
            read()


def test_other_class_names_are_another_clip(tiny_data: Dataset, tmp_path: Path) -> None:
    path = make(tiny_data, tmp_path / "clip", epochs=1)
    names = tuple(f"new {name}" for name in tiny_data.info.class_names)
    other = replace(tiny_data, info=replace(tiny_data.info, class_names=names))
    with pytest.raises(StoreError, match="already holds another"):
        make(other, path, epochs=1)


def test_the_seed_decides_everything(tiny_data: Dataset, tmp_path: Path) -> None:
    weights = [
        (make(tiny_data, tmp_path / str(place), epochs=1) / "model.safetensors").read_bytes() for place in range(2)
    ]
    assert weights[0] == weights[1]


def test_images_that_it_cannot_take(grey_data: Dataset, tiny_data: Dataset, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="square images of 3 channels"):
        make(grey_data, tmp_path / "grey")
    with pytest.raises(ConfigError, match="cut into patches of 5 px"):
        make(tiny_data, tmp_path / "cut", patch=5)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("changes", "message"),
    [({"width": 10, "heads": 3}, "shared evenly by 3 heads"), ({"depth": 0}, "depth of 1 or more"),
     ({"epochs": 0}, "1 epoch or more")],
)  # fmt: skip
def test_settings_that_make_no_sense(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        SmallClipConfig(**changes)
