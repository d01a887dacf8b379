"""Decoded data sets, kept so that decoding is paid for once."""

import math
import re
import shutil
import warnings
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path

import torch
from PIL import __version__ as pillow_version
from PIL import features
from torch import Tensor

from softlabel.core import DataError, Dataset, DatasetInfo, SoftlabelWarning, Split, StoreError, fingerprint
from softlabel.data._raw import Source
from softlabel.store import Artifact, is_complete, new_artifact, read_artifact

KIND = "dataset"
_VERSION = 1
# A file is copied in memory while it is written; shards bound that. One shard is read without a copy.
_SHARD_BYTES = 512 << 20


def decoded_path(root: Path, name: str, source: Source, options: dict[str, object]) -> Path:
    """Where the decoded form of `source` is kept.

    The name carries a fingerprint of everything the pixels depend on: each file's path, size and time of change,
    the load options, and the decoder's version (two JPEG decoders differ in the last bit).

    Raises:
        DataError: a file vanished.
    """
    try:
        stats = [(file.absolute(), file.stat()) for file in source.files]
    except OSError as error:
        raise DataError(
            f"{error.filename} cannot be read ({error.strerror}). Check that the data is complete."
        ) from error
    files = [(str(path), stat.st_size, stat.st_mtime_ns) for path, stat in stats]
    decoder = [pillow_version, str(features.version("jpg"))]
    label = re.sub(r"[^a-zA-Z0-9]+", "-", name).strip("-")[:60]
    return root / "decoded" / f"{label}-{fingerprint(_VERSION, source.key, files, options, decoder)}"


def read_decoded(path: Path) -> Dataset | None:
    """The data set kept at `path`, memory-mapped; None when there is none.

    Its checksums are verified. A damaged copy is removed with a SoftlabelWarning: it will be made again.
    """
    if not path.exists():
        return None
    try:
        artifact = read_artifact(path, KIND)
        train, test = (_read_split(artifact, split) for split in ("train", "test"))
        return Dataset(info=DatasetInfo.from_json(artifact.meta["info"]), train=train, test=test)
    except (
        StoreError,
        DataError,
        KeyError,
        TypeError,
        ValueError,
        AttributeError,
        RuntimeError,
        OSError,
    ) as error:
        warnings.warn(
            f"The decoded images at {path} are damaged ({error}). They are removed and made again.",
            SoftlabelWarning,
            stacklevel=2,
        )
        shutil.rmtree(path, ignore_errors=True)
        return None


def keep_decoded(path: Path, dataset: Dataset) -> None:
    """Keep the decoded data set at `path`. A disk that is full or read-only costs a SoftlabelWarning, no more."""
    if is_complete(path):
        return
    try:
        with new_artifact(path, KIND, {"info": asdict(dataset.info)}) as writer:
            for split, part in (("train", dataset.train), ("test", dataset.test)):
                for number, (images, targets) in enumerate(_shards(part)):
                    writer.write_tensors(f"{split}-{number:05d}.safetensors", {"images": images, "targets": targets})
    except (StoreError, OSError) as error:
        warnings.warn(
            f"The decoded images could not be kept at {path} ({error.__cause__ or error}). They are decoded "
            f"again next time. Set SOFTLABEL_CACHE to a folder with space that you may write to.",
            SoftlabelWarning,
            stacklevel=2,
        )


def _shards(part: Split) -> Iterator[tuple[Tensor, Tensor]]:
    size = max(1, _SHARD_BYTES // math.prod(part.images.shape[1:]))
    return zip(torch.split(part.images, size), torch.split(part.targets, size), strict=True)


def _read_split(artifact: Artifact, split: str) -> Split:
    shards = [artifact.tensors(name) for name in artifact.names(f"{split}-")]
    if len(shards) == 1:
        return Split(shards[0]["images"], shards[0]["targets"])
    return Split(*(torch.cat([shard[name] for shard in shards]) for name in ("images", "targets")))
