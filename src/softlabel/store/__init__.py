"""Paths and file formats: the only code that knows them."""

from softlabel.store._artifact import (
    ASIDE,
    MANIFEST,
    SCHEMA,
    Artifact,
    ArtifactWriter,
    grown_artifact,
    is_complete,
    new_artifact,
    read_artifact,
    require_free,
    require_same,
    write_json,
)
from softlabel.store._checkpoint import FileCheckpoint
from softlabel.store._files import disk_errors, read_tensors, sha256, tensor_bytes, write_bytes
from softlabel.store._images import LOSSLESS, check_storage, decode_image, encode_image, image_file_bytes
from softlabel.store._sets import load_distilled, save_distilled
from softlabel.store._store import DEFAULT_STORE, Store
from softlabel.store._table import new_table

__all__ = [
    "ASIDE",
    "DEFAULT_STORE",
    "LOSSLESS",
    "MANIFEST",
    "SCHEMA",
    "Artifact",
    "ArtifactWriter",
    "FileCheckpoint",
    "Store",
    "check_storage",
    "decode_image",
    "disk_errors",
    "encode_image",
    "grown_artifact",
    "image_file_bytes",
    "is_complete",
    "load_distilled",
    "new_artifact",
    "new_table",
    "read_artifact",
    "read_tensors",
    "require_free",
    "require_same",
    "save_distilled",
    "sha256",
    "tensor_bytes",
    "write_bytes",
    "write_json",
]
