"""Parquet files: layouts, class names, bad input."""

import io
import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from softlabel.core import DataError, MissingExtraError
from softlabel.data import load_dataset

pa = pytest.importorskip("pyarrow")
pq = pytest.importorskip("pyarrow.parquet")


@pytest.fixture(autouse=True)
def _own_cache(monkeypatch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory) -> None:
    monkeypatch.setenv("SOFTLABEL_CACHE", str(tmp_path_factory.mktemp("cache")))


def png(value: int, *, size: int = 4, kind: str = "PNG") -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(np.full((size, size, 3), value, np.uint8)).save(buffer, kind)
    return buffer.getvalue()


def write(
    path: Path,
    labels: list[Any],
    *,
    names: list[str] | None = None,
    columns: tuple[str, str] = ("image", "label"),
    images: list[Any] | None = None,
    plain: bool = False,
) -> Path:
    """A parquet file as Hugging Face writes it; the pixel value of an image is its row."""
    path.parent.mkdir(parents=True, exist_ok=True)
    data = [png(row) for row in range(len(labels))] if images is None else images
    cells = data if plain else [{"bytes": cell, "path": None} for cell in data]
    type_ = pa.binary() if plain else pa.struct([("bytes", pa.binary()), ("path", pa.string())])
    table = pa.table({columns[0]: pa.array(cells, type_), columns[1]: pa.array(labels)})
    if names is not None:
        feature = {"names": names, "_type": "ClassLabel"}
        note = {"info": {"features": {columns[0]: {"_type": "Image"}, columns[1]: feature}}}
        table = table.replace_schema_metadata({"huggingface": json.dumps(note)})
    pq.write_table(table, path, row_group_size=2)
    return path


def test_folder_with_shards_and_class_names(tmp_path: Path) -> None:
    write(tmp_path / "train-00000-of-00002.parquet", [1, 0, 1], names=["owl", "ant"])
    write(tmp_path / "train-00001-of-00002.parquet", [0], names=["owl", "ant"])
    write(tmp_path / "test-00000-of-00001.parquet", [0, 1], names=["owl", "ant"])
    data = load_dataset(f"parquet:{tmp_path}")
    assert data.info.class_names == ("owl", "ant")
    assert data.train.targets.tolist() == [1, 0, 1, 0]
    assert data.train.images[:, 0, 0, 0].tolist() == [0, 1, 2, 0]
    assert data.test.targets.tolist() == [0, 1]
    assert data.info.origin == "parquet files"


def test_hub_layout_with_a_data_folder_and_other_column_names(tmp_path: Path) -> None:
    write(tmp_path / "data" / "train.parquet", [0, 1], columns=("img", "fine_label"), plain=True)
    write(tmp_path / "data" / "validation.parquet", [1, 0], columns=("img", "fine_label"), plain=True)
    data = load_dataset(f"parquet:{tmp_path}")
    assert data.info.class_names == ("0", "1")
    assert data.test.targets.tolist() == [1, 0]


def test_single_file_gets_a_test_split(tmp_path: Path) -> None:
    data = load_dataset(f"parquet:{write(tmp_path / 'all.parquet', [0, 1] * 5)}")
    assert (len(data.train), len(data.test)) == (8, 2)
    assert "20% of each class set aside" in data.info.origin


