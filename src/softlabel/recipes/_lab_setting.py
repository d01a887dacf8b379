"""What the studies of labels are made for."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from softlabel.core import ConfigError, UnknownNameError
from softlabel.labels import HelloConfig, weak_stops
from softlabel.training import EXPERT_PROTOCOL, TEACHER_PROTOCOLS

ARCH = "convnet-3:norm=instance,width=64"  # half the usual width: made for CPUs, as the epochs are
EXPERT_EPOCHS, QUICK_EXPERT_EPOCHS = 24, 3
PROTOCOL = "no-distillation-adamw"
STUDENT_EPOCHS, QUICK_STUDENT_EPOCHS = 300, 40
EARLY = 1 / 3  # of the experts' epochs: where studies of one expert stop it


@dataclass(frozen=True, kw_only=True)
class LabSetting:
    """What every study is made for.

    Attributes:
        quick: the setting of minutes.
        classes: of the data.
        arch: model spec of experts and students.
        expert_epochs: length of the experts' trajectories; None is the study's.
        experts: how they are trained, a name in `softlabel.training.TEACHER_PROTOCOLS`.
        stops: epochs of the trajectory that label, where a study follows it, and the first of them where it takes one
            expert; None is the study's.
        ipc: images per class; None is the study's.
        epochs: of the students; None is the study's.
        protocol: how students are trained; None is the study's.
        groups: the group of every class, where a hierarchy is known.
        labeler: its spec, for the study of labelers; what it leaves out, and None, is the study's.
        parts: of labelers that are measured (`_lab_hello.PARTS`), for the same study; None is all.
        labels: label specs, for the study of bytes; None is its own.
        losses: for the studies of bytes and of labelers; None is the study's.
    """

    quick: bool = False
    classes: int = 10
    arch: str = ARCH
    expert_epochs: int | None = None
    experts: str = EXPERT_PROTOCOL.name
    stops: tuple[int, ...] | None = None
    ipc: tuple[int, ...] | None = None
    epochs: int | None = None
    protocol: str | None = None
    groups: Mapping[str, str] | None = None
    labeler: str | None = None
    parts: tuple[str, ...] | None = None
    labels: tuple[str, ...] | None = None
    losses: tuple[str, ...] | None = None

    def __post_init__(self) -> None:
        for what, some in (("--ipc", self.ipc), ("--stops", self.stops)):
            if some is not None and (len(set(some)) < len(some) or not some or min(some) < 1):
                raise ConfigError(f"{what} takes different numbers of 1 or more. Got {', '.join(map(str, some))}.")
        if self.classes < 2:
            raise ConfigError("Labels of one class say nothing. Take data with two classes or more.")
        if self.experts not in TEACHER_PROTOCOLS:
            raise UnknownNameError("teacher's protocol", self.experts, TEACHER_PROTOCOLS)
        if self.length < 1:
            raise ConfigError(f"--expert-epochs must be 1 or more. Got {self.length} instead.")
        late = [stop for stop in self.stops or () if stop > self.length]
        if late:
            raise ConfigError(
                f"--stops asks for epoch {late[0]}, and the experts are trained for {self.length}. Ask for fewer, or "
                f"raise --expert-epochs."
            )

    @property
    def student_epochs(self) -> int:
        """Epochs of the students."""
        usual = QUICK_STUDENT_EPOCHS if self.quick else STUDENT_EPOCHS
        return usual if self.epochs is None else self.epochs

    @property
    def length(self) -> int:
        """Epochs of the experts' trajectories."""
        usual = QUICK_EXPERT_EPOCHS if self.quick else EXPERT_EPOCHS
        return usual if self.expert_epochs is None else self.expert_epochs

    @property
    def early(self) -> int:
        """The epoch of an early-stopped expert."""
        if self.stops and len(self.stops) > 1:
            raise ConfigError("This study takes one expert. Give --stops one epoch.")
        return self.stops[0] if self.stops else max(1, round(EARLY * self.length))

    @property
    def latest(self) -> int:
        """The epoch of a study's one expert that is trained to its end."""
        if self.stops and len(self.stops) > 1:
            raise ConfigError("This study takes one expert. Give --stops one epoch.")
        return self.stops[0] if self.stops else self.length

    @property
    def weak(self) -> tuple[int, ...]:
        """Epochs of weak teachers: those of --stops, or of `weak_stops`."""
        return weak_stops(range(1, self.length + 1)) if self.stops is None else tuple(sorted(self.stops))

    @property
    def hello(self) -> HelloConfig:
        """The labeler, trained with every part."""
        usual: dict[str, Any] = {"size": 32, "epochs": 1} if self.quick else {}
        return HelloConfig.parse(self.labeler or "hello", usual)

    def require_study(self, name: str) -> None:
        """Raise ConfigError when settings of one study are given to another, `name`."""
        own = {
            "--labeler": (self.labeler, ("hello",)),
            "--parts": (self.parts, ("hello",)),
            "--labels": (self.labels, ("bytes",)),
            "--losses": (self.losses, ("bytes", "hello")),
        }
        for option, (given, studies) in own.items():
            if given is not None and name not in studies:
                raise ConfigError(f"{option} is for softlabel lab {' and '.join(studies)}.")

    @property
    def along(self) -> tuple[int, ...]:
        """Epochs along the trajectory, closer together at first."""
        if self.stops:
            return self.stops
        marks = (1, 3) if self.quick else (1, 2, 4, 8, 16)
        return tuple(sorted({*(mark for mark in marks if mark < self.length), self.length}))

    def ipcs(self, quick: tuple[int, ...], full: tuple[int, ...]) -> tuple[int, ...]:
        """Images per class: as asked, or the study's quick or full ones."""
        return self.ipc or (quick if self.quick else full)

    @property
    def ranks(self) -> tuple[int, ...]:
        """Places of a label's entries, from the largest to the last but one."""
        marks = (1, self.classes - 1) if self.quick else (1, 2, 3, 4, 6, 8, 16, 32, 64, 128)
        return tuple(sorted({*(mark for mark in marks if 0 < mark < self.classes - 1), self.classes - 1}))

    @property
    def kept(self) -> tuple[int, ...]:
        """Numbers of entries kept, up to all."""
        marks = (1,) if self.quick else (1, 2, 4, 8, 16, 32, 64, 128)
        return tuple(sorted({*(mark for mark in marks if mark < self.classes), self.classes}))
