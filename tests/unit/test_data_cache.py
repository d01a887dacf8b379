"""The decoded cache: used, checked, never in the way."""

import errno
import os
import warnings
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from softlabel.core import Dataset, SoftlabelWarning
from softlabel.data import load_dataset


@pytest.fixture(autouse=True)
def cache(monkeypatch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("cache")
    monkeypatch.setenv("SOFTLABEL_CACHE", str(folder))
    return folder


@pytest.fixture
def spec(tmp_path: Path) -> str:
    for index, name in enumerate(("a", "b")):
        for number in range(5):
            save(tmp_path / "toys" / name / f"{number}.png", 10 * index + number)
    return f"imagefolder:{tmp_path / 'toys'}"


def save(path: Path, value: int) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.full((4, 6, 3), value, np.uint8)).save(path)


def no_decoding(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise AssertionError("decoded again")

    monkeypatch.setattr("softlabel.data._load.to_tensors", refuse)


def same(one: Dataset, other: Dataset) -> bool:
    pairs = ((one.train, other.train), (one.test, other.test))
    return one.info == other.info and all(
        torch.equal(a.images, b.images) and torch.equal(a.targets, b.targets) for a, b in pairs
    )


def test_second_load_reads_the_cache(spec: str, cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = load_dataset(spec)
    assert [path.name.startswith("toys-") for path in (cache / "decoded").iterdir()] == [True]
    no_decoding(monkeypatch)
    assert same(load_dataset(spec), first)


def test_selection_and_seed_share_one_cache(spec: str, monkeypatch: pytest.MonkeyPatch) -> None:
    first = load_dataset(spec)
    no_decoding(monkeypatch)
    carved = load_dataset(spec, selection=0.25, seed=3)
    assert replace(carved.info, options={}) == replace(first.info, options={})
    assert (len(carved.train), len(carved.selection or ())) == (6, 2)


def test_cached_tensors_may_be_written_without_touching_the_file(spec: str) -> None:
    load_dataset(spec)
    data = load_dataset(spec)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        data.train.images.add_(1)
        data.train.images.numpy()[0] = 0
    assert load_dataset(spec).info.digest == data.info.digest
    assert not torch.equal(load_dataset(spec).train.images, data.train.images)


def test_options_and_changed_files_make_a_new_cache(spec: str, cache: Path, tmp_path: Path) -> None:
    first = load_dataset(spec)
    load_dataset(spec, image_size=(3, 3))
    load_dataset(spec, channels=1)
    save(tmp_path / "toys" / "a" / "0.png", 200)
    changed = load_dataset(spec)
    assert changed.info.digest != first.info.digest
    (tmp_path / "toys" / "a" / "0.png").rename(tmp_path / "toys" / "a" / "9.png")
    load_dataset(spec)
    assert len(list((cache / "decoded").iterdir())) == 5


def test_the_same_files_in_another_form_are_not_mixed_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pa, pq = pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.parquet")
    images = []
    for value in range(10):
        save(tmp_path / "one.png", value)
        images.append((tmp_path / "one.png").read_bytes())
    (tmp_path / "cifar10").mkdir()
    for split in ("train", "test"):
        table = pa.table({"img": pa.array(images, pa.binary()), "label": list(range(10))})
        pq.write_table(table, tmp_path / "cifar10" / f"{split}.parquet")
    monkeypatch.setenv("SOFTLABEL_DATA", str(tmp_path))
    assert load_dataset("cifar10").info.class_names[0] == "airplane"
    assert load_dataset(f"parquet:{tmp_path / 'cifar10'}").info.class_names[0] == "0"


def test_large_splits_are_kept_in_shards(spec: str, cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("softlabel.data._cache._SHARD_BYTES", 3 * 4 * 6 * 3)
    first = load_dataset(spec)
    assert len(list((cache / "decoded").glob("*/train-*.safetensors"))) == 3
    no_decoding(monkeypatch)
    assert same(load_dataset(spec), first)


@pytest.mark.parametrize("damage", ["flip", "cut", "missing", "manifest", "meta"])
def test_damage_is_noticed_and_mended(spec: str, cache: Path, damage: str) -> None:
    first = load_dataset(spec)
    (folder,) = (cache / "decoded").iterdir()
    file, manifest = folder / "train-00000.safetensors", folder / "manifest.json"
    if damage == "flip":
        content = bytearray(file.read_bytes())
        content[-1] ^= 1
        file.write_bytes(bytes(content))
    elif damage == "cut":
        file.write_bytes(file.read_bytes()[:-7])
    elif damage == "missing":
        file.unlink()
    elif damage == "manifest":
        manifest.unlink()
    else:
        manifest.write_text(manifest.read_text().replace('"class_names"', '"other"'))
    with pytest.warns(SoftlabelWarning, match="are damaged .* made again"):
        mended = load_dataset(spec)
    assert same(mended, first)
    assert same(load_dataset(spec), first)


def test_an_unwritable_cache_is_a_warning(spec: str, tmp_path: Path) -> None:
    blocked = tmp_path / "file"
    blocked.write_text("a file where the cache folder should be")
    with pytest.warns(SoftlabelWarning, match=r"could not be kept at .*Set SOFTLABEL_CACHE"):
        data = load_dataset(spec, cache=blocked)
    assert len(data.train) == 8


def test_a_full_disk_is_a_warning_and_leaves_nothing(spec: str, cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(_: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.warns(SoftlabelWarning, match="No space left on device"):
        data = load_dataset(spec)
    assert len(data.train) == 8
    assert list((cache / "decoded").iterdir()) == []


def test_info_carries_the_spec_as_given(spec: str, monkeypatch: pytest.MonkeyPatch) -> None:
    load_dataset(spec)
    path = Path(spec.partition(":")[2])
    monkeypatch.chdir(path.parent)
    no_decoding(monkeypatch)
    assert load_dataset("imagefolder:toys").info.name == "imagefolder:toys"


def test_digits_are_not_cached(cache: Path) -> None:
    load_dataset("digits")
    assert list(cache.iterdir()) == []
