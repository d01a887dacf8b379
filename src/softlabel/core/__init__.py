"""Nouns, errors, random streams and fingerprints. Imports no other part of softlabel."""

from softlabel.core.errors import (
    ConfigError,
    DataError,
    DiskFullError,
    DistillError,
    MissingExtraError,
    NonFiniteLossError,
    SoftlabelError,
    SoftlabelWarning,
    StoreError,
    TeacherMismatchError,
    TrainingFailedError,
    UnknownNameError,
)
from softlabel.core.fingerprint import fingerprint, plain, tensor_fingerprint
from softlabel.core.progress import Progress, Silent, tell_found
from softlabel.core.random import stream, stream_seed
from softlabel.core.spec import Option, build_config, format_spec, parse_spec
from softlabel.core.text import count_of, human_bytes, human_seconds, parse_bytes
from softlabel.core.types import Dataset, DatasetInfo, DistilledSet, LabelSource, Split

__all__ = [
    "ConfigError",
    "DataError",
    "Dataset",
    "DatasetInfo",
    "DiskFullError",
    "DistillError",
    "DistilledSet",
    "LabelSource",
    "MissingExtraError",
    "NonFiniteLossError",
    "Option",
    "Progress",
    "Silent",
    "SoftlabelError",
    "SoftlabelWarning",
    "Split",
    "StoreError",
    "TeacherMismatchError",
    "TrainingFailedError",
    "UnknownNameError",
    "build_config",
    "count_of",
    "fingerprint",
    "format_spec",
    "human_bytes",
    "human_seconds",
    "parse_bytes",
    "parse_spec",
    "plain",
    "stream",
    "stream_seed",
    "tell_found",
    "tensor_fingerprint",
]
