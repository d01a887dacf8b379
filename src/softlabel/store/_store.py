"""Where things are kept: one folder with a sub-folder per kind, names that carry fingerprints."""

import os
import re
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from softlabel.store._artifact import _read_json, write_json
from softlabel.store._files import disk_errors

DEFAULT_STORE = "softlabel-store"


@dataclass(frozen=True)
class Store:
    """The paths under one root. Equal work has an equal name, so finished work is found and not repeated."""

    root: Path

    @classmethod
    def default(cls) -> "Store":
        """`$SOFTLABEL_STORE`, or the folder `softlabel-store` here."""
        return cls(Path(os.environ.get("SOFTLABEL_STORE", DEFAULT_STORE)))

    def require_writable(self) -> None:
        """Raises StoreError when nothing can be written here: better before hours of work than after."""
        with disk_errors(self.root):
            self.root.mkdir(parents=True, exist_ok=True)
            tempfile.TemporaryFile(dir=self.root).close()

    def teacher(self, label: str, key: str) -> Path:
        return self.root / "teachers" / _name(label, key)

    def distilled(self, label: str, key: str) -> Path:
        return self.root / "distilled" / _name(label, key)

    def labels(self, label: str, key: str) -> Path:
        return self.root / "labels" / _name(label, key)

    def replay(self, key: str) -> Path:
        """Teacher logits of a training's views, kept to be replayed."""
        return self.root / "replay" / key

    def study(self, label: str, key: str) -> Path:
        return self.root / "studies" / _name(label, key)

    def record(self, key: str) -> Path:
        return self.root / "records" / f"{key}.json"

    def student(self, key: str) -> Path:
        """Where a long student training keeps its resume checkpoint."""
        return self.root / "records" / f".{key}.partial.safetensors"

    def failure(self, key: str) -> Path:
        return self.root / "failures" / f"{key}.json"

    def read_failure(self, key: str) -> dict[str, Any] | None:
        """What is kept of the failed cell `key`, or None."""
        path = self.failure(key)
        return _read_json(path) if path.exists() else None

    def write_failure(self, key: str, failure: Mapping[str, Any]) -> None:
        """Keep why a cell failed, so that it is not trained again unasked; atomic."""
        write_json(self.failure(key), failure)

    def clear_failure(self, key: str) -> None:
        self.failure(key).unlink(missing_ok=True)

    def read_record(self, key: str) -> dict[str, Any] | None:
        """The finished run record `key`, or None."""
        path = self.record(key)
        return _read_json(path) if path.exists() else None

    def write_record(self, key: str, record: Mapping[str, Any]) -> None:
        """Keep a finished run record; atomic."""
        write_json(self.record(key), record)


def _name(label: str, key: str) -> str:
    return f"{re.sub(r'[^a-zA-Z0-9]+', '-', label).strip('-')[:80]}-{key}"