def test_test_wins_over_validation(tmp_path: Path) -> None:
    for name, count in (("train", 2), ("test", 4), ("validation", 6)):
        write(tmp_path / f"{name}.parquet", [0, 1] * (count // 2))
    assert len(load_dataset(f"parquet:{tmp_path}").test) == 4


def test_missing_shard(tmp_path: Path) -> None:
    write(tmp_path / "train-00000-of-00002.parquet", [0, 1])
    with pytest.raises(DataError, match=r"announces 2 files, and number 1 is missing"):
        load_dataset(f"parquet:{tmp_path}")


def test_empty_folder_and_test_without_train(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="holds no parquet files"):
        load_dataset(f"parquet:{tmp_path}")
    write(tmp_path / "test.parquet", [0, 1])
    with pytest.raises(DataError, match=r"has a test split .* and no train"):
        load_dataset(f"parquet:{tmp_path}")


def test_missing_columns_are_listed(tmp_path: Path) -> None:
    write(tmp_path / "a.parquet", [0, 1], columns=("picture", "class"))
    with pytest.raises(DataError, match=r"a\.parquet needs a column image or img .* It has: picture, class"):
        load_dataset(f"parquet:{tmp_path}")


def test_corrupt_file(tmp_path: Path) -> None:
    file = write(tmp_path / "a.parquet", [0, 1])
    file.write_bytes(file.read_bytes()[:-20])
    with pytest.raises(DataError, match=r"a\.parquet cannot be read as parquet .* fetch it again"):
        load_dataset(f"parquet:{tmp_path}")


def test_corrupt_page(tmp_path: Path) -> None:
    file = write(tmp_path / "a.parquet", [0, 1] * 20)
    content = bytearray(file.read_bytes())
    content[4:300] = bytes(296)
    file.write_bytes(bytes(content))
    with pytest.raises(DataError, match=r"a\.parquet.* cannot be read as"):
        load_dataset(f"parquet:{tmp_path}")


@pytest.mark.parametrize("label", [-1, 2])
def test_labels_out_of_range(tmp_path: Path, label: int) -> None:
    write(tmp_path / "a.parquet", [0, 1, label], names=["x", "y"])
    with pytest.raises(DataError, match=rf"has the label {label} at row 2: labels must lie in 0\.\.1"):
        load_dataset(f"parquet:{tmp_path}")


def test_withheld_labels_are_explained(tmp_path: Path) -> None:
    write(tmp_path / "train.parquet", [0, 1])
    write(tmp_path / "test.parquet", [-1, -1])
    with pytest.raises(DataError, match="labels are withheld"):
        load_dataset(f"parquet:{tmp_path}")


def test_absurd_labels_without_class_names(tmp_path: Path) -> None:
    write(tmp_path / "a.parquet", [0, 10**12])
    with pytest.raises(DataError, match="has the label 1000000000000 at row 1"):
        load_dataset(f"parquet:{tmp_path}")


@pytest.mark.parametrize(
    ("labels", "found"), [(["a", "b"], "string"), ([0.5, 1.5], "double"), ([0, None], "1 empty rows")]
)
def test_labels_that_are_no_numbers(tmp_path: Path, labels: list[Any], found: str) -> None:
    write(tmp_path / "a.parquet", labels)
    with pytest.raises(DataError, match=f"labels must be whole numbers.*{found}"):
        load_dataset(f"parquet:{tmp_path}")


def test_empty_class_and_single_class_and_no_rows(tmp_path: Path) -> None:
    write(tmp_path / "a" / "a.parquet", [0, 2, 0, 2])
    with pytest.raises(DataError, match="1 of 3 classes have no training images: 1"):
        load_dataset(f"parquet:{tmp_path / 'a'}")
    write(tmp_path / "b" / "b.parquet", [0, 0], names=["x"])
    with pytest.raises(DataError, match=r"Only one class was found \(x\)"):
        load_dataset(f"parquet:{tmp_path / 'b'}")
    pq.write_table(pa.table({"image": pa.array([], pa.binary()), "label": pa.array([], pa.int64())}), tmp_path / "c")
    with pytest.raises(DataError, match="holds no images"):
        load_dataset(f"parquet:{tmp_path / 'c'}")


def test_train_and_test_with_different_class_names(tmp_path: Path) -> None:
    write(tmp_path / "train.parquet", [0, 1], names=["x", "y"])
    write(tmp_path / "test.parquet", [0, 1], names=["y", "x"])
    with pytest.raises(DataError, match="different classes"):
        load_dataset(f"parquet:{tmp_path}")


def test_damaged_image_is_named_by_file_and_row(tmp_path: Path) -> None:
    images = [png(0), png(1), png(2), png(3)[:40]]
    write(tmp_path / "a.parquet", [0, 1, 0, 1], images=images)
    with pytest.raises(DataError, match=r"a\.parquet, row 3 cannot be read as an image"):
        load_dataset(f"parquet:{tmp_path}")


def test_image_column_without_bytes(tmp_path: Path) -> None:
    write(tmp_path / "a.parquet", [0, 1, 0, 1], images=[png(0), None, png(1), png(2)])
    with pytest.raises(DataError, match=r"row 1 has no image bytes"):
        load_dataset(f"parquet:{tmp_path}")
    pq.write_table(pa.table({"image": ["a.png", "b.png"], "label": [0, 1]}), tmp_path / "a.parquet")
    with pytest.raises(DataError, match=r"'image' must hold encoded images .* It holds string"):
        load_dataset(f"parquet:{tmp_path}")


def test_absent_pyarrow(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(tmp_path / "a.parquet", [0, 1])
    monkeypatch.setitem(sys.modules, "pyarrow.parquet", None)
    with pytest.raises(MissingExtraError, match=r"'pyarrow'.*softlabel\[parquet\]"):
        load_dataset(f"parquet:{tmp_path}")
