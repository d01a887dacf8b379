"""Label sources: hard, fixed (one soft label per image) and online (the teacher looks at every view)."""

import copy
from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from softlabel.core import (
    ConfigError,
    DatasetInfo,
    DistilledSet,
    NonFiniteLossError,
    TeacherMismatchError,
    fingerprint,
    tensor_fingerprint,
)
from softlabel.labels._projector import Projector
from softlabel.training import Execution, Normaliser, Protocol, Teacher, check_teacher, compile_model, mean_logits

BATCH = 512
LEAST = 1e-30
"""A probability of 0, as top-k labels have, must keep a finite logarithm."""


@dataclass(frozen=True)
class HardLabels:
    """The class index only."""

    regime: str = "hard"
    space: str = "logits"
    fingerprint: str = "hard"
    label_bytes: int = 0
    labeler_bytes: int = 0

    def to(self, device: torch.device) -> "HardLabels":
        return self

    def logits(self, views: Tensor, index: Tensor, rows: slice | None = None) -> Tensor | None:
        """None: there is no teacher."""
        return None


@dataclass(frozen=True)
class FixedLabels:
    """One soft label per image, made once on the image as it is (no-distillation).

    Attributes:
        table: float32 [N, classes], row i for image i of the distilled set: logits, or probabilities as `space` says.
        teachers: fingerprints of the teachers whose mean logits these are.
    """

    table: Tensor
    teachers: tuple[str, ...] = ()
    regime: str = "fixed"
    space: str = "logits"

    @property
    def fingerprint(self) -> str:
        kind = "fixed" if self.space == "logits" else f"fixed {self.space}"
        return fingerprint(kind, tensor_fingerprint(self.table))

    @property
    def label_bytes(self) -> int:
        return self.table.numel() * self.table.element_size()

    @property
    def labeler_bytes(self) -> int:
        return 0

    def to(self, device: torch.device) -> "FixedLabels":
        return replace(self, table=self.table.to(device))

    def logits(self, views: Tensor, index: Tensor, rows: slice | None = None) -> Tensor:
        """The rows at `index`, probabilities as logarithms; the views are not looked at."""
        labels = self.table[index]
        return labels if self.space == "logits" else labels.clamp_min(LEAST).log()


@dataclass(frozen=True)
class OnlineLabels:
    """The mean logits of one or more teachers on the very views that the student sees (GIFT, RDED).

    Nothing is stored but the teachers: their bytes count as the labeler's.

    Attributes:
        info: normalisation that the views arrive in.
        offsets: float32 [N, classes], added to the mean logits of the views of image i; None adds nothing.
    """

    teachers: tuple[Teacher, ...]
    info: DatasetInfo
    offsets: Tensor | None = None
    regime: str = "online"
    space: str = "logits"

    @property
    def fingerprint(self) -> str:
        kind = "online" if self.offsets is None else "online with offsets"
        return fingerprint(kind, [teacher.fingerprint for teacher in self.teachers])

    @property
    def label_bytes(self) -> int:
        return 0

    @property
    def labeler_bytes(self) -> int:
        return sum(teacher.size for teacher in self.teachers)

    @property
    def public_bytes(self) -> int:
        """Bytes of public weights beside these; a backbone that several stand on counts once."""
        return sum({teacher.arch: teacher.public for teacher in self.teachers}.values())

    def to(self, device: torch.device) -> "OnlineLabels":
        offsets = None if self.offsets is None else self.offsets.to(device)
        return replace(self, teachers=tuple(teacher.to(device) for teacher in self.teachers), offsets=offsets)

    def check_views(self, protocol: Protocol) -> None:
        """Raise ConfigError when offsets are to be added for views of several images."""
        if self.offsets is not None and protocol.mixes:
            raise ConfigError(
                f"The labeler has an offset per image, and the views of the protocol {protocol.name!r} mix images. "
                f"Take another protocol, or make a labeler without (softlabel labeler --set SET --offset-epochs 0 "
                f"--set-epochs 60)."
            )

    def logits(self, views: Tensor, index: Tensor, rows: slice | None = None) -> Tensor:
        """Mean teacher logits, float32 [B, classes]."""
        logits = mean_logits(self.teachers, views, self.info)
        return logits if self.offsets is None else logits + self.offsets[index]


