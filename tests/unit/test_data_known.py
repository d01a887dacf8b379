"""Data sets with a name: the search path, each format, and what goes wrong."""

import gzip
import io
import json
import struct
import tarfile
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from softlabel.core import DataError
from softlabel.data import find_datasets, load_dataset, search_path
from softlabel.data._known import CIFAR10_CLASSES


@pytest.fixture(autouse=True)
def place(monkeypatch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The only folder in which data sets are looked for, besides an empty cache."""
    folder = tmp_path_factory.mktemp("data")
    monkeypatch.setenv("SOFTLABEL_CACHE", str(tmp_path_factory.mktemp("cache")))
    monkeypatch.setenv("SOFTLABEL_DATA", str(folder))
    monkeypatch.setattr("softlabel.data._search.SYSTEM_FOLDERS", ())
    return folder


def idx(magic: int, array: np.ndarray) -> bytes:
    return struct.pack(f">I{array.ndim}I", magic, *array.shape) + array.astype(np.uint8).tobytes()


def fashion(folder: Path, *, packed: bool = True) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    for name, count in (("train", 20), ("t10k", 10)):
        labels = np.arange(count) % 10
        images = np.broadcast_to(labels[:, None, None] * 20, (count, 28, 28))
        for stem, data in (("images-idx3", idx(2051, images)), ("labels-idx1", idx(2049, labels))):
            file = folder / f"{name}-{stem}-ubyte{'.gz' if packed else ''}"
            file.write_bytes(gzip.compress(data) if packed else data)
    return folder


def records(count: int) -> bytes:
    rows = np.zeros((count, 3073), np.uint8)
    rows[:, 0] = np.arange(count) % 10
    rows[:, 1:1025] = rows[:, :1] * 10  # the red plane
    return rows.tobytes()


CIFAR_FILES = (*(f"data_batch_{number}.bin" for number in range(1, 6)), "test_batch.bin")


def cifar(folder: Path) -> Path:
    folder.mkdir(parents=True)
    for name in CIFAR_FILES:
        (folder / name).write_bytes(records(10))
    return folder


def jpeg(value: int) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(np.full((8, 8, 3), value, np.uint8)).save(buffer, "JPEG")
    return buffer.getvalue()


IDS = [f"n{number:08d}" for number in range(1000, 1200)]


def tiny_files() -> dict[str, bytes]:
    """The original layout, with wnids.txt in an order that is not sorted."""
    files = {"wnids.txt": "\n".join(reversed(IDS)).encode()}
    for index, name in enumerate(IDS):
        files[f"train/{name}/images/{name}_0.JPEG"] = jpeg(index)
        files[f"train/{name}/{name}_boxes.txt"] = b"x"
        files[f"val/images/val_{index}.JPEG"] = jpeg(255 - index)
    rows = [f"val_{index}.JPEG\t{name}\t0\t0\t7\t7" for index, name in enumerate(IDS)]
    files["val/val_annotations.txt"] = "\n".join(reversed(rows)).encode()
    files["test/images/test_0.JPEG"] = jpeg(0)
    return files


def unpack(files: dict[str, bytes], folder: Path) -> None:
    for name, data in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(data)


@pytest.mark.parametrize("packed", [True, False])
@pytest.mark.parametrize("folder", ["fashion-mnist", "FashionMNIST/raw"])
def test_fashion_mnist(place: Path, folder: str, packed: bool) -> None:
    fashion(place / folder, packed=packed)
    data = load_dataset("fashion-mnist")
    assert data.info.image_shape == (1, 28, 28)
    assert data.info.class_names[0] == "T-shirt/top"
    assert data.train.counts(10) == [2] * 10
    assert data.train.images[13].unique().tolist() == [60]
    assert data.info.origin == "Fashion-MNIST from IDX files; a part of Fashion-MNIST: 20 of 60,000 train images"


def test_the_entry_itself_may_be_the_data_set(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = fashion(place / "fashion-mnist")
    monkeypatch.setenv("SOFTLABEL_DATA", f"{place / 'nowhere'}:{folder}")
    assert len(load_dataset("fashion-mnist").train) == 20


def test_search_path_is_data_then_cache_then_system(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SOFTLABEL_DATA", "/a:/b")
    monkeypatch.delenv("SOFTLABEL_CACHE")
    monkeypatch.setenv("XDG_CACHE_HOME", "/c")
    monkeypatch.setattr("softlabel.data._search.SYSTEM_FOLDERS", (Path("/d"),))
    assert search_path() == [Path("/a"), Path("/b"), Path("/c/softlabel/data"), Path("/d")]


def test_a_user_without_a_home_folder(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def no_home() -> Path:
        raise RuntimeError("Could not determine home directory.")

    for variable in ("SOFTLABEL_CACHE", "XDG_CACHE_HOME"):
        monkeypatch.delenv(variable, raising=False)
    monkeypatch.setattr(Path, "home", no_home)
    assert search_path() == [place]


def test_wrong_magic(place: Path) -> None:
    folder = fashion(place / "fashion-mnist", packed=False)
    (folder / "train-images-idx3-ubyte").write_bytes(idx(2049, np.zeros(3)))
    with pytest.raises(DataError, match=r"train-images-idx3-ubyte is no IDX file .* begin with 2051, found 2049"):
        load_dataset("fashion-mnist")


@pytest.mark.parametrize("content", [b"", b"\0\0", struct.pack(">I", 2051)])
def test_almost_empty_idx(place: Path, content: bytes) -> None:
    (fashion(place / "fashion-mnist", packed=False) / "train-images-idx3-ubyte").write_bytes(content)
    with pytest.raises(DataError, match=r"train-images-idx3-ubyte (is no IDX file|has the wrong length)"):
        load_dataset("fashion-mnist")


def test_wrong_length(place: Path) -> None:
    file = fashion(place / "fashion-mnist", packed=False) / "t10k-images-idx3-ubyte"
    file.write_bytes(file.read_bytes()[:-1])
    with pytest.raises(DataError, match=r"header announces 7856 bytes, found 7855.*fetch it again"):
        load_dataset("fashion-mnist")


def test_corrupt_gzip(place: Path) -> None:
    file = fashion(place / "fashion-mnist") / "train-labels-idx1-ubyte.gz"
    file.write_bytes(file.read_bytes()[:-9])
    with pytest.raises(DataError, match=r"train-labels-idx1-ubyte\.gz cannot be read .*fetch it again"):
        load_dataset("fashion-mnist")
    file.write_bytes(b"not gzip at all")
    with pytest.raises(DataError, match=r"train-labels-idx1-ubyte\.gz cannot be read"):
        load_dataset("fashion-mnist")


def test_labels_that_do_not_match(place: Path) -> None:
    file = fashion(place / "fashion-mnist", packed=False) / "train-labels-idx1-ubyte"
    file.write_bytes(idx(2049, np.zeros(19)))
    with pytest.raises(DataError, match=r"holds 20 images and train-labels-idx1-ubyte 19 labels"):
        load_dataset("fashion-mnist")
    file.write_bytes(idx(2049, np.full(20, 10)))
    with pytest.raises(DataError, match=r"label 10 at row 0: labels must lie in 0\.\.9"):
        load_dataset("fashion-mnist")


def test_incomplete_copy_is_named_and_a_later_one_is_used(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (fashion(place / "fashion-mnist") / "t10k-labels-idx1-ubyte.gz").unlink()
    with pytest.raises(DataError, match=r"Passed over: .* lacks t10k-labels-idx1-ubyte"):
        load_dataset("fashion-mnist")
    fashion(place / "second" / "fashion-mnist")
    monkeypatch.setenv("SOFTLABEL_DATA", f"{place}:{place / 'second'}")
    assert len(load_dataset("fashion-mnist").train) == 20


def test_an_unreadable_copy_is_passed_over(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(self: Path) -> bool:
        raise PermissionError(13, "Permission denied", str(self))

    fashion(place / "fashion-mnist")
    monkeypatch.setattr(Path, "is_file", refuse)
    with pytest.raises(DataError, match=r"Passed over: .*fashion-mnist cannot be read .*Permission denied"):
        load_dataset("fashion-mnist")


def test_not_found_lists_places_and_remedies(place: Path) -> None:
    with pytest.raises(DataError) as caught:
        load_dataset("fashion-mnist")
    text = str(caught.value)
    for part in (str(place), "/data (no such folder)", "softlabel fetch", "dataset-fashion-mnist", "SOFTLABEL_DATA"):
        assert part in text


@pytest.mark.parametrize("folder", ["cifar10", "cifar-10-batches-bin", "cifar10/cifar-10-batches-bin"])
def test_cifar10_binary(place: Path, folder: str) -> None:
    cifar(place / folder)
    data = load_dataset("cifar10")
    assert (len(data.train), len(data.test)) == (50, 10)
    assert data.info.class_names == CIFAR10_CLASSES
    assert data.train.images[13, :, 31, 31].tolist() == [30, 0, 0]
    assert data.info.origin == "CIFAR-10 from binary batches; a part of CIFAR-10: 50 of 50,000 train images"


def test_cifar10_archive(place: Path) -> None:
    cifar(place / "unpacked" / "cifar-10-batches-bin")
    archive = place / "cifar-10-binary.tar.gz"
    with tarfile.open(archive, "w:gz") as tar:
        tar.add(place / "unpacked" / "cifar-10-batches-bin", "cifar-10-batches-bin")
    assert len(load_dataset("cifar10").train) == 50
    archive.write_bytes(archive.read_bytes()[:200])
    with pytest.raises(DataError, match=r"cifar-10-binary\.tar\.gz .*damaged"):
        load_dataset("cifar10")
    with tarfile.open(archive, "w:gz"):
        pass
    with pytest.raises(DataError, match=r"lacks data_batch_1\.bin.*not the binary version"):
        load_dataset("cifar10")


@pytest.mark.parametrize("name", ["cifar-10-batches-py", "cifar10/cifar-10-batches-py", "cifar-10-python.tar.gz"])
def test_python_version_is_refused(place: Path, name: str) -> None:
    (place / name).mkdir(parents=True)
    with pytest.raises(DataError, match=r"Python version .* unpickling.*binary version instead: cifar-10-binary"):
        load_dataset("cifar10")


def test_damaged_batch(place: Path) -> None:
    folder = cifar(place / "cifar10")
    (folder / "data_batch_3.bin").write_bytes(records(10)[:-5])
    with pytest.raises(DataError, match=r"data_batch_3\.bin has the wrong length: .* 3073 bytes, found 30725"):
        load_dataset("cifar10")
    (folder / "data_batch_3.bin").write_bytes(b"\x0b" + records(10)[1:])
    with pytest.raises(DataError, match=r"data_batch_3\.bin has the label 11 at row 0"):
        load_dataset("cifar10")
    (folder / "data_batch_3.bin").unlink()
    with pytest.raises(DataError, match=r"lacks data_batch_3\.bin"):
        load_dataset("cifar10")


def cifar_parquet(folder: Path, names: list[str] | None, *, kind: str = "PNG", splits: str = "train test") -> None:
    pa, pq = pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.parquet")
    folder.mkdir(parents=True, exist_ok=True)
    images = []
    for value in range(10):
        buffer = io.BytesIO()
        Image.fromarray(np.full((32, 32, 3), 20 * value, np.uint8)).save(buffer, kind)
        images.append(buffer.getvalue())
    table = pa.table({"img": pa.array(images, pa.binary()), "label": list(range(10))})
    if names is not None:
        note = {"info": {"features": {"label": {"names": names}}}}
        table = table.replace_schema_metadata({"huggingface": json.dumps(note)})
    for split in splits.split():
        pq.write_table(table, folder / f"{split}-00000-of-00001.parquet")


def test_cifar10_parquet_is_put_in_the_fixed_order(place: Path) -> None:
    cifar_parquet(place / "cifar10", list(reversed(CIFAR10_CLASSES)))
    data = load_dataset("cifar10")
    assert data.info.class_names == CIFAR10_CLASSES
    assert data.train.targets.tolist() == list(range(9, -1, -1))
    assert "JPEG" not in data.info.origin


def test_cifar10_parquet_without_names_as_jpeg(place: Path) -> None:
    cifar_parquet(place / "cifar10", None, kind="JPEG")
    data = load_dataset("cifar10")
    assert data.train.targets.tolist() == list(range(10))
    assert "pixels differ slightly from the original" in data.info.origin


def test_other_data_under_a_known_name(place: Path) -> None:
    cifar_parquet(place / "cifar10", [f"class {index}" for index in range(10)])
    with pytest.raises(DataError, match=r"is not CIFAR-10: expected the classes airplane.*found class 0"):
        load_dataset("cifar10")
    cifar_parquet(place / "tiny-imagenet-200", None)
    with pytest.raises(DataError, match=r"is not Tiny-ImageNet: expected 200 classes named by WordNet id"):
        load_dataset("tiny-imagenet-200")


def test_known_parquet_without_a_test_split(place: Path) -> None:
    cifar_parquet(place / "cifar10", None, splits="train")
    with pytest.raises(DataError, match="train split and no test split"):
        load_dataset("cifar10")


def test_cifar10_class_folders(place: Path) -> None:
    for split in ("train", "test"):
        for index, name in enumerate(CIFAR10_CLASSES):
            (place / "cifar10" / split / name).mkdir(parents=True)
            (place / "cifar10" / split / name / "1.jpg").write_bytes(jpeg(index))
    assert load_dataset("cifar10").info.class_names == CIFAR10_CLASSES


def check_tiny() -> None:
    data = load_dataset("tiny-imagenet-200")
    assert data.info.class_names == tuple(IDS)
    assert data.info.image_shape == (3, 8, 8)
    # Gray level = class index in train, 255 - class index in val: labels and images belong together.
    assert (data.train.images.float().mean((1, 2, 3)).round().long() - data.train.targets).abs().max() <= 1
    assert (255 - data.test.images.float().mean((1, 2, 3)).round().long() - data.test.targets).abs().max() <= 1
    assert sorted(data.test.targets.tolist()) == list(range(200))
    assert "a part of Tiny-ImageNet: 200 of 100,000 train images" in data.info.origin


@pytest.mark.parametrize("folder", ["tiny-imagenet-200", "tiny-imagenet/tiny-imagenet-200"])
def test_tiny_imagenet_folder_in_sorted_order(place: Path, folder: str) -> None:
    unpack(tiny_files(), place / folder)
    check_tiny()


@pytest.mark.parametrize("parent", [".", "tiny-imagenet-200"])
def test_tiny_imagenet_archive(place: Path, parent: str) -> None:
    (place / parent).mkdir(exist_ok=True)
    with zipfile.ZipFile(place / parent / "tiny-imagenet-200.zip", "w") as archive:
        for name, data in tiny_files().items():
            archive.writestr(f"tiny-imagenet-200/{name}", data)
    check_tiny()


def test_tiny_imagenet_rearranged_into_class_folders(place: Path) -> None:
    for index, name in enumerate(IDS):
        for split, value in (("train", index), ("val", 255 - index)):
            unpack({f"{split}/{name}/a.JPEG": jpeg(value)}, place / "tiny-imagenet-200")
    check_tiny()


def test_tiny_imagenet_faults(place: Path) -> None:
    folder = place / "tiny-imagenet-200"
    unpack(tiny_files(), folder)
    table = folder / "val" / "val_annotations.txt"
    rows = table.read_text()
    table.write_text(rows + "\nval_7.JPEG\tn99999999\t0\t0")
    with pytest.raises(DataError, match=r"line 201 of val/val_annotations\.txt must name .* 'val_7\.JPEG n99999999"):
        load_dataset("tiny-imagenet-200")
    table.write_text(rows + f"\nval_777.JPEG\t{IDS[0]}\t0\t0")
    with pytest.raises(DataError, match=r"val_777\.JPEG cannot be read"):
        load_dataset("tiny-imagenet-200")
    table.write_text("")
    with pytest.raises(DataError, match=r"val_annotations\.txt is empty"):
        load_dataset("tiny-imagenet-200")


def test_tiny_imagenet_archive_faults(place: Path) -> None:
    archive = place / "tiny-imagenet-200.zip"
    archive.write_bytes(b"PK no zip")
    with pytest.raises(DataError, match=r"tiny-imagenet-200\.zip cannot be read .* damaged"):
        load_dataset("tiny-imagenet-200")
    with zipfile.ZipFile(archive, "w") as empty:
        empty.writestr("tiny-imagenet-200/readme.txt", "")
    with pytest.raises(DataError, match="not the original Tiny-ImageNet"):
        load_dataset("tiny-imagenet-200")
    with zipfile.ZipFile(archive, "w") as half:
        half.writestr(f"tiny-imagenet-200/train/{IDS[0]}/images/a.JPEG", jpeg(0))
    with pytest.raises(DataError, match=r"val_annotations\.txt cannot be read"):
        load_dataset("tiny-imagenet-200")


def test_find_datasets(place: Path) -> None:
    fashion(place / "fashion-mnist")
    (place / "cifar-10-batches-py").mkdir()
    found = {entry.name: entry for entry in find_datasets()}
    assert list(found) == ["digits", "fashion-mnist", "cifar10", "tiny-imagenet-200"]
    assert found["digits"].status.startswith("ships with scikit-learn")
    assert found["fashion-mnist"].path == place / "fashion-mnist"
    assert found["fashion-mnist"].status == "found: IDX files"
    assert found["cifar10"].path is None
    assert "Python version" in found["cifar10"].note
    assert found["tiny-imagenet-200"].status == "not found"
    assert "tiny-imagenet-200.zip" in found["tiny-imagenet-200"].note


def test_resized_fashion_is_cached_and_equal(place: Path) -> None:
    fashion(place / "fashion-mnist")
    first, second = (load_dataset("fashion-mnist", image_size=(32, 32), channels=3) for _ in range(2))
    assert first.info == second.info
    assert torch.equal(first.train.images, second.train.images)


@pytest.mark.skipif(
    not Path("/usr/share/datasets/fashion-mnist").is_dir(), reason="Debian's dataset-fashion-mnist is not installed"
)
def test_debian_package(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("softlabel.data._search.SYSTEM_FOLDERS", (Path("/usr/share/datasets"),))
    data = load_dataset("fashion-mnist")
    assert data.train.counts(10) == [6000] * 10
    assert data.info.mean == pytest.approx((0.2860,), abs=1e-4)
    assert data.info.std == pytest.approx((0.3530,), abs=1e-4)
    assert data.info.origin == "Fashion-MNIST from IDX files"
