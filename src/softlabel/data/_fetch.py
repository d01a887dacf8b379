"""Download of the one data set that has a stable official address, checked against pinned checksums."""

import hashlib
import http.client
import urllib.request
import zlib
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from softlabel.core import ConfigError, DataError, Progress, Silent, UnknownNameError
from softlabel.data._known import FASHION_MNIST, KNOWN
from softlabel.data._search import data_folder
from softlabel.store import write_bytes

FASHION_ADDRESS = "http://fashion-mnist.s3-website.eu-central-1.amazonaws.com/"
_TIMEOUT_SECONDS = 60
_BLOCK = 1 << 16
_SILENT = Silent()

Opener = Callable[[str], AbstractContextManager[Any]]


@dataclass(frozen=True, kw_only=True)
class RemoteFile:
    """A gzipped file to fetch. Size and SHA-256 are of the content: a re-packed mirror serves as well."""

    name: str
    packed_bytes: int
    content_bytes: int
    sha256: str


# The contents of the files whose MD5 sums the authors publish (8d4fb7e6..., 25c81989..., bef4ecab...,
# bb300cfd...).
FASHION_FILES = (
    RemoteFile(
        name="train-images-idx3-ubyte.gz",
        packed_bytes=26421880,
        content_bytes=47040016,
        sha256="c59f468a2f672dc815687fe0f83887768d799fd8a3f3276145d20f83aa44d888",
    ),
    RemoteFile(
        name="train-labels-idx1-ubyte.gz",
        packed_bytes=29515,
        content_bytes=60008,
        sha256="bad3541b69d912435c50bb6ba87bec294ff4f6a2e1246121d8633921760443d9",
    ),
    RemoteFile(
        name="t10k-images-idx3-ubyte.gz",
        packed_bytes=4422102,
        content_bytes=7840016,
        sha256="5b4141f0afbad91edebe8549f8fcffe087ea10ca49f1dbef5c9a5cd8815ce37b",
    ),
    RemoteFile(
        name="t10k-labels-idx1-ubyte.gz",
        packed_bytes=5148,
        content_bytes=10008,
        sha256="0402a96d92fd2663957122ceb108a494c5af83dab82d92729df917d7dec38c34",
    ),
)


def _open_address(address: str) -> AbstractContextManager[Any]:
    opened: AbstractContextManager[Any] = urllib.request.urlopen(address, timeout=_TIMEOUT_SECONDS)
    return opened


def fetch_dataset(
    name: str,
    *,
    target: Path | None = None,
    progress: Progress = _SILENT,
    opener: Opener = _open_address,
    files: tuple[RemoteFile, ...] = FASHION_FILES,
) -> Path:
    """Download a data set from its official address into `target`, a folder on the search path by default.

    All files are fetched and checked before the first is written. Files that are there and right are kept.

    Args:
        name: `fashion-mnist`.
        target: the folder for the files; None is `<cache>/data/<name>`.
        progress: told about every block, in bytes.
        opener: opens an address for reading; a test passes its own.
        files: what to fetch; a test passes its own.

    Returns:
        The folder with the files.

    Raises:
        UnknownNameError: no such data set.
        ConfigError: a data set that must be got by hand; the message says how.
        DataError: the network failed, a checksum is wrong, or another file stands in the way. Nothing is
            written.
    """
    if name in KNOWN and name != FASHION_MNIST.name:
        raise ConfigError(f"softlabel cannot fetch {name}. {KNOWN[name].advice}")
    if name != FASHION_MNIST.name:
        raise UnknownNameError("data set to fetch", name, [FASHION_MNIST.name])
    folder = target or _default_folder(name)
    wanted = [file for file in files if not _is_there(folder / file.name, file)]
    progress.start(f"fetch {name}", sum(file.packed_bytes for file in wanted))
    try:
        contents = [_download(FASHION_ADDRESS + file.name, file, opener, progress) for file in wanted]
    finally:
        progress.finish()
    for file, content in zip(wanted, contents, strict=True):
        write_bytes(folder / file.name, content)
    return folder


def _default_folder(name: str) -> Path:
    folder = data_folder()
    if folder is None:
        raise ConfigError("You have no home folder to fetch into. Set SOFTLABEL_CACHE to a folder you may write to.")
    return folder / name


def _is_there(path: Path, file: RemoteFile) -> bool:
    if not path.exists():
        return False
    try:
        _check(path.read_bytes(), file, str(path))
    except OSError as error:
        raise DataError(f"{path} cannot be read ({error}). Move it away, then fetch again.") from error
    return True


def _download(address: str, file: RemoteFile, opener: Opener, progress: Progress) -> bytes:
    data = bytearray()
    limit = 2 * file.packed_bytes + _BLOCK
    try:
        with opener(address) as response:
            while (block := response.read(_BLOCK)) and len(data) <= limit:
                data += block
                progress.advance(len(block))
    except (OSError, http.client.HTTPException) as error:
        raise DataError(
            f"{address} could not be fetched ({error}). Nothing was kept. Check the network and try again; "
            f"or install Debian's package dataset-fashion-mnist."
        ) from error
    _check(bytes(data), file, address)
    return bytes(data)


def _check(data: bytes, file: RemoteFile, where: str) -> None:
    """Refuse a file whose unpacked content is not the pinned one; unpacks no more than the expected size."""
    try:
        unpacker = zlib.decompressobj(wbits=zlib.MAX_WBITS | 16)
        content = unpacker.decompress(data, file.content_bytes + 1)
    except zlib.error as error:
        raise DataError(f"{where} is no gzip file ({error}). {_WRONG}") from error
    found = hashlib.sha256(content).hexdigest()
    if found != file.sha256:
        raise DataError(
            f"{where} is not the expected file: its content has the SHA-256 {found[:12]}... ({len(content)} "
            f"bytes), expected {file.sha256[:12]}... ({file.content_bytes} bytes). {_WRONG}"
        )


_WRONG = "Nothing was kept. Try again later, or remove the file if it is your own copy."
