"""An artifact: a folder of files and one JSON manifest, which is written last.

The manifest's presence means "complete". It holds the kind, the schema version, what the stage wants to
remember (`meta`), and the SHA-256 and size of every file. A folder appears under its final name in one
rename, so a half-written artifact is never visible.
"""

import glob
import json
import os
import re
import secrets
import shutil
import socket
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from softlabel._version import __version__
from softlabel.core import StoreError, fingerprint, plain
from softlabel.store._files import disk_errors, read_tensors, sha256, tensor_bytes, write_bytes

SCHEMA = 1
MANIFEST = "manifest.json"
ASIDE = "aside/"
"""Files in this folder of an artifact are in no manifest: it can be read, and shared, without them."""
_HOST = re.sub(r"[^a-zA-Z0-9-]", "-", socket.gethostname())


@dataclass(frozen=True)
class Artifact:
    """A complete artifact on disk. `kind` is `teacher`, `distilled`, `labels`, `dataset`, `record` or `study`."""

    path: Path
    kind: str
    meta: dict[str, Any]
    files: dict[str, dict[str, Any]]

    def tensors(self, name: str) -> dict[str, torch.Tensor]:
        """The tensors of the safetensors file `name`, memory-mapped."""
        return read_tensors(self.path / name)[0]

    def bytes_of(self, prefix: str = "") -> int:
        """Total size of the files whose name begins with `prefix`."""
        return sum(entry["bytes"] for name, entry in self.files.items() if name.startswith(prefix))

    def names(self, prefix: str = "") -> list[str]:
        """Sorted names of the files that begin with `prefix`."""
        return sorted(name for name in self.files if name.startswith(prefix))


class _Facts(dict[str, Any]):
    """The facts of a manifest; one that is missing is the artifact's fault, and said so."""

    def __init__(self, path: Path, facts: Mapping[str, Any]) -> None:
        super().__init__(facts)
        self._path = path

    def __missing__(self, key: str) -> Any:
        raise StoreError(f"The manifest of {self._path} lacks {key!r}: it was edited or damaged. Make it again.")


class ArtifactWriter:
    """Collects the files of an artifact in a hidden folder beside its final place. See `new_artifact`."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def write_tensors(
        self, name: str, tensors: Mapping[str, torch.Tensor], metadata: Mapping[str, str] | None = None
    ) -> None:
        """Write (or replace, whole) the safetensors file `name`."""
        write_bytes(self.folder / name, tensor_bytes(tensors, metadata))

    def write(self, name: str, data: bytes) -> None:
        """Write (or replace, whole) the file `name`."""
        write_bytes(self.folder / name, data)


@contextmanager
def new_artifact(path: Path, kind: str, meta: dict[str, Any], *, resumable: bool = False) -> Iterator[ArtifactWriter]:
    """Write an artifact; it appears at `path` when the block ends without an exception.

    `meta` may be filled inside the block. With `resumable`, an interrupted block leaves its hidden folder,
    and the next one with the same `path` and `meta` finds the files in it; otherwise the hidden folder is removed.
    An artifact that stands at `path` already (another process was faster) is kept.

    Raises:
        DiskFullError: the disk filled up.
        StoreError: `path` cannot be written.
    """
    mark = f"{fingerprint(meta)}.partial" if resumable else f"{_HOST}.{os.getpid()}.{secrets.token_hex(4)}.tmp"
    folder = path.parent / f".{path.name}.{mark}"
    _remove_leftovers(path)
    require_free(path)  # before any work
    with disk_errors(folder):
        folder.mkdir(parents=True, exist_ok=True)
    try:
        yield ArtifactWriter(folder)
        _write_manifest(folder, kind, meta)
        with disk_errors(path):
            if (path / MANIFEST).exists():
                shutil.rmtree(folder)
            else:
                require_free(path)
                os.replace(folder, path)
    except BaseException:
        if not resumable:
            shutil.rmtree(folder, ignore_errors=True)
        raise


@contextmanager
def grown_artifact(path: Path, kind: str, meta: dict[str, Any]) -> Iterator[ArtifactWriter]:
    """Add files to the complete artifact at `path`; they count when the block ends, with the new manifest.

    Until then the artifact is what it was: files that an interrupted block left are in no manifest, and the next block
    removes them first. Files that stand in the manifest must not be changed.

    Raises:
        StoreError: no artifact of that kind there, it cannot be written, or another process changed it meanwhile.
        DiskFullError: the disk filled up.
    """
    before, manifest = read_artifact(path, kind, verify=False).files, (path / MANIFEST).read_bytes()
    for stray in _strays(path, before):
        stray.unlink()
    yield ArtifactWriter(path)
    if (path / MANIFEST).read_bytes() != manifest:
        raise StoreError(f"{path} was changed by another process meanwhile, and is left as it is now. Run again.")
    _write_manifest(path, kind, meta, before)


def _strays(path: Path, known: Mapping[str, Any]) -> list[Path]:
    """Files of an artifact's folder that are in no manifest and belong to nobody."""
    found = ((file, file.relative_to(path).as_posix()) for file in sorted(path.rglob("*")) if file.is_file())
    return [file for file, name in found if name not in known and name != MANIFEST and not name.startswith(ASIDE)]


