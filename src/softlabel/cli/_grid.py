"""softlabel grid and lab: studies of many cells, and the advice that follows from one."""

from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Annotated, Any

import tyro

from softlabel.cli._options import Data, Machine, Session
from softlabel.cli._output import print_json, print_table
from softlabel.cli._run import Running
from softlabel.core import DatasetInfo
from softlabel.evaluation import GivenSet, set_names
from softlabel.lab import HIERARCHIES, Advice, advise, fit_laws, hold_out, read_hierarchy, read_surface
from softlabel.recipes import LAB, Changes, LabSetting, change, find_lab, find_study
from softlabel.store import is_complete, load_distilled, read_artifact

STUDIES_OF_LABELS = (*LAB, "advise")
"""What `softlabel lab` takes: its studies, and the advice that follows from one."""


@dataclass(frozen=True, kw_only=True)
class Grid:
    """A study of many cells: losses, optimizers, architectures, refinement, teachers, continual learning.

    Cells that are finished are found, one that fails does not stop the others, and a killed grid goes on when the same
    command is given again. The exit status is 3 when some failed.

    Example: softlabel grid optimizers --quick
    """

    study: tyro.conf.Positional[str]
    """Name of the study. See: softlabel ls studies"""
    quick: bool = False
    """The quick setting: minutes on two CPU cores, to see that everything works."""
    sets: tuple[Path, ...] | None = None
    """Folders of distilled sets to add (softlabel distill prints them), or of images in one sub-folder per class."""
    teacher_epochs: int | None = None
    """Epochs of the teacher, instead of the study's."""
    changes: Changes = field(default_factory=Changes)
    running: Running = field(default_factory=Running)
    machine: Machine = field(default_factory=Machine)

    def run(self, session: Session) -> int | None:
        recipe = change(find_study(self.study, self.quick, self.teacher_epochs), self.changes)
        names = set_names({path: _method(path) for path in self.sets or ()})
        taken = {options.name for options in recipe.sets}
        given = (GivenSet(name=f"{n} from disk" if n in taken else n, path=path) for path, n in names.items())
        return self.running.run(replace(recipe, given=tuple(given)), self.machine, session)


@dataclass(frozen=True, kw_only=True)
class LabStudy:
    """A study of labels. What is finished is found, and a killed study goes on when the same command is given again.

    Example: softlabel lab scaling --quick
    """

    study: tyro.conf.Suppress[str] = ""
    quick: bool = False
    """The quick setting: minutes on two CPU cores, to see that everything works."""
    ipc: tuple[int, ...] | None = None
    """Images per class. Default: the study's."""
    arch: str = LabSetting.arch
    """Model of experts and students. See: softlabel ls models"""
    expert_epochs: int | None = None
    """Epochs of the experts, instead of the study's."""
    experts: str = LabSetting.experts
    """How experts are trained: expert (slow and steady), or teacher (good in few epochs)."""
    stops: tuple[int, ...] | None = None
    """Epochs of the expert that label, instead of the study's."""
    protocol: str | None = None
    """How students are trained. See: softlabel ls protocols. Default: no-distillation-adamw; for hello, gift."""
    hierarchy: Path | None = None
    """JSON file {class: group}, to compare with the classes that labels mix up. Default: the data's, where known."""
    labeler: str | None = None
    """For hello: settings of the labeler, e.g. hello:backbone=efficientnet-lite0,size=64,epochs=3. See: softlabel
    labeler --help. What is left out is the study's."""
    parts: tuple[str, ...] | None = None
    """For hello: the parts to measure: last, probe, weak, low-rank, text, own, offset, refit, update. Default: all that
    there are, but for the update under --quick."""
    labels: tuple[str, ...] | None = None
    """For bytes: label specs, e.g. replay replay:epochs=10+int4 fixed+int8. Default: the study's."""
    losses: tuple[str, ...] | None = None
    """For bytes and hello: losses. See: softlabel ls losses. Default: ce, and two with soft labels."""
    data: Data = field(default_factory=Data)
    running: Running = field(default_factory=Running)
    machine: Machine = field(default_factory=Machine)

    def run(self, session: Session) -> int | None:
        data = self.data.options(usual=find_lab(self.study).data)
        info = data.load(session.progress).info
        setting = LabSetting(
            quick=self.quick,
            classes=info.classes,
            groups=self._groups(info),
            arch=self.arch,
            expert_epochs=self.expert_epochs,
            experts=self.experts,
            stops=self.stops,
            ipc=self.ipc,
            epochs=self.running.epochs,
            protocol=self.protocol,
            labeler=self.labeler,
            parts=self.parts,
            labels=self.labels,
            losses=self.losses,
        )
        status = self.running.run(find_lab(self.study, setting, data), self.machine, session)
        if self.study == "scaling" and not self.machine.dry_run and not self.machine.json:
            print("next:   softlabel lab advise STUDY --accuracy PERCENT, with the study's folder")
        return status

    def _groups(self, info: DatasetInfo) -> dict[str, str] | None:
        if self.hierarchy is not None:
            return read_hierarchy(self.hierarchy, info.class_names)
        known = HIERARCHIES.get(info.name, {})
        return {name: known[name] for name in info.class_names} if set(info.class_names) <= set(known) else None


