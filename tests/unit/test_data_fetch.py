"""fetch_dataset: from a server on this machine, or from file addresses."""

import dataclasses
import gzip
import hashlib
import http.server
import threading
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import pytest

from softlabel.core import ConfigError, DataError, UnknownNameError
from softlabel.data import fetch_dataset, load_dataset
from softlabel.data._fetch import FASHION_ADDRESS, FASHION_FILES, RemoteFile

DEBIAN = Path("/usr/share/datasets/fashion-mnist")


@pytest.fixture(autouse=True)
def cache(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    monkeypatch.setenv("SOFTLABEL_CACHE", str(tmp_path / "cache"))
    monkeypatch.delenv("SOFTLABEL_DATA", raising=False)
    return tmp_path / "cache"


@pytest.fixture
def mirror(tmp_path: Path) -> Path:
    folder = tmp_path / "mirror"
    folder.mkdir()
    for name in ("one.gz", "two.gz"):
        (folder / name).write_bytes(gzip.compress(name.encode() * 50_000))
    return folder


@pytest.fixture
def files(mirror: Path) -> tuple[RemoteFile, ...]:
    return tuple(describe(file) for file in sorted(mirror.iterdir()))


def describe(file: Path) -> RemoteFile:
    content = gzip.decompress(file.read_bytes())
    return RemoteFile(
        name=file.name,
        packed_bytes=file.stat().st_size,
        content_bytes=len(content),
        sha256=hashlib.sha256(content).hexdigest(),
    )


class FromFolder:
    """Opens addresses as files of a folder, and counts."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.opened = folder, 0

    def __call__(self, address: str) -> AbstractContextManager[Any]:
        self.opened += 1
        return urllib.request.urlopen((self.folder / address.removeprefix(FASHION_ADDRESS)).as_uri())


class Counter:
    total = done = 0

    def start(self, what: str, total: int) -> None:
        self.total = total

    def advance(self, steps: int = 1, note: str = "") -> None:
        self.done += steps

    def finish(self, summary: str = "") -> None:
        pass


def test_files_land_in_the_cache(mirror: Path, files: tuple[RemoteFile, ...], cache: Path) -> None:
    progress = Counter()
    folder = fetch_dataset("fashion-mnist", opener=FromFolder(mirror), files=files, progress=progress)
    assert folder == cache / "data" / "fashion-mnist"
    assert {file.name: file.read_bytes() for file in folder.iterdir()} == {
        file.name: file.read_bytes() for file in mirror.iterdir()
    }
    assert progress.done == progress.total > 0


def test_what_is_there_is_not_fetched_again(mirror: Path, files: tuple[RemoteFile, ...], tmp_path: Path) -> None:
    opener = FromFolder(mirror)
    fetch_dataset("fashion-mnist", target=tmp_path / "t", opener=opener, files=files)
    (tmp_path / "t" / "two.gz").unlink()
    fetch_dataset("fashion-mnist", target=tmp_path / "t", opener=opener, files=files)
    assert opener.opened == 3


def test_a_repacked_file_is_the_same_file(mirror: Path, files: tuple[RemoteFile, ...], tmp_path: Path) -> None:
    (mirror / "one.gz").write_bytes(gzip.compress(b"one.gz" * 50_000, 1))
    fetch_dataset("fashion-mnist", target=tmp_path / "t", opener=FromFolder(mirror), files=files)
    assert (tmp_path / "t" / "one.gz").exists()


def test_a_wrong_checksum_leaves_nothing(mirror: Path, files: tuple[RemoteFile, ...], cache: Path) -> None:
    (mirror / "two.gz").write_bytes(gzip.compress(b"something else"))
    with pytest.raises(DataError, match=r"two\.gz is not the expected file: .*SHA-256.*Nothing was kept"):
        fetch_dataset("fashion-mnist", opener=FromFolder(mirror), files=files)
    assert not cache.exists()


@pytest.mark.parametrize("content", [b"<html>maintenance</html>", b""])
def test_what_is_no_gzip_is_refused(mirror: Path, files: tuple[RemoteFile, ...], cache: Path, content: bytes) -> None:
    (mirror / "one.gz").write_bytes(content)
    with pytest.raises(DataError, match=r"one\.gz is (no gzip file|not the expected file)"):
        fetch_dataset("fashion-mnist", opener=FromFolder(mirror), files=files)
    assert not cache.exists()


def test_a_cut_off_file_is_refused(mirror: Path, files: tuple[RemoteFile, ...]) -> None:
    (mirror / "one.gz").write_bytes((mirror / "one.gz").read_bytes()[:-30])
    with pytest.raises(DataError, match=r"one\.gz is not the expected file"):
        fetch_dataset("fashion-mnist", opener=FromFolder(mirror), files=files)


def test_an_endless_answer_is_cut(mirror: Path, files: tuple[RemoteFile, ...]) -> None:
    opener = FromFolder(mirror)
    (mirror / "one.gz").write_bytes(bytes(10_000_000))
    progress = Counter()
    with pytest.raises(DataError):
        fetch_dataset("fashion-mnist", opener=opener, files=files, progress=progress)
    assert progress.done < 1_000_000


def test_a_wrong_file_of_the_user_is_not_overwritten(
    mirror: Path, files: tuple[RemoteFile, ...], tmp_path: Path
) -> None:
    (tmp_path / "one.gz").write_bytes(b"mine")
    with pytest.raises(DataError, match=r"one\.gz is no gzip file .*remove the file"):
        fetch_dataset("fashion-mnist", target=tmp_path, opener=FromFolder(mirror), files=files)
    assert (tmp_path / "one.gz").read_bytes() == b"mine"


def test_no_network_is_a_sentence(files: tuple[RemoteFile, ...]) -> None:
    def offline(address: str) -> AbstractContextManager[Any]:
        raise urllib.error.URLError("no route to host")

    with pytest.raises(
        DataError, match=r"http://fashion-mnist.* could not be fetched .*no route.*dataset-fashion-mnist"
    ):
        fetch_dataset("fashion-mnist", opener=offline, files=files)


def test_names_that_cannot_be_fetched() -> None:
    with pytest.raises(ConfigError, match=r"cannot fetch cifar10\. Get cifar-10-binary"):
        fetch_dataset("cifar10")
    with pytest.raises(UnknownNameError, match=r"'mnist'.*Choose one of: fashion-mnist"):
        fetch_dataset("mnist")


@pytest.fixture
def server(mirror: Path) -> Iterator[str]:
    class Handler(http.server.SimpleHTTPRequestHandler):
        def __init__(self, *args: Any) -> None:
            super().__init__(*args, directory=str(mirror))

        def log_message(self, *args: Any) -> None:
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as running:
        thread = threading.Thread(target=running.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{running.server_address[1]}/"
        running.shutdown()
        thread.join()


def test_the_standard_opener_over_http(
    server: str, files: tuple[RemoteFile, ...], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("softlabel.data._fetch.FASHION_ADDRESS", server)
    fetch_dataset("fashion-mnist", target=tmp_path / "t", files=files)
    assert (tmp_path / "t" / "two.gz").exists()
    absent = (dataclasses.replace(files[0], name="three.gz"),)
    with pytest.raises(DataError, match=r"three\.gz could not be fetched \(HTTP Error 404"):
        fetch_dataset("fashion-mnist", target=tmp_path / "t", files=absent)


@pytest.mark.skipif(not DEBIAN.is_dir(), reason="Debian's dataset-fashion-mnist is not installed")
def test_pinned_checksums_fit_the_real_files(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("softlabel.data._search.SYSTEM_FOLDERS", ())
    fetch_dataset("fashion-mnist", opener=FromFolder(DEBIAN), files=FASHION_FILES)
    assert len(load_dataset("fashion-mnist").train) == 60_000
