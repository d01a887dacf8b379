"""Parquet files with the columns image and label, in the layout of the Hugging Face hub."""

import re
from functools import partial
from pathlib import Path
from types import ModuleType
from typing import Any

from softlabel.core import DataError, MissingExtraError
from softlabel.data._arrow import Columns, class_names_of, find_columns, pictures_of
from softlabel.data._raw import Pictures, Raw, Source, check_targets, index_names

TRAIN = "train"
# In this order: where both exist, `test` is the one meant for testing.
TEST_NAMES = ("test", "validation", "val", "valid")
_SHARD = re.compile(r"-(\d+)-of-(\d+)$")


def parquet_source(path: Path) -> Source:
    """The parquet file or folder at `path`.

    In a folder, `train*.parquet` is the train split and `test*`, `validation*`, `val*` or `valid*.parquet`
    the test split; without such names all files together are train. A folder with one sub-folder of parquet
    files, as repositories on the hub have it, may be named too.

    Raises:
        DataError: nothing there, or shards missing.
    """
    if path.is_file():
        return _source(path, [path], [])
    source = parquet_folder(path)
    if source is None:
        found = "no parquet files" if path.is_dir() else "nothing"
        raise DataError(f"{path} holds {found}. parquet:PATH needs a parquet file, or a folder of them.")
    return source


def parquet_folder(path: Path) -> Source | None:
    """Like `parquet_source`; None when `path` is no folder of parquet files."""
    files = sorted(path.glob("*.parquet")) or _in_one_subfolder(path)
    if not files:
        return None
    train = _split_files(files, TRAIN)
    test = next((group for name in TEST_NAMES if (group := _split_files(files, name))), [])
    if not train and not test:
        return _source(path, files, [])
    if not train:
        raise DataError(f"{path} has a test split ({test[0].name}) and no train*.parquet. Add the train split.")
    return _source(path, train, test)


def _in_one_subfolder(path: Path) -> list[Path]:
    files = sorted(path.glob("*/*.parquet"))
    return files if len({file.parent for file in files}) == 1 else []


def _split_files(files: list[Path], split: str) -> list[Path]:
    return [file for file in files if re.split(r"[-_.]", file.name)[0] == split]


def _source(path: Path, train: list[Path], test: list[Path]) -> Source:
    for group in (train, test):
        _check_shards(group)
    read = partial(_read, train, test)
    return Source(key="parquet", kind="parquet files", path=path, files=(*train, *test), read=read)


def _check_shards(files: list[Path]) -> None:
    """`train-00000-of-00002.parquet` announces a second file: half a data set must not pass for a whole one."""
    shards = {file: match for file in files if (match := _SHARD.search(file.stem))}
    if not shards:
        return
    first = next(iter(shards))
    total = int(shards[first][2])
    missing = sorted(set(range(total)) - {int(match[1]) for match in shards.values()})
    if missing:
        raise DataError(
            f"{first.parent} is not complete: {first.name} announces {total} files, and "
            f"{', '.join(f'number {number}' for number in missing[:5])} is missing. Fetch the rest."
        )


def _read(train: list[Path], test: list[Path]) -> Raw:
    pq = _pyarrow_parquet()
    columns, names = _header(pq, train[0])
    if test:
        test_names = _header(pq, test[0])[1]
        if None not in (names, test_names) and names != test_names:
            raise DataError(
                f"{train[0]} and {test[0].name} have different classes: {_some(names)} against {_some(test_names)}. "
                f"Both need the same class names in the same order."
            )
    train_part = _pictures(pq, train, columns)
    if names is None:
        names = index_names(train_part.targets, str(train[0]))
    parts = [(train_part, train)]
    if test:
        parts.append((_pictures(pq, test, columns), test))
    for part, files in parts:
        check_targets(part.targets, len(names), str(files[0]))
    test_part = parts[1][0] if test else None
    return Raw(class_names=names, train=train_part, test=test_part, origin="parquet files")


def _some(names: tuple[str, ...] | None) -> str:
    return f"{len(names or ())} classes ({', '.join((names or ())[:3])}, ...)"


def _header(pq: ModuleType, file: Path) -> tuple[Columns, tuple[str, ...] | None]:
    schema = _open(pq, file).schema_arrow
    columns = find_columns(schema.names, str(file))
    return columns, class_names_of(schema, columns.label)


def _pictures(pq: ModuleType, files: list[Path], columns: Columns) -> Pictures:
    tables = []
    for file in files:
        find_columns(_open(pq, file).schema_arrow.names, str(file))
        tables.append((str(file), _table(pq, file, columns)))
    return pictures_of(tables, columns)


def _open(pq: ModuleType, file: Path) -> Any:
    import pyarrow as pa

    try:
        return pq.ParquetFile(file)
    except (pa.ArrowException, OSError) as error:
        raise _damaged(file, error) from error


def _table(pq: ModuleType, file: Path, columns: Columns) -> Any:
    import pyarrow as pa

    with _open(pq, file) as opened:
        try:
            return opened.read(columns=[columns.image, columns.label])
        except (pa.ArrowException, OSError) as error:
            raise _damaged(file, error) from error


def _damaged(file: Path, error: Exception) -> DataError:
    return DataError(f"{file} cannot be read as parquet ({error}). It is damaged or cut off: fetch it again.")


def _pyarrow_parquet() -> ModuleType:
    try:
        import pyarrow.parquet as pq
    except ImportError as error:
        raise MissingExtraError("pyarrow", "parquet", "Reading parquet files") from error
    return pq  # type: ignore[no-any-return]
