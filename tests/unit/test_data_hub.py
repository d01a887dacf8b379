"""hf:NAME, with local folders only."""

import builtins
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from softlabel.core import DataError, MissingExtraError
from softlabel.data import load_dataset


@pytest.fixture(autouse=True)
def _own_caches(monkeypatch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory) -> None:
    folder = tmp_path_factory.mktemp("cache")
    monkeypatch.setenv("SOFTLABEL_CACHE", str(folder / "softlabel"))


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory) -> Any:
    datasets = pytest.importorskip("datasets")
    folder = tmp_path_factory.mktemp("hub")
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", folder)
    monkeypatch.setattr(datasets.config, "HF_DATASETS_OFFLINE", True, raising=False)
    monkeypatch.setattr(datasets.config, "HF_HUB_OFFLINE", True, raising=False)
    datasets.disable_progress_bars()
    return datasets


def images(folder: Path, count: int) -> Path:
    for index, name in enumerate(("cat", "dog")):
        (folder / name).mkdir(parents=True)
        for number in range(count):
            Image.fromarray(np.full((4, 6, 3), 10 * index + number, np.uint8)).save(folder / name / f"{number}.png")
    return folder


def test_local_class_folders(hub: Any, tmp_path: Path) -> None:
    images(tmp_path / "pets" / "train", 4)
    images(tmp_path / "pets" / "test", 2)
    data = load_dataset(f"hf:{tmp_path / 'pets'}")
    assert data.info.class_names == ("cat", "dog")
    assert data.train.counts(2) == [4, 4]
    assert data.test.counts(2) == [2, 2]
    assert data.info.image_shape == (3, 4, 6)
    assert load_dataset(f"hf:{tmp_path / 'pets'}").info == data.info


def test_local_parquet_without_class_names(hub: Any, tmp_path: Path) -> None:
    pa, pq = pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.parquet")
    encoded = [file.read_bytes() for file in sorted(images(tmp_path / "raw", 4).rglob("*.png"))]
    (tmp_path / "repo").mkdir()
    cells = pa.array([{"bytes": data, "path": None} for data in encoded])
    pq.write_table(pa.table({"image": cells, "label": [0, 1] * 4}), tmp_path / "repo" / "train.parquet")
    data = load_dataset(f"hf:{tmp_path / 'repo'}", test_fraction=0.25)
    assert data.info.class_names == ("0", "1")
    assert (len(data.train), len(data.test)) == (6, 2)


def test_name_and_revision_are_passed_on(hub: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []

    def load(path: str, revision: str | None) -> Any:
        asked.append((path, revision))
        raise hub.exceptions.DatasetNotFoundError("no such data set on the hub")

    monkeypatch.setattr(hub, "load_dataset", load)
    for spec in ("hf:someone/thing@v1.0", "hf:someone/thing"):
        with pytest.raises(DataError, match=r"hf:someone/thing.* cannot be loaded .*no such data set.*Check the name"):
            load_dataset(spec)
    assert asked == [("someone/thing", "v1.0"), ("someone/thing", None)]


def test_missing_train_split_and_columns(hub: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    table = hub.Dataset.from_dict({"text": ["a"], "label": [0]})
    monkeypatch.setattr(hub, "load_dataset", lambda *_, **__: hub.DatasetDict({"test": table}))
    with pytest.raises(DataError, match=r"hf:x has no train split; it has: test"):
        load_dataset("hf:x")
    monkeypatch.setattr(hub, "load_dataset", lambda *_, **__: hub.DatasetDict({"train": table}))
    with pytest.raises(DataError, match=r"hf:x needs a column image or img .*It has: text, label"):
        load_dataset("hf:x")


def test_absent_library(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "datasets", None)
    with pytest.raises(MissingExtraError, match=r"hf:x needs the package 'datasets'.*softlabel\[hf\]"):
        load_dataset("hf:x")


def test_other_forms_do_not_import_the_library(monkeypatch: pytest.MonkeyPatch) -> None:
    real = builtins.__import__

    def guarded(name: str, *args: Any, **kwargs: Any) -> Any:
        assert name.partition(".")[0] not in {"datasets", "pyarrow"}
        return real(name, *args, **kwargs)

    monkeypatch.setattr(builtins, "__import__", guarded)
    assert len(load_dataset("digits").train) == 1438