def online_labels(
    teachers: Sequence[Teacher],
    info: DatasetInfo,
    execution: Execution | None = None,
    *,
    distilled: DistilledSet | None = None,
) -> OnlineLabels:
    """Labels from `teachers` on every view of data with `info`, under `torch.compile` where `execution` says so.

    Args:
        distilled: the set whose images the views are of; None for others, to which labelers of one set say what their
            network says.

    Raises:
        ConfigError: no teacher given.
        TeacherMismatchError: a teacher that does not fit the data, or a labeler of another set.
    """
    if not teachers:
        raise ConfigError("Soft labels need a teacher. Give one with --teacher, or choose --labels hard.")
    for teacher in teachers:
        check_teacher(teacher, info)
        if execution and not isinstance(teacher.model, Projector):  # backbones come from elsewhere, and gain nothing
            compile_model(teacher.model, execution)
    return OnlineLabels(tuple(teachers), info, None if distilled is None else _offsets(teachers, distilled))


def _offsets(teachers: Sequence[Teacher], distilled: DistilledSet) -> Tensor | None:
    """What the teachers' offsets add to their mean logits, [N, classes]."""
    for teacher in teachers:
        if teacher.of_set and teacher.of_set != distilled.digest:
            raise TeacherMismatchError(
                f"The labeler {teacher.arch} was made for the images of one distilled set ({teacher.of_set}), which "
                f"are not these ({distilled.digest}: {distilled.method}, IPC {distilled.ipc}). Make one for them "
                f"(softlabel labeler --set), or one for all (without --set)."
            )
    found = [teacher.offsets for teacher in teachers if teacher.offsets is not None]
    return torch.stack(found).sum(dim=0) / len(teachers) if found else None


def in_half(teacher: Teacher) -> Teacher:
    """A teacher whose weights were kept in 16 bits, at half the size; one that is kept so already is itself."""
    if teacher.public:  # a labeler's updates
        return teacher
    model = copy.deepcopy(teacher.model)
    with torch.no_grad():
        for tensor in (*model.parameters(), *model.buffers()):
            if tensor.is_floating_point():
                tensor.copy_(tensor.half())
    return replace(teacher, model=model, fingerprint=fingerprint(teacher.fingerprint, "fp16"), size=teacher.size // 2)


def fixed_labels(teachers: Sequence[Teacher], distilled: DistilledSet, execution: Execution) -> FixedLabels:
    """One soft label per image: the teachers' mean logits on the un-augmented images.

    Raises:
        ConfigError, TeacherMismatchError: as `online_labels`.
    """
    source = online_labels(teachers, distilled.info, execution, distilled=distilled).to(execution.torch_device)
    normalise = Normaliser(distilled.info, execution.torch_device)
    rows = []
    with execution.autocast(), execution.deterministic():
        for start in range(0, len(distilled), BATCH):
            views = normalise(distilled.images[start : start + BATCH])
            index = torch.arange(start, start + len(views), device=execution.torch_device)
            rows.append(source.logits(views, index).cpu())
    table = torch.cat(rows)
    require_finite(table)
    return FixedLabels(table, tuple(teacher.fingerprint for teacher in teachers))


def require_finite(logits: Tensor) -> None:
    """Raise NonFiniteLossError for labels that no student can learn from."""
    if not bool(logits.isfinite().all()):
        raise NonFiniteLossError("The teacher gave labels that are NaN or infinite. Train it again, or take another.")


def make_labels(
    regime: str, *, teachers: Sequence[Teacher], distilled: DistilledSet, execution: Execution
) -> HardLabels | FixedLabels | OnlineLabels:
    """The label source of a regime (`softlabel.training.REGIMES`) for one distilled set.

    For `replay` it is what the teachers say of every view, before a codec (`coded_labels`).
    """
    if regime == "hard":
        return HardLabels()
    if regime == "fixed":
        return fixed_labels(teachers, distilled, execution)
    return online_labels(teachers, distilled.info, execution, distilled=distilled)
