"""Every error a user can cause.

    SoftlabelError
    |-- UnknownNameError      a name that is in no table
    |-- ConfigError           a value that cannot be used, or two that contradict each other
    |-- DataError             a data set, file or folder that cannot be read as images and labels
    |-- MissingExtraError     an optional package is needed and absent
    |-- StoreError            an artifact is missing, incomplete, corrupt or of a newer version
    |   `-- DiskFullError     the disk filled up while writing
    |-- TeacherMismatchError  a teacher that does not fit the data
    |-- DistillError          a distilled set that cannot be made from this data
    `-- TrainingFailedError   a training of several failed
        `-- NonFiniteLossError  it produced NaN or infinity

A message says what was expected, what was found, where, and what to do. The command line prints it
without a traceback and exits with 2.
"""

from collections.abc import Iterable
from difflib import get_close_matches


class SoftlabelError(Exception):
    """Base of all errors that a user can cause and mend."""


class SoftlabelWarning(UserWarning):
    """Something worth knowing that does not stop the work."""


class UnknownNameError(SoftlabelError):
    """A name that is in no table; the message lists the choices and the nearest one."""

    def __init__(self, kind: str, name: str, choices: Iterable[str], hint: str = "") -> None:
        known = sorted(choices)
        near = get_close_matches(name, known, n=1)
        guess = f" Did you mean {near[0]!r}?" if near else ""
        extra = f" {hint}" if hint else ""
        super().__init__(f"There is no {kind} named {name!r}.{guess} Choose one of: {', '.join(known)}.{extra}")


class ConfigError(SoftlabelError):
    """A value that cannot be used, or values that contradict each other."""


class DataError(SoftlabelError):
    """A data set, file or folder that cannot be read as labelled images."""


class MissingExtraError(SoftlabelError):
    """An optional package is needed for what was asked, and is not installed."""

    def __init__(self, package: str, extra: str, purpose: str) -> None:
        super().__init__(
            f"{purpose} needs the package {package!r}, which is not installed. "
            f"Install it with: pip install 'softlabel[{extra}]'"
        )


class StoreError(SoftlabelError):
    """An artifact is missing, incomplete, corrupt, or written by a newer version."""


class DiskFullError(StoreError):
    """The disk filled up while an artifact was written; the half-written part was removed."""


class TeacherMismatchError(SoftlabelError):
    """A teacher whose classes, class order, channels or image size do not fit the data."""


class DistillError(SoftlabelError):
    """A distilled set that cannot be made from this data with these settings."""


class TrainingFailedError(SoftlabelError):
    """A training of several failed; the message names it, and the others are kept."""


class NonFiniteLossError(TrainingFailedError):
    """Training produced a loss that is NaN or infinite."""
