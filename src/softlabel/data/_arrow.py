"""Images and labels in the columns of an Arrow table, as Hugging Face writes them."""

import io
import json
from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate
from pathlib import Path
from typing import Any, BinaryIO

import torch

from softlabel.core import DataError
from softlabel.data._raw import Pictures

IMAGE_COLUMNS = ("image", "img")
LABEL_COLUMNS = ("label", "fine_label")


@dataclass(frozen=True)
class Columns:
    """The names of the image column and of the label column."""

    image: str
    label: str


def find_columns(names: Sequence[str], where: str) -> Columns:
    """Which of `names` holds the images and which the labels.

    Raises:
        DataError: one of them is absent; the message lists the columns there are.
    """
    image = next((name for name in IMAGE_COLUMNS if name in names), None)
    label = next((name for name in LABEL_COLUMNS if name in names), None)
    if image is None or label is None:
        raise DataError(
            f"{where} needs a column {' or '.join(IMAGE_COLUMNS)} with encoded images and a column "
            f"{' or '.join(LABEL_COLUMNS)} with class indices. It has: {', '.join(names)}. Rename its columns."
        )
    return Columns(image, label)


def class_names_of(schema: Any, label: str) -> tuple[str, ...] | None:
    """The class names that the `datasets` library notes in an Arrow schema; None when there are none."""
    note = (schema.metadata or {}).get(b"huggingface")
    if note is None:
        return None
    try:
        names = json.loads(note)["info"]["features"][label]["names"]
    except (ValueError, KeyError, TypeError):
        return None
    return tuple(str(name) for name in names) if isinstance(names, list) else None


def pictures_of(tables: Sequence[tuple[str, Any]], columns: Columns) -> Pictures:
    """The rows of several (where, pyarrow.Table) as one split, images still encoded.

    Raises:
        DataError: labels that are no whole numbers, or an image column without bytes.
    """
    targets = torch.cat([_targets(table.column(columns.label), where) for where, table in tables])
    pieces = [piece for where, table in tables for piece in _pieces(table.column(columns.image), columns.image, where)]
    starts = [0, *accumulate(len(piece.data) for piece in pieces)]

    def locate(position: int) -> tuple[_Piece, int]:
        number = bisect_right(starts, position) - 1
        return pieces[number], position - starts[number]

    def open_image(position: int) -> BinaryIO:
        piece, row = locate(position)
        return piece.open(row)

    def where_is(position: int) -> str:
        piece, row = locate(position)
        return f"{piece.where}, row {piece.first_row + row}"

    return Pictures(targets=targets, open=open_image, where=where_is)


@dataclass(frozen=True)
class _Piece:
    """One chunk of the image column: encoded bytes, or, for images kept in files of their own, paths."""

    where: str
    first_row: int
    data: Any
    paths: Any

    def open(self, row: int) -> BinaryIO:
        data = self.data[row].as_py()
        if data is not None:
            return io.BytesIO(data)
        path = None if self.paths is None else self.paths[row].as_py()
        if path is None or not Path(path).is_file():
            raise DataError(
                f"{self.where}, row {self.first_row + row} has no image bytes. Embed the images, or drop it."
            )
        return Path(path).open("rb")


def _pieces(column: Any, name: str, where: str) -> list[_Piece]:
    import pyarrow as pa
    import pyarrow.compute as pc

    paths = None
    if pa.types.is_struct(column.type):
        fields = {column.type.field(number).name for number in range(column.type.num_fields)}
        if "path" in fields:
            paths = pc.struct_field(column, "path")
        if "bytes" in fields:
            column = pc.struct_field(column, "bytes")
    if not (pa.types.is_binary(column.type) or pa.types.is_large_binary(column.type)):
        raise DataError(
            f"{where}: the column {name!r} must hold encoded images (binary, or a struct with the field "
            f"bytes). It holds {column.type}. Write the images as PNG or JPEG bytes."
        )
    firsts = accumulate((len(chunk) for chunk in column.chunks), initial=0)
    path_chunks = [None] * column.num_chunks if paths is None else paths.chunks
    return [_Piece(where, *piece) for piece in zip(firsts, column.chunks, path_chunks, strict=False)]


def _targets(column: Any, where: str) -> torch.Tensor:
    import pyarrow as pa

    if not pa.types.is_integer(column.type) or column.null_count:
        found = f"{column.null_count} empty rows" if column.null_count else str(column.type)
        raise DataError(f"{where}: labels must be whole numbers, one per image. Found {found}. Correct the column.")
    return torch.from_numpy(column.to_numpy().astype("int64"))
