"""Fingerprints: short, stable names for values.

A fingerprint is the head of a SHA-256 over a canonical JSON text, so equal configurations have equal
fingerprints on every machine and in every Python version.
"""

import dataclasses
import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

FINGERPRINT_LENGTH = 16


def plain(value: Any) -> Any:
    """`value` as JSON-ready data: dataclasses become dicts, tuples become lists.

    Raises:
        TypeError: for a value with no obvious JSON form, such as a tensor or an object.
    """
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {field.name: plain(getattr(value, field.name)) for field in dataclasses.fields(value)}
    if isinstance(value, Mapping):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(item) for item in value]
    if isinstance(value, Path):
        return str(value)
    if value is None or isinstance(value, (bool, int, float, str)):
        return value
    raise TypeError(f"cannot express {type(value).__name__} as JSON")


def fingerprint(*values: Any) -> str:
    """16 hexadecimal digits that name `values` (dataclasses, mappings, sequences and scalars)."""
    text = json.dumps(plain(values), sort_keys=True, separators=(",", ":"), allow_nan=False)
    return hashlib.sha256(text.encode()).hexdigest()[:FINGERPRINT_LENGTH]


def tensor_fingerprint(*tensors: torch.Tensor) -> str:
    """16 hexadecimal digits over dtype, shape and bytes of each tensor."""
    digest = hashlib.sha256()
    for tensor in tensors:
        digest.update(f"{tensor.dtype}{tuple(tensor.shape)}".encode())
        flat = tensor.detach().cpu().contiguous().reshape(-1)
        digest.update(flat.view(torch.uint8).numpy().data)
    return digest.hexdigest()[:FINGERPRINT_LENGTH]
