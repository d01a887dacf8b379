"""Class folders of images as distilled sets."""

import shutil
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from softlabel.core import DataError, Dataset, DistilledSet, StoreError
from softlabel.data import read_class_folders
from softlabel.distill import distill
from softlabel.evaluation import keep_given, read_given, set_names
from softlabel.store import Store, load_distilled, save_distilled
from softlabel.training import Execution


@pytest.fixture
def distilled(tiny_data: Dataset, execution: Execution, tmp_path: Path) -> DistilledSet:
    return save_distilled(distill("random", tiny_data, ipc=2, seed=0, execution=execution), tmp_path / "made")


@pytest.fixture
def folder(distilled: DistilledSet, tmp_path: Path) -> Path:
    """The images alone, in one folder per class index."""
    shutil.copytree(tmp_path / "made" / "images", tmp_path / "images only")
    return tmp_path / "images only"


def by_name(folder: Path, data: Dataset) -> Path:
    for index, name in enumerate(data.info.class_names):
        (folder / f"{index:05d}").rename(folder / name)
    return folder


def test_folders_by_index_and_by_name(folder: Path, distilled: DistilledSet, tiny_data: Dataset) -> None:
    for path in (folder, by_name(folder, tiny_data)):
        split = read_class_folders(path, tiny_data.info)
        assert torch.equal(split.images, distilled.images)
        assert torch.equal(split.targets, distilled.targets)


def test_names_decide_and_not_their_order(folder: Path, distilled: DistilledSet, tiny_data: Dataset) -> None:
    """The trap of the field: another class order gives the wrong labels without a word."""
    names = tuple(reversed(tiny_data.info.class_names))
    split = read_class_folders(by_name(folder, tiny_data), replace(tiny_data.info, class_names=names))
    found = {names[target] for target in split.targets[:2].tolist()}
    assert found == {"class d"}  # index 0 of the reversed order
    first = distilled.images[distilled.targets == 3]
    assert torch.equal(split.images[:2], first)


def test_an_artifact_is_taken_as_it_is(
    distilled: DistilledSet, tiny_data: Dataset, store: Store, tmp_path: Path
) -> None:
    path = tmp_path / "made"
    assert keep_given(path, read_given(path, tiny_data.info), store) == path
    assert read_given(path, tiny_data.info).digest == distilled.digest
    assert not store.root.exists()


def test_a_folder_is_copied_into_the_store(
    folder: Path, distilled: DistilledSet, tiny_data: Dataset, store: Store
) -> None:
    files = sorted(folder.rglob("*"))
    path = keep_given(folder, read_given(folder, tiny_data.info), store)
    made = load_distilled(path)
    assert path.is_relative_to(store.root)
    assert (made.digest, made.ipc, made.method) == (distilled.digest, 2, "folder-images-only")
    assert keep_given(folder, read_given(folder, tiny_data.info), store) == path  # once
    assert sorted(folder.rglob("*")) == files


def test_classes_that_do_not_fit(folder: Path, tiny_data: Dataset) -> None:
    (folder / "00001").rename(folder / "zebra")
    with pytest.raises(
        DataError, match=r"are not the 4 classes of tiny; unknown: 00000, .*missing: class a, class b.*"
    ):
        read_class_folders(folder, tiny_data.info)
    shutil.rmtree(folder / "zebra")
    with pytest.raises(DataError, match=r"missing: class b\. Name them as the classes are"):
        read_class_folders(folder, tiny_data.info)


def test_images_of_another_size(folder: Path, tiny_data: Dataset) -> None:
    with pytest.raises(DataError, match=r"are 16x16, those of tiny 8x8. .*--image-size 16x16"):
        read_class_folders(folder, replace(tiny_data.info, height=8, width=8))


def test_a_broken_image_and_a_missing_folder(folder: Path, tiny_data: Dataset) -> None:
    with pytest.raises(DataError, match=r"There is nothing at .*nothing\."):
        read_class_folders(folder / "nothing", tiny_data.info)
    file = next((folder / "00002").iterdir())
    with pytest.raises(DataError, match=r"is no folder\. A distilled set needs one sub-folder per class"):
        read_class_folders(file, tiny_data.info)
    file.write_bytes(file.read_bytes()[:40])
    with pytest.raises(DataError, match=file.name):
        read_class_folders(folder, tiny_data.info)


def test_a_damaged_artifact_is_no_folder(distilled: DistilledSet, tiny_data: Dataset, tmp_path: Path) -> None:
    file = next((tmp_path / "made" / "images").rglob("*.png"))
    file.write_bytes(b"x")
    with pytest.raises(StoreError, match="corrupt"):
        read_given(tmp_path / "made", tiny_data.info)


def test_names_of_sets() -> None:
    methods = ["rded:factor=1,crops=5", "rded:crops=5,factor=2", "random", "random", "own.module:function"]
    names = ["rded factor=1", "rded factor=2", "random", "random 2", "own.module"]
    assert list(set_names({Path(str(number)): method for number, method in enumerate(methods)}).values()) == names
    made = ["latent-diffusion:generator=a/one", "latent-diffusion:generator=b/two,how=best"]
    names = ["latent-diffusion generator=one", "latent-diffusion generator=two how=best"]
    assert list(set_names({Path(str(number)): method for number, method in enumerate(made)}).values()) == names
