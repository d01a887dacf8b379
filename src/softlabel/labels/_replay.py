"""Online labels that are computed once: the teacher's logits for a training's views, kept and replayed."""

import contextlib
import shutil
import warnings
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from softlabel.core import LabelSource, SoftlabelWarning, StoreError, fingerprint, human_bytes
from softlabel.labels._wrapped import WrappedLabels
from softlabel.store import Store, is_complete, new_artifact, new_table, read_artifact

REPLAY_BYTES = 8_000_000_000
"""The largest table that is kept; beyond, the teacher looks at every view each time."""

_FREE_SHARE = 0.5  # of the free disk that a table may take
_NAME = "logits"


@dataclass(frozen=True)
class ReplayedLabels(WrappedLabels):
    """The labels of `source`, float32 and bit for bit, kept row by row.

    A row is one view of a training: epoch * N + position in the epoch. Bytes, fingerprint and regime are the source's:
    that its logits were kept changes the time, and no number.

    Attributes:
        table: logits [rows, classes] on the CPU, usually mapped from a file.
        known: bool [rows]; which rows are filled.
    """

    table: Tensor
    known: Tensor

    def to(self, device: torch.device) -> "ReplayedLabels":
        return ReplayedLabels(self.source.to(device), self.table, self.known)

    def logits(self, views: Tensor, index: Tensor, rows: slice | None = None) -> Tensor | None:
        """The kept rows; the source is asked for what is not kept yet."""
        if rows is None:
            return self.source.logits(views, index)
        if bool(self.known[rows].all()):
            return self.table[rows].to(views.device)
        logits = self.source.logits(views, index, rows)
        if logits is not None:
            self.table[rows] = logits.cpu()
            self.known[rows] = True
        return logits


class _Incomplete(Exception):
    """A table that some rows are missing of: not to be kept."""


@contextlib.contextmanager
def replayed(
    source: LabelSource, *, shape: tuple[int, int], views: Mapping[str, Any], store: Store | None
) -> Iterator[LabelSource]:
    """`source`, its logits kept once computed.

    With a store they go to a memory-mapped file there, which is kept when every row was filled, and found the next
    time; without one they stay in memory. A table that is too large (`REPLAY_BYTES`, or half of the free disk) is not
    kept: a warning gives its size, and the teacher looks at every view each time.

    Args:
        shape: (views of the whole training, classes).
        views: JSON-ready facts that determine every view and its label; their fingerprint names the table.

    Raises:
        StoreError: the kept table is damaged, or belongs to other labels.
    """
    size = replay_bytes(shape)
    meta = {"views": dict(views), "rows": shape[0], "classes": shape[1]}
    if store is None:
        known = torch.zeros(shape[0], dtype=torch.bool)
        yield ReplayedLabels(source, torch.empty(shape), known) if size <= REPLAY_BYTES else source
        return
    path = store.replay(fingerprint(meta))
    if is_complete(path):
        artifact = read_artifact(path, "replay")
        found = artifact.meta["views"].get("labels")
        table = artifact.tensors(f"{_NAME}.safetensors")[_NAME]
        if found != source.fingerprint or tuple(table.shape) != shape:
            raise StoreError(
                f"{path} holds labels of another teacher or of another training (labels {found}, table "
                f"{tuple(table.shape)}; expected {source.fingerprint}, {shape}). Delete it and run the same command "
                f"again."
            )
        yield ReplayedLabels(source, table, torch.ones(shape[0], dtype=torch.bool))
        return
    if size > min(REPLAY_BYTES, _FREE_SHARE * _free(store)):
        warnings.warn(
            f"The teacher's logits for all views would take {human_bytes(size)} in {store.root}: they are not kept, "
            f"and the teacher looks at every view each time.",
            SoftlabelWarning,
            stacklevel=3,
        )
        yield source
        return
    with contextlib.suppress(_Incomplete), new_artifact(path, "replay", meta) as writer:
        table = new_table(writer.folder / f"{_NAME}.safetensors", _NAME, shape)
        labels = ReplayedLabels(source, table, torch.zeros(shape[0], dtype=torch.bool))
        yield labels
        if not bool(labels.known.all()):  # a training that went on after an interruption lacks the epochs before
            raise _Incomplete


def replay_bytes(shape: tuple[int, int]) -> int:
    """Size of a table of that shape."""
    return 4 * shape[0] * shape[1]


def _free(store: Store) -> int:
    store.root.mkdir(parents=True, exist_ok=True)
    return shutil.disk_usage(store.root).free
