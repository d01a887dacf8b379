"""What every study of labels is built from: random images, experts of some epochs, and the names of both."""

from collections.abc import Mapping
from typing import Any

from softlabel.core import count_of
from softlabel.evaluation import (
    Comparison,
    DataOptions,
    Labeler,
    LearnedSet,
    Recipe,
    SetOptions,
    TeacherOptions,
    find_protocol,
)
from softlabel.recipes._lab_setting import PROTOCOL, LabSetting
from softlabel.training import TEACHER_PROTOCOLS

LAB_DATA = DataOptions(spec="cifar10", selection=0.1)


def lab_study(
    name: str,
    summary: str,
    title: str,
    setting: LabSetting,
    *,
    ipcs: tuple[int, ...] = (),
    sets: tuple[SetOptions, ...] = (),
    losses: tuple[str, ...],
    labels: tuple[str, ...] = ("fixed",),
    epochs: tuple[int, ...] = (),
    labelers: tuple[Labeler, ...] = (),
    learned: tuple[LearnedSet, ...] = (),
    plots: tuple[Mapping[str, Any], ...] = (),
    **settings: Any,
) -> Recipe:
    """A study on random images unless `sets` are given; `epochs` of the expert label, unless `labelers` are given."""
    chosen = labelers or tuple(Labeler(name=of_epoch(epoch), epoch=epoch) for epoch in epochs)
    length = setting.student_epochs
    return Recipe(
        name=f"{name}-quick" if setting.quick else name,
        summary=summary,
        data=LAB_DATA,
        teacher=TeacherOptions(
            arch=setting.arch, protocol=TEACHER_PROTOCOLS[setting.experts].with_epochs(setting.length)
        ),
        sets=sets or tuple(SetOptions(name=random_images(ipc), method="random", ipc=ipc) for ipc in ipcs),
        comparison=Comparison(
            name=f"{name}-quick" if setting.quick else name,
            title=title,
            protocol=find_protocol(setting.protocol or PROTOCOL, epochs=length),
            students=(setting.arch,),
            losses=losses,
            labels=labels,
            teachers=tuple(labeler.name for labeler in chosen),
            seeds=(0, 1) if setting.quick else (0, 1, 2),
            plots=({"kind": "classes", "x": shown_epochs(epochs), "groups": dict(setting.groups or {})}, *plots),
            **settings,
        ),
        labelers=chosen,
        learned=learned,
    )


def experts(size: int, epoch: int) -> str:
    return f"{count_of(size, 'expert')} of epoch {epoch}"


def random_images(ipc: int) -> str:
    return f"random, IPC {ipc}"


def of_epoch(epoch: int) -> str:
    return f"epoch {epoch}"


def shown_epochs(along: tuple[int, ...]) -> dict[str, int]:
    return {of_epoch(epoch): epoch for epoch in along}
