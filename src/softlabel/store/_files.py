"""Atomic writing of files, hashes, and full disks. Every byte softlabel writes goes through here."""

import errno
import hashlib
import os
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save as to_safetensors

from softlabel.core import DiskFullError, StoreError

_FULL = {errno.ENOSPC, errno.EDQUOT}


@contextmanager
def disk_errors(path: Path) -> Iterator[None]:
    """Turn the operating system's refusals to write `path` into sentences."""
    try:
        yield
    except OSError as error:
        if error.errno in _FULL:
            free = shutil.disk_usage(_existing(path)).free / 1e6
            raise DiskFullError(
                f"The disk is full: {path} could not be written ({free:.0f} MB free). Nothing half-written was "
                f"kept and finished work is safe. Free some space, or choose another --store, and run the same "
                f"command again."
            ) from error
        if isinstance(error, PermissionError) or error.errno == errno.EROFS:
            raise StoreError(f"No permission to write {path}. Choose a --store folder you may write to.") from error
        if isinstance(error, (NotADirectoryError, FileExistsError)):
            raise StoreError(f"{path} cannot be written: a file stands where a folder is needed. Move it.") from error
        raise StoreError(f"{path} cannot be written ({error.strerror or error}). Choose another place.") from error


def write_bytes(path: Path, data: bytes) -> None:
    """Write a file so that it is either absent or whole: a temporary beside it, synced, then renamed."""
    with disk_errors(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, temporary = tempfile.mkstemp(prefix=f".{path.name}.", suffix=".tmp", dir=path.parent)
        try:
            with os.fdopen(handle, "wb") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
            os.chmod(temporary, 0o644)
            os.replace(temporary, path)
        except BaseException:
            Path(temporary).unlink(missing_ok=True)
            raise


def tensor_bytes(tensors: Mapping[str, torch.Tensor], metadata: Mapping[str, str] | None = None) -> bytes:
    """A safetensors file as bytes. Tensors are copied to the CPU; views and shared memory are allowed."""
    plain = {name: tensor.detach().cpu().contiguous().clone() for name, tensor in tensors.items()}
    return bytes(to_safetensors(plain, dict(metadata) if metadata else None))


def read_tensors(path: Path) -> tuple[dict[str, torch.Tensor], dict[str, str]]:
    """Tensors (memory-mapped, on the CPU) and metadata of a safetensors file.

    Raises:
        StoreError: when the file is missing or is no whole safetensors file.
    """
    try:
        with safe_open(str(path), framework="pt", device="cpu") as file:
            return {name: file.get_tensor(name) for name in file.keys()}, dict(file.metadata() or {})  # noqa: SIM118
    except FileNotFoundError as error:
        raise StoreError(f"{path} does not exist.") from error
    except (SafetensorError, OSError) as error:
        raise StoreError(f"{path} is damaged or no safetensors file ({error}). Delete it and make it again.") from error


def sha256(path: Path) -> str:
    """Hexadecimal SHA-256 of a file, read in blocks."""
    with path.open("rb") as file:
        digest = hashlib.sha256()
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


def _existing(path: Path) -> Path:
    while not path.exists():
        path = path.parent
    return path