@dataclass(frozen=True, kw_only=True)
class Advise:
    """How many images, with which labels: a fitted law's answer from a finished scaling study, never beyond it.

    Example: softlabel lab advise softlabel-store/studies/lab-scaling-0123456789abcdef --accuracy 60
    """

    study: tyro.conf.Positional[Path]
    """Folder of the study (softlabel lab scaling prints it)."""
    accuracy: float
    """The accuracy wanted, in percent."""
    json: bool = False
    """Print the answer as JSON on stdout; accuracies and errors there are fractions."""

    def run(self, session: Session) -> None:
        surface = read_surface(read_artifact(self.study, "study").meta, str(self.study))
        answers = advise(fit_laws(surface), self.accuracy / 100)
        held = hold_out(surface)
        if self.json:
            told = [{"labels": one.line.name, "epoch": one.line.epoch, "kept": one.line.kept, "images": one.images,
                     "reached": one.reached, "note": one.note} for one in answers]  # fmt: skip
            print_json({"dataset": surface.dataset, "accuracy": self.accuracy / 100, "advice": told, "held_out": held})
            return
        rows = [(one.line.name, *_images(one)) for one in answers]
        columns = ("labels", "images per class", "95 % interval")
        print_table(f"For {self.accuracy:g} % on {surface.dataset}", columns, rows, numbers=2)
        if held is not None:
            inside = held.inside
            print(
                f"How far to trust it: {held.cells} cells left out of the fit, a size at a time, were missed by "
                f"{100 * held.law:.1f} points (root mean square); a straight line over the logarithm missed them by "
                f"{100 * held.straight:.1f}, taking the next size's accuracy by {100 * held.neighbour:.1f}. Of sizes "
                f"between others: the law {100 * inside.law:.1f}, the line {100 * inside.straight:.1f}, the next size "
                f"{100 * inside.neighbour:.1f}."
            )
        else:
            print("How far to trust it cannot be told: that takes five numbers of images per class or more (--ipc).")


def _named(name: str) -> Any:
    """A study as a subcommand, told apart by its summary."""
    summary = find_lab(name).summary
    return tyro.conf.subcommand(name, default=LabStudy(study=name), description=f"{summary[:1].upper()}{summary[1:]}.")


StudyOfLabels = (
    Annotated[LabStudy, _named("baseline")]
    | Annotated[LabStudy, _named("epochs")]
    | Annotated[LabStudy, _named("temperatures")]
    | Annotated[LabStudy, _named("ensembles")]
    | Annotated[LabStudy, _named("images")]
    | Annotated[LabStudy, _named("anatomy")]
    | Annotated[LabStudy, _named("learned")]
    | Annotated[LabStudy, _named("zero-shot")]
    | Annotated[LabStudy, _named("scaling")]
    | Annotated[LabStudy, _named("bytes")]
    | Annotated[LabStudy, _named("hello")]
)


@dataclass(frozen=True)
class Lab:
    """Studies of labels: what they are worth, which parts of them do the work, and how many images they save.

    Example: softlabel lab scaling --quick
    """

    what: StudyOfLabels | Annotated[Advise, tyro.conf.subcommand("advise")]

    def run(self, session: Session) -> int | None:
        return self.what.run(session)


def _images(answer: Advice) -> tuple[str, str]:
    if answer.images is None:
        return answer.note, ""
    first, last = answer.line.ipcs[0], answer.line.ipcs[-1]
    low = f"{first} or fewer" if answer.images.low is None else f"{answer.images.low:.1f}"
    high = f"more than {last}" if answer.images.high is None else f"{answer.images.high:.1f}"
    return f"{answer.images.value:.1f}", f"{low} to {high}"


def _method(path: Path) -> str:
    return load_distilled(path).method if is_complete(path) else path.resolve().name
