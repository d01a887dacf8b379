"""A resume checkpoint in one file: tensors, and JSON in the safetensors header, replaced in one rename."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from softlabel.store._files import read_tensors, tensor_bytes, write_bytes


@dataclass(frozen=True)
class FileCheckpoint:
    """Keeps the latest state of one training; `clear` when it is done."""

    path: Path

    def load(self) -> tuple[dict[str, torch.Tensor], dict[str, Any]] | None:
        """The tensors and facts saved last, or None at a fresh start."""
        if not self.path.exists():
            return None
        tensors, metadata = read_tensors(self.path)
        return tensors, json.loads(metadata["state"])

    def save(self, tensors: dict[str, torch.Tensor], facts: dict[str, Any]) -> None:
        write_bytes(self.path, tensor_bytes(tensors, {"state": json.dumps(facts)}))

    def clear(self) -> None:
        self.path.unlink(missing_ok=True)