def require_same(path: Path, kind: str, found: str, expected: str) -> None:
    """Refuse to take the artifact at `path` for another one.

    Raises:
        StoreError: it was made with other settings, data or seed.
    """
    if found != expected:
        raise StoreError(
            f"{path} already holds another {kind} (made with other settings, data or seed). Nothing is overwritten: "
            f"choose another --out, or move it away."
        )


def is_complete(path: Path) -> bool:
    """Whether a complete artifact stands at `path`."""
    return os.path.isfile(path / MANIFEST)  # unlike Path.is_file, False where a name is too long or looking forbidden


def read_artifact(path: Path, kind: str | None = None, *, verify: bool = True) -> Artifact:
    """Open the artifact at `path`; with `verify`, check the SHA-256 of every file.

    Raises:
        StoreError: it is missing, incomplete, of another kind, corrupt, or written by a newer version.
    """
    if not os.path.exists(path):
        raise StoreError(f"There is nothing at {path}. Check the path, or make it first.")
    if not is_complete(path):
        raise StoreError(f"{path} is no softlabel artifact: it has no {MANIFEST}. Make it again, or check the path.")
    manifest = _read_json(path / MANIFEST)
    if not {"schema", "kind", "meta", "files"} <= manifest.keys():
        raise StoreError(f"{path / MANIFEST} is no softlabel manifest. Check the path, or make the artifact again.")
    if not isinstance(manifest["schema"], int) or manifest["schema"] > SCHEMA:
        raise StoreError(
            f"{path} was written by softlabel {manifest.get('softlabel')} (schema {manifest['schema']}); this version "
            f"reads up to schema {SCHEMA}. Upgrade softlabel."
        )
    if kind is not None and manifest["kind"] != kind:
        raise StoreError(
            f"Expected an artifact of kind {kind!r} at {path}, found one of kind {manifest['kind']!r}. Check which "
            f"path goes where."
        )
    artifact = Artifact(path, manifest["kind"], _Facts(path, manifest["meta"]), manifest["files"])
    if verify:
        _verify(artifact)
    return artifact


def write_json(path: Path, data: Any) -> None:
    """Write one JSON file atomically."""
    write_bytes(path, (json.dumps(plain(data), indent=1, allow_nan=False) + "\n").encode())


def _read_json(path: Path) -> dict[str, Any]:
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, json.JSONDecodeError) as error:
        where = f"Move or delete {path.parent}, and make it again."
        raise StoreError(f"{path} cannot be read as JSON ({error}). {where}") from error
    if not isinstance(data, dict):
        raise StoreError(f"{path} does not hold a JSON object. Delete it and make it again.")
    return data


def _write_manifest(
    folder: Path, kind: str, meta: dict[str, Any], known: Mapping[str, dict[str, Any]] | None = None
) -> None:
    """Args: known: entries of files that were there before, which are taken as they are."""
    # A killed writer may leave temporaries of single files in a resumable folder: they are not part of it.
    for leftover in folder.rglob(".*.tmp"):
        leftover.unlink()
    files = {
        name: (known or {}).get(name) or {"sha256": sha256(file), "bytes": file.stat().st_size}
        for file, name in ((file, file.relative_to(folder).as_posix()) for file in sorted(folder.rglob("*")))
        if file.is_file() and file.name != MANIFEST and not name.startswith(ASIDE)
    }
    manifest = {"softlabel": __version__, "schema": SCHEMA, "kind": kind, "meta": meta, "files": files}
    write_json(folder / MANIFEST, manifest)


def _verify(artifact: Artifact) -> None:
    for name, entry in artifact.files.items():
        file = artifact.path / name
        if not file.is_file():
            raise StoreError(f"{file} is missing, though the manifest lists it. Make {artifact.path.name} again.")
        try:
            found = sha256(file)
        except OSError as error:
            raise StoreError(f"{file} cannot be read ({error.strerror or error}). Check its permissions.") from error
        if found != entry["sha256"]:
            raise StoreError(
                f"{file} is corrupt: its SHA-256 is {found[:12]}..., the manifest says {entry['sha256'][:12]}.... "
                f"Move {artifact.path} away, and give the command that made it again."
            )


def _remove_leftovers(path: Path) -> None:
    """Remove what processes of this machine began to write for `path` and were killed over."""
    for folder in path.parent.glob(f".{glob.escape(path.name)}.{_HOST}.*.tmp"):
        process = folder.name.split(".")[-3]
        if process.isdigit() and not _is_alive(int(process)):
            shutil.rmtree(folder, ignore_errors=True)


def _is_alive(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except OSError:  # somebody else's
        return True
    return True


def require_free(path: Path) -> None:
    """Refuse to put an artifact where something else stands.

    Raises:
        StoreError: something that is no complete artifact.
    """
    if os.path.exists(path) and not is_complete(path):  # unlike Path.exists, False where a name is too long
        raise StoreError(f"{path} exists and is no complete artifact. Move or delete it, then run again.")
